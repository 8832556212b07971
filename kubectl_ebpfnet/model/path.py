"""The answer: hops, findings and the verdict. Its JSON form is documented in docs/json.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kubectl_ebpfnet.model.cilium import CtEntry, NatEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.net import Address, Flow

SCHEMA = "ebpfnet.dev/path/v1"


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
    DROPPED = "dropped"
    UNKNOWN = "unknown"


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


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule across hops that something broke: `title` is one line, `detail` says what to do."""

    severity: Severity
    title: str
    detail: str
    evidence: tuple[Evidence, ...] = ()


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
        evidence: the lines, in the order of the entries above.
    """

    node: str
    flow: Flow
    cilium_ct: CtEntry | None
    service_ct: CtEntry | None
    cilium_nat: NatEntry | None
    netfilter: ConntrackEntry | None
    translated: Flow
    evidence: tuple[Evidence, ...] = ()

    @property
    def time_to_live(self) -> int | None:
        """Seconds until the last of its conntrack entries goes away, None when none says."""
        left = [
            seconds
            for seconds in (
                self.cilium_ct.remaining if self.cilium_ct else None,
                self.service_ct.remaining if self.service_ct else None,
                self.netfilter.timeout if self.netfilter else None,
            )
            if seconds is not None
        ]
        return max(left, default=None)


@dataclass(frozen=True, slots=True)
class TrackingNote:
    """Why a table of a node has no entry of the flows: `table` is `cilium-ct`, `cilium-nat` or
    `nf_conntrack`."""

    node: str
    table: str
    text: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class PathRequest:
    """The question of `path`, with names as the bundle's objects have them.

    Attributes:
        source: e.g. `pod/client`, namespace already applied.
        source_kind: `pod`, or the kind of a workload (`Deployment`, …) that is still to be
            resolved to one of its pods, as when a capture is read.
        source_namespace, source_name: of the source.
        destination: the words after the source, without the port.
        destination_kind: `pod`, `service`, `node`, `address` or `name`.
        destination_namespace, destination_name: for objects; for a DNS name its text is the name.
        destination_address: for addresses, and for names once resolved.
        port: number, None when none was given.
        port_name: name of a Service's port, "" when a number or nothing was given.
        protocol: IANA number.
        note: how the destination was resolved, "" when there is nothing to say.
    """

    source: str
    source_namespace: str
    source_name: str
    destination: str
    destination_kind: str
    protocol: int
    destination_namespace: str = ""
    destination_name: str = ""
    destination_address: Address | None = None
    port: int | None = None
    port_name: str = ""
    note: str = ""
    source_kind: str = "pod"


@dataclass(frozen=True, slots=True)
class Path:
    """The whole answer.

    Attributes:
        source, destination: the ends.
        protocol: IANA number.
        verdict: what becomes of the packet.
        reason: one sentence: where the packet is dropped, or which fact is missing.
        hops: in the order in which the packet passes them.
        findings: worst first.
        flows: flows that match, as they are tracked now, newest first.
        tracking: a note for each table without an entry of the flows.
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
