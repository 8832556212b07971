"""The device by which a packet leaves a node's stack: link, masquerading, programs, next hop."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.mtu import added_by
from kubectl_ebpfnet.explain.path.stages import (
    gateway,
    hooks,
    host_firewall,
    losses,
    next_hop,
    pod_gone,
    size,
    to_gateway,
    tunnel_end,
)
from kubectl_ebpfnet.explain.path.stages.cilium_nat import by_cilium
from kubectl_ebpfnet.explain.path.stages.device_hooks import pass_device
from kubectl_ebpfnet.explain.path.stages.encryption import encrypt, encrypted_before
from kubectl_ebpfnet.explain.path.stages.foreign_programs import show_below
from kubectl_ebpfnet.explain.path.stages.forward import is_tunnelled
from kubectl_ebpfnet.explain.path.stages.link_state import takes_packets
from kubectl_ebpfnet.explain.path.stages.missing_programs import (
    report_absent,
    to_network,
    translates_answers,
    without_cilium,
)
from kubectl_ebpfnet.explain.path.stages.program_hops import show_programs
from kubectl_ebpfnet.explain.path.stages.source_nat import by_netfilter
from kubectl_ebpfnet.explain.path.stages.veth import has_cilium
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.programs.at_device import Presence
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import IpcacheEntry
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.model.path import Fix, HopKind, State


def leave(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Send the packet out by a device: to a local pod, into the tunnel, or onto the wire."""
    node = walk.cluster.node(here.node)
    called = f"device {here.device} of node {here.node}"
    if not takes_packets(walk, here, node, here.device, called):
        return None
    inside = here.packet.outer is None
    if not here.in_device and inside and not size.sent_by_node(walk, here, node):
        return None
    if inside and not here.skips_netfilter:
        translated = by_netfilter(walk, here, node)
        behind_nat = _behind_nat(walk, translated, node) if translated is not None else None
        if behind_nat is None:
            return None
        here = behind_nat
    going = pass_device(walk, here, node, here.device, "egress", encrypted_before(walk, here, node))
    if going is None:
        return None
    here = going
    if inside:
        to_pod = _to_local_pod(walk, here, node)
        if to_pod is not None:
            if not host_firewall.goes_out(walk, here, node):
                return None
            return to_pod if next_hop.is_the_pods(walk, here, node) else None
        if here.device in ("cilium_host", "cilium_net"):
            return _by_cilium_host(walk, here, node)
    cilium = show_programs(walk, here, here.device, "egress")
    to_network(walk, here, node, cilium)
    if not host_firewall.goes_out(walk, here, node):
        return None
    if inside and walk.forth is None:  # nothing translates an answer's source but back
        sent = to_gateway.at_device(walk, here, node)
        if sent is not here:
            return sent
        masqueraded = _by_ciliums_nat(walk, here, node)
        if masqueraded is None:
            return None
        here = masqueraded
    sealed = here.sealed is not None
    encrypted = here if sealed else encrypt(walk, here, node, cilium)
    if encrypted is None or (encrypted is not here and encrypted.sealed is not None):
        return encrypted  # what carries it comes to a device of its own, or to this one again
    return _onto_wire(walk, encrypted, node)


def _onto_wire(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Send what the device's programs have let pass, by the devices below it."""
    before = here.sealed or here.packet
    outside = here.to(Stage.WIRE, added=added_by(before, here.encrypted))
    if not size.out_of_node(walk, outside, node) or not next_hop.resolve(walk, outside, node):
        return None
    show_below(walk, here, here.device, "egress")
    return outside if losses.sends(walk, here, node, here.device) else None


def _behind_nat(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Pass the chains of POSTROUTING that stand behind source NAT; None where one drops it."""
    if here.netfilter is None:
        return here
    context = replace(here.netfilter, flow=here.packet.flow, out_device=here.device)
    here = here.to(here.stage, netfilter=context)
    return hooks.passes(walk, here, node, "POSTROUTING", ("filter",), quiet=True)


def _by_ciliums_nat(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Let Cilium translate the source, of an egress gateway or of the node; None where it drops."""
    given = gateway.translate(walk, here, node)
    if given is not here:
        return given
    translated = by_cilium(walk, here, node)
    if translated is not None and translated.packet.flow.source != here.packet.flow.source:
        translates_answers(walk, translated, node)
    return translated


def _to_local_pod(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    endpoint = node.local_endpoint(here.packet.flow.destination)
    client = walk.ends.source_endpoint
    if endpoint is None and walk.forth is not None and client is not None:
        # The route to the pod's own device needs no entry of the endpoint map.
        at_client = (here.node, here.device) == (walk.ends.source.node, client.interface)
        endpoint = client if at_client else None
    if endpoint is None:
        return None
    if here.device == endpoint.interface:
        absent = show_programs(walk, here, here.device, "egress") is Presence.ABSENT
        absent = absent and has_cilium(walk, node)
        if absent:
            title, fix = report_absent(walk, here, here.device, "to-pod")
            walk.doubt(title, fix=fix)
        return here.to(Stage.ENDPOINT, unpoliced=absent)
    if here.device in ("cilium_host", "cilium_net"):
        show_programs(walk, here, here.device, "egress")
        tunnel_end.compare_unused(walk, node, here.packet.flow.destination)
        return here.to(Stage.ENDPOINT, device=endpoint.interface, from_host=True)
    return None


def _by_cilium_host(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Send the packet from the node's stack to another node's pod: cil_from_host encapsulates."""
    cilium = show_programs(walk, here, here.device, "egress")
    if here.device == "cilium_host" and cilium is Presence.ABSENT:
        without_cilium(walk, here, here.device, "host")
        walk.unknown(f"what becomes of it at {here.device} without cil_from_host is not known")
        return None
    if not host_firewall.goes_out(walk, here, node):
        return None
    target = here.packet.flow.destination
    entry = node.ipcache_of(target)
    end = entry.tunnel_endpoint if entry is not None else None
    if entry is not None and end is not None and is_tunnelled(node, entry) is not False:
        tunnel_end.compare(walk, node, target, entry)
        return here.to(Stage.TUNNEL, device=str(end))
    if _is_strange(walk, here, node, entry):
        return None
    if entry is not None and end is None:
        tunnel_end.compare(walk, node, target, entry)
    known = node[q.ENDPOINTS].known or node[q.ENDPOINT_MAP].known
    if known and any(target in cidr for cidr in _own_cidrs(walk, here.node)):
        evidence = cite.whole(node[q.ENDPOINT_MAP].record or node[q.ENDPOINTS].record)
        gone = pod_gone.left_of(walk, node, target)
        walk.drop(
            *here.in_cilium(HopKind.ROUTE),
            f"no endpoint has {target} on {here.node}: Stale or unroutable IP",
            State.DERIVED,
            here.packet,
            evidence,
            title=f"{target} is in {here.node}'s pod CIDR, but no endpoint has it",
            detail=_why_unroutable(walk, node, target),
            cause=gone.title if gone is not None else _cause_unroutable(node, target),
            fix=gone.fix if gone is not None else _fix_unroutable(node, target),
        )
        return None
    unread = ": its row of the ipcache was not read" if node.left_out(q.IPCACHE, target) else ""
    walk.unknown(f"what cil_from_host does with {target} is not known{unread}")
    return None


def _is_strange(
    walk: PathBuilder, here: PacketState, node: NodeView, entry: IpcacheEntry | None
) -> bool:
    """Drop a packet at cilium_host for a pod that the ipcache takes to be outside; return whether
    it is one (bpf/bpf_host.c, handle_ipv4_cont: DROP_UNROUTABLE)."""
    target = here.packet.flow.destination
    world = entry.identity in _WORLD if entry is not None else node.ipcache_lacks(target)
    table = node[q.IPCACHE]
    if not world or node.local_endpoint(target) is not None:
        return False
    owner, whose = walk.cluster.pod_with(target), walk.cluster.node_of(target)
    if owner is not None and target not in walk.cluster.node_addresses:
        whose, what = owner.node, f"a pod of {owner.node}"
        holder = f"pod {owner.namespace}/{owner.name} of {owner.node}"
    else:
        what, holder = f"an address of node {whose}", f"node {whose}"
    if not whose or whose == node.name:
        return False
    said = f"is {entry.prefix}, the world" if entry is not None else "has no entry"
    walk.drop(
        *here.in_cilium(HopKind.ROUTE),
        f"{target} {said} in the ipcache of {here.node}: Stale or unroutable IP",
        State.DERIVED, here.packet,
        cite.of(table.record, entry.span) if entry else cite.whole(table.record),
        title=f"Cilium's ipcache of {here.node} lacks {target}, {what}",
        detail="Its agent did not learn of it: its connection to the API server, and its log, "
        "tell why. A restart of the agent reads all pods and nodes anew.",
        cause=f"Cilium's ipcache of {here.node} lacks {target}, which {holder} has",
        fix=Fix(
            f"See why the agent of {here.node} does not know it.",
            node.in_agent(f"bpf ipcache get {target}"),
        ),
    )  # fmt: skip
    return True


_WORLD = frozenset((2, 9, 10))
"""Reserved identities of what is outside (bpf/lib/identity.h, identity_is_world)."""


def _cause_unroutable(node: NodeView, target: Address) -> str:
    listed = node.endpoint_of(target)
    if listed is None:
        return ""
    return (
        f"Cilium's endpoint map of {node.name} (cilium_lxc) lacks {target}, which its agent has as "
        f"endpoint {listed.id}"
    )


def _fix_unroutable(node: NodeView, target: Address) -> Fix | None:
    listed = node.endpoint_of(target)
    if listed is None:
        return None
    return Fix(
        f"Let the agent on {node.name} write the entry again.",
        node.in_agent(f"endpoint regenerate {listed.id}"),
    )


def _why_unroutable(walk: PathBuilder, node: NodeView, target: Address) -> str:
    listed = node.endpoint_of(target)
    if listed is not None:
        return (
            f"The agent lists it as endpoint {listed.id}, but its map cilium_lxc lacks it: "
            f"`{node.cilium('bpf endpoint list')}` against `{node.cilium('endpoint list')}`; "
            f"`{node.cilium(f'endpoint regenerate {listed.id}')}`, or a restart of the agent, "
            "writes it."
        )
    pod = walk.cluster.pod_with(target)
    if pod is not None:
        return f"Pod {pod.namespace}/{pod.name} has it: its endpoint was not made, or not restored."
    balanced = (hop for hop in reversed(walk.hops) if hop.kind is HopKind.LOAD_BALANCING)
    for hop in balanced:
        if hop.packet.flow.destination == target:
            return (
                f"No pod has this address. Hop {hop.number} on {hop.node} sends the packet there: "
                f"{hop.summary}."
            )
    return "No pod has this address: the pod is gone."


def _own_cidrs(walk: PathBuilder, name: str) -> tuple[Network, ...]:
    kube_node = walk.cluster.kube_node(name)
    cidrs = kube_node.pod_cidrs if kube_node else ()
    for node in walk.cluster.cilium_nodes:
        if node.name == name:
            cidrs += node.pod_cidrs
    return cidrs
