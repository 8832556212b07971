"""The first steps of every parser: bytes to lines, lines to words, JSON to members.

Every function here and in model/untrusted.py raises only ParseError for malformed text, so a parser
made of these functions raises only ParseError without a `try` of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.matching import text_lines
from kubectl_ebpfnet.model.untrusted import (
    address,
    decode,
    integer,
    json_value,
    network,
    port,
    quoted,
)

# Passed on; the rest is defined here.
__all__ = ("address", "decode", "integer", "json_value", "network", "port", "quoted")

Located = tuple[Span, dict[str, Any]]
"""An object of a JSON document and its place there."""
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


def lines(data: bytes, source: str = "text") -> Iterator[tuple[int, str]]:
    """Yield every line of model.evidence.text_lines with its 1-based number; empty lines too."""
    yield from enumerate(text_lines(decode(data, source)), start=1)


def is_json(data: bytes) -> bool:
    """Tell whether the output is JSON, a list or an object, and not text."""
    return data.lstrip()[:1] in (b"[", b"{")


def next_word(words: Iterator[str], word: str, source: str, line: int = 0) -> str:
    """Return the next word: the value of the option just read.

    Args:
        words: the rest of the line.
        word: the option, for the error.
        source: the command, for the error.
        line: 1-based number of the line.

    Raises:
        ParseError: no word is left.
    """
    value = next(words, None)
    if value is None:
        raise ParseError(source, line, f"nothing after {quoted(word)}")
    return value


def hardware_address(text: str) -> str:
    """Return a link-layer address in lower case; "" for any other text, as an IP tunnel has."""
    parts = text.split(":")
    if len(parts) > 1 and all(len(part) == 2 and _HEXADECIMAL.issuperset(part) for part in parts):
        return text.lower()
    return ""


def json_objects(value: Any, source: str, span: Span = NOWHERE) -> list[Located]:
    """Return the objects of a JSON list, each with its place.

    Args:
        value: the list.
        source: the command, for the error.
        span: the place of the list, NOWHERE for a whole document.

    Raises:
        ParseError: the value is no list of objects.
    """
    if not isinstance(value, list) or not all(isinstance(member, dict) for member in value):
        raise ParseError(source, 0, "not a JSON list of objects")
    return [(span.member(index), member) for index, member in enumerate(value)]


def json_records(data: bytes, source: str) -> list[Located]:
    """Return the objects of iproute2's JSON: `dev X` leaves an empty one for each other device."""
    found = json_objects(json_value(data, source), source)
    return [(span, record) for span, record in found if record]


def json_text(record: dict[str, Any], name: str, source: str, default: str = "") -> str:
    """Return a member that is text.

    Args:
        record: the JSON object.
        name: of the member.
        source: the command, for the error.
        default: for a member that is missing or null.

    Raises:
        ParseError: the member is no text.
    """
    value = record.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ParseError(source, 1, f'"{name}" is {quoted(value)}, not text')
    return value


def json_integer(
    record: dict[str, Any], name: str, source: str, *, least: int | None = 0
) -> int | None:
    """Return a member that is a whole number; None when it is missing or null.

    Args:
        record: the JSON object.
        name: of the member.
        source: the command, for the error.
        least: smallest allowed number, None for no limit.

    Raises:
        ParseError: the member is no whole number, or too small.
    """
    value = record.get(name)
    return None if value is None else integer(value, source, 1, least=least)
