"""The programs and files that an agent's image has (`TOOLS` of model/catalogue.py)."""

from __future__ import annotations

from kubectl_ebpfnet.parse._text import decode


def found(data: bytes) -> tuple[str, ...]:
    """Return the names, one a line. Raises ParseError."""
    return tuple(decode(data, "the list of tools").split())
