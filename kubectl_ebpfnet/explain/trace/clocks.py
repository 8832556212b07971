"""How much the clock of each node is behind that of the first, by packets that passed both.

A packet is seen on the node that it comes from before it is seen on the next one: each that goes
forth bounds the difference from one side, each that comes back from the other, as NTP's do
(RFC 5905, section 8). Which node comes first, the TTL tells (RFC 791, 3.2), and where it is the
same, which one sent last.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.model.events import PacketEvent, Place
from kubectl_ebpfnet.model.trace import Sighting

_SENT = (Place.QUEUE, Place.XMIT)
_ENDS = (Place.DROP, Place.CONSUME, Place.DELIVER)

_LATER = 1e-8
"""Seconds that nothing between two nodes takes less than, so that none come at once."""


class Clocks:
    """Seconds to add to what each node tells."""

    def __init__(self) -> None:
        self._first = ""
        self._at_least: dict[str, float] = {}
        self._at_most: dict[str, float] = {}

    def of(self, node: str) -> float:
        """Return the seconds: 0 where nothing says that the clocks differ."""
        low = self._at_least.get(node)
        high = self._at_most.get(node)
        if low is not None and high is not None and low <= high:
            return 0.0 if low <= 0 <= high else (low + high) / 2
        if low is not None:
            return max(0.0, low)
        return 0.0 if high is None else min(0.0, high)

    def learn(self, sightings: Sequence[Sighting]) -> None:
        """Take a packet's sightings, each with the seconds that its node told."""
        self._first = self._first or sightings[0].node
        by_node: dict[str, list[Sighting]] = {}
        for each in sightings:
            # A tap or socket on the way reads it whenever it likes.
            if each.event.place not in _ENDS:
                by_node.setdefault(each.node, []).append(each)
        ours = by_node.pop(self._first, None)
        if ours is None:
            return
        for node, theirs in by_node.items():
            if _is_before(ours[-1].event, theirs[0].event):
                bound = ours[-1].seconds - theirs[0].seconds + _LATER
                self._at_least[node] = max(bound, self._at_least.get(node, bound))
            elif _is_before(theirs[-1].event, ours[0].event):
                bound = ours[0].seconds - theirs[-1].seconds - _LATER
                self._at_most[node] = min(bound, self._at_most.get(node, bound))


def _is_before(one: PacketEvent, other: PacketEvent) -> bool:
    if one.ttl != other.ttl:
        return one.ttl > other.ttl
    return one.place in _SENT and other.place not in _SENT
