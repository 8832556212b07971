"""The node's routing decision about a packet, as the kernel makes it for its stack and for Cilium.

In the node's stack, the route is looked up with the device that the packet came in by, then the
sysctls of that device decide whether it is forwarded, and whether its source may come by there. In
Cilium's BPF host routing, `bpf_fib_lookup` asks in the same way if the node has several devices,
and refuses where forwarding is off; with one device another question is asked (only_device.py).

Sources: Cilium bpf/lib/fib.h (fib_redirect); Linux net/core/filter.c, net/ipv4/route.c.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import forwarding, routing
from kubectl_ebpfnet.explain.kernel.decision import (
    Decision,
    RoutingTables,
    by_own_rule,
    describe,
    describe_taken,
)
from kubectl_ebpfnet.explain.kernel.forwarding import Barrier
from kubectl_ebpfnet.explain.kernel.namespace_routing import (
    node_tables,
    own_packet,
    packet_from_device,
)
from kubectl_ebpfnet.explain.kernel.rule_match import RoutedPacket
from kubectl_ebpfnet.explain.path.stages import vrf
from kubectl_ebpfnet.explain.path.stages.no_route import (
    drop_refused,
    end_not_known,
    end_not_read,
    fix_of,
    sysctl_hop,
)
from kubectl_ebpfnet.explain.path.stages.route_evidence import (
    kernel_answer,
    kernel_evidence,
    route_evidence,
)
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import (
    Decides,
    Evidence,
    HopKind,
    HopPlace,
    Severity,
    State,
)


def route_of(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    source: Address,
    destination: Address,
    place: HopPlace = HopPlace.NODE,
    *,
    mark: int | None = 0,
) -> Decision | None:
    """Look the packet up in the node's routes, and add a hop where there is no usable route.

    Args:
        walk: takes hops and findings.
        here: the packet on the node.
        node: the node.
        source, destination: of the routed packet: the outer packet in a tunnel.
        place: who looks the route up: the node's stack, or Cilium by fib_lookup.
        mark: skb mark of the packet, None when not known.

    Returns:
        The decision, which may be undecided; None when the packet is dropped or the walk ends.
    """
    tables = node_tables(node, destination.version)
    if isinstance(tables, str):
        end_not_read(walk, here, node, place, destination, tables)
        return None
    packet = _packet(here, node, source, destination, mark)
    packet = replace(packet, to_client=walk.forth is not None)
    if place is HopPlace.CILIUM:
        packet = replace(packet, mark=0)  # bpf_fib_lookup asks without the packet's mark
    decision = routing.decide(tables, packet)
    decision = without_rules(walk, here, node, tables, decision, destination)
    answer = kernel_answer(here, node, source, destination)
    by_tables, proof = decision, kernel_evidence(here, node, source, destination)
    if answer is not None:
        decision = routing.with_kernel_answer(decision, answer, tables, packet)
        decision = forwarding.told_apart(decision, answer)
        _tell_difference(walk, here, decision, destination, proof)
    decision = vrf.looked_up_in(walk, here, node, tables, packet, decision)
    # The kernel's look-up fails at these sysctls as well; they tell why.
    barrier = _barrier(here, node, tables, packet, by_tables, place)
    if answer is None and not node[q.SYSCTLS].known and not _forwarded(walk, here):
        unread = forwarding.sysctls_of(destination.version, here.in_device)
        walk.presumed.add(f"{unread} on {here.node} (`sysctl`)")
    if barrier is not None and sysctl_hop(walk, here, node, barrier, proof):
        return None
    if decision.undecided and (decision.route is None or decision.refused):
        end_not_known(walk, here, node, place, destination, decision.undecided)
        return None
    if decision.route is not None and not decision.refused:
        return decision
    drop_refused(walk, here, node, decision, destination, proof, answer)
    return None


def route_hop(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    decision: Decision,
    place: tuple[HopPlace, str],
    note: str = "",
    before: str = "",
    proof: tuple[Evidence, ...] = (),
    *,
    by_bpf: bool = False,
) -> None:
    """Add the hop of a route that was found.

    Args:
        walk: takes the hop.
        here: the packet on the node.
        node: the node.
        decision: of `route_of`.
        place: who looks the route up, and where.
        note, before: words after and before the route.
        proof: further evidence.
        by_bpf: BPF looked it up, past the node's netfilter.
    """
    assert decision.route is not None
    flow = here.packet.outer or here.packet.flow
    rule = decision.rule if by_own_rule(decision) else None
    version = flow.destination.version
    reason = decision.undecided or _apart(walk, decision)
    walk.hop(
        *place,
        here.node,
        HopKind.ROUTE,
        before + describe_taken(decision) + note,
        State.UNKNOWN if reason else State.DERIVED,
        here.packet,
        route_evidence(node, decision)
        + kernel_evidence(here, node, flow.source, flow.destination)
        + (cite.of(node.rules(version).record, rule.span) if rule is not None else ())
        + proof,
        reason=reason,
        decides=Decides.WAY,
        fix=fix_of(here, reason, flow.destination) if reason else None,
        short=f"{before}{describe_taken(decision)} (BPF host routing)" if by_bpf else "",
    )


def _apart(walk: PathBuilder, decision: Decision) -> str:
    """Return why it matters which of several next hops is taken, "" where it does not: they lead to
    different nodes, or some to a node and some to a router."""
    nodes = {
        walk.cluster.node_of(hop.gateway) if hop.gateway is not None else ""
        for hop in decision.next_hops
    }
    if len(nodes) < 2:
        return ""
    named = ", ".join(sorted(name or "a router" for name in nodes))
    return f"which next hop the kernel takes for this flow is not known: they lead to {named}"


def _forwarded(walk: PathBuilder, here: PacketState) -> bool:
    """Tell whether the node forwards the newest attempt, or sends the packet itself: nf_conntrack
    has a flow only once its first packet has left the node's stack."""
    attempt = walk.attempt
    if not here.in_device or attempt is None:
        return not here.in_device
    return attempt.flow.node == here.node and attempt.flow.netfilter is not None


def without_rules(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    tables: RoutingTables,
    decision: Decision,
    destination: Address,
) -> Decision:
    """Return a decision by the default rules, where the node's were not read: undecided, but for
    the node's own addresses and pods, to which it would be a wonder if another rule led elsewhere.

    Args:
        walk: takes what is presumed.
        here: the packet on the node.
        node: the node.
        tables: the node's routing.
        decision: by the tables.
        destination: of the packet.
    """
    if not tables.not_read or decision.undecided:
        return decision
    usual = decision.local or node.local_endpoint(destination) is not None
    if usual or walk.forth is not None:
        walk.presumed.add(f"`ip rule` on {here.node}")
        return decision
    return replace(decision, undecided=f"the node's rules were not read: {tables.not_read}")


def _packet(
    here: PacketState, node: NodeView, source: Address, destination: Address, mark: int | None
) -> RoutedPacket:
    flow = replace(here.packet.outer or here.packet.flow, source=source, destination=destination)
    if here.in_device:
        return replace(packet_from_device(node, flow, here.in_device), mark=mark)
    # An outer packet is the kernel's own; a packet of a pod in the host's network is a process's.
    return own_packet(flow, user=0 if here.packet.outer is not None else None, mark=mark)


def takes_outer(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Tell whether a tunnel's outer packet passes the check of its source (rp_filter), and drop it
    where it does not.

    Args:
        walk: takes the drop.
        here: the packet in the tunnel.
        node: the node that receives it.
        device: by which it comes in.
    """
    outer = here.packet.outer
    assert outer is not None
    tables = node_tables(node, outer.destination.version)
    if isinstance(tables, str):
        return True  # a hop of the sender's, or of the inner packet, says why
    if not node[q.SYSCTLS].known and outer.destination.version == 4:
        walk.presumed.add(f"rp_filter of {device} on {here.node} (`sysctl`)")
    coming = here.to(here.stage, in_device=device)
    packet = _packet(coming, node, outer.source, outer.destination, 0)
    decision = routing.decide(tables, packet)
    barrier = _barrier(coming, node, tables, packet, decision, HopPlace.NODE)
    return barrier is None or not sysctl_hop(walk, coming, node, barrier, ())


def _barrier(
    here: PacketState,
    node: NodeView,
    tables: RoutingTables,
    packet: RoutedPacket,
    decision: Decision,
    place: HopPlace,
) -> Barrier | None:
    """Return the sysctl that stops a packet that came in by a device; None for none.

    Args:
        here: the packet on the node.
        node: the node.
        tables: the node's routing.
        packet: as the routing sees it.
        decision: its route by the tables.
        place: the node's stack, or Cilium by fib_lookup.
    """
    if not here.in_device or decision.undecided or decision.refused:
        return None
    found = None
    if not decision.local:
        found = forwarding.forwarding_off(node, packet.destination.version, here.in_device)
    if found is None and place is HopPlace.NODE:
        return forwarding.source_refused(node, tables, packet, decision)
    return found


def _tell_difference(
    walk: PathBuilder,
    here: PacketState,
    decision: Decision,
    destination: Address,
    proof: tuple[Evidence, ...],
) -> None:
    """Report a route of the kernel's own look-up that the tables do not give."""
    if not decision.differs or decision.refused:
        return
    walk.finding(
        Severity.INFO,
        f"node {here.node} sends {destination} by "
        f"{describe(decision.route) if decision.route else decision.refused}, "
        f"where its tables read as {decision.differs}",
        "The kernel's own look-up counts. A VRF, or one of several next hops may be the reason.",
        proof,
    )
