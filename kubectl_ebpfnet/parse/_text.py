"""What every parser does first: bytes to lines, lines to words, JSON to members.

Everything here, and in model/untrusted.py, raises ParseError, and nothing else, when the text is
not what it should be, so a parser that builds its facts out of these functions keeps that promise
without a `try` of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.untrusted import (
    address,
    decode,
    integer,
    json_value,
    network,
    port,
    quoted,
)

__all__ = (
    "address",
    "decode",
    "following",
    "hardware_address",
    "integer",
    "is_json",
    "json_integer",
    "json_objects",
    "json_text",
    "json_value",
    "lines",
    "network",
    "port",
    "quoted",
)

_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


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


def hardware_address(text: str) -> str:
    """The link-layer address in lower case, "" when the text is none (an IP tunnel's, say)."""
    parts = text.split(":")
    if len(parts) > 1 and all(len(part) == 2 and _HEXADECIMAL.issuperset(part) for part in parts):
        return text.lower()
    return ""


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
