"""Load-balancing by XDP, before tc and the node's stack see the packet: what is for a backend of
another node is sent back out by the driver, what is for one of this node goes on translated.

Source: Cilium bpf/bpf_xdp.c (check_v4_lb) and bpf/lib/nodeport.h, which it shares with tc; XDP_TX
and XDP_REDIRECT pass no qdisc, no netfilter and no program at tc.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.endings import Undecided
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup
from kubectl_ebpfnet.explain.path.services import find
from kubectl_ebpfnet.explain.path.stages import next_hop
from kubectl_ebpfnet.explain.path.stages.node_route import route_hop, route_of
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.programs.at_device import Presence, xdp_entry
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.net import has_ports
from kubectl_ebpfnet.model.path import Decides, HopPlace

PROGRAM = "cil_xdp_entry"


def balances(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool | None:
    """Tell whether Cilium's XDP program at a device balances a packet that comes in by it; None
    where that is not known.

    Args:
        walk: the walk.
        here: the packet, as it comes from the wire; what is in a tunnel is left to tc.
        node: the node.
        device: its device.
    """
    wrapped = here.packet.outer is not None or here.sealed is not None
    if walk.forth is not None or wrapped or node.config.acceleration == "disabled":
        return False
    presence = xdp_entry(node, device)
    if not node.config.acceleration:  # off by default; the program is there for a prefilter, too
        unread = node.config_record is None and presence is Presence.PRESENT
        return None if unread else False
    return None if presence is Presence.UNKNOWN else presence is Presence.PRESENT


def either_way(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> None:
    """Say that it is not known whether XDP sends a packet for a frontend on, past what drops it on
    this node. The walk goes by tc, where more can.

    Args:
        walk: the walk.
        here: the packet, as it comes from the wire.
        node: the node.
        device: its device.
    """
    flow = here.packet.flow
    if walk.otherwise is not None or not has_ports(flow.protocol):
        return
    port = flow.destination_port
    if find(walk.cluster, node.name, flow.destination, port, flow.protocol, Lookup.DEVICE) is None:
        return
    reason = f"whether {PROGRAM} at {device} of {node.name} balances it, before tc, is not known"
    walk.otherwise = Undecided(len(walk.hops), Decides.WAY, reason)


def ways_meet(walk: PathBuilder) -> None:
    """Forget that XDP may have sent the packet on: it has come to the node that both send it to."""
    if walk.otherwise is not None and PROGRAM in walk.otherwise.reason:
        walk.otherwise = None


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
