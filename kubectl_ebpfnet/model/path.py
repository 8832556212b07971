"""The answer: hops, findings and the verdict. Its JSON form is documented in docs/json.md."""

from __future__ import annotations

from enum import StrEnum

from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.request import PathRequest as PathRequest

SCHEMA = "ebpfnet.dev/path/v2"
SEVERAL_SCHEMA = "ebpfnet.dev/paths/v1"

NOW = 60.0
"""Seconds before its record was read within which a packet counts as seen "now"."""


class State(StrEnum):
    """How a hop is known: seen, concluded, or not at all."""

    OBSERVED = "observed"
    """The cluster shows that this packet or flow did it."""
    DERIVED = "derived"
    """It follows from facts that were read."""
    UNKNOWN = "unknown"
    """A fact is missing; the hop says which."""


class Verdict(StrEnum):
    """What becomes of the packet."""

    DELIVERED = "delivered"
    """The destination answered this flow within the last minute before the record."""
    REACHABLE = "reachable"
    """The tables let it through to a pod or a node; no recent answer was seen."""
    LEAVES = "leaves"
    """It leaves the cluster; what happens beyond is not known."""
    DROPPED = "dropped"
    """It is lost in the cluster, or its destination refuses it."""
    UNKNOWN = "unknown"
    """A fact that decides is missing."""

    @property
    def let_through(self) -> bool:
        """Whether nothing in the cluster is known to stop the packet."""
        return self in (Verdict.DELIVERED, Verdict.REACHABLE, Verdict.LEAVES)


class Decides(StrEnum):
    """What a hop that is not known may do to the packet."""

    NOTHING = "nothing"
    """It passes here either way."""
    DROP = "drop"
    """It may be lost here; what passes goes the way that is shown."""
    WAY = "way"
    """It may go another way from here: by another route, backend, source or program."""


class Direction(StrEnum):
    """Whose way a drop is on."""

    PACKET = "packet"
    ANSWER = "answer"


class Outcome(StrEnum):
    """What came back to an attempt."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """A RST, or an ICMP error."""
    UNANSWERED = "unanswered"
    UNKNOWN = "unknown"
    """The tables do not tell: UDP that nobody need answer, an entry without flags."""


class HopPlace(StrEnum):
    """The kind of place of a hop."""

    POD = "pod"
    NODE = "node"
    CILIUM = "cilium"
    WIRE = "wire"
    WORLD = "world"


class HopKind(StrEnum):
    """The kind of thing that acts on the packet at a hop."""

    SOCKET = "socket"
    ROUTE = "route"
    NEIGHBOUR = "neighbour"
    LINK = "link"
    PROGRAM = "program"
    LOAD_BALANCING = "load-balancing"
    POLICY = "policy"
    CONNTRACK = "conntrack"
    NAT = "nat"
    RULE = "rule"
    TUNNEL = "tunnel"
    DELIVERY = "delivery"

    @property
    def short(self) -> str:
        """The word for a narrow column."""
        short = {"load-balancing": "lb", "program": "bpf", "rule": "netfilter"}
        return short.get(self.value, self.value)


class Larger(StrEnum):
    """What becomes of a packet that is larger than a place takes, and must not be fragmented."""

    TOLD = "told"
    """It is dropped, and its sender is told by ICMP which size passes."""
    FRAGMENTED = "fragmented"
    """The packet that encapsulates it is sent in fragments, and arrives."""
    LOST = "lost"
    """It is dropped, and nobody is told."""
    UNKNOWN = "unknown"
    """It is lost in silence or passes, as the driver or the other end decides."""


class Severity(StrEnum):
    """How bad a finding is: an ERROR breaks the path, a WARNING may, INFO does not."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A pointer to the proof of a hop, a finding or a flow.

    Attributes:
        record: number of the record in the bundle.
        lines: 1-based line numbers in its stdout; () when the whole record is meant.
        excerpt: these lines, or for JSON the members that matter, unchanged.
    """

    record: int
    lines: tuple[int, ...] = ()
    excerpt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Packet:
    """The packet as it leaves a hop.

    Attributes:
        flow: its 5-tuple.
        outer: 5-tuple of the encapsulating packet, None when it is not encapsulated.
        vni: tunnel id, None when it is not encapsulated.
        mark: skb mark, None when not known.
    """

    flow: Flow
    outer: Flow | None = None
    vni: int | None = None
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """One thing that happens to the packet.

    Attributes:
        number: 1-based.
        place: the sort of place.
        where: its name: `default/client`, a node name, `1.1.1.1`.
        node: the node it is on, "" off the nodes.
        kind: the kind of thing that acts on the packet.
        summary: what it does to the packet, one line.
        state: how that is known.
        reason: for UNKNOWN: which fact is missing and why.
        drops: the packet ends here.
        packet: as it leaves the hop; as it came when it is dropped.
        evidence: the proof.
        short: `summary` for a screen, where `packet` and `where` stand beside it: without tuples,
            ids, tags and numbers of identities; "" where `summary` is short.
    """

    number: int
    place: HopPlace
    where: str
    node: str
    kind: HopKind
    summary: str
    state: State
    packet: Packet
    reason: str = ""
    drops: bool = False
    evidence: tuple[Evidence, ...] = ()
    short: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule across hops that something broke: `title` is one line, `detail` says what to do.
    `decides` where the verdict is this finding, so that `cause` and `fix` say the same."""

    severity: Severity
    title: str
    detail: str
    evidence: tuple[Evidence, ...] = ()
    decides: bool = False


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do: `text` is one sentence, `command` a command line, "" where there is none."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Evidence against the way that the tables show, one sentence and its proof."""

    text: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """Where the packet is lost.

    Attributes:
        how: `seen` when the drop itself was seen (a drop notice, a RST), `derived` when it follows
            from tables.
        hop: number of the hop; in the answer's way where `direction` says so.
        node: the node that it is on, "" off the nodes.
        by: what drops it, one line.
        short: the same for a screen: `by the egress policy of pod/client`.
        object: the object that a person would edit, e.g. `CiliumNetworkPolicy default/client`,
            "" when none is known.
        direction: what is lost: the packet, or the answer to it.
    """

    how: str
    hop: int
    node: str
    by: str
    object: str = ""
    direction: Direction = Direction.PACKET
    short: str = ""


class Return(StrEnum):
    """What becomes of the answer."""

    RETURNS = "returns"
    LOST = "lost"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class WayBack:
    """The answer to the packet, on its way back.

    Attributes:
        state: what becomes of it, by the tables.
        reason: one sentence: where it is lost, what is not known, or what was presumed; "" where
            there is nothing to say.
        asymmetric: it takes other nodes or devices than the packet.
        way: the nodes and devices in words.
        hops: from the far end on, numbered from 1.
    """

    state: Return
    reason: str
    asymmetric: bool
    way: str
    hops: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """An end of the path as it was resolved.

    Attributes:
        text: the words of the command line.
        kind: `pod`, `service`, `node`, `address` or `name`.
        namespace, name: of the object, "" for addresses.
        address: None when it has none yet (Pending), or resolution failed.
        port: destination port, None when none was given.
        node: the node it is on, "" when off the nodes or not known.
        note: how it was resolved, one sentence; "" when there is nothing to say.
    """

    text: str
    kind: str
    namespace: str = ""
    name: str = ""
    address: Address | None = None
    port: int | None = None
    node: str = ""
    note: str = ""

    @property
    def title(self) -> str:
        """`pod/client`, `svc/web`, `1.1.1.1`: short, for a headline."""
        short = {"service": "svc"}.get(self.kind, self.kind)
        if self.kind in ("pod", "service", "node"):
            return f"{short}/{self.name}"
        return self.text if self.kind == "name" else str(self.address)


@dataclass(frozen=True, slots=True)
class LastSeen:
    """When the packets of a tracked flow were last seen, in seconds before its table was read.

    Attributes:
        sent: since the last packet of the source, None where nothing tells.
        answered: since the last packet that came back, None where none did or nothing tells.
        reason: why `sent` is not known, "" when it is.
    """

    sent: float | None = None
    answered: float | None = None
    reason: str = ""

    @property
    def any(self) -> float | None:
        """Seconds since the last packet of either direction."""
        return min((age for age in (self.sent, self.answered) if age is not None), default=None)


@dataclass(frozen=True, slots=True)
class TrackedFlow:
    """One flow as Cilium and netfilter track it on one node, side by side.

    Attributes:
        node: whose tables.
        flow: the packet as the source sent it.
        cilium_ct: Cilium's conntrack entry, None when there is none.
        service_ct: Cilium's SVC entry when the packet was load-balanced at the veth.
        cilium_nat: Cilium's NAT entry.
        netfilter: the kernel's nf_conntrack entry.
        translated: the packet after all translations seen.
        evidence: the lines, in the order of the entries above; that of `error_ct` stands before
            netfilter's.
        error_ct: Cilium's entry for ICMP errors between the two ends, where one came back since
            their newest connection began.
        last_seen: when its packets were last seen.
        outcome: what came back.
    """

    node: str
    flow: Flow
    cilium_ct: CtEntry | None
    service_ct: CtEntry | None
    cilium_nat: NatEntry | None
    netfilter: ConntrackEntry | None
    translated: Flow
    evidence: tuple[Evidence, ...] = ()
    error_ct: CtEntry | None = None
    last_seen: LastSeen = LastSeen()
    outcome: Outcome = Outcome.UNKNOWN

    @property
    def time_to_live(self) -> int | None:
        """Seconds until the flow is forgotten, None when no entry says.

        Cilium's own entry of the flow counts, then netfilter's. An entry of load-balancing lives by
        a longer time-out than the flow.
        """
        for seconds in (
            self.cilium_ct.remaining if self.cilium_ct else None,
            self.netfilter.timeout if self.netfilter else None,
            self.service_ct.remaining if self.service_ct else None,
        ):
            if seconds is not None:
                return seconds
        return None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The newest attempt to send this flow that a tracking table shows.

    Attributes:
        flow: its entries.
        outcome: what came back.
        age: seconds from its last packet until the table was read, None where no clock tells.
        text: one sentence: what was sent, what came back, where a handshake stopped.
        short: the same without the tuple, and with the table that shows it.
    """

    flow: TrackedFlow
    outcome: Outcome
    age: float | None
    text: str
    short: str = ""

    @property
    def now(self) -> bool:
        """Whether it is recent enough to tell what happens to a packet now."""
        return self.age is not None and self.age <= NOW

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The entries' lines."""
        return self.flow.evidence


@dataclass(frozen=True, slots=True)
class TrackingNote:
    """Why a table of a node has no entry of the flows: `table` is `cilium-ct`, `cilium-nat` or
    `nf_conntrack`."""

    node: str
    table: str
    text: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class PathMtu:
    """The largest IP packet that fits on a way, headers included, in bytes.

    Attributes:
        fits: as its sender sends it, before any encapsulation; None when no MTU was read.
        limited_by: the device, or the route, that takes no larger one.
        node: the node that it is on.
        pod: the largest packet that the sender sends as one, None when that was not read.
        larger: what becomes of a larger packet there, None when `fits` is.
        missing: MTUs that were not read, which may be smaller.
        back: the same for the way back, None where that was not followed.
    """

    fits: int | None
    limited_by: str
    node: str
    pod: int | None
    larger: Larger | None
    missing: tuple[str, ...] = ()
    back: PathMtu | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A node by which a client outside may enter, and its packet's path by this node."""

    node: str
    path: Path


@dataclass(frozen=True, slots=True)
class ClosedEntry:
    """A node by which a client outside does not enter, and why, one sentence."""

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Entrance:
    """By which nodes a client outside enters the cluster.

    Attributes:
        why: how the nodes were chosen, one sentence.
        shown: the node whose hops are those of the whole answer: the one that decides it.
        entries: each node that it may enter by and that was walked from, the likeliest first.
        closed: nodes that it does not enter by, some of them where they are many.
        more_closed: how many more there are of these.
        left_out: how many more it may enter by, which were not walked from.
    """

    why: str
    shown: str
    entries: tuple[Entry, ...]
    closed: tuple[ClosedEntry, ...] = ()
    left_out: int = 0
    more_closed: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """The whole answer.

    Attributes:
        source, destination: the ends.
        protocol: IANA number.
        verdict: what becomes of the packet.
        reason: one sentence: where the packet is dropped, or which fact is missing.
        because: the same for a screen, a line each: what decides, and what speaks against it.
        seen: drops of this flow that decide and that a record shows, one line each.
        hops: in the order in which the packet passes them.
        findings: worst first.
        flows: flows that match, as they are tracked now, newest first.
        tracking: a note for each table without an entry of the flows.
        cause: why, one sentence; "" when there is nothing to mend.
        fix: what to do about it, None when there is nothing to do or nothing is known to help.
        contradictions: evidence against the way that the tables show.
        drop: where the packet is lost, None when it is not.
        attempt: the newest attempt, None when no table shows one.
        answer: the way back, None where the packet does not arrive.
        mtu: the largest packet that fits, None where the packet passed no device.
        presumed: what was not read on the way or the way back, may lose the packet, and is taken to
            be as it usually is.
        outside: by which nodes a client outside enters, and what each does; None for a source in
            the cluster.
    """

    source: Target
    destination: Target
    protocol: int
    verdict: Verdict
    reason: str
    hops: tuple[Hop, ...]
    findings: tuple[Finding, ...]
    flows: tuple[TrackedFlow, ...] = ()
    tracking: tuple[TrackingNote, ...] = ()
    cause: str = ""
    fix: Fix | None = None
    contradictions: tuple[Contradiction, ...] = ()
    drop: Drop | None = None
    attempt: Attempt | None = None
    answer: WayBack | None = None
    mtu: PathMtu | None = None
    presumed: tuple[str, ...] = ()
    outside: Entrance | None = None
    because: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
