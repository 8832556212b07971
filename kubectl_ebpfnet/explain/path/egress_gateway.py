"""What Cilium's egress gateway decides about a packet, by the policy map of a node.

The map has a row for each pod that a policy selects and each of its CIDRs: the gateway node, and on
that node the address that the packet leaves with. The longest prefix counts. What has an identity
of the cluster never takes a gateway.

Who looks it up depends on the version. Up to 1.16 the program of the pod's device does, and the
packet goes to the tunnel from there. Since 1.17 cil_to_netdev alone does: the packet first takes
the node's own way to a device of the network (1.16 does both). At the gateway, up to 1.14 the stack
routes what comes out of the tunnel by the pod's address; since 1.15 cil_from_overlay looks the
route up by the egress address, past the stack.

Source: Cilium bpf/lib/egress_gateway.h (egress_gw_request_needs_redirect, egress_gw_snat_needed,
egress_gw_fib_lookup_and_redirect), bpf/lib/identity.h (identity_is_cluster); pull requests 26215,
29379 and 32828, issue 32994.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView, expanded
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import EgressGatewayPolicy
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.path import Evidence

_WORLD = frozenset({0, 2, 9, 10})
_CIDR_IDENTITIES = range(1 << 24, (1 << 24) + (1 << 16))
"""Identities of CIDR rules, local to a node (bpf/lib/identity.h)."""
_SINCE_1_18 = frozenset(("cilium_ipcache_v2", "cilium_policystats", "cilium_egress_gw_policy_v6"))
"""Maps that came with 1.18."""
_EITHER = (
    "up to Cilium 1.16 the policy of the egress gateway is looked up at the pod's device, since "
    "then behind this, at the device to the network, and nothing that was read tells which"
)


def row_of(walk: PathBuilder, node: NodeView, flow: Flow) -> EgressGatewayPolicy | None:
    """Return the row of a node's policy map for a packet, None without one that counts.

    Args:
        walk: knows the cluster.
        node: whose map is read.
        flow: of the packet.
    """
    best = _longest(node, flow)
    if best is None or best.excluded or in_cluster(walk, node, flow.destination):
        return None
    return best


def excluded_by(node: NodeView, flow: Flow) -> EgressGatewayPolicy | None:
    """Return the row that excludes a packet's destination from a policy, None without one."""
    best = _longest(node, flow)
    return best if best is not None and best.excluded else None


def unread(walk: PathBuilder, node: NodeView, flow: Flow) -> str:
    """Return why it is not known whether a policy sends the packet to a gateway, "" when it is.

    Args:
        walk: knows the cluster.
        node: whose map decides.
        flow: of the packet.
    """
    table = node[q.EGRESS_GATEWAY]
    enabled = node.config.egress_gateway
    if table.known or enabled is False or walk.ends.host_network:
        return ""
    if flow.source in walk.cluster.node_addresses or in_cluster(walk, node, flow.destination):
        return ""
    if not enabled and (table.record is None or _no_such_map(table.record)):
        return ""  # off by default
    which = "is on" if enabled else "may be on"
    return (
        f"the egress gateway {which}, and the policy map of {node.name} could not be read: "
        f"{table.missing}"
    )


def is_at(walk: PathBuilder, node: NodeView, row: EgressGatewayPolicy) -> bool:
    """Tell whether a row's gateway is this node.

    Args:
        walk: knows the cluster.
        node: the node.
        row: of the policy map.
    """
    gateway = row.gateway
    if gateway is None:
        return False
    return walk.cluster.node_of(gateway) == node.name or gateway in node.own_addresses


def looked_up_at_the_pod(node: NodeView) -> tuple[bool | None, str]:
    """Tell whether the program of the pod's device looks the policy up; None and the reason where
    nothing tells. A row of the drop counters names the program's file."""
    if is_since_1_18(node):
        return False, ""
    for row in node[q.METRICS].facts:
        if row.reason == "No egress gateway found" and row.source:
            return "bpf_lxc" in row.source, ""
    routing = node.host_routing
    if routing.bpf and routing.evidence and node.config.routing_mode == "tunnel":
        return False, ""  # with a tunnel, only since 1.17 does what leaves pass the stack by
    return None, _EITHER


def past_the_stack(node: NodeView, flow: Flow) -> bool | None:
    """Tell whether the gateway sends what comes out of the tunnel past its stack, None where
    nothing tells.

    Args:
        node: the gateway.
        flow: of the packet.
    """
    if is_since_1_18(node) or looked_up_at_the_pod(node)[0] is False:
        return True
    for line in node.lines(q.CONNTRACK, [str(flow.source), expanded(flow.source)]):
        original = line.fact.original
        if (original.source, original.destination) == (flow.source, flow.destination):
            return False
    return None


def evidence(node: NodeView, row: EgressGatewayPolicy) -> tuple[Evidence, ...]:
    """Cite a row of a node's policy map."""
    return cite.of(node[q.EGRESS_GATEWAY].record, row.span)


def _longest(node: NodeView, flow: Flow) -> EgressGatewayPolicy | None:
    node.want(q.EGRESS_GATEWAY, flow.source)
    hits = (
        row
        for row in node.having(q.EGRESS_GATEWAY, flow.source, "source")
        if flow.destination in row.destination
    )
    return max(hits, key=lambda row: row.destination.prefixlen, default=None)


def is_since_1_18(node: NodeView) -> bool:
    """Tell whether a node has maps that came with Cilium 1.18; False too where none were read."""
    return any(pin.name in _SINCE_1_18 for pin in node[q.BPF_PINS].facts)


def in_cluster(walk: PathBuilder, node: NodeView, address: Address) -> bool:
    """Tell whether an address has an identity of the cluster: its traffic never takes a gateway."""
    entry = node.ipcache_of(address)
    if entry is None:
        return walk.cluster.in_cluster(address)
    return entry.identity not in _WORLD and entry.identity not in _CIDR_IDENTITIES


def _no_such_map(record: Record) -> bool:
    """Tell whether the answer says that the feature's map is not there (exit 1, on stderr)."""
    text = record.stderr + record.beginning
    return any(
        words in text for words in (b"Cannot find egress gateway", b"no map", b"no such file")
    )
