"""Read positional words as kubectl does: `pod web` is `pod/web`; and `1.1.1.1 80` as netcat does.

Words are joined only where there are more of them than the command takes, and where there is but
one way to join them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from kubectl_ebpfnet.cli.object_words import is_name, is_type

_PORT = re.compile(r"[0-9]{1,5}(/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)


def joined(args: Sequence[str], switches: Mapping[str, bool], count: int) -> list[str]:
    """Return the words of a command line, with positional ones joined where that makes them fit.

    Args:
        args: words after the command's name, in click's spelling.
        switches: spelling of a flag → whether it is a switch.
        count: how many positional words the command takes; with two, the last is a destination.
    """
    places = list(_positional(args, switches))
    if not count < len(places) <= 2 * count + 1:
        return list(args)
    ways = list(_ways([args[place] for place in places], count, port=count == 2))
    if len(ways) != 1:
        return list(args)
    [way] = ways
    first = dict(zip(places, [*way, *[None] * (len(places) - count)], strict=True))
    whole = [first.get(place, word) for place, word in enumerate(args)]
    return [word for word in whole if word is not None]


def _positional(args: Sequence[str], switches: Mapping[str, bool]) -> Iterator[int]:
    at = 0
    while at < len(args):
        word = args[at]
        if word == "--":
            yield from range(at + 1, len(args))
            return
        if not word.startswith("-") or word == "-":
            yield at
        elif switches.get(word) is False:
            at += 1
        at += 1


def _ways(words: Sequence[str], count: int, *, port: bool) -> Iterator[list[str]]:
    """Yield each way to read words as so many."""
    if not count:
        if not words:
            yield []
        return
    for taken, word in _firsts(words, port=port and count == 1):
        for rest in _ways(words[taken:], count - 1, port=port):
            yield [word, *rest]


def _firsts(words: Sequence[str], *, port: bool) -> Iterator[tuple[int, str]]:
    """Yield how many words make the first one, and that."""
    if not words:
        return
    first, *rest = words
    forms = [(1, first)]
    if rest and is_type(first) and is_name(rest[0]):
        forms.append((2, f"{first}/{rest[0]}"))
    for taken, word in forms:
        yield taken, word
        if port and len(words) > taken and _PORT.fullmatch(words[taken]):
            yield taken + 1, _with_port(word, words[taken])


def _with_port(host: str, port: str) -> str:
    return f"[{host}]:{port}" if host.count(":") > 1 and host[0] != "[" else f"{host}:{port}"


def typed_names(words: Sequence[str]) -> list[str]:
    """Return `TYPE NAME NAME …`, of a command that takes any number of words, as `TYPE/NAME …`;
    other words as they are."""
    first, *rest = words or [""]
    if rest and is_type(first) and all(map(is_name, rest)):
        return [f"{first}/{name}" for name in rest]
    return list(words)
