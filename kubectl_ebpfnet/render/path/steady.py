"""Sentences of two answers, compared without what traffic alone changes in them."""

from __future__ import annotations

import re

_TRAFFIC = (
    (re.compile(r"(?<![\w:.])(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+(?!\w|:\w)"), "…"),
    (re.compile(r", (?:REACHABLE|STALE|DELAY|PROBE)\b"), ""),
    (re.compile(r"\b\d[\d,]* (packets?|drops?|entries|times|flows?)\b(?:, \d+ bytes)?"), r"… \1"),
    (re.compile(r"\bsent \d+ bytes"), "sent … bytes"),
    (re.compile(r"(\d(?:\.\d+){3}|\]):\d+ → "), r"\1 → "),
)
"""What traffic alone changes in a sentence: ages, states of neighbours, counters, source ports. A
MAC or an address of IPv6 is no age (`be:1d`), and a size no counter."""


def steady(text: str) -> str:
    """Return a sentence without what traffic alone changes in it."""
    for pattern, instead in _TRAFFIC:
        text = pattern.sub(instead, text)
    return text
