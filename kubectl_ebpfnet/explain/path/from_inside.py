"""What a client outside of the cluster meets otherwise at a Service's address, where a packet of a
pod or a node was asked about.

Cilium gives what is inside the internal scope of a frontend, and checks no source ranges there
(bpf/lib/lb.h, lb4_lookup_service; bpf/lib/nodeport.h, lb4_src_range_ok). kube-proxy sends what
comes from pods and from its own node to every endpoint, whatever externalTrafficPolicy is
(pkg/proxy/iptables/proxier.go, KUBE-EXT-). So an answer from inside proves nothing for clients
outside.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kube import Service
from kubectl_ebpfnet.model.path import Finding, Severity
from kubectl_ebpfnet.model.shell import word

_OUTSIDE = frozenset({"NodePort", "LoadBalancer", "ExternalIPs"})
_NAMED = 3
"""Nodes that a sentence names."""


def findings(cluster: ClusterView, service: ServiceAddress | None) -> Iterator[Finding]:
    """Report that a client outside is answered otherwise than the packet.

    Args:
        cluster: the bundle's indexes.
        service: the frontend as the sender's node has it, None without one.
    """
    if service is None or service.owner is None or service.in_cilium is None:
        return
    if service.type not in _OUTSIDE or service.named_elsewhere:
        return
    owner = service.owner
    words = list(_by_traffic_policy(cluster, service, owner))
    why = "What is inside of the cluster is given Cilium's internal scope. "
    if service.in_cilium:
        words += _by_source(service, owner)
    elif owner.external_traffic_policy == "Local":
        why = "kube-proxy sends what comes from pods and from its own node to every endpoint. "
    else:
        return
    if not words:
        return
    yield Finding(
        Severity.INFO,
        f"a client outside of the cluster is treated otherwise: it {', and '.join(words)}",
        f"{why}`kubectl ebpfnet probe-lb svc/{word(owner.name)} -n {word(owner.namespace)}` asks "
        "as a client outside does.",
        service.evidence,
    )


def _by_traffic_policy(
    cluster: ClusterView, service: ServiceAddress, owner: Service
) -> Iterator[str]:
    ready = [end for end in service.sliced or () if end.ready]
    if service.sliced is None:
        return
    if owner.external_traffic_policy == "Local":
        own = {end.node for end in ready}
        on = few(sorted(own), _NAMED) or "no node"
        node = cluster.node_of(service.address)
        why = "externalTrafficPolicy is Local"
        if node and node not in own:
            yield f"gets no backend at {node}: {why}, and ready endpoints are on {on} alone"
        elif not node and {*cluster.listed_nodes} - own:
            yield f"is answered only by nodes with a ready endpoint of their own ({on}): {why}"
    elif owner.internal_traffic_policy == "Local":
        others = sorted({kinds.text(end) for end in ready} - set(map(kinds.text, service.usable)))
        if others:
            yield (
                f"may be sent to {few(others, _NAMED)} too: internalTrafficPolicy Local is "
                "for clients inside"
            )


def _by_source(service: ServiceAddress, owner: Service) -> Iterator[str]:
    if not service.checks_source or not owner.source_ranges:
        return
    ranges = ", ".join(map(str, owner.source_ranges))
    refused = "deny" in service.flags
    yield f"is {'refused' if refused else 'let in only'} from {ranges} (loadBalancerSourceRanges)"
