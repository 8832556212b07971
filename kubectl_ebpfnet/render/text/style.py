"""Colours of verdicts and severities, and escapes for text that a terminal must not obey.

Names of pods, labels and DNS answers are untrusted. A terminal obeys control characters (ECMA-48)
and lays bidirectional controls out (UAX #9), so a name could hide or forge a line of the answer
(CVE-2021-42574 is the same trick on source code). NO_COLOR: https://no-color.org. FORCE_COLOR:
https://force-color.org.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.path import Severity, Verdict
    from kubectl_ebpfnet.model.probe import Judgement

COLOR_MODES = ("auto", "always", "never")

_RED, _YELLOW, _GREEN, _CYAN = 31, 33, 32, 36
# By the words of Verdict, Severity and Judgement, whose modules would delay the first request.
_VERDICTS = {
    "delivered": _GREEN, "reachable": _GREEN, "leaves": _GREEN, "dropped": _RED, "unknown": _YELLOW,
}  # fmt: skip
_SEVERITIES = {"error": _RED, "warning": _YELLOW, "info": _CYAN}
_MARKS = {"✓": _GREEN, "?": _YELLOW, "✗": _RED}
_JUDGEMENTS = {"as-asked": _GREEN, "contradicted": _RED, "unknown": _YELLOW}

# Default_Ignorable_Code_Point (Unicode DerivedCoreProperties.txt) outside the categories that
# str.isprintable() refuses already: letters and marks that show nothing at all.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


class Stream(Protocol):
    """An output stream that may be a terminal."""

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        ...


def color_enabled(mode: str, stream: Stream, environ: Mapping[str, str]) -> bool:
    """Decide whether to colour the text for a stream.

    Args:
        mode: `always`, `never`, or `auto`: NO_COLOR forbids, FORCE_COLOR demands, else a
            terminal that is not TERM=dumb gets colour. Both variables count when not empty, and
            NO_COLOR wins; FORCE_COLOR=0 forbids, as in other programs.
        stream: the output stream.
        environ: environment variables.
    """
    if mode != "auto":
        return mode == "always"
    if environ.get("NO_COLOR"):
        return False
    forced = environ.get("FORCE_COLOR")
    if forced:
        return forced != "0"
    return stream.isatty() and environ.get("TERM") != "dumb"


class Style:
    """Colours words, or leaves them as they are."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def verdict(self, verdict: Verdict) -> str:
        """Return the verdict's word."""
        return self._painted(verdict.value, _VERDICTS[verdict])

    def verdict_word(self, verdict: Verdict) -> str:
        """Return the verdict's word, upper case."""
        return self._painted(verdict.value.upper(), _VERDICTS[verdict])

    def mark(self, mark: str, shown: str) -> str:
        """Return the mark of a hop as it is shown, in its colour."""
        return self._painted(shown, _MARKS[mark]) if mark in _MARKS else shown

    def severity(self, severity: Severity) -> str:
        """Return the severity's word, upper case."""
        return self._painted(severity.value.upper(), _SEVERITIES[severity])

    def judgement(self, judgement: Judgement, word: str) -> str:
        """Return a word in the colour of a judgement."""
        return self._painted(word, _JUDGEMENTS[judgement])

    def _painted(self, word: str, color: int) -> str:
        return f"\x1b[1;{color}m{word}\x1b[0m" if self._color else word


def escape(text: str) -> str:
    r"""Return the text with visible escapes for characters that are invisible or terminals obey.

    Control characters (C0, DEL, C1), bidirectional controls, zero-width and other format
    characters, separators other than the space, surrogates and unassigned code points become
    `\x1b`, `\u202e` or `\U000e0001`. Newlines and tabs are control characters too.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(c if is_visible(c) else ascii(c)[1:-1] for c in text)


def is_visible(character: str) -> bool:
    """Tell whether a character shows as itself and has no effect on a terminal."""
    return character.isprintable() and not _INVISIBLE.match(character)
