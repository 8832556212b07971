"""Reading nested JSON of which every part may be missing, null, or of another type.

Agents and API servers of many versions are read; a part that is not what it should be counts as
missing, so that the rest of an object is still of use. Only an object's key facts (its name, its
id) are errors, and those the callers check.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.parse._text import is_json, json_value

LARGEST = 2**64
"""Numbers above this are no counter and no id."""


def printed(data: bytes) -> bool:
    """Whether a program that can print both printed JSON; `null` is how Go prints an empty list."""
    return is_json(data) or data.strip() == b"null"


def listed(data: bytes, source: str) -> list[tuple[int, Any]]:
    """(line, item) of a document that is a list, or `null`. Raises ParseError."""
    value = json_value(data, source)
    if value is not None and not isinstance(value, list):
        raise ParseError(source, 0, "not a JSON list")
    found = value or []
    return list(zip(_lines(data, b"  {", len(found)), found, strict=True))


def mapped(data: bytes, source: str) -> list[tuple[int, str, str]]:
    """(line, key, text) of `{"key": ["text", …]}`, once for each text. Raises ParseError."""
    value = json_value(data, source)
    if value is not None and not isinstance(value, dict):
        raise ParseError(source, 0, "not a JSON object")
    found = value or {}
    return [
        (line, key, one)
        for line, (key, many) in zip(_lines(data, b'  "', len(found)), found.items(), strict=True)
        for one in (many if isinstance(many, list) else [])
        if isinstance(one, str)
    ]


def _lines(data: bytes, start: bytes, count: int) -> list[int]:
    """1-based lines of a document's members, by the indent of two that Cilium prints (cilium-facts
    2); 0 for each where the document is not indented so."""
    found = [n for n, text in enumerate(data.split(b"\n"), 1) if text.startswith(start)]
    return found if len(found) == count else [0] * count


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
