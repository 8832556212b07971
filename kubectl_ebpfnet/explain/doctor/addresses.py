"""Addresses that two have, prefixes of pods that overlap, and nodes that only Cilium has: of the
whole cluster, as far as its lists were read.

Of a packet's own addresses `path` says the same (explain/path/owners.py), and what follows for it.
Sources: Cilium pkg/ipcache (the newest source wins), operator/pkg/ciliumnode (a CiliumNode whose
Node is gone is collected).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubectl_ebpfnet.explain.views import cite, lists
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import Network
from kubectl_ebpfnet.model.path import Finding, Severity
from kubectl_ebpfnet.model.shell import word

_NAMED = 3


def conflicts(cluster: ClusterView) -> Iterator[Finding]:
    """Yield what contradicts itself in the lists of nodes and pods.

    Args:
        cluster: the bundle's indexes; a list that was not read yields nothing.
    """
    yield from _several_nodes(cluster)
    yield from _several_pods(cluster)
    yield from _prefixes(cluster)
    yield from _without_node(cluster)


def _several_nodes(cluster: ClusterView) -> Iterator[Finding]:
    for address, names in sorted(cluster.shared_node_addresses.items(), key=lambda e: str(e[0])):
        if cluster.may_move(address):
            yield Finding(
                Severity.INFO,
                f"nodes {' and '.join(names[:2])} list {address} beside an address of their own",
                "As where kube-vip or keepalived holds a virtual address, which moves between "
                "nodes: one of them has it at a time (`ip -br address`).",
                cite.whole(cluster.api_record("nodes", "ciliumnodes")),
            )
            continue
        yield Finding(
            Severity.ERROR,
            f"nodes {' and '.join(names[:2])} have the same address {address}",
            "Which one gets the packets is what each agent heard last: give one of them an address "
            "of its own (`kubectl get nodes -o wide`).",
            cite.whole(cluster.api_record("nodes", "ciliumnodes")),
        )


def _several_pods(cluster: ClusterView) -> Iterator[Finding]:
    for address, pods in cluster.shared_pod_addresses.items():
        named = " and ".join(f"{p.namespace}/{p.name} ({p.node or 'no node'})" for p in pods[:2])
        staying = [pod for pod in pods if not pod.deleting]
        yield Finding(
            Severity.ERROR if len(staying) > 1 else Severity.WARNING,
            f"pods {named} have the same address {address}",
            "Delete the one that is not to have it: its controller makes one with an address of "
            f"its own (`kubectl get pods -A -o wide --field-selector status.podIP={address}`).",
            cite.of(cluster.api_record_of(pods[0]), pods[0].span),
        )


def _prefixes(cluster: ClusterView) -> Iterator[Finding]:
    """Report prefixes that overlap: sorted, one that holds another stands before it."""
    for (first, one), (second, other) in _overlaps(cluster.prefixes):
        both = f"{first}" if first == second else f"{first} and {second}, which overlap"
        left = [name for name in (one, other) if lists.is_left(cluster, name)]
        detail = (
            "Pods of both may get the same address. A node whose CiliumNode is made anew gets a "
            "prefix of its own."
        )
        if left:
            detail = f"{left[0]} has no Node any more: `kubectl delete ciliumnode {word(left[0])}` "
            detail += "removes what is left of it."
        yield Finding(
            Severity.WARNING if left else Severity.ERROR,
            f"nodes {one} and {other} give pods addresses of {both}",
            detail,
            cite.whole(cluster.api_record("ciliumnodes", "nodes")),
        )


def _overlaps(
    prefixes: Iterable[tuple[str, Network]],
) -> Iterator[tuple[tuple[Network, str], tuple[Network, str]]]:
    ordered = sorted(
        {(cidr, name) for name, cidr in prefixes},
        key=lambda each: (
            each[0].version,
            int(each[0].network_address),
            each[0].prefixlen,
            each[1],
        ),
    )
    around: list[tuple[Network, str]] = []  # those that hold the one that is looked at
    for each in ordered:
        network, name = each
        while around and not (
            around[-1][0].version == network.version and network.network_address in around[-1][0]
        ):
            around.pop()
        outer = next((one for one in reversed(around) if one[1] != name), None)
        if outer is not None:
            yield outer, each
        around.append(each)


def _without_node(cluster: ClusterView) -> Iterator[Finding]:
    """Report CiliumNodes without a Node: other agents route to them, and their prefix is taken."""
    left = [n.name for n in cluster.kube.cilium_nodes if lists.is_left(cluster, n.name)]
    if left:
        commands = few([f"`kubectl delete ciliumnode {word(name)}`" for name in left], _NAMED)
        yield Finding(
            Severity.WARNING,
            f"CiliumNode {few(left, _NAMED)} has no Node",
            "The other agents keep routes and tunnels to it, and its prefix of pods stays taken. "
            f"Where the node is gone for good, {commands} removes what is left.",
            cite.whole(cluster.api_record("ciliumnodes")),
        )
