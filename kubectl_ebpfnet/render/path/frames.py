"""The hops of a way in frames: nodes, and in each the pods and devices, in the packet's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Hop, HopPlace, Packet, State

MARKS = {State.OBSERVED: "✓", State.DERIVED: "~", State.UNKNOWN: "?"}
DROPPED = "✗"
WORDS = {
    "✓": "seen",
    "~": "follows from tables",
    "?": "not known",
    "✗": "dropped",
}
"""What each mark means."""


@dataclass(frozen=True, slots=True)
class Part:
    """A pod or a device of a frame, "" for the node itself, and its hops."""

    title: str
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """A node, or what lies between and beyond nodes. One that the packet comes back to is a frame
    of its own."""

    title: str
    parts: tuple[Part, ...]


def frames(hops: Sequence[Hop]) -> Iterator[Frame]:
    """Yield the frames of a way; titles are not escaped."""
    for title, inside in groupby(hops, key=_frame):
        parts = groupby(inside, key=_part)
        yield Frame(title, tuple(Part(name, tuple(there)) for name, there in parts))


def mark(hop: Hop) -> str:
    """Return how a hop is known, or that it drops, as one character."""
    return DROPPED if hop.drops else MARKS[hop.state]


def changes(packet: Packet, before: Packet | None) -> bool:
    """Tell whether the tuple of a packet, or what encapsulates it, differs from the one before."""
    if before is None:
        return True
    return (packet.flow, packet.outer, packet.vni) != (before.flow, before.outer, before.vni)


def _frame(hop: Hop) -> str:
    if hop.node:
        return f"node {hop.node}"
    if hop.place is HopPlace.WORLD:
        return "outside the cluster"
    return "network" if hop.place is HopPlace.WIRE else hop.place.value


def _part(hop: Hop) -> str:
    if hop.place is HopPlace.POD:
        return f"pod {hop.where}"
    return "" if hop.where == hop.node else hop.where
