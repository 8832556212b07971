"""Where names of a cluster stand in text, as one pattern.

Names stand alone, and inside longer words: the device `rc-node2` of the node `node2`, the directory
`acmebackup`. Three kinds of names are looked for differently, so that what is no name stays:

    one letter, or a number  where it stands alone: neither letters nor `-`, `_` touch it
    short, or hardly letters between characters that are neither letters nor digits: `web` in
                             `web-0` and not in `webhook`, `1.27.3` and not in `v1.27.3`
    others                   anywhere: at least 5 characters, and 3 letters in a row

Words that the tools print themselves are left alone as a whole, whatever name is inside: they
decide how a record is read. So are keys of JSON, but for a name in them that is no word (it has a
digit, `-` or `.`), and but for keys that a user chose: they have a `/`.
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
    """A regular expression that finds the names; it matches nothing where there are none."""
    kinds: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name in names:
        kinds[_kind(name)].append(name)
    anywhere, apart, alone = kinds
    found = []
    if anywhere:
        found.append(_any_of(anywhere))
    if apart:
        found.append(rf"(?<![A-Za-z0-9]){_any_of(apart)}(?![A-Za-z0-9])")
    if alone:
        found.append(rf"(?<![\w-]){_any_of(alone)}(?![\w-])")
    return f"(?:{'|'.join(found)})" if found else r"(?!)"


def in_keys(names: Iterable[str]) -> list[str]:
    """The names that are also replaced inside a key of JSON that is longer than the name."""
    return [name for name in names if _NO_WORD.search(name)]


def kept(words: Iterable[str], names: Sequence[str]) -> str:
    """A regular expression for those of the tools' words that hold a name and more."""
    finds = re.compile(pattern(names))
    longer = [word for word in words if finds.search(word)]
    return rf"(?:(?<![\w-]){_any_of(longer)}(?![\w-])|{OF_TOOLS})" if longer else OF_TOOLS


def _kind(name: str) -> int:
    if len(name) < 2:
        return 2
    return 0 if len(name) >= _LONG and _LETTERS.search(name) else 1


def _any_of(words: Sequence[str], depth: int = 0) -> str:
    """One of the words, the longest that fits: a tree by beginnings, so that each character of a
    text is compared with few of them."""
    if len(words) <= _FEW or depth > _DEEPEST:
        return f"(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})"
    beginnings: dict[str, list[str]] = {}
    for word in words:
        beginnings.setdefault(word[:1], []).append(word[1:])
    if len(beginnings) == 1:
        ((first, rests),) = beginnings.items()
        same = 0
        while len({rest[same : same + 1] for rest in rests}) == 1 and rests[0][same : same + 1]:
            same += 1
        shared = first + rests[0][:same]
        return re.escape(shared) + _any_of([rest[same:] for rest in rests], depth + 1)
    branches = [
        re.escape(first) + (_any_of(rests, depth + 1) if first else "")
        for first, rests in sorted(beginnings.items(), reverse=True)  # "": the word ends; last
    ]
    return f"(?:{'|'.join(branches)})"
