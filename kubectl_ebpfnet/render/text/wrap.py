"""Wrap text: at spaces, and long names after their punctuation."""

from __future__ import annotations

import re
from itertools import accumulate, takewhile

_SEAM = re.compile(r"[/,_=@-]|[.:](?![0-9a-fA-F:])")
"""After which a name that is longer than a line may be wrapped: not inside an address."""
_IN_ADDRESS = re.compile("[.:]")
_SHELL_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+|\S""")

_NARROW = re.compile("[\u0000-\u02ff\u2010-\u2027\u2190-\u21ff\u2713\u2717]*")
"""Latin text, and what the program itself prints: each of these takes a column."""

_LEAST, _STEP = 16, 4
"""Columns that text needs beside its label; the indent of text that stands below it."""


def columns(text: str) -> int:
    """Return the columns that a text takes on a terminal: two for a wide character, none for a mark
    that stands on the one before (UAX #11; general category M). A note may be in any language."""
    if _NARROW.fullmatch(text):
        return len(text)
    from unicodedata import category, east_asian_width  # 1 MB, for such text alone

    return sum(
        0 if category(c) in ("Mn", "Me") else 2 if east_asian_width(c) in "WF" else 1 for c in text
    )


def wrap(text: str, width: int) -> list[str]:
    """Wrap text into lines of at most `width` columns.

    Args:
        text: one line, without control characters.
        width: 0 or less for no wrapping.

    Returns:
        At least one line; an empty text gives one empty line.
    """
    size = len if _NARROW.fullmatch(text) else columns
    if width <= 0 or size(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if size(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while size(word) > width and len(word) > 1:
            cut = _seam(word, _fitting(word, width))
            lines.append(word[:cut])
            word = word[cut:]
        line = word
    if line or not lines:
        lines.append(line)
    return lines


def _fitting(word: str, width: int) -> int:
    """Return how many of a word's characters fit into so many columns, at least one."""
    if _NARROW.fullmatch(word):
        return width
    taken = accumulate(map(columns, word))
    return max(1, sum(1 for _ in takewhile(lambda end: end <= width, taken)))


def _seam(word: str, width: int) -> int:
    """Return where to cut a word: outside of addresses, else inside of one, else anywhere. A seam
    in the first third would leave the line almost empty.

    Args:
        word: longer than a line.
        width: of a line, in characters of the word.
    """
    for seam in (_SEAM, _IN_ADDRESS):
        ends = (found.end() for found in seam.finditer(word[: width + 1]))
        best = max((end for end in ends if end <= width), default=0)
        if best > width // 3:
            return best
    return width


def hanging(label: str, text: str, width: int, indent: int = 0) -> list[str]:
    """Return a label with the wrapped text to its right; further lines stand under the text.

    Args:
        label: already padded; may hold colour codes, then `indent` is needed.
        text: one line, without control characters.
        width: of the whole; 0 for no wrapping.
        indent: columns that the label takes; its length when 0.
    """
    indent = indent or columns(label)
    if width and width - indent < _LEAST:
        below = wrap(text, max(width - _STEP, _LEAST))
        return [label.rstrip(), *(" " * _STEP + line for line in below)]
    lines = wrap(text, width - indent if width else 0)
    return [label + lines[0], *(" " * indent + line for line in lines[1:])]


def command(label: str, text: str, width: int) -> list[str]:
    """Return a label with a command for the reader's shell to its right, a backslash where it goes
    on in the next line. It is cut between words of the shell alone: one that is longer than a line
    stays whole, since inside of it a shell would read two words, or the backslash itself.

    Args:
        label: already padded.
        text: the command, one line.
        width: of the whole; 0 for one line.
    """
    if not width:
        return [label + text]
    lines: list[str] = []
    first, *words = _SHELL_WORD.findall(text)
    line = label + first
    for word in words:
        if columns(line) + columns(word) + len("  \\") > width:
            lines.append(f"{line} \\")
            line = " " * columns(label) + word
        else:
            line += f" {word}"
    return [*lines, line]
