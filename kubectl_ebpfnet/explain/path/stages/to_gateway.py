"""The sender's side of an egress gateway: the packet goes into the tunnel to the gateway, with
native routing too, or out by the sender's own node where that is the gateway.

What decides is explain/path/egress_gateway.py, with the sources.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, packet_from_device
from kubectl_ebpfnet.explain.path import egress_gateway as egress
from kubectl_ebpfnet.explain.path.endings import Undecided
from kubectl_ebpfnet.explain.path.stages import egress_names as names
from kubectl_ebpfnet.explain.path.stages import gateway
from kubectl_ebpfnet.explain.path.stages.network_program import to_netdev_at
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite, lists
from kubectl_ebpfnet.explain.views.names import address_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import EgressGatewayPolicy
from kubectl_ebpfnet.model.path import Decides, HopKind, Severity, State


def at_pod(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Look the policy up as the packet leaves its pod, where that is done there.

    Args:
        walk: takes hops and findings.
        here: the packet at its pod's device.
        node: the sender's node.

    Returns:
        The packet's next place, or `here` where it goes on; None when it is dropped.
    """
    flow = here.packet.flow
    row = egress.row_of(walk, node, flow)
    if row is None:
        reason = egress.unread(walk, node, flow)
        if reason:
            walk.hop(
                *here.in_cilium(HopKind.ROUTE), "by an egress gateway, or by this node",
                State.UNKNOWN, here.packet, cite.whole(node[q.EGRESS_GATEWAY].record),
                reason=reason, decides=Decides.WAY, fix=gateway.read_map(node),
            )  # fmt: skip
        elif (excluded := egress.excluded_by(node, flow)) is None:
            if not node.left_out(q.EGRESS_GATEWAY, flow.source):
                names.without_row(walk, node, flow.destination)
        elif not egress.in_cluster(walk, node, flow.destination):
            names.compare(walk, node, excluded, names.behind(walk, excluded))
        return here
    there, reason = egress.looked_up_at_the_pod(node)
    if there is None and not egress.is_at(walk, node, row):
        walk.otherwise = Undecided(len(walk.hops), Decides.WAY, reason)
    if not there or egress.is_at(walk, node, row):
        return here
    return _to_gateway(walk, here, node, row)


def at_device(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Look the policy up as the packet leaves its node by a device of the network.

    Args:
        walk: takes hops and findings.
        here: the packet at the device.
        node: the node.

    Returns:
        The packet's next place, or `here` where it leaves by this device; None when it is dropped.
    """
    row = egress.row_of(walk, node, here.packet.flow)
    if row is None or here.at_gateway:
        return here
    program = to_netdev_at(node, here.device)
    if program.attached is False:
        return here  # what follows says what it means that cil_to_netdev is not there
    if program.attached is None:
        walk.hop(
            *here.in_cilium(HopKind.ROUTE),
            "an egress gateway policy leads it elsewhere where cil_to_netdev is at this device",
            State.UNKNOWN, here.packet, program.evidence, decides=Decides.WAY,
            reason=f"whether cil_to_netdev is at {here.device} is not known: {program.missing}",
        )  # fmt: skip
    walk.otherwise = None
    if not egress.is_at(walk, node, row):
        return _to_gateway(walk, here, node, row)
    if not _is_from_here(walk, here, node):
        return here
    found = names.behind(walk, row)
    names.compare(walk, node, row, found)
    walk.hop(
        *here.in_cilium(HopKind.ROUTE),
        f"{found.hop}: {here.node} itself is the gateway for {row.destination}",
        State.DERIVED, here.packet, egress.evidence(node, row) + found.evidence,
    )  # fmt: skip
    return _by_egress_device(walk, here, node, row)


def _to_gateway(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy
) -> PacketState | None:
    found = names.behind(walk, row)
    names.compare(walk, node, row, found)
    evidence = egress.evidence(node, row) + found.evidence
    where = here.in_cilium(HopKind.ROUTE)
    if row.gateway is None:
        title, detail, fix = names.no_gateway(walk, row, found)
        walk.drop(
            *where,
            f"{found.hop} for {row.source} → {row.destination} has no gateway node"
            f"{names.selects_nothing(walk, found)}: dropped (No egress gateway found)",
            State.DERIVED,
            here.packet,
            evidence,
            title=title,
            detail=detail,
            fix=fix,
            object=names.to_edit(walk, node, found),
        )
        return None
    several = ", ".join(address_text(walk.cluster, each) for each in (row.gateway, *row.others))
    walk.hop(
        *where,
        f"{found.hop}: leaves by "
        + (f"one of {several}" if row.others else address_text(walk.cluster, row.gateway)),
        State.UNKNOWN if row.others else State.DERIVED,
        here.packet,
        evidence,
        reason=f"which of the gateways {several} a connection takes is not known"
        if row.others
        else "",
        decides=Decides.WAY,
    )
    if not _is_there(walk, node, row):
        return None
    return here.to(Stage.TUNNEL, device=str(row.gateway))


def _is_there(walk: PathBuilder, node: NodeView, row: EgressGatewayPolicy) -> bool:
    """Tell whether a gateway is a node, and end the walk where it is none; say where it is not
    ready. A nodeSelector alone chooses gateways, ready or not."""
    assert row.gateway is not None
    name = walk.cluster.owner_of(row.gateway)
    if not name and lists.of_nodes(walk.cluster) is not None:
        reason = f"the egress gateway {row.gateway} is no node of the cluster"
        walk.unknown(reason, gateway.read_map(node))
        walk.finding(
            Severity.ERROR,
            reason,
            "Nobody that is known takes the packet out of the tunnel. The agent of "
            f"{node.name} did not learn that this node is gone, or has another address: its log "
            "tells why.",
            egress.evidence(node, row),
        )
        return False
    known = walk.cluster.kube_node(name)
    if known is not None and not known.ready:
        walk.finding(
            Severity.WARNING,
            f"egress gateway {name} is not Ready" + (f": {known.reason}" if known.reason else ""),
            "Cilium takes the first node that the policy's nodeSelector selects, ready or not. "
            "Give the label to another node, and take it from this one, while it does not forward.",
            cite.whole(walk.cluster.node_record(name)),
        )
    return True


def _by_egress_device(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy
) -> PacketState | None:
    """Send a packet of the gateway's own pod by the device that its egress address is routed by."""
    flow = here.packet.flow
    tables = node_tables(node, flow.destination.version)
    if row.egress_address is None:
        return here  # stages/gateway.py, translate, says what becomes of it
    unknown = f"by which device the egress address {row.egress_address} leaves is not known"
    if row.device:
        name = node.link_name(row.device)
        if not name:
            why = node[q.LINKS].missing or f"{node.name} has no device {row.device}"
            walk.doubt(f"{unknown}: {why}", Decides.WAY)
        return here if name in ("", here.device) else gateway.by_number(walk, here, node, row)
    if isinstance(tables, str):
        walk.doubt(f"{unknown}: {tables}", Decides.WAY)
        return here
    coming = packet_from_device(node, replace(flow, source=row.egress_address), here.device)
    decision = routing.decide(tables, coming)
    route = decision.route
    if decision.undecided:
        walk.doubt(f"{unknown}: {decision.undecided}", Decides.WAY)
        return here
    if route is None or decision.refused or route.device == here.device:
        return here
    known = egress.past_the_stack(node, flow)
    walk.hop(
        *here.in_cilium(HopKind.ROUTE),
        f"the egress address {row.egress_address} leaves by {route.device}: redirected there",
        State.DERIVED if known else State.UNKNOWN,
        here.packet,
        cite.of(node[q.ROUTES].record, route.span),
        reason=""
        if known
        else "up to Cilium 1.13 it leaves by the device of its own route, and nothing that was "
        "read tells which",
        decides=Decides.WAY,
    )
    return gateway.out_by(here, route)


def _is_from_here(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Tell whether the packet is of a pod of this node."""
    own = node.local_endpoint(here.packet.flow.source) is not None
    return own or here.node == walk.ends.source.node
