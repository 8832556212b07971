"""Load-balancing by XDP, before tc and the node's stack see the packet: what is for a backend of
another node is sent back out by the driver, what is for one of this node goes on translated.

Source: Cilium bpf/bpf_xdp.c (check_v4_lb) and bpf/lib/nodeport.h, which it shares with tc; XDP_TX
and XDP_REDIRECT pass no qdisc, no netfilter and no program at tc.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.stages import next_hop
from kubectl_ebpfnet.explain.path.stages.node_route import route_hop, route_of
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.programs.at_device import Presence, xdp_entry
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.path import HopPlace

PROGRAM = "cil_xdp_entry"


def balances(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Tell whether Cilium's XDP program at a device balances a packet that comes in by it.

    Args:
        walk: the walk.
        here: the packet, as it comes from the wire; what is in a tunnel is left to tc.
        node: the node.
        device: its device.
    """
    wrapped = here.packet.outer is not None or here.sealed is not None
    if walk.forth is not None or wrapped or node.config.acceleration in ("", "disabled"):
        return False
    return xdp_entry(node, device) is Presence.PRESENT


def send_out(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Send the packet, or its outer one, out by the driver; None where the walk ends.

    Args:
        walk: takes hops and findings.
        here: the packet, translated and encapsulated.
        node: the node that balanced it.
    """
    flow = here.packet.outer or here.packet.flow
    decision = route_of(walk, here, node, flow.source, flow.destination, HopPlace.CILIUM)
    if decision is None or decision.route is None:
        return None
    note = " (fib_lookup by XDP: past tc and the node's stack)"
    before = "outer packet: " if here.packet.outer is not None else ""
    route_hop(walk, here, node, decision, (HopPlace.CILIUM, here.node), note, before)
    route = decision.route
    gone = here.to(
        Stage.WIRE, device=route.device, next_hop=route.gateway, route=route, by_xdp=False
    )
    return gone if next_hop.resolve(walk, gone, node) else None
