"""A walk in progress: where the packet stands, and the hops so far.

A stage (kubectl_ebpfnet/explain/path/stages/) takes a `PacketState`, adds hops to the `PathBuilder`
and returns the next `PacketState`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from kubectl_ebpfnet.explain.path.endpoints import PathEnds
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.cilium import Endpoint
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import (
    Evidence,
    Finding,
    Hop,
    HopKind,
    HopPlace,
    Packet,
    Severity,
    State,
    TrackedFlow,
    Verdict,
)

Where = tuple[HopPlace, str, str, HopKind]
"""The first four arguments of hop() and drop()."""


class Stage(StrEnum):
    """The kinds of place that a packet can be at; each has its file in stages/."""

    SOCKET = "socket"
    POD = "pod"
    VETH = "veth"
    FORWARD = "forward"
    HOST = "host"
    TUNNEL = "tunnel"
    DEVICE = "device"
    WIRE = "wire"
    ARRIVAL = "arrival"
    ENDPOINT = "endpoint"
    NODE_LOCAL = "node-local"


@dataclass(frozen=True, slots=True)
class PacketState:
    """A packet at a place.

    Attributes:
        stage: the kind of place.
        packet: as it arrives there.
        node: the node's name, "" off the nodes.
        device: the device that the packet came in by, or is to leave by; in Stage.TUNNEL the
            address of the tunnel's other end; "" when the stage has none.
        identity: security identity that travels with the packet, 0 when not known.
        skips_netfilter: BPF redirected the packet past the node's stack.
        in_device: the device by which the packet entered this node's stack, "" for packets that
            the node sends itself.
        to_masquerade: kube-proxy's rules on this node marked the packet for masquerading
            (KUBE-MARK-MASQ).
        next_hop: gateway of the route that was taken, None when the destination is on the link.
    """

    stage: Stage
    packet: Packet
    node: str
    device: str = ""
    identity: int = 0
    skips_netfilter: bool = False
    in_device: str = ""
    to_masquerade: bool = False
    next_hop: Address | None = None

    def to(self, stage: Stage, **changes: object) -> PacketState:
        """Return the packet at the next place; `changes` are fields that differ there."""
        return replace(self, stage=stage, **changes)  # type: ignore[arg-type]

    def on_node(self, kind: HopKind) -> Where:
        """Return where a hop in the node's own stack is, as hop() and drop() take it."""
        return HopPlace.NODE, self.node, self.node, kind

    def in_cilium(self, kind: HopKind, device: str = "") -> Where:
        """Return where a hop in Cilium's datapath is, by default at the packet's device."""
        return HopPlace.CILIUM, device or self.device or self.node, self.node, kind


@dataclass
class PathBuilder:
    """A walk in progress: the resolved ends, the hops so far, and the verdict.

    Attributes:
        cluster: the bundle's indexes.
        ends: the resolved request.
        hops: in the packet's order.
        findings: of the stages, in their order.
        flows: tracked flows that match, of every node that the packet came to.
        visited_nodes: nodes that the packet came to after the first.
        crossings: (from node, to node, packet) of each crossing of the wire, to detect a loop.
        verdict, reason: of the walk so far.
        doubt: why the destination may be unable to answer although nothing drops the packet;
            "" for no doubt.
    """

    cluster: ClusterView
    ends: PathEnds
    hops: list[Hop] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    flows: list[TrackedFlow] = field(default_factory=list)
    visited_nodes: list[str] = field(default_factory=list)
    crossings: set[tuple[str, str, Packet]] = field(default_factory=set)
    verdict: Verdict = Verdict.UNKNOWN
    reason: str = ""
    doubt: str = ""

    @property
    def endpoint(self) -> Endpoint | None:
        """Cilium's endpoint of the source pod."""
        return self.ends.source_endpoint

    @property
    def tracked(self) -> TrackedFlow | None:
        """The newest flow that matches the request on the source's node."""
        return self.ends.tracked

    @property
    def source_pod(self) -> str:
        """The source pod's namespace and name."""
        return f"{self.ends.source.namespace}/{self.ends.source.name}"

    def in_source_pod(self, kind: HopKind) -> Where:
        """Return where a hop in the source pod is, as hop() and drop() take it."""
        return HopPlace.POD, self.source_pod, self.ends.source.node, kind

    def tracked_at(self, here: PacketState) -> TrackedFlow | None:
        """Return the newest flow tracked on the packet's node that may be the packet's own."""
        if self.tracked is not None and self.tracked.node == here.node:
            return self.tracked
        flow = here.packet.flow
        for tracked in self.flows:
            same_port = flow.source_port in (None, tracked.flow.source_port)
            ends = (tracked.flow.destination, tracked.translated.destination)
            here_too = (tracked.node, tracked.flow.source) == (here.node, flow.source)
            if here_too and same_port and flow.destination in ends:
                return tracked
        return None

    def hop(
        self,
        place: HopPlace,
        where: str,
        node: str,
        kind: HopKind,
        summary: str,
        state: State,
        packet: Packet,
        evidence: tuple[Evidence, ...] = (),
        *,
        reason: str = "",
        drops: bool = False,
    ) -> None:
        """Add a hop.

        Args:
            place: the kind of place.
            where: its name: a pod, a node, a device, an address.
            node: the node that it is on, "" off the nodes.
            kind: the kind of thing that acts on the packet.
            summary: what it does to the packet, one line.
            state: how that is known.
            packet: as it leaves the hop.
            evidence: the proof.
            reason: for UNKNOWN: the missing fact, and why it is missing.
            drops: for drop() alone.
        """
        number = len(self.hops) + 1
        self.hops.append(
            Hop(number, place, where, node, kind, summary, state, packet, reason, drops, evidence)
        )

    def drop(
        self,
        place: HopPlace,
        where: str,
        node: str,
        kind: HopKind,
        summary: str,
        state: State,
        packet: Packet,
        evidence: tuple[Evidence, ...],
        *,
        title: str,
        detail: str,
        proof: tuple[Evidence, ...] = (),
    ) -> None:
        """Add the hop that drops the packet and its finding, and set the verdict; the walk is over.

        Args:
            place: the kind of place.
            where: its name: a pod, a node, a device, an address.
            node: the node that it is on, "" off the nodes.
            kind: the kind of thing that acts on the packet.
            summary: what drops the packet and why, one line.
            state: OBSERVED when the drop was seen, DERIVED when it follows from tables.
            packet: as it came to the hop.
            evidence: the proof.
            title: the finding, one line.
            detail: what to do about it.
            proof: the finding's, where it is not the hop's.
        """
        self.hop(place, where, node, kind, summary, state, packet, evidence, drops=True)
        self.verdict = Verdict.DROPPED
        self.reason = f"dropped at hop {len(self.hops)}: {summary}"
        self.finding(Severity.ERROR, title, detail, proof or evidence)

    def delivered(self, reason: str) -> None:
        """Set the verdict: the packet reached its destination, or left the cluster."""
        self.verdict, self.reason = Verdict.DELIVERED, reason

    def unknown(self, reason: str) -> None:
        """Set the verdict: a fact that decides what happens next is missing."""
        self.verdict, self.reason = Verdict.UNKNOWN, reason

    def finding(
        self, severity: Severity, title: str, detail: str, evidence: tuple[Evidence, ...] = ()
    ) -> None:
        """Add a finding.

        Args:
            severity: whether it breaks the path.
            title: one line.
            detail: what to do about it.
            evidence: the proof.
        """
        self.findings.append(Finding(severity, title, detail, evidence))


def answered(tracked: TrackedFlow | None) -> bool:
    """Tell whether a conntrack table shows packets of the reply direction."""
    if tracked is None:
        return False
    if tracked.netfilter is not None and "UNREPLIED" not in tracked.netfilter.status:
        return True
    return tracked.cilium_ct is not None and tracked.cilium_ct.rx_flags_seen != 0
