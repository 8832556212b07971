"""Tables of Go's tabwriter: two or more blanks separate cells.

Source: Cilium pkg/command and text/tabwriter with padding 3; cells may be empty, lines end in
blanks, and the first line is the header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_ebpfnet.parse._text import lines

_GAP = re.compile(r" {2,}|\t+")


def rows(data: bytes, source: str, header: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of every row except the header.

    Args:
        data: the output.
        source: the command, for errors.
        header: the first word of a header line.
    """
    for number, text in lines(data, source):
        stripped = text.strip()
        if stripped and not stripped.startswith(header):
            yield number, _GAP.split(stripped)


def columns(header: str) -> list[tuple[str, int]]:
    """Return (title, position) of each column of a header line."""
    found = []
    at = 0
    for title in _GAP.split(header.strip()):
        at = header.index(title, at)
        found.append((title, at))
        at += len(title)
    return found


def cells(text: str, header: list[tuple[str, int]]) -> dict[str, str]:
    """Return the cells of a line by the positions of the header, for tables with empty cells."""
    found = {}
    for index, (title, start) in enumerate(header):
        end = header[index + 1][1] if index + 1 < len(header) else None
        found[title] = text[start:end].strip()
    return found
