"""Rows of Cilium's endpoint map (cilium_lxc) that lead to no device, or that a pod lacks.

Sources: Cilium bpf/lib/local_delivery.h (redirect_ep: ep->ifindex), bpf/lib/nat.h
(snat_v4_needs_masquerade: only an endpoint's packets are); bpf_redirect_peer() drops what is for a
device that is not there (Linux net/core/filter.c, skb_do_redirect).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, Severity, State


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
