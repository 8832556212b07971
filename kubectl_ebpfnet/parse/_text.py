"""What every parser does first: bytes to text, text to numbers and addresses, JSON to values.

Everything here raises ParseError, and nothing else, when the text is not what it should be, so a
parser that builds its facts out of these functions keeps that promise without a `try` of its own.

Sources: RFC 8259 (JSON; section 4 leaves duplicate names open, they are refused here unless they
agree), RFC 4291 section 2.2 (IPv6 text).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from math import isfinite
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.net import Address, Network

_SHOWN = 60
_LONGEST_NUMBER = 40
_DECIMAL = frozenset("0123456789")
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


def quoted(value: object) -> str:
    """The value as it may stand in an error message: printable, and cut when it is long."""
    if isinstance(value, dict | list):
        return f"a JSON {'object' if isinstance(value, dict) else 'list'}"
    text = ascii(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def decode(data: bytes, source: str) -> str:
    """The bytes as text. Raises ParseError, with its line, when they are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ParseError(source, line, "not UTF-8 text") from None


def lines(data: bytes, source: str = "text") -> Iterator[tuple[int, str]]:
    """Every line with its 1-based number, without its newline; empty lines too.

    Only a newline ends a line (as in model.evidence.matching_lines), so that the numbers are
    those that an editor or `sed -n` shows; a carriage return before it is dropped.
    """
    for number, text in enumerate(decode(data, source).split("\n"), start=1):
        yield number, text.removesuffix("\r")


def is_json(data: bytes) -> bool:
    """Whether a program that can print both printed its JSON form: a list or an object."""
    return data.lstrip()[:1] in (b"[", b"{")


def following(words: Iterator[str], word: str, source: str, line: int = 0) -> str:
    """The next of the words: the value of the one just read. Raises ParseError at the end."""
    value = next(words, None)
    if value is None:
        raise ParseError(source, line, f"nothing after {quoted(word)}")
    return value


def integer(
    text: object, source: str, line: int = 0, *, least: int | None = 0, most: int | None = None
) -> int:
    """A whole number: an int of JSON, or text in decimal or with 0x in hexadecimal.

    Args:
        text: what to read; a bool is not a number.
        source: what is parsed, for the error.
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
    """A TCP, UDP or SCTP port."""
    return integer(text, source, line, most=0xFFFF)


def hardware_address(text: str) -> str:
    """The link-layer address in lower case, "" when the text is none (an IP tunnel's, say)."""
    parts = text.split(":")
    if len(parts) > 1 and all(len(part) == 2 and _HEXADECIMAL.issuperset(part) for part in parts):
        return text.lower()
    return ""


def address(text: object, source: str, line: int = 0) -> Address:
    """An IPv4 or IPv6 address."""
    if isinstance(text, str):
        try:
            return ip_address(text)
        except ValueError:
            pass
    raise ParseError(source, line, f"{quoted(text)} is not an IP address")


def network(text: object, source: str, line: int = 0, *, version: int = 4) -> Network:
    """A prefix; a bare address is a prefix of full length, `default` is everything.

    Bits after the prefix are dropped, as the kernel ignores them.

    Args:
        text: `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `10.0.0.1`, `fd00::/8`, `default`.
        source: what is parsed, for the error.
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


def json_value(data: bytes, source: str) -> Any:
    """The one JSON value that the bytes are.

    Refused, with ParseError, is also what Python's own reader lets through: NaN and infinities,
    numbers beyond a double, halves of surrogate pairs (which cannot be printed), and one name
    twice in an object with different values. Too deep nesting is refused too.
    """
    text = decode(data, source)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ParseError(source, error.lineno, f"not JSON: {error.msg}") from None
    except RecursionError:
        raise ParseError(source, 0, "JSON that is nested too deep") from None
    except UnicodeEncodeError:
        raise ParseError(source, 0, "JSON with half a surrogate pair") from None
    except ValueError as error:
        raise ParseError(source, 0, f"not JSON: {quoted(str(error))}") from None
    return value


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


def json_objects(value: Any, source: str) -> list[dict[str, Any]]:
    """The value as a list of objects. Raises ParseError when it is anything else."""
    if not isinstance(value, list) or not all(isinstance(member, dict) for member in value):
        raise ParseError(source, 0, "not a JSON list of objects")
    return value


def json_text(record: dict[str, Any], name: str, source: str, default: str = "") -> str:
    """A member that is text; the default when it is not there or null."""
    value = record.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ParseError(source, 1, f'"{name}" is {quoted(value)}, not text')
    return value


def json_integer(
    record: dict[str, Any], name: str, source: str, *, least: int | None = 0
) -> int | None:
    """A member that is a whole number; None when it is not there or null."""
    value = record.get(name)
    return None if value is None else integer(value, source, 1, least=least)
