"""A walk in progress: where the packet stands, and the hops so far.

Stages (kubectl_ebpfnet/explain/stages/) take a `PacketState` and add hops to the `PathBuilder`.
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
        stage: what sort of place.
        packet: as it arrives there.
        node: whose node, "" off the nodes.
        device: the device it came in by, or is to leave by; "" when the stage has none.
        identity: security identity that travels with it, 0 when not known.
        skips_netfilter: BPF redirected it past the node's stack.
        in_device: the device by which it entered this node's stack, "" for packets of the node.
        to_masquerade: kube-proxy's rules on this node marked it for masquerading (KUBE-MARK-MASQ).
        next_hop: the gateway of the route it leaves by, None when its destination is on the link.
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
        """The same packet at the next place."""
        return replace(self, stage=stage, **changes)  # type: ignore[arg-type]


@dataclass
class PathBuilder:
    """A walk in progress: what is known of the ends, and the hops so far."""

    cluster: ClusterView
    ends: PathEnds
    hops: list[Hop] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    flows: list[TrackedFlow] = field(default_factory=list)
    visited_nodes: list[str] = field(default_factory=list)
    crossings: set[tuple[str, str, Packet]] = field(default_factory=set)
    """Ways from node to node that the packet took, to see when it takes one again."""
    verdict: Verdict = Verdict.UNKNOWN
    reason: str = ""
    doubt: str = ""
    """Why nobody may be able to answer, though nothing drops the packet; "" when there is none."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Cilium's endpoint of the source pod."""
        return self.ends.source_endpoint

    @property
    def tracked(self) -> TrackedFlow | None:
        """The newest flow that matches the request on the source's node."""
        return self.ends.tracked

    def tracked_at(self, here: PacketState) -> TrackedFlow | None:
        """The newest flow that the node where a packet stands tracks, and that may be its flow."""
        if self.tracked is not None and self.tracked.node == here.node:
            return self.tracked
        flow = here.packet.flow
        for tracked in self.flows:
            same_port = flow.source_port in (None, tracked.flow.source_port)
            goes_there = flow.destination in (
                tracked.flow.destination,
                tracked.translated.destination,
            )
            if (
                (tracked.node, tracked.flow.source) == (here.node, flow.source)
                and same_port
                and goes_there
            ):
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
    ) -> None:
        """Add a hop that the packet passes."""
        number = len(self.hops) + 1
        self.hops.append(
            Hop(number, place, where, node, kind, summary, state, packet, reason, False, evidence)
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
        evidence: tuple[Evidence, ...] = (),
    ) -> None:
        """Add the hop at which the packet ends; the walk is over."""
        number = len(self.hops) + 1
        self.hops.append(
            Hop(number, place, where, node, kind, summary, state, packet, "", True, evidence)
        )
        self.verdict = Verdict.DROPPED
        self.reason = f"dropped at hop {number}: {summary}"

    def delivered(self, reason: str) -> None:
        """The packet is where it was sent to, or has left what can be seen."""
        self.verdict, self.reason = Verdict.DELIVERED, reason

    def unknown(self, reason: str) -> None:
        """Nobody can say what happens next."""
        self.verdict, self.reason = Verdict.UNKNOWN, reason

    def finding(
        self,
        severity: Severity,
        title: str,
        detail: str,
        evidence: tuple[Evidence, ...] = (),
    ) -> None:
        """Add a finding."""
        self.findings.append(Finding(severity, title, detail, evidence))


def answered(tracked: TrackedFlow | None) -> bool:
    """Whether a table shows that the other side answered this flow."""
    if tracked is None:
        return False
    if tracked.netfilter is not None and "UNREPLIED" not in tracked.netfilter.status:
        return True
    return tracked.cilium_ct is not None and tracked.cilium_ct.rx_flags_seen != 0
