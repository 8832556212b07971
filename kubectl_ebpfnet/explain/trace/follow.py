"""Join what nodes tell into packets: the same fingerprint is the same packet, at all places and
nodes. Works on lines as they come, and on those of a record alike.

A node's clock orders what it saw itself. Between nodes the packets do: one with a smaller TTL comes
later (RFC 791, 3.2), so the packets of both directions tell how much a node's clock is ahead of the
first node's (`clocks.py`). Until then clocks are taken where they agree to CLOCK_SECONDS, else the
time since each node began to watch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kubectl_ebpfnet.explain.trace import words
from kubectl_ebpfnet.explain.trace.clocks import Clocks
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import (
    Copies,
    Direction,
    Layers,
    NamespaceOwner,
    PacketEvent,
    Place,
    TraceLine,
)
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.trace import Lost, Owner, Sighting

OwnerOf = Callable[[str, NamespaceOwner], Owner]
"""(node, what it told of a namespace) → whose it is by the cluster's objects."""
CLOCK_SECONDS = 5.0
MOST_PACKETS = 10_000
"""Packets that are kept; of later ones the lines are shown, and counted."""
MOST_SIGHTINGS = 1_000
"""Of one packet: what is more is counted."""
_SAME_SECONDS = 30.0
"""A buffer does not live longer: a fingerprint that comes again is another packet."""
_ENDS = (Place.DROP, Place.CONSUME, Place.DELIVER)


@dataclass(slots=True)
class Followed:
    """A packet as far as it was seen.

    Attributes:
        number: from 1 on.
        direction: forth or back, "" for neither.
        what: what it is.
        sightings: in the order in which they were told.
    """

    number: int
    direction: Direction
    what: str
    sightings: list[Sighting]

    def ordered(self, clocks: Clocks) -> tuple[Sighting, ...]:
        """Return the sightings in the order of time, each with whether something changed."""
        timed = (replace(s, seconds=s.seconds + clocks.of(s.node)) for s in self.sightings)
        ordered = sorted(timed, key=lambda s: s.seconds)
        shown, before = [], None
        for sighting in ordered:
            now = _addresses(sighting.event)
            changed = before is None or (now is not None and now != before)
            shown.append(replace(sighting, changed=changed))
            before = now or before
        return tuple(shown)


class Follower:
    """Takes the lines of all nodes; gives a sighting for each packet."""

    def __init__(self, owner_of: OwnerOf) -> None:
        self._owner_of = owner_of
        self._owners: dict[tuple[str, int], Owner] = {}
        self._layers: dict[str, Layers] = {}
        self.clocks = Clocks()
        self._began: dict[str, float] = {}
        self._open: dict[tuple[int, Direction], Followed] = {}
        self._visited: dict[int, set[tuple[object, ...]]] = {}
        self._last: dict[int, tuple[Flow, Address | None] | None] = {}
        self.packets: list[Followed] = []
        self.tuples: dict[Flow, Direction] = {}
        """What packets looked like, each with its direction."""
        self.not_kept = 0
        """Sightings of packets beyond MOST_PACKETS."""

    def feed(self, node: str, line: TraceLine, number: int = 0) -> Sighting | None:
        """Take a line; return what is seen of a packet in it.

        Args:
            node: who told it.
            line: as it told it.
            number: of the line in its record.
        """
        if line.layers is not None:
            self._begins(node, line.layers)
        if line.namespace is not None:
            owner = self._owner_of(node, line.namespace)
            key = node, line.namespace.inode
            known = key in self._owners
            if not known and len(self._owners) >= MOST_PACKETS:
                self.not_kept += 1
            elif owner.kind or not known:
                self._owners[key] = owner
        if line.packet is None:
            return None
        event = line.packet
        seconds = self._seconds(node, event)
        packet = self._packet(node, event, seconds)
        owner = self._owners.get((node, event.netns), Owner())
        if packet is None or len(packet.sightings) >= MOST_SIGHTINGS:
            self.not_kept += 1
            return Sighting(node, seconds, event, owner, True, *_lost(event), number)
        if event.flow is not None and len(self.tuples) < MOST_PACKETS:
            self.tuples.setdefault(event.flow, event.direction)
        now = _addresses(event)
        last = self._last.get(packet.number)
        changed = now is not None and now != last
        sighting = Sighting(node, seconds, event, owner, changed, *_lost(event), number)
        self._last[packet.number] = now or last
        packet.sightings.append(sighting)
        self.clocks.learn(packet.sightings)
        return replace(sighting, seconds=seconds + self.clocks.of(node))

    @property
    def wall_ns(self) -> int:
        """The wall clock of second 0, by the node that began first; 0 before one watches."""
        return next((each.wall_ns for each in self._layers.values()), 0)

    def number_of(self, sighting: Sighting) -> int:
        """Return the number of the packet that a sighting is of; 0 for one that is not kept."""
        followed = self._open.get((sighting.event.fingerprint, sighting.event.direction))
        return followed.number if followed else 0

    def _seconds(self, node: str, event: PacketEvent) -> float:
        layers = self._layers.get(node, Layers(()))
        return (event.time_ns - layers.time_ns) / 1e9 + self._began.get(node, 0.0)

    def _begins(self, node: str, layers: Layers) -> None:
        """Take when a node began; a session that begins anew counts from the first one on."""
        before = self._layers.get(node)
        if before is not None and before.time_ns <= layers.time_ns:
            return
        first = next(iter(self._layers.values()), layers)
        seconds = (layers.wall_ns - first.wall_ns) / 1e9
        self._layers[node] = layers
        self._began[node] = seconds if abs(seconds) < CLOCK_SECONDS else 0.0

    def _packet(self, node: str, event: PacketEvent, seconds: float) -> Followed | None:
        key = (event.fingerprint, event.direction)
        found = self._open.get(key) if event.flow is not None else None
        here = (node, event.netns, event.ifindex, event.place, event.where, event.tunnel,
                event.program)  # fmt: skip
        if found is not None:
            late = seconds - found.sightings[-1].seconds > _SAME_SECONDS
            again = here in self._visited[found.number] and event.place not in _ENDS
            if not late and not again:
                self._visited[found.number].add(here)
                return found
        if len(self.packets) >= MOST_PACKETS:
            return None
        made = Followed(len(self.packets) + 1, event.direction, words.what(event), [])
        self.packets.append(made)
        self._open[key] = made
        self._visited[made.number] = {here}
        return made


def _addresses(event: PacketEvent) -> tuple[Flow, Address | None] | None:
    if event.flow is None:
        return None
    return event.flow, event.tunnel.destination if event.tunnel else None


def _lost(event: PacketEvent) -> tuple[Lost, str]:
    """Return whether a packet is lost here, and why that is not known."""
    if event.place is not Place.DROP or event.reason in words.NO_LOSS:
        return Lost.NO, ""
    if event.copies is Copies.LIVES:
        return Lost.NO, "a copy of it lives on"
    if event.copies is Copies.LIVED:
        return Lost.UNDECIDED, "there was a copy of it, which may live on"
    if event.direction is Direction.BACK and event.where.startswith("ping_rcv"):
        return Lost.NO, "a copy went to the program that pings"
    if event.reason in ("", "NOT_SPECIFIED") and event.where.startswith("icmpv6_rcv"):
        # An error that was taken ends so (Linux 6.1).
        return Lost.UNDECIDED, "ICMPv6 is done with it, and the kernel does not tell how"
    if event.reason in ("", "NOT_SPECIFIED") and event.where.startswith("tcp_"):
        # A segment that was taken ends so too, as the FIN of a socket that is closed.
        return Lost.UNDECIDED, "TCP is done with it, and the kernel does not tell how"
    return Lost.YES, ""
