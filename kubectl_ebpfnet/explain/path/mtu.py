"""The largest packet that fits on the way, there and back, and who sends larger ones.

The way back is followed where the packet came to a pod or a node of the cluster over at most one
wire: by the same devices, the far end's own routes, and the same encapsulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kubectl_ebpfnet.explain.kernel import mtu
from kubectl_ebpfnet.explain.kernel.mtu import Limit, Sender
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, own_packet, pod_tables
from kubectl_ebpfnet.explain.kernel.routing import RoutingTables, decide
from kubectl_ebpfnet.explain.path.endings import Arrived, Destination
from kubectl_ebpfnet.explain.path.state import PathBuilder, Wire
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.kernel import Route
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.path import Finding, Larger, PathMtu, Severity


@dataclass(frozen=True, slots=True)
class _Way:
    """A direction: who sends, who receives, and what the places on the way take.

    Attributes:
        sender: None where it was not read.
        receiver: of a TCP connection, whose announced size bounds the sender's too.
        limits: in the packet's order.
        missing: what was not read, besides.
        back: it is the way back.
    """

    sender: Sender | None
    receiver: Sender | None
    limits: Sequence[Limit]
    missing: tuple[str, ...]
    back: bool

    @property
    def tightest(self) -> Limit | None:
        """The place that takes the smallest packets; the first of several."""
        known = [limit for limit in self.limits if limit.fits is not None]
        return min(known, key=lambda limit: limit.fits or 0, default=None)

    def summary(self, back: PathMtu | None = None) -> PathMtu | None:
        """Return it as the answer has it; None where nothing of it was read."""
        if not self.limits and self.sender is None:
            return None
        unread = (f"{x.device} of {x.node}" for x in self.limits if x.mtu is None)
        tight = self.tightest
        pod = self.sender.mtu if self.sender is not None else None
        missing = tuple(dict.fromkeys((*self.missing, *unread)))
        if tight is None:
            return PathMtu(None, "", "", pod, None, missing, back)
        return PathMtu(tight.fits, tight.by, tight.node, pod, tight.larger, missing, back)


def of_path(walk: PathBuilder) -> PathMtu | None:
    """Return the largest packet that fits on the part of the way that a walk went."""
    there, back = _ways(walk)
    return there.summary(back.summary() if back is not None else None)


def findings(walk: PathBuilder) -> Iterator[Finding]:
    """Yield a finding for each direction in which larger packets are sent than fit.

    Args:
        walk: has arrived.
    """
    for way in _ways(walk):
        if way is not None and way.sender is not None and way.tightest is not None:
            sends = way.sender.mtu
            if walk.ends.flow.protocol == TCP and way.receiver is not None:
                sends = min(sends, way.receiver.announced)
            if sends > (way.tightest.fits or 0) + way.tightest.beyond:
                yield _too_large(walk, way, way.sender, way.tightest, sends)


_BECOMES = {
    Larger.TOLD: "are dropped, and the sender is told",
    Larger.FRAGMENTED: "travel in fragments",
    Larger.LOST: "are lost in silence",
    Larger.UNKNOWN: "may be lost in silence",
}
_WHY = {
    Larger.TOLD: "The node's stack drops one that has DF set, as TCP's have, and says by ICMP "
    "which size passes; the sender then sends smaller ones, if that message comes to it.",
    Larger.FRAGMENTED: "The node fragments the tunnel's packet, which costs speed, and loses it "
    "where a network on the way drops fragments.",
    Larger.LOST: "Nobody tells the sender: a connection opens, and stalls once it carries more.",
    Larger.UNKNOWN: "No stack looks at its size there: the driver, or the network behind it, sends "
    "it or drops it, and tells nobody: a connection opens, and may stall once it carries more.",
}


def _too_large(walk: PathBuilder, way: _Way, sender: Sender, limit: Limit, sends: int) -> Finding:
    by_source = not way.back and limit.node == walk.ends.source.node
    told = limit.larger is Larger.TOLD and by_source
    what = f"{'answers' if way.back else 'packets'} of more than {limit.fits} bytes"
    clamped = _clamped(walk) if walk.ends.flow.protocol == TCP else ""
    if limit.by == limit.device:
        wanted = max(sends + limit.added, limit.mtu or 0)
        mend = f"`ip link set {limit.device} mtu {wanted}` on node {limit.node}"
    else:
        mend = f"`ip route show table all | grep 'mtu {limit.mtu}'` on node {limit.node}"
    return Finding(
        Severity.INFO if told or clamped else Severity.WARNING,
        f"{what} {_BECOMES[limit.larger]}: {limit.text}",
        f"{sender.name} sends up to {sends} bytes (MTU {sender.mtu} of {sender.by}). "
        f"{_WHY[limit.larger]}{clamped} Mend it by {mend}, or by smaller packets of the pods "
        "(Cilium's `mtu`, and new pods).",
        limit.evidence + sender.evidence,
    )


def _clamped(walk: PathBuilder) -> str:
    """Return what is to be said of rules of netfilter that set the segment size of TCP."""
    version = walk.ends.flow.destination.version
    for name in dict.fromkeys([walk.ends.source.node, *walk.visited_nodes]):
        rules = walk.cluster.node(name).ruleset(version).facts
        if any(rule.jump == "TCPMSS" for found in rules for rule in found.rules):
            return f" A rule TCPMSS of {name} may make TCP's segments small enough."
    return ""


def _ways(walk: PathBuilder) -> tuple[_Way, _Way | None]:
    """Return the way there and the way back; None where that is not followed."""
    far, missing = _far_sender(walk)
    unread = () if walk.sends is not None else ("what the source sends",)
    there = _Way(walk.sends, far, walk.limits, unread, back=False)
    end = walk.end
    if not isinstance(end, Arrived) or end.destination is Destination.OUTSIDE:
        return there, None
    if len(walk.wires) > 1 or not walk.limits:
        return there, None
    limits = [*_over_the_wire(walk, walk.wires[0])] if walk.wires else []
    if end.destination is Destination.POD:  # out of the far pod
        last = walk.limits[-1]
        if not any(last.device == wire.device for wire in walk.wires):
            limits.insert(0, mtu.coming_in(walk.cluster.node(last.node), last.device, 0))
    if not walk.ends.host_network:  # into the source's pod
        first = walk.limits[0]
        node = walk.cluster.node(first.node)
        limits.append(mtu.leaving(node, first.device, None, 0, Larger.UNKNOWN))
    return there, _Way(far, walk.sends, limits, missing, back=True)


def _over_the_wire(walk: PathBuilder, wire: Wire) -> Iterator[Limit]:
    """Yield what an answer passes between the nodes: the far one's device, the near one's."""
    left = wire.left
    far = walk.cluster.node(walk.visited_nodes[0])
    flow = (left.packet.outer or left.packet.flow).reversed()
    by_bpf = far.host_routing.bpf is not False
    larger = mtu.becomes(left.packet, left.encrypted, by_bpf=by_bpf)
    route = _route(node_tables(far, flow.destination.version), flow)
    own = not left.encrypted and larger is not Larger.UNKNOWN
    if not own or (route is not None and route.device != wire.device):
        route = None
    yield mtu.leaving(far, wire.device, route, left.added, larger)
    yield mtu.coming_in(walk.cluster.node(left.node), left.device, left.added)


def _far_sender(walk: PathBuilder) -> tuple[Sender | None, tuple[str, ...]]:
    """Return the size of what the far end sends, and what was not read of it."""
    end = walk.end
    if not isinstance(end, Arrived) or end.destination is Destination.OUTSIDE:
        return None, ()
    flow = walk.hops[-1].packet.flow.reversed()
    node = walk.cluster.node(walk.hops[-1].node)
    if end.destination is Destination.NODE:
        return _told(_far_node(node, flow), f"node {node.name}")
    pod = walk.cluster.pod_with(flow.source)
    if pod is None:
        return None, (f"what {flow.source} sends",)
    netns = walk.cluster.pod_netns(pod.namespace, pod.name)
    route = _route(pod_tables(netns, flow.destination.version), flow)
    name = f"{pod.namespace}/{pod.name}"
    sender = mtu.sender_of_pod(name, netns, route) if route is not None else None
    return _told(sender, f"pod {name}")


def _told(sender: Sender | None, name: str) -> tuple[Sender | None, tuple[str, ...]]:
    return sender, () if sender is not None else (f"what {name} sends",)


def _far_node(node: NodeView, flow: Flow) -> Sender | None:
    route = _route(node_tables(node, flow.destination.version), flow)
    return mtu.sender_of_node(node, route) if route is not None else None


def _route(tables: RoutingTables | str, flow: Flow) -> Route | None:
    """Return the route that a namespace's own packet certainly takes."""
    if isinstance(tables, str):
        return None
    decision = decide(tables, own_packet(flow))
    return None if decision.undecided or decision.refused else decision.route
