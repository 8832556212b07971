"""Rows of Cilium's endpoint map (cilium_lxc) that lead to no device, to another pod's, or that a
pod lacks.

Sources: Cilium bpf/lib/local_delivery.h (l3_local_delivery: ep->mac, ep->lxc_id, whose policy is
called; redirect_ep: ep->ifindex), bpf/lib/nat.h (snat_v4_needs_masquerade: only an endpoint's
packets are); bpf_redirect_peer() drops what is for a device that is not there, and takes what it
hands over for the host's whatever its MAC is (Linux net/core/filter.c, skb_do_redirect;
net/core/skbuff.c, skb_scrub_packet). cil_from_host, on egress, sends it out of the device instead
(bpf_redirect() in redirect_ep), and the pod's own device looks at the MAC.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, Severity, State


def leads_nowhere(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Drop a packet that Cilium hands to a device that is not on the node; return whether it is
    one.

    Args:
        walk: takes the drop.
        here: the packet at its destination's endpoint.
        node: the endpoint's.
    """
    target, table = here.packet.flow.destination, node[q.ENDPOINT_MAP]
    rows = [one for one in node.having(q.ENDPOINT_MAP, target, "address") if not one.host]
    links = node[q.LINKS]
    if not rows or not rows[0].ifindex or not links.known or node.link_name(rows[0].ifindex):
        return False
    row, listed = rows[0], node.endpoint_of(target)
    own = listed.interface if listed is not None else ""
    gone = own and node.link(own) is None
    why = "The agent did not write the row of its device anew"
    fix = Fix(
        f"Let the agent on {node.name} write the entry again; where the pod's device is gone, "
        "replace the pod by a new one.",
        node.in_agent(f"endpoint regenerate {row.endpoint_id}"),
    )
    if gone:
        why = f"Its device {own}, the host side of the pod, is gone"
        fix = Fix("Replace the pod by a new one: the CNI plugin makes its device.")
    walk.drop(
        *here.in_cilium(HopKind.ROUTE),
        f"endpoint {row.endpoint_id} is at ifindex {row.ifindex} of {node.name}, where no device "
        "is",
        State.DERIVED, here.packet,
        cite.of(table.record, row.span) + cite.whole(links.record),
        title=f"Cilium's endpoint map of {node.name} leads {target} to ifindex {row.ifindex}, "
        "which no device has",
        detail=f"{why}.",
        cause=f"{own}, the host side of {target} on {node.name}, is gone" if gone else "",
        fix=fix,
    )  # fmt: skip
    return True


@dataclass(frozen=True, slots=True)
class _Own:
    """An endpoint by its agent, and by what its pod's namespace shows; None or "" where unread."""

    id: int | None
    identity: int | None
    ifindex: int | None
    mac: str
    said_by: str
    proof: tuple[Evidence, ...]


def compare(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Hold the row by which Cilium delivers a packet against its endpoint; return whether it goes
    on.

    Args:
        walk: takes the drop where the row leads to another pod's device, findings and doubts.
        here: the packet at its destination's endpoint.
        node: the endpoint's.
    """
    target = here.packet.flow.destination
    rows = [one for one in node.having(q.ENDPOINT_MAP, target, "address") if not one.host]
    own = _own(walk, node, target)
    if not rows or own is None:
        return True
    row = rows[0]
    fix = Fix(
        f"Let the agent on {node.name} write the row again.",
        node.in_agent(f"endpoint regenerate {own.id or row.endpoint_id}"),
    )
    proof = cite.of(node[q.ENDPOINT_MAP].record, row.span) + own.proof
    begins = f"Cilium's endpoint map of {node.name} (cilium_lxc) has {target}"
    if own.ifindex and row.ifindex and row.ifindex != own.ifindex:
        there = node.link_name(row.ifindex) or f"ifindex {row.ifindex}"
        title = f"{begins} at {there}, and it is at {_device(node, own.ifindex)} by {own.said_by}"
        walk.drop(
            *here.in_cilium(HopKind.ROUTE), f"handed to {there}, which is not the pod's device",
            State.DERIVED, here.packet, proof, title=title,
            detail="The packet comes to another pod, which has no such address.", fix=fix,
        )  # fmt: skip
        return False
    wrong: list[tuple[str, bool]] = []
    if own.id and row.endpoint_id and row.endpoint_id != own.id:
        said = f"{begins} as endpoint {row.endpoint_id}, whose policy is asked"
        wrong.append((f"{said}, and it is {own.id} by {own.said_by}", True))
    if own.mac and row.mac and row.mac != own.mac:
        by_peer = node.config.host_routing == "bpf" or node.host_routing.bpf
        by_peer = by_peer and not here.from_host
        wrong.append(
            (f"{begins} with MAC {row.mac}, and it is {own.mac} by {own.said_by}", not by_peer)
        )
    if own.identity and row.identity and row.identity != own.identity:
        said = f"{begins} with identity {row.identity}, and it is {own.identity} by {own.said_by}"
        wrong.append((said, False))
    for title, decides in wrong:
        severity = Severity.ERROR if decides else Severity.WARNING
        detail = f"The agent did not write the row anew: `{fix.command}`."
        walk.finding(severity, title, detail, proof)
        if decides:
            walk.doubt(title, Decides.DROP, fix)
    return True


def _own(walk: PathBuilder, node: NodeView, address: Address) -> _Own | None:
    """Return what is to stand in an address's row, by its agent's list, else by its pod."""
    listed = node.listed_endpoint(address)
    if listed is not None:
        link = node.link(listed.interface) if listed.interface else None
        return _Own(
            listed.id, listed.identity, link.index if link is not None else listed.ifindex,
            listed.mac, f"the list of its agent (endpoint {listed.id})",
            cite.of(node[q.ENDPOINTS].record, listed.span.member("status", "networking")),
        )  # fmt: skip
    pods = walk.cluster.pods_with(address)
    if len(pods) != 1 or pods[0].node != node.name:
        return None
    pod = pods[0]
    known = walk.cluster.index.cilium_endpoint(pod.namespace, pod.name)
    if known is not None and address not in known.addresses:
        known = None
    netns = walk.cluster.pod_netns(pod.namespace, pod.name)
    holder = next((one for one in netns[q.POD_ADDRESSES].facts if one.address == address), None)
    inside = netns.link(holder.device) if holder is not None else None
    outside = node.link(node.link_name(inside.peer_index)) if inside is not None else None
    pair = (
        inside is not None
        and outside is not None
        and outside.kind in ("veth", "netkit")
        and outside.peer_index in (None, inside.index)
    )
    return _Own(
        known.id if known is not None else None,
        known.identity if known is not None else None,
        outside.index if outside is not None and pair else None,
        inside.mac if inside is not None and pair else "",
        f"pod {pod.namespace}/{pod.name}",
        cite.of(netns[q.POD_LINKS].record, inside.span) if inside is not None else (),
    )


def _device(node: NodeView, index: int) -> str:
    return node.link_name(index) or f"ifindex {index}"


def lacks_sender(walk: PathBuilder, here: PacketState, node: NodeView) -> None:
    """Report a pod that is not masqueraded since the map of its node lacks it.

    Args:
        walk: takes the finding, and the doubt.
        here: the packet as it leaves the node for the world.
        node: the node.
    """
    sender, table = walk.ends.source, node[q.ENDPOINT_MAP]
    source = here.packet.flow.source
    if walk.forth is not None or not table.known or node.name != sender.node:
        return
    if walk.ends.host_network or source in walk.cluster.node_addresses:
        return  # of the node itself, which is no endpoint of the map
    if source != walk.ends.flow.source or node.local_endpoint(source) is not None:
        return
    title = f"Cilium's endpoint map of {node.name} (cilium_lxc) lacks {source}, the sender"
    walk.finding(
        Severity.ERROR, title,
        f"So Cilium does not masquerade it: what is outside sees {source}, and answers reach the "
        "pod only where the network outside leads them to it.",
        cite.whole(table.record),
    )  # fmt: skip
    listed = node.endpoint_of(source)
    command = node.in_agent(f"endpoint regenerate {listed.id}") if listed is not None else ""
    fix = Fix(f"Let the agent on {node.name} write the entry again.", command)
    walk.doubt(f"{title}: it is not masqueraded", Decides.DROP, fix)
