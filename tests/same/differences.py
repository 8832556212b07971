"""What differs between two answers, down to the place in a JSON document or the lines of a text."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Answer = tuple[int, str, str]
"""The exit code, stdout and stderr."""
ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        where: `exit code`, `stdout`, `stderr`, or the path in a JSON document ($.hops[3].state).
        old, new: a JSON value, or a line as JSON would write it; ABSENT where there is none.
    """

    where: str
    old: str
    new: str


def differences(old: Answer, new: Answer) -> list[Difference]:
    """All that differs between two answers to a question; nothing is left out or made alike."""
    found = []
    if old[0] != new[0]:
        found.append(Difference("exit code", str(old[0]), str(new[0])))
    for where, before, after in zip(("stdout", "stderr"), old[1:], new[1:], strict=True):
        if before != after:
            found += _between_documents(before, after) or _between_lines(where, before, after)
    return found


def _between_documents(old: str, new: str) -> list[Difference]:
    """Of two JSON documents; nothing where one is no document, or both say the same otherwise."""
    try:
        before, after = json.loads(old), json.loads(new)
    except ValueError:
        return []
    return _between_values("$", before, after)


def _between_values(path: str, old: Any, new: Any) -> list[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in dict.fromkeys([*old, *new]):
            place = f"{path}.{key}"
            if key in old and key in new:
                found += _between_values(place, old[key], new[key])
            else:
                found.append(Difference(place, _text(old, key), _text(new, key)))
        return found
    if isinstance(old, list) and isinstance(new, list):
        return _between_lists(path, old, new)
    before, after = _json(old), _json(new)  # 1, 1.0 and true are equal for Python
    return [Difference(path, before, after)] if before != after else []


def _between_lists(path: str, old: list[Any], new: list[Any]) -> list[Difference]:
    before, after = list(map(_json, old)), list(map(_json, new))
    found = []
    for i, j in _pairs(before, after):
        if i is not None and j is not None:
            found += _between_values(f"{path}[{i}]", old[i], new[j])
        elif i is not None:
            found.append(Difference(f"{path}[{i}]", before[i], ABSENT))
        elif j is not None:
            found.append(Difference(f"{path}[{j}]", ABSENT, after[j]))
    return found


def _between_lines(where: str, old: str, new: str) -> list[Difference]:
    # As JSON writes them: a line's end, a colour and a blank at the end can be seen.
    before, after = (
        [_json(line)[1:-1] for line in text.splitlines(keepends=True)] for text in (old, new)
    )
    return [
        Difference(where, ABSENT if i is None else before[i], ABSENT if j is None else after[j])
        for i, j in _pairs(before, after)
    ]


def _pairs(old: list[str], new: list[str]) -> Iterator[tuple[int | None, int | None]]:
    """The indices of what differs. What is put in is one pair; what stands behind it only moved."""
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for what, i, i_end, j, j_end in matcher.get_opcodes():
        if what != "equal":
            yield from itertools.zip_longest(range(i, i_end), range(j, j_end))


def kind(difference: Difference) -> tuple[str, ...]:
    """What differences have in common that one change made: the place but for indices, the words.

    Only the report is grouped by it: blanks, which follow from the widths of columns, are one word.
    """
    old, new = (
        [_word(word) for word in re.split(r"(\s+)", text)]
        for text in (difference.old, difference.new)
    )
    changed = [
        " ".join(["-", *old[i:i_end], "+", *new[j:j_end]])
        for what, i, i_end, j, j_end in difflib.SequenceMatcher(a=old, b=new).get_opcodes()
        if what != "equal"
    ]
    return re.sub(r"\[\d+\]", "[…]", difference.where), *dict.fromkeys(changed)


def _word(word: str) -> str:
    return " " if word.isspace() else word


def _text(values: dict[str, Any], key: str) -> str:
    return _json(values[key]) if key in values else ABSENT


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
