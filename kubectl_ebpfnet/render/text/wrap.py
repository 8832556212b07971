"""Wrap text: at spaces, and long names after their punctuation."""

from __future__ import annotations

import re

_SEAM = re.compile(r"[/,_=@-]|[.:](?![0-9a-fA-F:])")
"""After which a name that is longer than a line may be wrapped: not inside an address."""
_IN_ADDRESS = re.compile("[.:]")
_SHELL_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+|\S""")

_LEAST, _STEP = 16, 4
"""Columns that text needs beside its label; the indent of text that stands below it."""


def wrap(text: str, width: int) -> list[str]:
    """Wrap text into lines of at most `width` columns.

    Args:
        text: one line, without control characters.
        width: 0 or less for no wrapping.

    Returns:
        At least one line; an empty text gives one empty line.
    """
    if width <= 0 or len(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if len(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while len(word) > width:
            cut = _seam(word, width)
            lines.append(word[:cut])
            word = word[cut:]
        line = word
    if line or not lines:
        lines.append(line)
    return lines


def _seam(word: str, width: int) -> int:
    """Return where to cut a word: outside of addresses, else inside of one, else anywhere. A seam
    in the first third would leave the line almost empty."""
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
    indent = indent or len(label)
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
        if len(line) + len(word) + len("  \\") > width:
            lines.append(f"{line} \\")
            line = " " * len(label) + word
        else:
            line += f" {word}"
    return [*lines, line]
