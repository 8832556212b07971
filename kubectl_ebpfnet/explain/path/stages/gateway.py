"""Egress gateways: traffic that leaves the cluster by a node that a policy chooses.

Source: Cilium bpf/lib/egress_gateway.h (egress_gw_request_needs_redirect, egress_gw_snat_needed),
bpf/lib/identity.h (identity_is_cluster); cilium-facts 2.7, 4.4, 4.5.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path import snat_ports
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import FactLine
from kubectl_ebpfnet.explain.views.names import address_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import EgressGatewayPolicy, NatEntry
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.net import Address, Flow, endpoint_text
from kubectl_ebpfnet.model.path import Evidence, HopKind, HopPlace, Severity, State

_WORLD = frozenset({0, 2, 9, 10})
_CIDR_IDENTITIES = range(1 << 24, (1 << 24) + (1 << 16))
"""Identities of CIDR rules, local to a node (bpf/lib/identity.h)."""


def policy_row(walk: PathBuilder, here: PacketState, node: NodeView) -> EgressGatewayPolicy | None:
    """Return the row of the policy map that sends the packet to a gateway, None without one.

    Args:
        walk: the walk.
        here: the packet.
        node: the node whose map is read.
    """
    flow = here.packet.flow
    hits = [
        row
        for row in node[q.EGRESS_GATEWAY].facts
        if row.source == flow.source and flow.destination in row.destination
    ]
    best = max(hits, key=lambda row: row.destination.prefixlen, default=None)
    if best is None or best.excluded or _in_cluster(walk, node, flow.destination):
        return None
    return best


def _in_cluster(walk: PathBuilder, node: NodeView, address: Address) -> bool:
    """Tell whether an address has an identity of the cluster: its traffic never takes a gateway."""
    entry = node.ipcache_of(address)
    if entry is None:
        return walk.cluster.in_cluster(address)
    return entry.identity not in _WORLD and entry.identity not in _CIDR_IDENTITIES


def undecided(walk: PathBuilder, here: PacketState, node: NodeView) -> str:
    """Return why it is not known whether a policy sends the packet to a gateway, "" when it is.

    Args:
        walk: the walk.
        here: the packet, of a pod.
        node: the node whose map decides.
    """
    table, flow = node[q.EGRESS_GATEWAY], here.packet.flow
    enabled = node.config.egress_gateway
    if table.known or enabled is False or walk.ends.host_network:
        return ""
    if flow.source in walk.cluster.node_addresses or _in_cluster(walk, node, flow.destination):
        return ""
    if not enabled and (table.record is None or _no_such_map(table.record)):
        return ""  # off by default
    which = "is on" if enabled else "may be on"
    return (
        f"the egress gateway {which}, and the policy map of {node.name} could not be read: "
        f"{table.missing}"
    )


def _no_such_map(record: Record) -> bool:
    """Tell whether the answer says that the feature's map is not there (exit 1, on stderr)."""
    text = record.stderr + record.beginning
    return any(
        words in text for words in (b"Cannot find egress gateway", b"no map", b"no such file")
    )


def is_at(walk: PathBuilder, node: NodeView, row: EgressGatewayPolicy) -> bool:
    """Tell whether a row's gateway is this node.

    Args:
        walk: the walk.
        node: the node.
        row: of the policy map.
    """
    gateway = row.gateway
    if gateway is None:
        return False
    return walk.cluster.node_of(gateway) == node.name or gateway in node.own_addresses


def to_gateway(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy
) -> PacketState | None:
    """Send the packet from the sender's node to the gateway, which may be this node.

    Args:
        walk: takes hops and findings.
        here: the packet.
        node: the sender's node.
        row: of the policy map.

    Returns:
        The packet's next place; None when it is dropped.
    """
    evidence = _evidence(node, row)
    # cil_from_container or, as in 1.18, cil_to_netdev looks the policy up: the place is the node.
    where = here.in_cilium(HopKind.ROUTE, here.node)
    if row.gateway is None:
        walk.drop(
            *where,
            "an egress gateway policy matches and has no gateway node: No egress gateway found",
            State.DERIVED,
            here.packet,
            evidence,
            title=f"egress gateway policy for {row.source} → {row.destination} has no gateway node",
            detail="No node matches the policy's nodeSelector, or none of these is ready: label "
            "one, or make it ready.",
        )
        return None
    walk.hop(
        *where,
        f"egress gateway policy: leaves by {address_text(walk.cluster, row.gateway)}"
        + (f" as {row.egress_address}" if row.egress_address else ""),
        State.DERIVED,
        here.packet,
        evidence,
    )
    if is_at(walk, node, row):
        return here.to(Stage.HOST)
    return here.to(Stage.TUNNEL, device=str(row.gateway))


def through_gateway(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy, device: str
) -> PacketState:
    """Forward the packet at the gateway, out of the tunnel, by the gateway's own routes.

    Args:
        walk: takes hops.
        here: the packet, decapsulated.
        node: the gateway.
        row: of the policy map.
        device: the tunnel device that it came in by.
    """
    walk.hop(
        *here.in_cilium(HopKind.ROUTE, device),
        f"{here.node} is the egress gateway for {row.source} → {row.destination}: on by its own "
        "routes",
        State.DERIVED,
        here.packet,
        _evidence(node, row),
    )
    return here.to(Stage.HOST, device="", in_device=device, skips_netfilter=False)


def translate(
    walk: PathBuilder, here: PacketState, node: NodeView, row: EgressGatewayPolicy
) -> PacketState | None:
    """Apply the gateway's SNAT in cil_to_netdev.

    Args:
        walk: takes hops and findings.
        here: the packet at the gateway's egress device.
        node: the gateway.
        row: of the policy map.

    Returns:
        The packet with its new source; None when it is dropped.
    """
    flow = here.packet.flow
    where = (HopPlace.CILIUM, here.device, here.node, HopKind.NAT)
    evidence = _evidence(node, row)
    seen = nat_entry(node, flow)
    if seen is not None:
        new = seen.fact.translated()
        walk.hop(
            *where,
            f"egress gateway rewrites the source to {endpoint_text(new.source, new.source_port)}, "
            "as its NAT map shows",
            State.OBSERVED,
            replace(here.packet, flow=new),
            seen.evidence + evidence,
        )
        return here.to(here.stage, packet=replace(here.packet, flow=new))
    if row.egress_address is None:
        walk.drop(
            *where,
            f"the egress gateway policy has no egress address on {here.node}: "
            "No Egress IP configured",
            State.DERIVED,
            here.packet,
            evidence,
            title=f"egress gateway {here.node} has no egress address for {row.source}",
            detail="The policy's egressIP is on none of the node's devices, or its interface has "
            "none.",
        )
        return None
    if not snat_ports.by_cilium(walk, here, node, row.egress_address, where):
        return None
    packet = replace(here.packet, flow=flow.with_source(row.egress_address, None))
    walk.hop(
        *where,
        f"egress gateway masquerades the source to {row.egress_address}",
        State.DERIVED,
        packet,
        evidence,
    )
    if node[q.ADDRESSES].known and row.egress_address not in node.own_addresses:
        walk.finding(
            Severity.ERROR,
            f"egress address {row.egress_address} is not on gateway {here.node}",
            "Nobody answers ARP/ND for it there, so replies do not come back, unless the network "
            "routes it to this node.",
            evidence,
        )
    return here.to(here.stage, packet=packet)


def nat_entry(node: NodeView, flow: Flow) -> FactLine[NatEntry] | None:
    """Find a node's NAT entry of a flow; of any source port where the port is not known."""
    for line in node.lines(q.NAT, [str(flow.source)]):
        entry = line.fact
        port = entry.flow.source_port if flow.source_port is None else flow.source_port
        if entry.direction == "OUT" and entry.flow == replace(flow, source_port=port):
            return line
    return None


def _evidence(node: NodeView, row: EgressGatewayPolicy) -> tuple[Evidence, ...]:
    return cite.of(node[q.EGRESS_GATEWAY].record, row.span)
