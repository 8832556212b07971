"""What nobody read and is taken to be as it usually is."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

_NAMED = 3
"""Things that the sentence names; the document has all of them."""


class Look(IntEnum):
    """When to look there for a packet that is lost: what loses packets often comes first."""

    FIRST = 0
    """A listener, a queue, ports of source NAT: they end as clients grow, or with a process."""
    NEXT = 1
    """What somebody has to change on a node."""
    LAST = 2
    """What hardly ever loses anything: a pod's own network namespace, an agent that is behind."""


class Presumed:
    """What was not read and may lose the packet, without duplicates, the likeliest first."""

    def __init__(self) -> None:
        self._look: dict[str, Look] = {}

    def add(self, what: str, look: Look = Look.NEXT) -> None:
        """Add something that was not read.

        Args:
            what: in words, with its place.
            look: when to look there.
        """
        self._look.setdefault(what, look)

    def take(self, other: Presumed) -> None:
        """Add what another walk presumes."""
        for what, look in other._look.items():
            self.add(what, look)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._look, key=self._look.__getitem__))

    def __bool__(self) -> bool:
        return bool(self._look)

    def sentence(self) -> str:
        """Return one sentence with the first of them, "" where nothing was presumed."""
        first, more = list(self)[:_NAMED], len(self._look) - _NAMED
        if more > 0:
            first.append(f"{more} more (`-v` lists them)")
        return f"not read, and presumed to be as usual: {'; '.join(first)}" if first else ""
