"""A walk in progress: where the packet stands, and the hops so far.

A stage (kubectl_ebpfnet/explain/path/stages/) takes a `PacketState`, adds hops to the `PathBuilder`
and returns the next `PacketState`.
"""

from __future__ import annotations

from dataclasses import field, replace
from enum import StrEnum
from typing import Any

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.mtu import Limit, Sender
from kubectl_ebpfnet.explain.path.endings import (
    Arrived,
    Destination,
)
from kubectl_ebpfnet.explain.path.endpoints import PathEnds
from kubectl_ebpfnet.explain.path.presumed import Presumed
from kubectl_ebpfnet.explain.path.redirect import Redirect
from kubectl_ebpfnet.explain.path.walk_log import WalkLog
from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.cilium import Backend, Endpoint
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.kernel import Route
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import (
    Attempt,
    Decides,
    HopKind,
    HopPlace,
    Outcome,
    Packet,
    Target,
    TrackedFlow,
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
        netfilter: the packet as the node's netfilter sees it, with its marks, after the last hook
            that it passed; None before the first.
        next_hop: gateway of the route that was taken, None when the destination is on the link.
        route: the route by which it leaves this node, None where there is none.
        added: bytes that encapsulation has added to it.
        tunnel: what it was encapsulated in, `vxlan` or `geneve`, "" where it was not.
        encrypted: `WireGuard` or `IPsec` between the nodes, "" when it is not encrypted.
        sealed: the packet before it was encrypted, None where it is not, and where no outer packet
            is known.
        stray_mac: the MAC that somebody wrote into the pod for its next hop, where the pod's host
            side has another; "" otherwise.
        at_gateway: it came to its egress gateway by the tunnel: what is left is its new source.
        by_xdp: Cilium's XDP program has balanced it, and sends it out by itself.
        by_proxy: an L7 proxy of this node sends it: `upstream` to the destination, `answer` to its
            client; "" for others.
        from_host: cil_from_host hands it to its pod by the endpoint map, after the node's stack.
        unpoliced: it comes to its pod without a program of Cilium's that checks the policy there.
    """

    stage: Stage
    packet: Packet
    node: str
    device: str = ""
    identity: int = 0
    skips_netfilter: bool = False
    in_device: str = ""
    netfilter: Context | None = None
    next_hop: Address | None = None
    route: Route | None = None
    added: int = 0
    tunnel: str = ""
    encrypted: str = ""
    at_gateway: bool = False
    by_xdp: bool = False
    from_host: bool = False
    unpoliced: bool = False
    by_proxy: str = ""
    sealed: Packet | None = None
    stray_mac: str = ""

    def to(self, stage: Stage, **changes: object) -> PacketState:
        """Return the packet at the next place; `changes` are fields that differ there."""
        return replace(self, stage=stage, **changes)  # type: ignore[arg-type]

    def on_node(self, kind: HopKind) -> Where:
        """Return where a hop in the node's own stack is, as hop() and drop() take it."""
        return HopPlace.NODE, self.node, self.node, kind

    def in_cilium(self, kind: HopKind, device: str = "") -> Where:
        """Return where a hop in Cilium's datapath is, by default at the packet's device."""
        return HopPlace.CILIUM, device or self.device or self.node, self.node, kind


@dataclass(frozen=True, slots=True)
class Choice:
    """A load-balancer's choice among several backends.

    Attributes:
        hop: number of the hop that balances.
        service: the frontend, in words.
        taken: the backend that the walk follows.
        others: the backends that new connections may go to as well.
    """

    hop: int
    service: str
    taken: str
    others: tuple[Backend, ...]


@dataclass
class PathBuilder(WalkLog):
    """A walk in progress: the resolved ends, the hops so far, and how the walk ends.

    The answer to a packet that arrived has a walk of its own, through the same stages; `forth` is
    the packet's then.

    Attributes:
        cluster: the bundle's indexes.
        ends: the resolved request.
        flows: tracked flows that match, of every node that the packet came to.
        visited_nodes: nodes that the packet came to after the first.
        crossings: (from node, to node, packet) of each crossing of the wire, to detect a loop.
        presumed: what was not read, and is taken to be as it usually is; where no answer comes, it
            is the first thing to read.
        size: of the packet in bytes as its sender sends it, None for a small one.
        pieces: bytes of the fragments in which its tunnel's packet travels, None for a whole one.
        sends: the size of packets that the source sends, None where that was not read.
        limits: sizes that the places take which the packet passed, in their order.
        unread_listener: why it is not known whether a process listens where the packet arrives, ""
            where it is.
        choice: the first load-balancer's among several backends, None without one.
        stale: the packet goes to a backend that no EndpointSlice names: why, and what to do; None
            where it does not.
        left_alone: why a node's rules leave a Service's address as it is, and what to do; None
            where they do not, or it is not known.
        forced: the backend to follow where a load-balancer may choose it.
        last: the packet at the stage that ended the walk.
        links: (node, device) of each device by which it left or reached a node on the wire.
        connections: node → the packet as that node's netfilter has it in its connection.
        redirects: to L7 proxies, which have connections of their own for it, in its order.
        proxied: of an answer, the redirects of its packet whose proxies it has come through.
        wanted: (node, fact) of what was not read and decides, where a node was asked other things.
        one_sided: nodes whose connection tracking never sees an answer: of what the sender sends
            after the handshake.
        unread: nodes that the packet, or its answer, came to, and of which nothing was read.
        forth: of an answer, the walk of the packet; None for the packet's own walk.
        back: the walk of the answer, None where the packet did not arrive.
        far: of an answer, the end that sends it.
    """

    cluster: ClusterView
    ends: PathEnds
    flows: list[TrackedFlow] = field(default_factory=list)
    visited_nodes: list[str] = field(default_factory=list)
    crossings: set[tuple[str, str, Packet]] = field(default_factory=set)
    presumed: Presumed = field(default_factory=Presumed)
    size: int | None = None
    pieces: int | None = None
    sends: Sender | None = None
    limits: list[Limit] = field(default_factory=list)
    unread_listener: str = ""
    choice: Choice | None = None
    stale: Remedy | None = None
    left_alone: Remedy | None = None
    forced: Backend | None = None
    last: PacketState | None = None
    links: list[tuple[str, str]] = field(default_factory=list)
    connections: dict[str, Context] = field(default_factory=dict)
    redirects: list[Redirect] = field(default_factory=list)
    proxied: list[Redirect] = field(default_factory=list)
    wanted: list[tuple[str, Fact[Any]]] = field(default_factory=list)
    one_sided: frozenset[str] = frozenset()
    unread: list[str] = field(default_factory=list)
    forth: PathBuilder | None = None
    back: PathBuilder | None = None
    far: Target | None = None

    @property
    def sender(self) -> Target:
        """The end that sends what walks here: the source, or of an answer the far end."""
        return self.ends.source if self.far is None else self.far

    @property
    def from_node(self) -> bool:
        """Whether the sender is in its node's own network namespace."""
        return self.ends.host_network if self.far is None else self.far.kind == "node"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that the packet came to, in its order, the sender's first."""
        return tuple(filter(None, dict.fromkeys([self.ends.first_node, *self.visited_nodes])))

    @property
    def endpoint(self) -> Endpoint | None:
        """Cilium's endpoint of the sending pod."""
        if self.far is None:
            return self.ends.source_endpoint
        address = self.far.address
        if self.far.kind != "pod" or address is None:
            return None
        return self.cluster.node(self.far.node).endpoint_of(address)

    @property
    def from_outside(self) -> bool:
        """Whether a client outside of the cluster sent the packet; its answer goes back there."""
        return bool(self.ends.entry)

    @property
    def tracked(self) -> TrackedFlow | None:
        """The newest flow that matches the request on the source's node; None for an answer, whose
        way no entry shows, and behind an L7 proxy, which has a connection of its own."""
        of_proxy = self.forth is not None or any(each.hop for each in self.redirects)
        return None if of_proxy else self.ends.tracked

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt to send this flow, None when no table shows one."""
        return self.ends.attempt

    def answered_now(self) -> bool:
        """Tell whether the newest attempt is recent and was answered by the destination, and the
        tables are still those that it met."""
        attempt = self.attempt
        outdated = self.outdated or (self.forth is not None and self.forth.outdated)
        return (
            not outdated
            and attempt is not None
            and attempt.now
            and attempt.outcome is Outcome.ANSWERED
        )

    def destination_answers(self) -> bool:
        """Tell whether the newest attempt was answered now, and not by an L7 proxy alone."""
        return self.answered_now() and not any(each.unseen for each in self.redirects)

    @property
    def source_pod(self) -> str:
        """The sending pod's namespace and name."""
        return f"{self.sender.namespace}/{self.sender.name}"

    def in_source_pod(self, kind: HopKind) -> Where:
        """Return where a hop in the sending pod, or of a node's process, is, as hop() and drop()
        take it."""
        if self.sender.kind == "node":
            return HopPlace.NODE, self.sender.node, self.sender.node, kind
        return HopPlace.POD, self.source_pod, self.sender.node, kind

    def arrived(self, destination: Destination, text: str) -> None:
        """End the walk: the tables let the packet through.

        Args:
            destination: what it reached.
            text: where it is then, one line: `to pod default/web`, `as 192.0.2.1:40000`.
        """
        by = [f"through {r.title}{f', which lets {r.passes} pass' if r.passes else ''}"
              for r in self.redirects if r.hop]  # fmt: skip
        self.end = Arrived(destination, ", ".join((text, *by)))

    def if_unread(self, decides: Decides, what: str) -> Decides:
        """Return what a hop decides whose record nobody has. Of the way back it is presumed to be
        as usual: captures are made for the packet's way, and may lack it.

        Args:
            decides: what the hop decides about the packet.
            what: was not read, in words.
        """
        if self.forth is None:
            return decides
        self.presumed.add(what)
        return Decides.NOTHING
