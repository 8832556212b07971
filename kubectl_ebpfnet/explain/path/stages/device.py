"""The device by which a packet leaves a node's stack: link, masquerading, programs, next hop."""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.routing import neighbour_of, unresolved
from kubectl_ebpfnet.explain.path.stages import gateway
from kubectl_ebpfnet.explain.path.stages.cilium_nat import by_cilium
from kubectl_ebpfnet.explain.path.stages.encryption import encrypt
from kubectl_ebpfnet.explain.path.stages.program_hops import (
    show_programs,
    translates_answers,
    without_cilium,
)
from kubectl_ebpfnet.explain.path.stages.source_nat import by_netfilter
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.programs.at_device import Presence
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import IpcacheEntry
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, Outcome, State


def leave(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Send the packet out by a device: to a local pod, into the tunnel, or onto the wire."""
    node = walk.cluster.node(here.node)
    if not _is_up(walk, here, node):
        return None
    inside = here.packet.outer is None
    if inside and not here.skips_netfilter:
        here = by_netfilter(walk, here, node)
    if inside:
        to_pod = _to_local_pod(walk, here, node)
        if to_pod is not None:
            return to_pod
        if here.device in ("cilium_host", "cilium_net"):
            return _by_cilium_host(walk, here, node)
    show_programs(walk, here, here.device, "egress")
    if inside and walk.forth is None:  # nothing translates an answer's source but back
        row = gateway.policy_row(walk, here, node)
        if row is not None and gateway.is_at(walk, node, row):
            translated = gateway.translate(walk, here, node, row)
            if translated is None:
                return None
            here = translated
        else:
            sent = here.packet.flow.source
            here = by_cilium(walk, here, node)
            if here.packet.flow.source != sent:
                translates_answers(walk, here, node)
    encrypted = encrypt(walk, here, node)
    if encrypted is None or not _next_hop(walk, encrypted, node):
        return None
    return encrypted.to(Stage.WIRE)


def link_evidence(node: NodeView, device: str) -> tuple[Evidence, ...]:
    """Cite a device in the record of links."""
    link = node.link(device)
    keep = ("ifindex", "ifname", "flags", "mtu", "operstate", "address")
    return cite.of(node[q.LINKS].record, *([link.span.head()] if link else []), keep=keep)


def _is_up(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    link = node.link(here.device)
    if link is None or (link.up and link.lower_up):
        return True
    evidence = link_evidence(node, here.device)
    what = "is down" if not link.up else "has no carrier"
    walk.drop(
        *here.on_node(HopKind.LINK),
        f"{here.device} {what}",
        State.OBSERVED,
        here.packet,
        evidence,
        title=f"device {here.device} of node {here.node} {what}",
        detail=f"`ip -s link show {here.device}` on the node; the route that uses it should be "
        "gone.",
    )
    return False


def _to_local_pod(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    endpoint = node.local_endpoint(here.packet.flow.destination)
    client = walk.ends.source_endpoint
    if endpoint is None and walk.forth is not None and client is not None:
        # The route to the pod's own device needs no entry of the endpoint map.
        at_client = (here.node, here.device) == (walk.ends.source.node, client.interface)
        endpoint = client if at_client else None
    if endpoint is None:
        return None
    if here.device == endpoint.interface or here.device in ("cilium_host", "cilium_net"):
        show_programs(walk, here, here.device, "egress")
        return here.to(Stage.ENDPOINT, device=endpoint.interface)
    return None


def _by_cilium_host(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Send the packet from the node's stack to another node's pod: cil_from_host encapsulates."""
    cilium = show_programs(walk, here, here.device, "egress")
    if here.device == "cilium_host" and cilium is Presence.ABSENT:
        without_cilium(walk, here, here.device, "host", "egress")
        walk.unknown(f"what becomes of it at {here.device} without cil_from_host is not known")
        return None
    entry = node.ipcache_of(here.packet.flow.destination)
    if entry is not None and entry.tunnel_endpoint is not None:
        return here.to(Stage.TUNNEL, device=str(entry.tunnel_endpoint))
    if _is_strange(walk, here, node, entry):
        return None
    target = here.packet.flow.destination
    known = node[q.ENDPOINTS].known or node[q.ENDPOINT_MAP].known
    if known and any(target in cidr for cidr in _own_cidrs(walk, here.node)):
        evidence = cite.whole(node[q.ENDPOINT_MAP].record or node[q.ENDPOINTS].record)
        walk.drop(
            *here.in_cilium(HopKind.ROUTE),
            f"no endpoint has {target} on {here.node}: Stale or unroutable IP",
            State.DERIVED,
            here.packet,
            evidence,
            title=f"{target} is in {here.node}'s pod CIDR, but no endpoint has it",
            detail=_why_unroutable(walk, node, target),
            cause=_cause_unroutable(node, target),
        )
        return None
    walk.unknown(f"what cil_from_host does with {target} is not known")
    return None


def _is_strange(
    walk: PathBuilder, here: PacketState, node: NodeView, entry: IpcacheEntry | None
) -> bool:
    """Drop a packet at cilium_host for a pod that the ipcache takes to be outside; return whether
    it is one (bpf/bpf_host.c, handle_ipv4_cont: DROP_UNROUTABLE)."""
    target = here.packet.flow.destination
    world = entry is None or entry.identity in _WORLD
    table = node[q.IPCACHE]
    if not table.known or not world or node.local_endpoint(target) is not None:
        return False
    owner = walk.cluster.pod_with(target)
    if owner is None or owner.node == node.name:
        return False
    said = f"is {entry.prefix}, the world" if entry is not None else "has no entry"
    walk.drop(
        *here.in_cilium(HopKind.ROUTE),
        f"{target} {said} in the ipcache of {here.node}: Stale or unroutable IP",
        State.DERIVED, here.packet,
        cite.of(table.record, entry.span) if entry else cite.whole(table.record),
        title=f"Cilium's ipcache of {here.node} lacks {target}, a pod of {owner.node}",
        detail="Its agent did not learn of the pod: its connection to the API server, and its log, "
        "tell why. A restart of the agent reads all pods anew.",
        cause=f"Cilium's ipcache of {here.node} lacks {target}, which pod {owner.namespace}/"
        f"{owner.name} of {owner.node} has",
        fix=Fix(
            f"See why the agent of {here.node} does not know it.",
            node.cilium(f"bpf ipcache get {target}"),
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
    return "No pod has this address: the pod is gone."


def _own_cidrs(walk: PathBuilder, name: str) -> tuple[Network, ...]:
    kube_node = walk.cluster.kube_node(name)
    cidrs = kube_node.pod_cidrs if kube_node else ()
    for node in walk.cluster.cilium_nodes:
        if node.name == name:
            cidrs += node.pod_cidrs
    return cidrs


def _next_hop(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Add the neighbour entry of the next hop; return whether the packet can be sent to it."""
    answer = node[q.NEIGHBOURS]
    flow = here.packet.outer or here.packet.flow
    target: Address = here.next_hop or flow.destination
    if not answer.known or not _has_neighbours(node, here.device):
        return True
    if target.version == 6 and answer.record is not None and _lists_ipv4_alone(answer.record):
        return True
    neighbour = neighbour_of(answer.facts, here.device, target)
    where = here.on_node(HopKind.NEIGHBOUR)
    if neighbour is None:
        _no_entry(walk, here, target, cite.whole(answer.record))
        return True
    evidence = cite.of(answer.record, neighbour.span)
    if unresolved(neighbour):
        state = "/".join(neighbour.states)
        walk.drop(
            *where,
            f"next hop {target} on {here.device} is {state}",
            State.OBSERVED,
            here.packet,
            evidence,
            title=f"neighbour {target} on {here.device} of {here.node} is {state}",
            detail="Nobody on the link answers ARP/ND for the next hop: it is down, or not on this "
            "network.",
        )
        return False
    walk.hop(
        *where,
        f"next hop {target} is at {neighbour.mac} on {here.device} ({'/'.join(neighbour.states)})",
        State.OBSERVED,
        here.packet,
        evidence,
    )
    return True


def _no_entry(
    walk: PathBuilder, here: PacketState, target: Address, evidence: tuple[Evidence, ...]
) -> None:
    """Say that the next hop's MAC has to be asked for, which may get no answer."""
    attempt = walk.attempt
    silent = attempt is not None and attempt.now and attempt.outcome is Outcome.UNANSWERED
    walk.hop(
        *here.on_node(HopKind.NEIGHBOUR),
        f"no entry for next hop {target} on {here.device} yet: the node asks for its MAC",
        State.UNKNOWN if silent else State.DERIVED,
        here.packet,
        evidence,
        reason=f"whether anybody has {target} on {here.device} is not known" if silent else "",
        decides=Decides.DROP,
        fix=Fix(f"Ask for it on node {here.node}.", f"arping -I {here.device} {target}"),
    )


def _has_neighbours(node: NodeView, device: str) -> bool:
    """Tell whether packets at a device need a MAC: tunnels of IP in IP and WireGuard have none."""
    link = node.link(device)
    return link is None or (link.arp and bool(link.mac))


def _lists_ipv4_alone(record: Record) -> bool:
    """Tell whether a record of neighbours has those of ARP alone (/proc/net/arp, arp)."""
    return "arp" in record.argv[-1] or record.argv[0] == "arp"
