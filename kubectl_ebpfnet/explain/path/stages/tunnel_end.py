"""Whether the ipcache leads a pod's packets to the node that the pod runs on.

A node whose agent did not hear that a pod moved, or that a node has another address, sends into the
tunnel to nobody, or to a node that has no such endpoint; without a tunnel endpoint it takes the
address for its own. Where clusters of a clustermesh have the same prefixes of pods, it may send to
the other cluster's pod.

Source: Cilium bpf/lib/eps.h (remote_endpoint_info), bpf/bpf_lxc.c (tunnel_endpoint of the entry).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.agent_behind import see_agent
from kubectl_ebpfnet.explain.path.other_clusters import cluster_of, overlap
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite, lists
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import IpcacheEntry
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, HopKind, HopPlace, Severity, State


def compare(walk: PathBuilder, node: NodeView, address: Address, entry: IpcacheEntry) -> None:
    """Report an entry that leads elsewhere than to the pod's node.

    Args:
        walk: takes the finding, the cause of a later loss, and a doubt.
        node: whose ipcache it is, another one than the pod's.
        address: of the packet's destination.
        entry: the one that it finds.
    """
    cluster = walk.cluster
    pod, end = cluster.pod_with(address), entry.tunnel_endpoint
    if pod is None or pod.node in ("", node.name) or entry.prefix.num_addresses != 1:
        return
    if end is not None and len(cluster.nodes_with(end)) > 1:
        return  # owners.py says so
    owner = cluster.owner_of(end) if end is not None else node.name
    if owner == pod.node or (not owner and not _listed(walk)):
        return
    leads = "without a tunnel endpoint, as its own"
    if end is not None:
        leads = f"behind tunnel endpoint {end}, which is {owner or 'no node'}"
        leads += "'s own" if owner == node.name else "'s" if owner else ""
    title = (
        f"the ipcache of {node.name} has {address} {leads}, and pod {pod.namespace}/{pod.name} "
        f"runs on {pod.node}"
    )
    found = overlap(node, address, title)
    detail = "Clusters of the clustermesh overlap. "
    if found is None:
        found = see_agent(cluster, title, node.name)
        detail = (
            f"Cilium on {node.name} is behind: it did not hear where the pod, or its node, is. "
        )
    proof = cite.of(node[q.IPCACHE].record, entry.span)
    walk.finding(Severity.ERROR, title, f"{detail}{found.fix.text}", proof)
    walk.stale = found
    if owner == node.name:
        walk.doubt(title, Decides.DROP, found.fix)


def to_nobody(walk: PathBuilder, here: PacketState) -> bool:
    """End the walk where the tunnel's other end is no node, though the packet is for a pod or
    a node of the cluster; return whether it did.

    Args:
        walk: ends.
        here: the packet as it leaves its node.
    """
    sent = here.packet.outer
    target = here.packet.flow.destination
    pod = walk.cluster.pod_with(target)
    name = pod.node if pod is not None else walk.cluster.node_of(target)
    if sent is None or not name or walk.cluster.owner_of(sent.destination) or not _listed(walk):
        return False
    whose = f"Pod {pod.namespace}/{pod.name} runs on {name}" if pod is not None else ""
    whose = whose or f"{target} is {name}'s own"
    text = f"the tunnel's other end {sent.destination} is no node of the cluster"
    there = walk.cluster.node(name)[q.ADDRESSES]
    fix = (walk.stale or see_agent(walk.cluster, text, here.node)).fix
    other = cluster_of(walk.cluster.node(here.node), target)
    if other is not None:
        cause = walk.stale.cause if walk.stale is not None else text
        walk.unknown(f"{cause}; what answers there is not {name}'s", fix)
        return True
    if not there.known:
        cause = walk.stale.cause if walk.stale is not None else text
        walk.unknown(f"{text}, unless {name} has that address: {cause}", fix)
        return True
    walk.drop(
        HopPlace.WIRE, f"{here.node} → {sent.destination}", "", HopKind.LINK,
        f"{text}: nobody takes the packet out of it", State.DERIVED, here.packet,
        cite.whole(there.record), title=text,
        detail=f"{whose}, and {name} has no such address.",
        fix=fix,
    )  # fmt: skip
    return True


def _listed(walk: PathBuilder) -> bool:
    """Tell whether all nodes, and their addresses for Cilium, are known."""
    return all(lists.read(walk.cluster, kind) is not None for kind in ("nodes", "ciliumnodes"))
