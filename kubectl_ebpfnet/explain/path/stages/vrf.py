"""VRFs on a node: a route that leads into one, and packets that come in by a device of one.

What is sent to a VRF's device is looked up again, in the VRF's table (Linux drivers/net/vrf.c,
vrf_process_v4_outbound). What comes in by a device of a VRF is given to sockets that are bound to
it alone, unless net.ipv4.tcp_l3mdev_accept or udp_l3mdev_accept is 1
(Documentation/networking/vrf.rst).
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.decision import Decision, RoutingTables, describe_taken
from kubectl_ebpfnet.explain.kernel.devices import vrf_of
from kubectl_ebpfnet.explain.kernel.namespace_routing import vrf_table
from kubectl_ebpfnet.explain.kernel.rule_match import RoutedPacket
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import TCP, UDP
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, State

_ACCEPT = {TCP: "net.ipv4.tcp_l3mdev_accept", UDP: "net.ipv4.udp_l3mdev_accept"}


def looked_up_in(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    tables: RoutingTables,
    packet: RoutedPacket,
    decision: Decision,
) -> Decision:
    """Return the decision of the VRF's table where a route leads to the device of a VRF.

    Args:
        walk: takes the hop of the route into the VRF.
        here: the packet on the node.
        node: the node.
        tables: of the node.
        packet: as rules see it.
        decision: by the node's rules.
    """
    route = decision.route
    link = node.link(route.device) if route is not None and not decision.refused else None
    if route is None or link is None or link.kind != "vrf" or decision.local:
        return decision
    evidence = cite.of(node[q.ROUTES].record, route.span)
    evidence += cite.of(node[q.LINKS].record, link.span.head())
    walk.hop(
        *here.on_node(HopKind.ROUTE),
        f"{describe_taken(decision)}: {link.name} is a VRF, whose own table is looked up",
        State.DERIVED, here.packet, evidence,
    )  # fmt: skip
    inside = replace(packet, in_vrf=True, vrf_table=vrf_table(node, link), out_device=link.name)
    found = routing.decide(tables, inside)
    if found.route is not None and found.route.device == link.name and not found.local:
        reason = f"no rule of {node.name} looks up the table of VRF {link.name}"
        return Decision(None, found.rule, undecided=found.undecided or reason)
    return found


def gives_to_socket(
    walk: PathBuilder, here: PacketState, node: NodeView, device: str, protocol: int
) -> None:
    """Leave it open whether a socket of the node takes what comes in by a device of a VRF.

    Args:
        walk: takes the doubt.
        here: the packet, which is for the node itself.
        node: the node.
        device: by which it came in.
        protocol: of what the socket takes.
    """
    vrf = vrf_of(node, device)
    if vrf is None or protocol not in _ACCEPT or walk.answered_now():
        return
    setting = _ACCEPT[protocol]
    of = f"{device} is in VRF {vrf.name}" if vrf.name != device else f"{device} is a VRF"
    walk.hop(
        *here.on_node(HopKind.SOCKET),
        f"{of}: a socket takes it that is bound to the VRF, or any where {setting} is 1",
        State.UNKNOWN,
        here.packet,
        cite.of(node[q.LINKS].record, vrf.span.head()),
        reason=f"{of} of {node.name}, and whether a socket there takes it is not known: {setting} "
        "and the devices that sockets are bound to are not read",
        decides=Decides.DROP,
        fix=Fix(
            f"See on {node.name} whether sockets of other VRFs are let in.", f"sysctl {setting}"
        ),
    )
