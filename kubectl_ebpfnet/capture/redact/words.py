"""The pattern that finds names of a cluster in text.

Names occur as words, and inside longer words: the device `rc-node2` of the node `node2`, the
directory `acmebackup`. The pattern treats three kinds of names differently, so that other words
stay:

    one letter, or a number  as a whole word: neither letters nor `-`, `_` touch it
    short, or few letters    between characters that are neither letters nor digits: `web` in
                             `web-0` and not in `webhook`, `1.27.3` and not in `v1.27.3`
    others                   anywhere: at least 5 characters, and 3 letters in a row

Words that the tools themselves print stay as a whole, even with a name inside: the parsers need
them. Keys of JSON stay too, except for a name in them that is no word (it has a digit, `-` or `.`),
and except for keys that a user chose, which have a `/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_LETTERS = re.compile(r"[A-Za-z]{3}")
_NO_WORD = re.compile(r"[0-9.-]")
_LONG = 5
_DEEPEST = 40
_FEW = 4
KEY = r'"[^"\\\n]*"(?=\s*:)'
OF_TOOLS = r"(?<![\w-])(?:cil|cilium|tail|cgroup|sched|kprobe)_\w+(?![\w-])"
"""Names of Cilium's devices, maps and programs, and of the kernel's program types."""


def pattern(names: Iterable[str]) -> str:
    """Return a regular expression that finds the names; without names it matches nothing."""
    kinds: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name in names:
        kinds[_kind(name)].append(name)
    long_names, short_names, single_names = kinds
    patterns = []
    if long_names:
        patterns.append(_any_of(long_names))
    if short_names:
        patterns.append(rf"(?<![A-Za-z0-9]){_any_of(short_names)}(?![A-Za-z0-9])")
    if single_names:
        patterns.append(rf"(?<![\w-]){_any_of(single_names)}(?![\w-])")
    return f"(?:{'|'.join(patterns)})" if patterns else r"(?!)"


def in_keys(names: Iterable[str]) -> list[str]:
    """Return the names to replace even inside a longer key of JSON."""
    return [name for name in names if _NO_WORD.search(name)]


def protected_pattern(words: Iterable[str], names: Sequence[str]) -> str:
    """Return a regular expression for words of the tools that contain a name and more."""
    name_pattern = re.compile(pattern(names))
    protected = [word for word in words if name_pattern.search(word)]
    return rf"(?:(?<![\w-]){_any_of(protected)}(?![\w-])|{OF_TOOLS})" if protected else OF_TOOLS


def _kind(name: str) -> int:
    if len(name) < 2:
        return 2
    return 0 if len(name) >= _LONG and _LETTERS.search(name) else 1


def _any_of(words: Sequence[str], depth: int = 0) -> str:
    """Return an expression for the longest of the words that fits. It is a tree by first letters,
    so that each character of a text is compared with few words."""
    if len(words) <= _FEW or depth > _DEEPEST:
        return f"(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})"
    beginnings: dict[str, list[str]] = {}
    for word in words:
        beginnings.setdefault(word[:1], []).append(word[1:])
    if len(beginnings) == 1:
        ((first, rests),) = beginnings.items()
        end = 0
        while len({rest[end : end + 1] for rest in rests}) == 1 and rests[0][end : end + 1]:
            end += 1
        shared = first + rests[0][:end]
        return re.escape(shared) + _any_of([rest[end:] for rest in rests], depth + 1)
    branches = [
        re.escape(first) + (_any_of(rests, depth + 1) if first else "")
        for first, rests in sorted(beginnings.items(), reverse=True)  # "": the word ends; last
    ]
    return f"(?:{'|'.join(branches)})"
