"""The outer packet, of a tunnel or of encryption: a packet of the nodes themselves.

It is routed by the sender's stack, passes netfilter's OUTPUT and POSTROUTING there, and PREROUTING
and INPUT of the receiver. ESP does the same: the kernel sends it as a packet of its own (Linux
net/xfrm/xfrm_output.c, xfrm_output_resume).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import NO_MARK, Mark
from kubectl_ebpfnet.explain.path.stages import hooks
from kubectl_ebpfnet.explain.path.stages.node_route import route_hop, route_of
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kernel import Route
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Fix, HopKind, HopPlace, Severity, State

CILIUMS = Mark(0, 0xF000)
"""A mark that Cilium sets: its programs leave these bits alone (bpf/lib/common.h, MARK_MAGIC_*)."""

_PROXYS = "2004"
"""The table that hands marked packets to Cilium's proxy (pkg/datapath/linux/linux_defaults)."""


def node_address(walk: PathBuilder, name: str, version: int) -> Address | None:
    """Return the address by which a node sends to others, None where it is not known.

    Args:
        walk: the walk.
        name: of the node.
        version: of the IP, 4 or 6.
    """
    node = walk.cluster.node(name)
    kube_node = walk.cluster.kube_node(name)
    known = list(kube_node.internal_addresses) if kube_node is not None else []
    known += [a for n in walk.cluster.cilium_nodes if n.name == name for a in n.addresses]
    for device in node.config.devices or ("eth0",):
        known += node.addresses_of(device, version)
    return next((address for address in known if address.version == version), None)


def far_node(walk: PathBuilder, here: PacketState, end: Address) -> str:
    """Return the node to which a packet is sent encrypted, by its address or else by the pod that
    the packet is for; "" where neither is known.

    Args:
        walk: the walk.
        here: the packet on the sending node.
        end: where the ipcache sends it: the tunnel's other end, or the destination itself.
    """
    pod = walk.cluster.pod_with(here.packet.flow.destination)
    return walk.cluster.node_of(end) or (pod.node if pod is not None else "")


def leave(
    walk: PathBuilder, here: PacketState, node: NodeView, mark: Mark = CILIUMS
) -> PacketState | None:
    """Route the outer packet, and let it pass OUTPUT and POSTROUTING.

    Args:
        walk: takes the hops.
        here: the packet, with its outer one.
        node: the node that sends it.
        mark: of the outer packet.

    Returns:
        The packet at the device by which it leaves; None when it is dropped or the walk ends.
    """
    outer = here.packet.outer
    assert outer is not None
    sent = here.to(here.stage, in_device="")
    known = mark.number if mark is not CILIUMS else 0
    decision = route_of(walk, sent, node, outer.source, outer.destination, mark=known)
    if decision is None or decision.route is None:
        return None
    route_hop(walk, sent, node, decision, (HopPlace.NODE, here.node), before="outer packet: ")
    route = decision.route
    if route.device.startswith(("cilium_", "lxc")) and here.sealed is None:
        walk.unknown(
            f"the route {route.destination} of {node.name} leads what it sends to "
            f"{outer.destination} to {route.device}, which leads to this node's pods alone",
            Fix(
                f"See who set this route on {node.name}; where it is a mistake, delete it.",
                f"ip route del {route.destination} dev {route.device}",
            ),
        )
        return None
    chains = (
        ("OUTPUT", ("raw", "mangle", "filter")),
        ("POSTROUTING", ("mangle", "filter")),
    )
    passed = _passes(walk, here, node, _context(here, node, "", route.device, mark), chains)
    if passed is None:
        return None
    return sent.to(
        here.stage, device=route.device, next_hop=route.gateway, route=route,
        netfilter=passed.netfilter, skips_netfilter=False,
    )  # fmt: skip


def may_come_in(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Let the outer packet pass PREROUTING and INPUT; return whether it goes on.

    Args:
        walk: takes the hop of a rule that drops it, or may.
        here: the packet in the tunnel.
        node: the node that receives it.
        device: by which it comes in.
    """
    before = ("PREROUTING", ("raw", "mangle", "filter"))
    chains = (before, ("INPUT", ("mangle", "filter")))
    context = _context(here, node, hooks.in_device(node, device), "", NO_MARK)
    return _passes(walk, here, node, context, chains) is not None


def is_for(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Tell whether a tunnel's packet is for an address of the node that it comes to, and drop it
    where it is not: a tunnel's socket is given what is for the node itself.

    Args:
        walk: takes the drop.
        here: the packet in the tunnel.
        node: the node that receives it.
        device: by which it comes in.
    """
    outer, read = here.packet.outer, node[q.ADDRESSES]
    assert outer is not None
    target = outer.destination
    routes = node[q.ROUTES]
    if not (read.known and routes.known) or any(one.address == target for one in read.facts):
        return True
    local = [one for one in routes.facts if one.type == "local" and one.table != _PROXYS]
    taken = [one for one in local if target in one.destination]
    if taken:
        if taken[0].destination.num_addresses == 1:
            _only_by_route(walk, node, target, taken[0])
        return True
    listed = ", ".join(map(str, node.addresses_of(device, target.version)))
    walk.drop(
        HopPlace.NODE, device or node.name, node.name, HopKind.ROUTE,
        f"{target}, the tunnel's other end, is no address of {node.name}",
        State.DERIVED, here.packet, cite.whole(read.record) + cite.whole(routes.record),
        title=f"node {node.name} does not have {target}, to which the tunnel leads",
        detail=f"Kubernetes and Cilium call {target} its address, and {device or 'its device'} has "
        f"{listed or 'none'}.",
        fix=Fix(f"Give {node.name} the address {target} again.", "ip address"),
    )  # fmt: skip
    return False


def _only_by_route(walk: PathBuilder, node: NodeView, target: Address, route: Route) -> None:
    """Report an address that a local route has and no device: the kernel adds and removes the two
    together, so the records disagree, or somebody added the route. What is for it is taken."""
    title = f"no device of {node.name} has {target}, and a local route of it does"
    proof = cite.whole(node[q.ADDRESSES].record) + cite.of(node[q.ROUTES].record, route.span)
    walk.finding(
        Severity.WARNING, title,
        "The node takes what is for the address by that route. Without the address, nothing that "
        "it sends has it by itself, and the route goes when it is set anew.",
        proof,
    )  # fmt: skip
    walk.lets_pass_though(title, proof)


def _context(
    here: PacketState, node: NodeView, in_device: str | None, out_device: str, mark: Mark
) -> Context:
    assert here.packet.outer is not None
    own = node.own_addresses or None
    return Context(here.packet.outer, in_device, out_device, mark, local=own, bridged=False)


def _passes(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    context: Context,
    chains: tuple[tuple[str, tuple[str, ...]], ...],
) -> PacketState | None:
    passed: PacketState | None = here.to(here.stage, netfilter=context)
    for chain, tables in chains:
        if passed is not None:
            passed = hooks.passes(walk, passed, node, chain, tables, quiet=True)
    return passed
