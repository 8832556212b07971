"""Tables as Go's tabwriter prints them: cells parted by two or more blanks.

Source: Cilium pkg/command and text/tabwriter with padding 3; cells may be empty, lines end in
blanks, and the first line is the header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_ebpfnet.parse._text import lines

_GAP = re.compile(r" {2,}|\t+")


def rows(data: bytes, source: str, header: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row but the header, which begins with a word.

    Args:
        header: first word of header lines, to be left out.
    """
    for number, text in lines(data, source):
        stripped = text.strip()
        if stripped and not stripped.startswith(header):
            yield number, _GAP.split(stripped)


def columns(header: str) -> list[tuple[str, int]]:
    """(title, position) of each column of a header line."""
    found = []
    at = 0
    for title in _GAP.split(header.strip()):
        at = header.index(title, at)
        found.append((title, at))
        at += len(title)
    return found


def cells(text: str, header: list[tuple[str, int]]) -> dict[str, str]:
    """The cells of a line by the positions of its header: for tables with empty cells."""
    found = {}
    for index, (title, start) in enumerate(header):
        end = header[index + 1][1] if index + 1 < len(header) else None
        found[title] = text[start:end].strip()
    return found
