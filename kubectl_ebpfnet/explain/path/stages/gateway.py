"""What becomes at its egress gateway of a packet that leaves the cluster.

It comes out of the tunnel, leaves by a device of the gateway, and cil_to_netdev gives it the egress
address there. What decides is explain/path/egress_gateway.py, with the sources.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.flows.between import nat_entry_of
from kubectl_ebpfnet.explain.flows.join import Join
from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, packet_from_device
from kubectl_ebpfnet.explain.path import egress_gateway as egress
from kubectl_ebpfnet.explain.path import snat_ports
from kubectl_ebpfnet.explain.path.endings import Undecided
from kubectl_ebpfnet.explain.path.stages import egress_names as names
from kubectl_ebpfnet.explain.path.stages.network_program import to_netdev_at
from kubectl_ebpfnet.explain.path.stages.node_route import route_hop, route_of
from kubectl_ebpfnet.explain.path.stages.only_device import by_only_device
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import EgressGatewayPolicy
from kubectl_ebpfnet.model.kernel import Route
from kubectl_ebpfnet.model.net import endpoint_text
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, HopPlace, Severity, State

_BY_FIB = " (fib_lookup for the egress address: past the node's netfilter)"


def out_of_tunnel(
    walk: PathBuilder, here: PacketState, node: NodeView, device: str
) -> PacketState | None:
    """Send what came out of the tunnel on as the policy map of this node says.

    Args:
        walk: takes hops and findings.
        here: the packet, decapsulated; for no endpoint of this node.
        node: that it came to.
        device: the tunnel device.

    Returns:
        The packet's next place, or `here` where no row is for it; None when it is dropped.
    """
    flow = here.packet.flow
    if walk.forth is not None:
        return here
    row = egress.row_of(walk, node, flow)
    where = here.in_cilium(HopKind.ROUTE, device)
    if row is None or row.gateway is None:
        reason = egress.unread(walk, node, flow)
        if not reason:
            _not_its(walk, here, node, device)
            return here
        walk.hop(
            *where, f"the egress gateway's policy on {here.node}", State.UNKNOWN, here.packet,
            cite.whole(node[q.EGRESS_GATEWAY].record), reason=reason,
        )  # fmt: skip
        walk.unknown(reason, read_map(node))
        return None
    if row.egress_address is None:
        _no_address(walk, here, node, row, device)
        return None
    walk.hop(
        *where,
        f"{here.node} is the egress gateway for {row.source} → {row.destination}, as "
        f"{row.egress_address}",
        State.DERIVED,
        here.packet,
        egress.evidence(node, row),
        short=f"the egress gateway, as {row.egress_address}",
    )
    names.compare_address(walk, node, row)
    coming = here.to(Stage.HOST, device="", in_device=device, at_gateway=True)
    if row.device:
        return by_number(walk, coming, node, row)
    past = egress.past_the_stack(node, flow)
    if past:
        return _by_fib(walk, coming, node, row)
    if past is None:
        _either_way(walk, coming, node, row)
    return coming.to(Stage.HOST, skips_netfilter=False)


def _by_fib(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy
) -> PacketState | None:
    flow = here.packet.flow
    assert row.egress_address is not None
    decision = route_of(
        walk, here, node, row.egress_address, flow.destination, HopPlace.CILIUM
    )  # fmt: skip
    if decision is None or decision.route is None:
        return None
    route_hop(walk, here, node, decision, (HopPlace.CILIUM, here.node), _BY_FIB)
    return out_by(here, decision.route)


def out_by(here: PacketState, route: Route) -> PacketState:
    """Send the packet by a route's device, past the stack."""
    return here.to(
        Stage.DEVICE, device=route.device, next_hop=route.gateway, route=route,
        skips_netfilter=True, at_gateway=True,
    )  # fmt: skip


def by_number(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy
) -> PacketState | None:
    """Send the packet by the device whose number the row has (bpf_redirect_neigh).

    Args:
        walk: takes hops.
        here: the packet at its gateway.
        node: the gateway.
        row: of the policy map.
    """
    name = node.link_name(row.device)
    sent = by_only_device(walk, here.to(here.stage, in_device=""), node, name)
    return sent.to(sent.stage, at_gateway=True) if sent is not None else None


def _either_way(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy
) -> None:
    """Say that it is not known whether the gateway's stack routes the packet."""
    flow = here.packet.flow
    tables = node_tables(node, flow.destination.version)
    reason = (
        "since Cilium 1.15 what an egress gateway takes out of the tunnel passes its stack by, and "
        "nothing that was read tells whether it does so here"
    )
    walk.otherwise = Undecided(len(walk.hops), Decides.WAY, reason)
    if isinstance(tables, str) or row.egress_address is None:
        return
    coming = packet_from_device(node, flow, here.in_device)
    ways = [
        routing.decide(tables, replace(coming, source=source)).ends_at
        for source in (flow.source, row.egress_address)
    ]
    if ways[0] != ways[1]:
        walk.hop(
            *here.in_cilium(HopKind.ROUTE, here.in_device),
            f"by the route of {flow.source}, or of the egress address {row.egress_address}",
            State.UNKNOWN, here.packet, decides=Decides.WAY,
            reason=f"{reason}; the two sources are routed otherwise",
        )  # fmt: skip


def _not_its(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> None:
    """Report a gateway that does not know that it is one for the packet."""
    sender = walk.cluster.node(walk.ends.source.node)
    flow = here.packet.flow
    row = egress.row_of(walk, sender, flow)
    if row is None or not egress.is_at(walk, node, row) or not node[q.EGRESS_GATEWAY].known:
        return
    own = cite.whole(node[q.EGRESS_GATEWAY].record)
    walk.hop(
        *here.in_cilium(HopKind.ROUTE, device),
        f"{here.node} has no egress gateway policy for {row.source} → {row.destination}: it keeps "
        "its address",
        State.DERIVED, here.packet, own,
    )  # fmt: skip
    walk.doubt(
        f"the gateway {here.node} does not know the policy by which {sender.name} sends it the "
        f"packet: {flow.source} leaves the cluster as it is"
    )
    walk.finding(
        Severity.ERROR,
        f"{here.node} is the egress gateway for {row.source} → {row.destination} by the map of "
        f"{sender.name}, and its own map has no such row",
        f"The agent of {here.node} did not take the policy in: its log tells why. It gives the "
        "packet no egress address.",
        egress.evidence(sender, row) + own,
    )


def _no_address(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy, device: str
) -> None:
    found = names.behind(walk, row)
    named = walk.cluster.node_of(row.gateway) if row.gateway is not None else ""
    other, detail, edited = "", names.no_address(node, found), found.object
    if not egress.is_at(walk, node, row):
        named = named or str(row.gateway or "none")
        other = f"; by its map the gateway is {named}"
        detail, edited = _names_another(walk, here.node, named), ""
    walk.drop(
        *here.in_cilium(HopKind.NAT, device),
        f"{found.hop} has no egress address on {here.node}{other}: No Egress IP configured",
        State.DERIVED,
        here.packet,
        egress.evidence(node, row) + found.evidence,
        title=f"egress gateway {here.node} has no egress address for {row.source}",
        detail=detail,
        object=edited,
    )


def _names_another(walk: PathBuilder, gateway: str, named: str) -> str:
    """Say that two nodes' maps name different gateways: the policy's egressIP is not to blame."""
    sender = walk.ends.source.node
    return (
        f"The map of {sender} sends it to {gateway}, and that of {gateway} names {named}: the "
        "agent of one of them is behind the policy or the nodes' labels; its log tells why."
    )


def translate(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Give the packet its egress address in cil_to_netdev, where this node is its gateway.

    Args:
        walk: takes hops and findings.
        here: the packet at the gateway's device to the network.
        node: the gateway.

    Returns:
        The packet with its new source, or `here` where no gateway gives it one; None when it is
        dropped.
    """
    flow = here.packet.flow
    row = egress.row_of(walk, node, flow)
    if row is None or not (here.at_gateway or egress.is_at(walk, node, row)):
        return here
    if to_netdev_at(node, here.device).attached is False:
        return here
    if row.egress_address is None:
        _no_address(walk, here, node, row, here.device)
        return None
    where = (HopPlace.CILIUM, here.device, here.node, HopKind.NAT)
    evidence = egress.evidence(node, row)
    seen = nat_entry_of(node, flow)
    if seen is not None and seen.fact.address == row.egress_address:
        new = seen.fact.translated()
        if not any(t.node == here.node for t in walk.flows):
            walk.flows.append(Join(node).flow(seen.fact.flow, nat=seen))
        walk.hop(
            *where,
            f"egress gateway rewrites the source to {endpoint_text(new.source, new.source_port)}, "
            "as its NAT map shows",
            State.OBSERVED,
            replace(here.packet, flow=new),
            seen.evidence + evidence,
            short="by the egress gateway",
        )
        return here.to(here.stage, packet=replace(here.packet, flow=new))
    if not snat_ports.by_cilium(walk, here, node, row.egress_address, where):
        return None
    packet = replace(here.packet, flow=flow.with_source(row.egress_address, None))
    walk.hop(
        *where,
        f"egress gateway masquerades the source to {row.egress_address}",
        State.DERIVED,
        packet,
        evidence,
        short="by the egress gateway",
    )
    _check_address(walk, here, node, row)
    return here.to(here.stage, packet=packet)


def _check_address(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy
) -> None:
    address = row.egress_address
    if not node[q.ADDRESSES].known or address is None or address in node.own_addresses:
        return
    if not walk.cluster.owner_of(address):  # else the answer's walk tells where it comes to
        walk.doubt(
            f"no device of gateway {here.node} has the egress address {address}: an answer comes "
            "back only if the network routes that to it",
            fix=Fix(f"Give {here.node} the address, or let the policy name one that it has."),
        )
    walk.finding(
        Severity.ERROR,
        f"egress address {address} is not on gateway {here.node}",
        "Nobody answers ARP/ND for it there, so replies do not come back, unless the network "
        "routes it to this node.",
        egress.evidence(node, row),
    )


def read_map(node: NodeView) -> Fix:
    """Return how to read a node's policy map."""
    return Fix("Read the map.", node.in_agent("bpf egress list"))
