"""Untrusted text → numbers, addresses, times and JSON.

A cluster, a capture, a label, a DNS name or a peer may send any bytes. These functions read them,
and raise ParseError and nothing else. Python's own readers raise more (OverflowError,
RecursionError, a ValueError for 5,000 digits), accept too much (`²` is a digit to str.isdigit, NaN
and Infinity are JSON, an int is an address), and return values that raise later (infinity where it
is converted to a whole number, a nest that is too deep to be walked).

Sources: RFC 8259 (JSON; section 4 leaves duplicate names open, they are refused here unless they
agree), RFC 4291 section 2.2 (IPv6 text), RFC 3339 (times).
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from math import isfinite
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.net import Address, Network

_SHOWN = 60
_LONGEST_NUMBER = 40
_DEEPEST = 100
"""Nested lists and objects in JSON. Kubernetes has some 20; Python walks 1,000 calls deep."""
_DECIMAL = frozenset("0123456789")
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


def quoted(value: object) -> str:
    """Return a value for an error message: printable, and cut when it is long."""
    if isinstance(value, int) and value.bit_length() > _SHOWN:
        return f"a number of {value.bit_length()} bits"  # Python does not print every number
    if isinstance(value, dict | list):
        return f"a JSON {'object' if isinstance(value, dict) else 'list'}"
    text = ascii(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def decode(data: bytes, source: str) -> str:
    """Decode UTF-8. Raises ParseError, with the line, when the bytes are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ParseError(source, line, "not UTF-8 text") from None


def integer(
    text: object, source: str, line: int = 0, *, least: int | None = 0, most: int | None = None
) -> int:
    """Read a whole number: an int of JSON, or text in decimal or with 0x in hexadecimal.

    Args:
        text: the number; a bool is not one.
        source: name of the parsed text, for the error.
        line: its 1-based line, for the error.
        least: the smallest that is allowed, None for any.
        most: the largest that is allowed, None for any.
    """
    number = text if isinstance(text, int) and not isinstance(text, bool) else None
    if isinstance(text, str) and len(text) <= _LONGEST_NUMBER:
        digits = text.removeprefix("-")
        if digits[:2] in ("0x", "0X") and digits[2:] and _HEXADECIMAL.issuperset(digits[2:]):
            number = int(text, 16)
        elif digits and _DECIMAL.issuperset(digits):
            number = int(text)
    if number is None:
        raise ParseError(source, line, f"{quoted(text)} is not a number")
    if (least is not None and number < least) or (most is not None and number > most):
        raise ParseError(source, line, f"the number {quoted(text)} is out of range")
    return number


def port(text: object, source: str, line: int = 0) -> int:
    """Read a TCP, UDP or SCTP port.

    Args:
        text: the port.
        source: name of the parsed text, for the error.
        line: its 1-based line, for the error.
    """
    return integer(text, source, line, most=0xFFFF)


def address(text: object, source: str, line: int = 0) -> Address:
    """Read an IPv4 or IPv6 address.

    Args:
        text: the address.
        source: name of the parsed text, for the error.
        line: its 1-based line, for the error.
    """
    if isinstance(text, str):
        try:
            return ip_address(text)
        except ValueError:
            pass
    raise ParseError(source, line, f"{quoted(text)} is not an IP address")


def network(text: object, source: str, line: int = 0, *, version: int = 4) -> Network:
    """Read a prefix; a bare address is a prefix of full length, `default` is everything.

    Bits after the prefix are dropped, as the kernel ignores them.

    Args:
        text: `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `10.0.0.1`, `fd00::/8`, `default`.
        source: name of the parsed text, for the error.
        line: its 1-based line, for the error.
        version: 4 or 6: the family of `default`.
    """
    if text == "default":
        return ip_network("::/0" if version == 6 else "0.0.0.0/0")
    if isinstance(text, str) and "%" not in text:
        try:
            return ip_network(text, strict=False)
        except ValueError:
            pass
    raise ParseError(source, line, f"{quoted(text)} is not an IP prefix")


def moment(text: object, source: str, line: int = 0) -> datetime:
    """Read a time of RFC 3339, in UTC where it names no zone.

    Args:
        text: the time.
        source: name of the parsed text, for the error.
        line: its 1-based line, for the error.
    """
    if isinstance(text, str):
        try:
            found = datetime.fromisoformat(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise ParseError(source, line, f"{quoted(text)} is not a time")


# iproute2 5.4 and before print the type of a route as a bare word: `{"local","dst":"default",…`.
# No JSON has these characters, not even in a string.
_BARE_TYPE = re.compile(r'\{"([a-z]{1,16})",')


def json_value(data: bytes, source: str) -> Any:
    """Read a JSON document.

    Raises:
        ParseError: also for documents that Python's own reader accepts: NaN and infinities, numbers
            beyond a double, whole numbers of more than 40 digits, halves of surrogate pairs (which
            cannot be printed), a name twice in an object with different values, and more than a
            hundred nested lists and objects.
    """
    text = _BARE_TYPE.sub(r'{"type":"\1",', decode(data, source))
    try:
        value = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ParseError(source, error.lineno, f"not JSON: {error.msg}") from None
    except RecursionError:  # in the reader itself, before its depth can be told
        raise ParseError(source, 0, "JSON that is nested too deep") from None
    except UnicodeEncodeError:
        raise ParseError(source, 0, "JSON with half a surrogate pair") from None
    except ValueError as error:
        raise ParseError(source, 0, f"not JSON: {quoted(str(error))}") from None
    if _is_too_deep(text, value):
        raise ParseError(source, 0, "JSON that is nested too deep")
    return value


def _is_too_deep(text: str, value: Any) -> bool:
    if text.count("[") + text.count("{") <= _DEEPEST or not isinstance(value, dict | list):
        return False
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            member
            for container in level
            for member in (container.values() if isinstance(container, dict) else container)
            if isinstance(member, dict | list)
        ]
        if not level:
            return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        for name, value in pairs:
            if members[name] != value:
                raise ValueError(f"the name {quoted(name)} stands twice in an object")
    return members


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("a number is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("a number is too long")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_refuse_constant,
    parse_float=_finite,
    parse_int=_whole,
)
