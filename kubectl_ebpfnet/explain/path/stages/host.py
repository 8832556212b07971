"""The node's own stack: netfilter, rules and routes, and delivery to the node itself.

The order is the kernel's (Linux net/ipv4/ip_input.c, ip_forward.c, ip_output.c): PREROUTING, the
routing decision, FORWARD or INPUT, POSTROUTING; for the node's own packets a routing decision,
OUTPUT, and another one where a rule changed the packet. nat POSTROUTING and traffic control are at
the egress device (stages/device.py).
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.decision import Decision
from kubectl_ebpfnet.explain.path.endings import Destination
from kubectl_ebpfnet.explain.path.stages import (
    destination_nat,
    hooks,
    listener,
    proxy,
    reply_nat,
    vrf,
)
from kubectl_ebpfnet.explain.path.stages.conntrack_table import table_is_full
from kubectl_ebpfnet.explain.path.stages.device_hooks import pass_device
from kubectl_ebpfnet.explain.path.stages.foreign_programs import show_at_cgroups
from kubectl_ebpfnet.explain.path.stages.hook_tables import tables_of
from kubectl_ebpfnet.explain.path.stages.node_route import route_hop, route_of
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.programs.at_cgroups import INGRESS
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, HopPlace, State


def forward(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Pass the packet through the node's stack."""
    node = walk.cluster.node(here.node)
    here = here.to(here.stage, netfilter=hooks.entering(walk, here, node))
    if here.in_device:
        came = pass_device(walk, here, node, here.in_device, "ingress")
        if came is None:
            return None
        if came.stray_mac and hooks.from_endpoint(node, came.in_device):
            _for_another_host(walk, came)
        return _forwarded(walk, came, node)
    return _sent(walk, here, node)


def _for_another_host(walk: PathBuilder, here: PacketState) -> None:
    """Say that the stack takes no packet whose MAC is not the device's (PACKET_OTHERHOST of
    eth_type_trans; Linux net/ipv4/ip_input.c, ip_rcv_core), unless a program makes it the host's.
    """
    walk.hop(
        *here.on_node(HopKind.NEIGHBOUR),
        f"comes in by {here.in_device} for {here.stray_mac}",
        State.UNKNOWN,
        here.packet,
        reason=f"the stack drops what is for another MAC than {here.in_device}'s, and the pod's "
        f"PERMANENT entry has {here.stray_mac}: whether a program of Cilium's makes it the host's "
        "is not known",
        decides=Decides.DROP,
        fix=Fix("Delete the PERMANENT entry in the pod: it asks for the MAC itself.", "ip neigh"),
    )


def _forwarded(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Pass on a packet that came in by a device."""
    translated = _before_routing(walk, here, node, "PREROUTING")
    if translated is None:
        return None
    here = translated
    decision = _route(walk, here, node)
    if decision is None or decision.route is None:
        return None
    route_hop(walk, here, node, decision, (HopPlace.NODE, here.node))
    if _is_local(here, node, decision):
        return here.to(Stage.NODE_LOCAL)
    return _out(walk, here, node, "FORWARD", ("mangle", "filter"), decision.route.device, decision)


def _before_routing(
    walk: PathBuilder, here: PacketState, node: NodeView, chain: str
) -> PacketState | None:
    """Pass raw, connection tracking, mangle and nat of PREROUTING or OUTPUT."""
    passed = hooks.passes(walk, here, node, chain, ("raw",), quiet=True)
    if passed is None or passed.netfilter is None:
        return None
    if passed.netfilter.state == "NEW" and table_is_full(walk, passed, node):
        return None
    passed = hooks.passes(walk, passed, node, chain, ("mangle",), quiet=True)
    passed = passed and destination_nat.translate(walk, passed, node, chain)
    if passed is None or chain == "OUTPUT":  # what is behind nat OUTPUT comes after the new route
        return passed
    return hooks.passes(walk, passed, node, chain, ("filter",), quiet=True)


def _sent(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Send a packet of the node itself. Its chains see the device of the first decision, also where
    a rule changes the way (Linux nf_hook_state keeps it)."""
    decision = _route(walk, here, node)
    if decision is None or decision.route is None:
        return None
    device = decision.route.device
    assert here.netfilter is not None
    first = replace(here.netfilter, out_device=device)
    translated = _before_routing(walk, here.to(here.stage, netfilter=first), node, "OUTPUT")
    if translated is None or translated.netfilter is None:
        return None
    here = translated
    if (translated.netfilter.flow, translated.netfilter.mark) != (first.flow, first.mark):
        decision = _route(walk, here, node)
        if decision is None or decision.route is None:
            return None
    route_hop(walk, here, node, decision, (HopPlace.NODE, here.node))
    if _is_local(here, node, decision):
        return _to_itself(walk, here, node)
    return _out(walk, here, node, "OUTPUT", ("filter",), device, decision)


def _to_itself(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Send a packet of the node to the node itself: it leaves by lo and comes in by it."""
    passed = hooks.passes(walk, here, node, "OUTPUT", ("filter",), quiet=True)
    if passed is None or passed.netfilter is None:
        return None
    coming = passed.to(
        Stage.NODE_LOCAL, netfilter=replace(passed.netfilter, in_device="lo", out_device="")
    )
    return hooks.passes(walk, coming, node, "PREROUTING", ("raw", "mangle", "filter"), quiet=True)


def _route(walk: PathBuilder, here: PacketState, node: NodeView) -> Decision | None:
    """Decide by the packet's mark; say which rule of netfilter set it, where that counts."""
    flow, context = here.packet.flow, here.netfilter
    assert context is not None
    looked_at = 0
    for rule in node.rules(flow.destination.version).facts:
        looked_at |= rule.mark_mask if rule.mark is not None else 0
    entered = hooks.entering(walk, here, node).mark
    changed = (context.mark.value ^ entered.value) | (context.mark.known ^ entered.known)
    if changed & looked_at and context.marked_by:
        _mark_hop(walk, here, context)
    mark = context.mark.value if not looked_at & ~context.mark.known else None
    return route_of(walk, here, node, flow.source, flow.destination, mark=mark)


def _mark_hop(walk: PathBuilder, here: PacketState, context: Context) -> None:
    """Show the rules that gave the packet a mark that the routing rules look at."""
    number, rule = context.mark.number, context.marked_by[-1]
    rules = tables_of(walk.cluster.node(here.node), here.packet.flow.source.version)
    walk.hop(
        *here.on_node(HopKind.RULE),
        f"netfilter {'may mark' if number is None else 'marks'} it by {rule.title}"
        + ("" if number is None else f": {number:#x}"),
        State.DERIVED,
        here.packet,
        rules.evidence(context.marked_by),
    )


def _is_local(here: PacketState, node: NodeView, decision: Decision) -> bool:
    return decision.local or here.packet.flow.destination in node.own_addresses


def _out(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    chain: str,
    tables: tuple[str, ...],
    device: str,
    decision: Decision,
) -> PacketState | None:
    """Pass FORWARD or OUTPUT, and mangle POSTROUTING, on the way to the egress device."""
    assert here.netfilter is not None
    assert decision.route is not None
    leaving = here.to(here.stage, netfilter=replace(here.netfilter, out_device=device))
    passed = hooks.passes(walk, leaving, node, chain, tables)
    if passed is None or passed.netfilter is None:
        return None
    device = decision.route.device
    leaving = passed.to(here.stage, netfilter=replace(passed.netfilter, out_device=device))
    passed = hooks.passes(walk, leaving, node, "POSTROUTING", ("mangle",), quiet=True)
    if passed is None:
        return None
    route = decision.route
    return passed.to(Stage.DEVICE, device=device, next_hop=route.gateway, route=route)


def deliver(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Deliver the packet to the node itself."""
    node = walk.cluster.node(here.node)
    if not here.skips_netfilter:
        if here.netfilter is None:
            here = here.to(here.stage, netfilter=hooks.entering(walk, here, node))
        passed = hooks.passes(walk, here, node, "INPUT", ("mangle", "filter"))
        if passed is None:
            return None
        here = reply_nat.undo(walk, passed, reply_nat.Undone.AS_IT_LEAVES)
    show_at_cgroups(walk, here, "", "", {INGRESS})
    walk.hop(
        *here.on_node(HopKind.DELIVERY),
        f"{'the answer is ' if walk.forth is not None else ''}delivered to node {here.node} itself",
        State.DERIVED,
        here.packet,
    )
    vrf.gives_to_socket(walk, here, node, here.in_device, here.packet.flow.protocol)
    redirect = proxy.redirect_at(walk, here.node, "egress")
    if redirect is not None and walk.forth is not None:
        return proxy.answer(walk, here, redirect)
    if walk.forth is not None or listener.on_node(walk, here, node):
        walk.arrived(Destination.NODE, f"to node {here.node}")
    return None
