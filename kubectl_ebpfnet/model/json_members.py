"""Reading nested JSON of which every part may be missing, null, or of another type.

Agents and API servers of many versions are read; a part that is not what it should be counts as
missing, so that the rest of an object is still of use. Only an object's key facts (its name, its
id) are errors, and those the callers check.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from kubectl_ebpfnet.model.net import Address, Network

LARGEST = 2**64
"""Numbers above this are no counter and no id."""


def dig(value: Any, *names: str) -> Any:
    """The member at a path of names; None where any step is missing."""
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def text(value: Any, *names: str) -> str:
    """The text at a path, "" when there is none."""
    found = dig(value, *names)
    return found if isinstance(found, str) else ""


def number(value: Any, *names: str) -> int | None:
    """The whole number at a path, None when there is none."""
    found = dig(value, *names)
    if isinstance(found, bool) or not isinstance(found, int):
        return None
    return found if abs(found) < LARGEST else None


def flag(value: Any, *names: str) -> bool | None:
    """The truth value at a path, None when there is none."""
    found = dig(value, *names)
    return found if isinstance(found, bool) else None


def items(value: Any, *names: str) -> list[Any]:
    """The list at a path, [] when there is none."""
    found = dig(value, *names)
    return found if isinstance(found, list) else []


def texts(value: Any, *names: str) -> tuple[str, ...]:
    """The texts of a list at a path."""
    return tuple(item for item in items(value, *names) if isinstance(item, str))


def pairs(value: Any, *names: str) -> tuple[tuple[str, str], ...]:
    """The members of an object at a path whose values are text, in order of their names."""
    found = dig(value, *names)
    if not isinstance(found, dict):
        return ()
    return tuple(sorted((k, v) for k, v in found.items() if isinstance(v, str)))


def address(value: Any) -> Address | None:
    """The address that a text is, None when it is none, or has a zone."""
    try:
        return ip_address(value) if isinstance(value, str) and "%" not in value else None
    except ValueError:
        return None


def addresses(values: Any) -> tuple[Address, ...]:
    """Those of the values that are addresses, each once."""
    if not isinstance(values, (list, tuple)):
        return ()
    found = (address(value) for value in values)
    return tuple(dict.fromkeys(one for one in found if one is not None))


def network(value: Any) -> Network | None:
    """The prefix that a text is, None when it is none."""
    try:
        if not isinstance(value, str) or "%" in value:
            return None
        return ip_network(value, strict=False)
    except ValueError:
        return None


def networks(values: Any) -> tuple[Network, ...]:
    """Those of the values that are prefixes, each once."""
    if not isinstance(values, (list, tuple)):
        return ()
    found = (network(value) for value in values)
    return tuple(dict.fromkeys(one for one in found if one is not None))
