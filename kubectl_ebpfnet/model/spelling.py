"""Which known words a wrong one was meant to be: those that a slip of the pen away stand for it.

The distance is that of Damerau and Levenshtein without repeated edits of a letter ("optimal string
alignment"): letters that were left out, added, replaced, or swapped with their neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 253  # of a name; the work grows with the product of both lengths


def near(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words that are near, the nearest first, those of one distance in order.

    One letter in three or four may be wrong, two in a word of five, three from ten on; a word of
    one or two letters is near to nothing else.
    """
    most = 0 if len(word) < 3 else 1 if len(word) < 5 else 2 if len(word) < 10 else 3
    if not most or len(word) > _LONGEST:
        return []
    found = []
    for at, other in enumerate(dict.fromkeys(known)):
        if abs(len(other) - len(word)) <= most and (how_far := _distance(word, other)) <= most:
            found.append((how_far, at, other))
    return [other for _, _, other in sorted(found)]


def _distance(one: str, other: str) -> int:
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, theirs in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != theirs))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == theirs:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
