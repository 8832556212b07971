"""Readers of nested JSON of which every part may be missing, null, or of another type.

JSON comes from agents and API servers of many versions. A part of an unexpected type counts as
missing, so that the rest of its object is still of use. Callers check key facts (a name, an id)
and raise an error where these are missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Any

from kubectl_ebpfnet.model.net import Address, Network

LARGEST = 2**64
"""Numbers above this are no counter and no id."""


def dig(value: Any, *names: str) -> Any:
    """Return the member at a path of names; None where any step is missing."""
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def text(value: Any, *names: str) -> str:
    """Return the text at a path, "" when there is none."""
    found = dig(value, *names)
    return found if isinstance(found, str) else ""


def number(value: Any, *names: str) -> int | None:
    """Return the whole number at a path, None when there is none."""
    found = dig(value, *names)
    if isinstance(found, bool) or not isinstance(found, int):
        return None
    return found if abs(found) < LARGEST else None


def flag(value: Any, *names: str) -> bool | None:
    """Return the truth value at a path, None when there is none."""
    found = dig(value, *names)
    return found if isinstance(found, bool) else None


def items(value: Any, *names: str) -> list[Any]:
    """Return the list at a path, [] when there is none."""
    found = dig(value, *names)
    return found if isinstance(found, list) else []


def texts(value: Any, *names: str) -> tuple[str, ...]:
    """Return the texts of a list at a path."""
    return tuple(item for item in items(value, *names) if isinstance(item, str))


def pairs(value: Any, *names: str) -> tuple[tuple[str, str], ...]:
    """Return the members of an object at a path whose values are text, sorted by name."""
    found = dig(value, *names)
    if not isinstance(found, dict):
        return ()
    return tuple(sorted((k, v) for k, v in found.items() if isinstance(v, str)))


def address(value: Any) -> Address | None:
    """Return a text as an address, None when it is not an address, or has a zone."""
    try:
        return ip_address(value) if isinstance(value, str) and "%" not in value else None
    except ValueError:
        return None


def addresses(values: Iterable[Any]) -> tuple[Address, ...]:
    """Return the values that are addresses, each once."""
    return tuple(dict.fromkeys(found for found in map(address, values) if found is not None))


def network(value: Any) -> Network | None:
    """Return a text as a prefix, None when it is not a prefix."""
    try:
        ok = isinstance(value, str) and "%" not in value
        return ip_network(value, strict=False) if ok else None
    except ValueError:
        return None


def networks(values: Iterable[Any]) -> tuple[Network, ...]:
    """Return the values that are prefixes, each once."""
    return tuple(dict.fromkeys(found for found in map(network, values) if found is not None))
