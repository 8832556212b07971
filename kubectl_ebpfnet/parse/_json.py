"""JSON documents that Cilium prints: a list, or texts by key, with the line of each member."""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.parse._text import is_json, json_value


def is_json_form(data: bytes) -> bool:
    """Tell whether the output is JSON and not text; Go prints an empty list as `null`."""
    return is_json(data) or data.strip() == b"null"


def list_items(data: bytes, source: str) -> list[tuple[int, Any]]:
    """Return (line, item) of a document that is a list, or `null`. Raises ParseError."""
    value = json_value(data, source)
    if value is not None and not isinstance(value, list):
        raise ParseError(source, 0, "not a JSON list")
    members = value or []
    return list(zip(_lines(data, b"  {", len(members)), members, strict=True))


def text_members(data: bytes, source: str) -> list[tuple[int, str, str]]:
    """Return (line, key, text) of `{"key": ["text", …]}`, once for each text. Raises ParseError."""
    value = json_value(data, source)
    if value is not None and not isinstance(value, dict):
        raise ParseError(source, 0, "not a JSON object")
    members = value or {}
    return [
        (line, key, text)
        for line, (key, texts) in zip(
            _lines(data, b'  "', len(members)), members.items(), strict=True
        )
        for text in (texts if isinstance(texts, list) else [])
        if isinstance(text, str)
    ]


def _lines(data: bytes, start: bytes, count: int) -> list[int]:
    """Return the 1-based lines of a document's members, found by Cilium's indent of two
    (cilium-facts 2); 0 for each when the indent differs."""
    members = [n for n, text in enumerate(data.split(b"\n"), 1) if text.startswith(start)]
    return members if len(members) == count else [0] * count
