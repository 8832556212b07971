"""JSON documents that Cilium prints: lists, with the place of each item."""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.parse._text import is_json, json_value


def is_json_form(data: bytes) -> bool:
    """Tell whether the output is JSON and not text; Go prints an empty list as `null`."""
    return is_json(data) or data.strip() == b"null"


def list_items(data: bytes, source: str, span: Span = NOWHERE) -> list[tuple[Span, Any]]:
    """Return the items of a document that is a list, or `null`, each with its place.

    Args:
        data: the document.
        source: the command, for the error.
        span: the lines of the document, NOWHERE where it is the whole output.

    Raises:
        ParseError: not JSON, or no list.
    """
    value = json_value(data, source)
    if value is not None and not isinstance(value, list):
        raise ParseError(source, 0, "not a JSON list")
    return [(span.member(index), item) for index, item in enumerate(value or [])]
