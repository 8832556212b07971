"""Whether the ipcache leads a pod's packets to the node that the pod runs on.

A node whose agent did not hear that a pod moved, or that a node has another address, sends into the
tunnel to nobody, or to a node that has no such endpoint; without a tunnel endpoint it takes the
address for its own. Where clusters of a clustermesh have the same prefixes of pods, it may send to
the other cluster's pod. Where the endpoint map has the address, it is looked up first, and native
routing asks the node's routes: there the row decides nothing, and tells all the same that the agent
is behind.

Sources: Cilium bpf/lib/eps.h (remote_endpoint_info), bpf/bpf_lxc.c (handle_ipv4_from_lxc: the
endpoint map, then tunnel_endpoint of the entry), bpf/bpf_host.c (cil_from_host does the same).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.agent_behind import see_agent
from kubectl_ebpfnet.explain.path.other_clusters import cluster_of, overlap
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.explain.views import cite, lists
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import IpcacheEntry
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Evidence, HopKind, HopPlace, Severity, State


def compare(walk: PathBuilder, node: NodeView, address: Address, entry: IpcacheEntry) -> None:
    """Report an entry by which a packet is sent elsewhere than to its pod's node, or its node.

    Args:
        walk: takes the finding, the cause of a later loss, and a doubt.
        node: whose ipcache it is.
        address: of the packet's destination.
        entry: the one that it finds.
    """
    title = _elsewhere(walk, node, address, entry)
    if not title:
        return
    found, _ = _report(walk, node, address, entry, title, Severity.ERROR)
    walk.stale = found
    end = entry.tunnel_endpoint
    if end is None or walk.cluster.owner_of(end) == node.name:
        walk.doubt(title, Decides.DROP, found.fix)


def compare_unused(walk: PathBuilder, node: NodeView, address: Address) -> None:
    """Report an entry that leads elsewhere than to the pod's node, and by which nothing is sent.

    Args:
        walk: takes the finding, which speaks against what it shows.
        node: whose ipcache it is; it has the pod itself, or routes natively.
        address: of the packet's destination.
    """
    entry = node.ipcache_of(address)
    title = _elsewhere(walk, node, address, entry) if entry is not None else ""
    if entry is None or not title:
        return
    if entry.tunnel_endpoint is None and node.local_endpoint(address) is None:
        _report(walk, node, address, entry, title, Severity.INFO)  # a row that leads nowhere
        return
    _, proof = _report(walk, node, address, entry, title, Severity.WARNING)
    walk.lets_pass_though(title, proof)


def _report(
    walk: PathBuilder,
    node: NodeView,
    address: Address,
    entry: IpcacheEntry,
    title: str,
    severity: Severity,
) -> tuple[Remedy, tuple[Evidence, ...]]:
    """Add the finding; return what to do, and its proof."""
    proof = cite.of(node[q.IPCACHE].record, entry.span)
    found, detail = overlap(node, address, title), "Clusters of the clustermesh overlap."
    if found is None:
        found = see_agent(walk.cluster, title, node.name)
        detail = f"Cilium on {node.name} is behind: it did not hear where the pod, or its node, is."
    walk.finding(severity, title, f"{detail} {found.fix.text}", proof)
    return found, proof


def _elsewhere(walk: PathBuilder, node: NodeView, address: Address, entry: IpcacheEntry) -> str:
    """Return that an entry leads elsewhere than to the node of a pod, or than to the node that has
    the address itself; "" where it does not, or where nobody knows."""
    cluster = walk.cluster
    pod, end = cluster.pod_with(address), entry.tunnel_endpoint
    name = pod.node if pod is not None else cluster.node_of(address)
    if not name or entry.prefix.num_addresses != 1 or (pod is None and end is None):
        return ""  # a node's own address needs no tunnel
    if any(len(cluster.nodes_with(each)) > 1 for each in (address, end) if each is not None):
        return ""  # owners.py says so
    owner = cluster.owner_of(end) if end is not None else node.name
    if owner == name or (not owner and not _listed(walk)):
        return ""
    leads = "without a tunnel endpoint, as its own"
    if end is not None:
        leads = f"behind tunnel endpoint {end}, which is {owner or 'no node'}"
        leads += "'s own" if owner == node.name else "'s" if owner else ""
    whose = _runs(pod) if pod is not None else f"it is an address of {name}"
    return f"the ipcache of {node.name} has {address} {leads}, and {whose}"


def _runs(pod: Pod) -> str:
    return f"pod {pod.namespace}/{pod.name} runs on {pod.node}"


def handed_over(walk: PathBuilder, here: PacketState, pod: Pod) -> None:
    """Report an endpoint that is handed a packet for a pod which runs on another node.

    Args:
        walk: takes the finding, and the doubt.
        here: the packet at the endpoint.
        pod: that has the packet's destination by the API server.
    """
    address = here.packet.flow.destination
    if pod.node in ("", here.node) or len(walk.cluster.pods_with(address)) > 1:
        return
    node = walk.cluster.node(here.node)
    title = f"{here.node} hands packets for {address} to an endpoint of its own, and {_runs(pod)}"
    fix = see_agent(walk.cluster, title, here.node).fix
    rows = node.having(q.ENDPOINT_MAP, address, "address")
    walk.finding(
        Severity.ERROR, title,
        f"Cilium on {here.node} has an endpoint of a pod that is not there any more, or that the "
        f"API server has on the wrong node. {fix.text}",
        cite.of(node[q.ENDPOINT_MAP].record, *(row.span for row in rows)),
    )  # fmt: skip
    walk.doubt(title, Decides.DROP, fix)


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
    read = (lists.of_nodes(walk.cluster), lists.read(walk.cluster, "ciliumnodes"))
    return None not in read
