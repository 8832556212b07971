"""The answer of `trace`: packets, where each was seen, and what became of it."""

from __future__ import annotations

from enum import StrEnum

from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import Direction, Losses, PacketEvent, Place, SentPacket
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.path import Fix, Path, Verdict

SCHEMA = "ebpfnet.dev/trace/v1"
"""Of `-o json`: docs/json.md."""


class Lost(StrEnum):
    """Whether a packet is lost at a place."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"
    """A copy lived, or events are missing: `note` says which."""


class Fate(StrEnum):
    """What became of one packet, as far as it was seen."""

    DELIVERED = "delivered"
    """A process, or the kernel's own answer to it, took it."""
    ARRIVED = "arrived"
    """It was received where its other end is; what a socket does with it has no tracepoint."""
    LEFT = "left"
    """It was last seen as it left a node for a place that is not watched."""
    DROPPED = "dropped"
    LAST_SEEN = "last seen"
    """It is seen no more after a place, and no drop says why: the place where it went silent."""
    UNKNOWN = "unknown"
    """Events are missing."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose network namespace a packet was in.

    Attributes:
        kind: `pod`, `node`, `process`, or "" where nobody told.
        namespace, name: of the pod; the node's name; a process's command in `name`.
        pid: of a process, 0 for others.
    """

    kind: str = ""
    namespace: str = ""
    name: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A packet at one place: a line on the screen.

    Attributes:
        node: whose kernel saw it.
        seconds: since the trace began, by the order of causes: within a node by its clock, across
            nodes never before what it follows from.
        event: what the kernel told.
        owner: whose namespace.
        changed: its addresses or its tunnel differ from the place before.
        lost: whether it ends here as a loss.
        note: why `lost` is undecided, or what else is to be said; one sentence, "" for nothing.
        line: 1-based number of its line in the record of `node`.
    """

    node: str
    seconds: float
    event: PacketEvent
    owner: Owner
    changed: bool = False
    lost: Lost = Lost.NO
    note: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """What Cilium's datapath told of a packet that is followed: a line of its monitor.

    Attributes:
        node: whose agent told it.
        seconds: since the trace began, as it came to the client: Cilium tells no time.
        event: the notice.
        direction: of the packet, as it was asked for.
        source, destination: identities in words, "" where the notice has none.
        packet: number of the packet that it is of; 0 where that is not decided.
        note: why it is not, one sentence; "" where it is, and where no packet was seen at all.
        line: 1-based number of its line in the record of the agent.
    """

    node: str
    seconds: float
    event: MonitorEvent
    direction: Direction
    source: str = ""
    destination: str = ""
    packet: int = 0
    note: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class TracedPacket:
    """One packet on its way, by its fingerprint.

    Attributes:
        number: from 1 on, in the order of their first places.
        direction: forth or back.
        what: what it is: `echo request 5 seq 1`, `SYN`, `data seq 100 length 52`.
        sightings: in the order of causes.
        fate: what became of it.
        reason: one sentence for DROPPED, LAST_SEEN and UNKNOWN.
    """

    number: int
    direction: Direction
    what: str
    sightings: tuple[Sighting, ...]
    fate: Fate
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """A node that was watched.

    Attributes:
        node: its name.
        attached: the places that it saw; () where it saw by Cilium's notices alone, or not at all.
        lacking: what it could not see, one sentence each.
        losses: events that it could not tell.
        problem: why it was not watched, or not to the end; "" when it was.
        notices: why Cilium's notices of the same time were not read, or not to the end; "" when
            they were, None when nobody asked for them.
        changed: programs that were replaced meanwhile, one sentence each.
    """

    node: str
    attached: tuple[Place, ...] = ()
    lacking: tuple[str, ...] = ()
    losses: Losses = Losses()
    problem: str = ""
    notices: str | None = None
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeenHop:
    """A hop of `path`, and whether a packet was seen there.

    Attributes:
        hop: its number in the path's hops; `back` for those of the way back.
        back: it is a hop of the answer's way.
        seen: yes, no, or None where no layer can see that place.
        answers: of a program's hop: what it answered for packets of this direction, as the kernel
            names it (`TC_ACT_OK`), each answer once; () where that was not seen.
    """

    hop: int
    back: bool
    seen: bool | None
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where reality left the tables.

    Attributes:
        text: one sentence: what path says happens there, and what was seen.
        hop: number of path's hop, 0 for none.
        sighting: what was seen there, None where nothing was.
    """

    text: str
    hop: int = 0
    sighting: Sighting | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The whole answer.

    Attributes:
        title: `pod/client → 1.1.1.1:80/TCP`, or `drops of pod/client`.
        flow: what was asked for; None for drops.
        verdict: what became of the packets: `delivered`, `leaves`, `dropped`, `unknown`.
        reason: one sentence.
        packets: in order.
        nodes: who was watched.
        sent: of --send.
        notices: Cilium's own, in the order in which they came.
        path: what the tables say; None where it was not asked.
        hops: which of its hops were seen.
        difference: where reality left the tables; None where it did not, or is not known.
        cause, fix: as in path, where a place of the packet tells or path agrees.
        notes: what else is to be known, one sentence each.
    """

    title: str
    flow: Flow | None
    verdict: Verdict
    reason: str
    packets: tuple[TracedPacket, ...]
    nodes: tuple[Watched, ...]
    sent: tuple[SentPacket, ...] = ()
    notices: tuple[Notice, ...] = ()
    path: Path | None = None
    hops: tuple[SeenHop, ...] = ()
    difference: Difference | None = None
    cause: str = ""
    fix: Fix | None = None
    notes: tuple[str, ...] = ()
