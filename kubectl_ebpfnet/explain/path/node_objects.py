"""What Node, CiliumNode and the devices of a node on the way say of its addresses, against each
other. The other nodes' agents send, and give identities, by the CiliumNode.

Sources: Cilium pkg/nodediscovery (the CiliumNode has the InternalIPs of the Node, and the address
of cilium_host as CiliumInternalIP), pkg/node/manager.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.path import Severity
from kubectl_ebpfnet.model.shell import word


def report(walk: PathBuilder) -> None:
    """Report objects that disagree about the address of a node.

    Args:
        walk: has ended; takes findings.
    """
    for name in walk.nodes:
        for version in (4, 6):
            _internal(walk, name, version)
            _router(walk, name, version)
    _encryption(walk)


def _internal(walk: PathBuilder, name: str, version: int) -> None:
    kube, cilium = walk.cluster.kube_node(name), walk.cluster.cilium_node(name)
    if kube is None or cilium is None:
        return
    known = [one for one in kube.internal_addresses if one.version == version]
    told = [
        one
        for one in cilium.addresses
        if one.version == version and one not in kube.external_addresses
    ]
    if not known or not told or {*known} & {*told}:
        return
    walk.finding(
        Severity.WARNING,
        f"CiliumNode {name} has the address {told[0]}, and Node {name} has {known[0]}",
        f"The other nodes send to {told[0]}. An agent takes the address from its Node as it "
        f"starts: `kubectl get node,ciliumnode {word(name)} -o wide`, and restart the agent of "
        f"{name} where the Node is right.",
        cite.whole(walk.cluster.api_record("ciliumnodes")),
    )


def _router(walk: PathBuilder, name: str, version: int) -> None:
    node, cilium = walk.cluster.node(name), walk.cluster.cilium_node(name)
    own = sorted(
        str(one)
        for one in node.router_addresses
        if one.version == version and not one.is_link_local
    )
    told = [
        str(one)
        for one in (cilium.router_addresses if cilium is not None else ())
        if one.version == version
    ]
    if not own or not told or {*own} & {*told}:
        return
    walk.finding(
        Severity.WARNING,
        f"cilium_host of {name} has {own[0]}, and CiliumNode {name} has {told[0]} "
        "(CiliumInternalIP)",
        f"The other nodes take {told[0]} for the node and {own[0]} for nobody's: what {name} "
        "itself sends to pods there has another identity. Restart its agent, which sets both.",
        cite.whole(node[q.ADDRESSES].record),
    )


def _encryption(walk: PathBuilder) -> None:
    """Report agents of the nodes on the way that encrypt otherwise than each other."""
    told = {
        name: one.encryption
        for name in walk.nodes
        for one in walk.cluster.node(name)[q.STATUS].facts
        if one.encryption
    }
    (one, first), *others = told.items() or [("", "")]
    for other, mode in others:
        if mode == first:
            continue
        walk.finding(
            Severity.WARNING,
            f"the agent of {one} has encryption {first}, and that of {other} {mode}",
            "What goes between them is not encrypted, or only one way. An agent takes the setting "
            "from ConfigMap cilium-config as it starts: restart the one that is behind.",
            cite.whole(walk.cluster.node(one)[q.STATUS].record)
            + cite.whole(walk.cluster.node(other)[q.STATUS].record),
        )
        return
