"""Who has an address: two pods, two nodes, or a pod and a node with the same one, and prefixes of
pods that two nodes have.

Each agent writes what the newest object says into its maps, so of two that have an address one
gets the packets at one time, and the other at another. What a node's own devices have counts
beside the objects: Kubernetes may call an address a node's that another one has as well.

Sources: Cilium pkg/ipcache (upsert: the newest source wins), pkg/node/manager; an address that two
devices of a link have is answered for by both (Linux net/ipv4/arp.c).
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.endings import Arrived, Dropped, Stopped
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite, lists
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Fix, Severity
from kubectl_ebpfnet.model.shell import word

_CILIUM_NODES = "kubectl get ciliumnodes -o custom-columns=NAME:.metadata.name"


def report(walk: PathBuilder) -> None:
    """Report what has several owners of that which the packet meets.

    Args:
        walk: has ended; takes findings, and a doubt where it is let through.
    """
    cluster, service = walk.cluster, walk.ends.service
    for address in _met(walk):
        if _several_pods(walk, address):
            continue
        names, pods = _holders(walk, address), cluster.pods_with(address)
        if len(names) > 1 and cluster.may_move(address):
            _moving(walk, address, names)
        elif len(names) > 1:
            _several_nodes(walk, address, names)
        elif names and pods:
            _pod_and_node(walk, address, pods[0], names[0])
        elif pods:
            _prefixes(walk, address)
        elif names and address in cluster.internal_addresses(names[0]):
            _in_prefix(walk, address, f"node {names[0]}")
    if service is not None and service.type == "ClusterIP":
        _in_prefix(walk, service.address, service.owner_title)


def _met(walk: PathBuilder) -> list[Address]:
    """Return the addresses of the ends, and those that its packets are sent to on the way."""
    found: list[Address] = []
    for way in filter(None, (walk, walk.back)):
        for hop in way.hops:
            for flow in filter(None, (hop.packet.flow, hop.packet.outer)):
                found += (flow.source, flow.destination)
    return list(dict.fromkeys(found))


def _several_pods(walk: PathBuilder, address: Address) -> bool:
    """Report two pods with one address; return whether there are."""
    pods = walk.cluster.pods_with(address)
    if len(pods) < 2:
        return False
    named = " and ".join(f"{p.namespace}/{p.name} ({p.node or 'no node'})" for p in pods[:2])
    title = f"pods {named} have the same address {address}"
    left = [pod for pod in pods if not pod.deleting]
    last = pods[-1]
    fix = Fix(
        "Delete the pod that is not to have it: its controller makes one with an address of its "
        "own.",
        f"kubectl get pods -A -o wide --field-selector status.podIP={address}",
    )
    detail = "Which one gets the packets is what each agent heard last."
    if len(left) < 2:
        detail = f"{last.namespace}/{last.name} is being deleted: it is gone soon, or its node is."
    proof = tuple(
        piece for pod in pods[:2] for piece in cite.of(walk.cluster.api_record_of(pod), pod.span)
    )
    walk.finding(Severity.ERROR if len(left) > 1 else Severity.WARNING, title, detail, proof)
    if len(left) > 1:
        _open(walk, title, fix)
    return True


def _holders(walk: PathBuilder, address: Address) -> list[str]:
    """Return the nodes that have an address by their objects, and by the devices of those on the
    way, where an object calls it a node's."""
    names = [*walk.cluster.nodes_with(address)]
    for name in walk.nodes if names else ():
        node = walk.cluster.node(name)
        for fact in node[q.ADDRESSES].facts:
            if fact.address == address and not _virtual(node, fact.device):
                names.append(name)
    return sorted(set(names))


def _virtual(node: NodeView, device: str) -> bool:
    """Tell whether nobody on the link is told of a device's addresses, as those of IPVS."""
    link = node.link(device)
    return device.startswith(("lo", "cilium_")) or (link is not None and link.kind == "dummy")


def _several_nodes(walk: PathBuilder, address: Address, names: list[str]) -> None:
    named = " and ".join(names[:2])
    title = f"nodes {named} have the same address {address}"
    walk.finding(
        Severity.ERROR, title,
        "Which one gets the packets is what each agent heard last, or who answers ARP/ND first. "
        f"`ip address` on {named} shows who has it.",
        cite.whole(walk.cluster.api_record("nodes")),
    )  # fmt: skip
    fix = Fix(
        f"Give one of {named} an address of its own: see the kubelet's --node-ip and the devices.",
        "kubectl get nodes -o wide",
    )
    _open(walk, title, fix)


def _moving(walk: PathBuilder, address: Address, names: list[str]) -> None:
    """Report a virtual address that the objects of several nodes have: that of the API servers, or
    of a load-balancer, which moves between nodes (kube-vip, keepalived), and that a kubelet or a
    cloud's controller takes for the node's. The devices tell who has it."""
    cluster = walk.cluster
    read = [name for name in names if cluster.node(name)[q.ADDRESSES].known]
    having = [name for name in read if cluster.node(name).having(q.ADDRESSES, address, "address")]
    if len(read) == len(names) and having == [cluster.owner_of(address)]:
        return
    named = " and ".join(names[:2])
    title = f"nodes {named} both list {address}, which moves between them or is on both"
    fix = Fix("See which node's devices have it now.", "ip -br address")
    walk.finding(
        Severity.WARNING, title,
        "Each has another InternalIP beside it, as where kube-vip or keepalived holds a virtual "
        "address. Who has it now, by the devices, gets the packets.",
        cite.whole(cluster.api_record("nodes")),
    )  # fmt: skip
    _open(walk, title, fix)


def _pod_and_node(walk: PathBuilder, address: Address, pod: Pod, node: str) -> None:
    title = f"pod {pod.namespace}/{pod.name} has {address}, an address of node {node}"
    walk.finding(
        Severity.ERROR, title,
        "Two allocators gave the same address away: see the prefixes of pods, and the node's "
        "devices and CiliumNode.",
        cite.whole(walk.cluster.api_record("ciliumnodes")),
    )  # fmt: skip
    fix = Fix(
        "Replace the pod by a new one, which gets another address.",
        commands.describe_pod(pod.namespace, pod.name),
    )
    _open(walk, title, fix)


def _prefixes(walk: PathBuilder, address: Address) -> None:
    """Report prefixes of pods that several nodes have."""
    cluster = walk.cluster
    owners = cluster.prefix_owners(address)
    if len(owners) < 2:
        return
    (one, first), (other, second) = owners[:2]
    both = f"{first}" if first == second else f"{first} and {second}, which overlap"
    stale = next((name for name in (one, other) if lists.is_left(cluster, name)), "")
    title = f"nodes {one} and {other} give pods addresses of {both}"
    if not stale and isinstance(walk.end, Arrived):
        walk.contradicts(title)
    detail = (
        "Pods of both may get the same address, and routes to it lead to one of them. "
        f"`{_CILIUM_NODES},CIDRS:.spec.ipam.podCIDRs` lists them; a node whose CiliumNode is made "
        "anew gets a prefix of its own."
    )
    if stale:
        detail = f"{stale} has no Node any more: `kubectl delete ciliumnode {word(stale)}` removes "
        detail += "what is left of it."
    walk.finding(
        Severity.WARNING if stale else Severity.ERROR,
        title, detail,
        cite.whole(cluster.api_record("ciliumnodes", "nodes")),
    )  # fmt: skip


def _in_prefix(walk: PathBuilder, address: Address, whose: str) -> None:
    """Report an address that is no pod's, and that pods may be given."""
    for node, cidr in walk.cluster.prefix_owners(address)[:1]:
        walk.finding(
            Severity.WARNING,
            f"{address} of {whose} is in {cidr}, of which node {node} gives pods addresses",
            "A pod may get the same address, and routes to pods lead packets for it there. Choose "
            "ranges of pods, Services and nodes that do not overlap.",
            cite.whole(walk.cluster.api_record("ciliumnodes", "nodes")),
        )


def _open(walk: PathBuilder, title: str, fix: Fix) -> None:
    """Say that another way is as likely as the one that is shown, be it answered or not."""
    end = walk.end
    walk.contradicts(title)
    if isinstance(end, Stopped):
        walk.end = replace(end, reason=f"{title}; {end.reason}", fix=fix)
        return
    walk.doubt(title, Decides.WAY, fix)
    if isinstance(end, Dropped):
        walk.end = replace(end, after=(*end.after, walk.undecided[-1]))
