"""The client's address on its way to a backend: as the rules treat it, and as backends saw it.

Cilium: Documentation/network/kubernetes/kubeproxy-free.rst (SNAT, DSR, hybrid). kube-proxy
masquerades with externalTrafficPolicy Cluster.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.lb.datapath import CILIUM, KUBE_PROXY, local_addresses
from kubectl_ebpfnet.explain.lb.situation import NodeContext, on_node, usable
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.kube import Node
from kubectl_ebpfnet.model.net import TCP, Address
from kubectl_ebpfnet.model.probe import ProbeAttempt, SourceFate

_L7 = "service.cilium.io/lb-l7"


def expected(context: NodeContext) -> tuple[SourceFate, str]:
    """Return the expected fate of the client's address, and the rule that decides it."""
    if context.service.annotation(_L7) == "enabled" and context.balancer.name == CILIUM:
        return SourceFate.UNKNOWN, "Cilium's L7 proxy ends the connection on the node"
    if context.local_policy:
        return SourceFate.PRESERVED, "externalTrafficPolicy Local does not masquerade"
    if context.balancer.name == KUBE_PROXY:
        return _source_by_kube_proxy(context)
    if context.balancer.name != CILIUM:
        return SourceFate.UNKNOWN, "nothing tells whether kube-proxy or Cilium balances here"
    return _source_by_cilium(context)


def _source_by_kube_proxy(context: NodeContext) -> tuple[SourceFate, str]:
    why = "kube-proxy masquerades with externalTrafficPolicy Cluster"
    ends = usable(context)
    # What the node takes in itself never passes POSTROUTING.
    own = [e for e in ends if e.address in context.node.internal_addresses]
    if not own:
        return SourceFate.NODE, why
    if len(own) == len(ends):
        return SourceFate.PRESERVED, "the endpoint has the node's own address (hostNetwork)"
    return SourceFate.EITHER, f"{why}, but not to the endpoint that has the node's own address"


def answers_from_its_node(context: NodeContext) -> bool:
    """Tell whether an endpoint on another node answers the client directly (DSR)."""
    mode = context.balancer.mode if context.balancer.name == CILIUM else ""
    return mode == "dsr" or (mode == "hybrid" and context.target.protocol == TCP)


def _source_by_cilium(context: NodeContext) -> tuple[SourceFate, str]:
    mode = context.balancer.mode
    if answers_from_its_node(context):
        return SourceFate.PRESERVED, f"Cilium in {_mode(mode)} mode does not masquerade"
    ends = usable(context)
    local = len(on_node(ends, context.node))
    if ends and local == len(ends):
        return SourceFate.PRESERVED, "every endpoint is on the node itself"
    if mode not in ("snat", "hybrid"):
        return SourceFate.UNKNOWN, "nothing tells Cilium's load-balancing mode"
    fate_rule = f"Cilium in {_mode(mode)} mode masquerades what goes to another node"
    if local:
        return SourceFate.EITHER, f"{fate_rule}, and some endpoints are local"
    return SourceFate.NODE, fate_rule


def _mode(mode: str) -> str:
    return mode.upper() if mode in ("snat", "dsr") else mode


def observed(cluster: ClusterView, node: Node, attempts: Sequence[ProbeAttempt]) -> SourceFate:
    """Return the fate of the client's address in all attempts together.

    Args:
        cluster: the bundle's indexes.
        node: the probed node.
        attempts: of one target through this node.
    """
    own = local_addresses(cluster, cluster.node(node.name))
    fates = set()
    for attempt in attempts:
        source = attempt.source_seen
        if source is None:
            continue
        if attempt.source is not None and source == attempt.source:
            fates.add(SourceFate.PRESERVED)
        elif source in own or _gateway(cluster, node, source):
            fates.add(SourceFate.NODE)
        else:
            fates.add(SourceFate.OTHER)
    if len(fates) == 1:
        return fates.pop()
    if fates == {SourceFate.PRESERVED, SourceFate.NODE}:
        return SourceFate.EITHER
    return SourceFate.OTHER if fates else SourceFate.UNKNOWN


def _gateway(cluster: ClusterView, node: Node, address: Address) -> bool:
    """Tell whether an address belongs to the node's bridge, tunnel or router device: it is in the
    node's pod prefix and no pod has it."""
    inside = any(address in cidr for cidr in node.pod_cidrs)
    router = any(address in n.router_addresses for n in cluster.cilium_nodes if n.name == node.name)
    return router or (inside and cluster.pod_with(address) is None)
