"""The reader's terminal and options, for the text formats."""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """The reader's terminal and options.

    Attributes:
        width: columns to keep within; 0 for no wrapping: one line a hop, stable for grep.
        color: colour verdicts and severities.
        evidence: show each hop's evidence: the command, where it ran and the lines.
    """

    width: int = 0
    color: bool = False
    evidence: bool = False
