"""JSON documents that programs print: a list, or texts by key, with the line of each member."""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.parse._text import is_json, json_value


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
