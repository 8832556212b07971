"""The reader's terminal and options, for the text formats."""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.render.text.style import escape

PROSE = 120
"""Columns beyond which no sentence goes: longer lines are hard to read."""
_IN_ASCII = str.maketrans(
    {
        "→": "->",
        "←": "<-",
        "↔": "<->",
        "✓": "+",
        "✗": "x",
        "…": "...",
        "“": '"',
        "”": '"',
        "×": "x",
        "·": ".",
    }
)


@dataclass(frozen=True, slots=True)
class View:
    """The reader's terminal and options.

    Attributes:
        width: columns to keep within; 0 for no wrapping: one line a hop, stable for grep.
        color: colour verdicts and severities.
        evidence: show each hop's evidence: the command, where it ran and the lines.
        ascii: the terminal shows ASCII alone.
    """

    width: int = 0
    color: bool = False
    evidence: bool = False
    ascii: bool = False

    @property
    def prose(self) -> int:
        """Columns for sentences; 0 for no wrapping."""
        return min(self.width, PROSE)

    def text(self, raw: str) -> str:
        """Return text that the terminal shows and does not obey (`escape`)."""
        shown = escape(raw)
        return in_ascii(shown) if self.ascii else shown


def in_ascii(text: str) -> str:
    """Return text for a terminal that shows ASCII alone."""
    if text.isascii():
        return text
    return text.translate(_IN_ASCII).encode("ascii", "backslashreplace").decode()
