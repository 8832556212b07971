"""The pod's own namespace: route, gateway, neighbour entry, and the veth out of it.

In Cilium's pods the gateway is the node's cilium_host address, and cil_from_container answers ARP
for it with the MAC of the host side veth (cilium-facts 4.3), so the neighbour entry's MAC is that
of the pod's host side device.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.neighbours import neighbour_of, unresolved
from kubectl_ebpfnet.explain.path.endings import Destination
from kubectl_ebpfnet.explain.path.stages import listener, pod_rules, policy_names, size
from kubectl_ebpfnet.explain.path.stages.foreign_programs import show_in_pod
from kubectl_ebpfnet.explain.path.stages.forward import endpoint_evidence
from kubectl_ebpfnet.explain.path.stages.link_state import takes_packets
from kubectl_ebpfnet.explain.path.stages.losses import sends_in_pod
from kubectl_ebpfnet.explain.path.stages.pod_route import route_in_pod
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kernel import Link, Neighbour, Route
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence, HopKind, Severity, State
from kubectl_ebpfnet.model.shell import word


def leave(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Route the packet in the pod; the next place is the host side veth."""
    netns = walk.cluster.pod_netns(walk.sender.namespace, walk.sender.name)
    if _to_itself(walk, here, netns):
        return None
    node = walk.cluster.node(here.node)
    route = route_in_pod(walk, here, netns)
    if route is False:
        return None
    if not size.sent_by_pod(walk, here, netns, route if isinstance(route, Route) else None):
        return None
    device = route.device if isinstance(route, Route) else "eth0"
    target = here.packet.flow.destination
    if isinstance(route, Route) and route.gateway is not None:
        target = route.gateway
    neighbour: Neighbour | None = None
    if not pod_rules.may_leave(walk, netns, here.packet, device):
        return None
    if isinstance(route, Route):
        ok, neighbour = _neighbour(walk, here, netns, device, target)
        if not ok:
            return None
    show_in_pod(walk, here, netns, walk.source_pod, device, "egress")
    if not sends_in_pod(walk, here, netns, walk.source_pod, device):
        return None
    host_side = _link(walk, here, netns, node, device, neighbour, target)
    if host_side is None or not size.out_of_pod(walk, here, node, host_side):
        return None
    stray = neighbour.mac if neighbour is not None and _is_stray(node, host_side, neighbour) else ""
    return here.to(Stage.VETH, device=host_side, in_device=host_side, stray_mac=stray)


def _to_itself(walk: PathBuilder, here: PacketState, netns: PodNetns) -> bool:
    """Tell whether the packet is for the pod itself, whose local table keeps it on lo."""
    flow = here.packet.flow
    own = [fact for fact in netns[q.POD_ADDRESSES].facts if fact.address == flow.destination]
    if not (own or flow.destination == flow.source or flow.destination.is_loopback):
        return False
    walk.hop(
        *walk.in_source_pod(HopKind.DELIVERY),
        f"{flow.destination} is the pod's own address: it stays on lo, and meets no program and "
        "no policy",
        State.DERIVED,
        here.packet,
        cite.of(netns[q.POD_ADDRESSES].record, *(fact.span for fact in own)) if own else (),
    )
    pod = walk.cluster.pod(walk.ends.source.namespace, walk.ends.source.name)
    device = own[0].device if own else "lo" if flow.destination.is_loopback else "eth0"
    if pod is None or listener.in_pod(walk, here, pod, device):
        walk.arrived(Destination.POD, f"to pod {walk.source_pod} itself, on lo")
    return True


def _neighbour(
    walk: PathBuilder, here: PacketState, netns: PodNetns, device: str, target: Address
) -> tuple[bool, Neighbour | None]:
    """Return whether the packet goes on, and the neighbour entry."""
    answer = netns[q.POD_NEIGHBOURS]
    where = walk.in_source_pod(HopKind.NEIGHBOUR)
    inner = netns.link(device)
    if inner is not None and not inner.arp:
        return True, None  # netkit in mode l3: packets have no MAC, and nobody is asked for one
    neighbour = neighbour_of(answer.facts, device, target) if answer.known else None
    if neighbour is None:
        asks = f"no entry for {target} yet: the pod will ask for its MAC on {device}"
        walk.hop(
            *where,
            asks if answer.known else f"neighbour {target} on {device}",
            State.DERIVED if answer.known else State.UNKNOWN,
            here.packet,
            cite.whole(answer.record),
            reason=""
            if answer.known
            else f"the pod's neighbours could not be read: {answer.missing}",
        )
        return True, None
    evidence, state = cite.of(answer.record, neighbour.span), "/".join(neighbour.states)
    if unresolved(neighbour) and _has_no_carrier(netns, device):
        # The link is the cause: it is the next hop, and the answer names it.
        summary = f"{target} on {device} is {state}: the link has no carrier"
        walk.hop(*where, summary, State.OBSERVED, here.packet, evidence)
        return True, None
    if unresolved(neighbour):
        walk.drop(
            *where,
            f"neighbour {target} on {device} is {state}: nothing answers its ARP/ND",
            State.OBSERVED,
            here.packet,
            evidence,
            title=f"neighbour {target} of pod {walk.source_pod} is {state}",
            detail="cil_from_container at the host side veth answers ARP for the gateway: it is "
            "missing, or drops before it answers.",
        )
        return False, neighbour
    walk.hop(
        *where, f"{target} is at {neighbour.mac} on {device}", State.OBSERVED, here.packet,
        evidence, short=f"{target} at {neighbour.mac}",
    )  # fmt: skip
    return True, neighbour


def _has_no_carrier(netns: PodNetns, device: str) -> bool:
    """Tell whether the pod's device, or its other end, is down."""
    link = netns.link(device)
    return link is not None and not (link.up and link.lower_up)


def _link(
    walk: PathBuilder,
    here: PacketState,
    netns: PodNetns,
    node: NodeView,
    device: str,
    neighbour: Neighbour | None,
    target: Address,
) -> str | None:
    """Add the veth hop; return the host side device's name, None when the walk ends here."""
    where = walk.in_source_pod(HopKind.LINK)
    inner = netns.link(device)
    if inner is not None and not inner.up:
        evidence = cite.of(netns[q.POD_LINKS].record, inner.span.head())
        walk.drop(
            *where,
            f"{device} is down in the pod",
            State.OBSERVED,
            here.packet,
            evidence,
            title=f"{device} of pod {walk.source_pod} is down",
            detail=f"`kubectl exec -n {word(walk.sender.namespace)} {word(walk.sender.name)} -- "
            f"ip link set {word(device)} up` brings it up.",
        )
        return None
    outer, how, evidence = _host_side(walk, netns, node, inner, neighbour)
    if inner is not None:
        evidence = cite.of(netns[q.POD_LINKS].record, inner.span.head()) + evidence
    if outer is None and here.device:
        return here.device  # an answer: the device by which the packet came to the pod
    if outer is None:
        why = node[q.LINKS].missing or "no device of the node matches the pod's"
        walk.hop(
            *where,
            f"{device}, the way out of the pod",
            State.UNKNOWN,
            here.packet,
            evidence,
            reason=f"its host side is not known: {why}",
            short=device,
        )
        said = _by_policies(walk, here)
        reason = f"the host side of {walk.source_pod}'s {device} is not known: {why}"
        walk.unknown(reason, besides=said)
        return None
    mtu = f", MTU {inner.mtu}" if inner is not None and inner.mtu else ""
    text = f"{pair_kind(node, outer)} {device} ↔ {outer.name} ({how}){mtu}"
    short = f"{pair_kind(node, outer)} {device} ↔ {outer.name}"
    walk.hop(*where, text, State.DERIVED, here.packet, evidence, short=short)
    called = f"{outer.name}, the host side of pod {walk.source_pod},"
    if not takes_packets(walk, here, node, outer.name, called):
        return None
    _check_mac(walk, node, outer, neighbour, target)
    return outer.name


def _by_policies(walk: PathBuilder, here: PacketState) -> str:
    """Return what the policies in the cluster say of a packet that cannot be followed to their
    maps; "" for an answer, and for the address of a Service: they see that of
    a backend."""
    service = walk.ends.service
    if walk.forth is not None or (service and service.address == here.packet.flow.destination):
        return ""
    where = here.in_cilium(HopKind.POLICY)
    return policy_names.without_map(walk.cluster, where, here.packet, "egress")


def pair_kind(node: NodeView, link: Link | None) -> str:
    """Return `veth` or `netkit`: the kind of the pair of devices that a pod is joined by.

    Args:
        node: the pod's node.
        link: its host side, None where it was not read.
    """
    if link is not None and link.kind:
        return link.kind
    return "netkit" if node.config.datapath_mode.startswith("netkit") else "veth"


def _host_side(
    walk: PathBuilder,
    netns: PodNetns,
    node: NodeView,
    inner: Link | None,
    neighbour: Neighbour | None,
) -> tuple[Link | None, str, tuple[Evidence, ...]]:
    """Find the host side device; return it, how it was found, and the proof."""
    endpoint = walk.endpoint
    candidates: list[tuple[Link, str]] = []
    if neighbour is not None and neighbour.mac:
        candidates += [
            (link, "peer matched by the gateway's MAC")
            for link in node[q.LINKS].facts
            if link.mac == neighbour.mac and link.index != 1
        ]
    index = inner.peer_index if inner is not None else None
    if index is None and netns[q.POD_IFLINK].facts:
        index = netns[q.POD_IFLINK].facts[0]
    if index is not None and not candidates:
        candidates += [
            (link, "peer matched by its ifindex")
            for link in node[q.LINKS].facts
            if link.index == index
            and (link.peer_index is None or inner is None or link.peer_index == inner.index)
        ]
    if not candidates and endpoint is not None and endpoint.interface:
        known = node.link(endpoint.interface)
        how = "peer named by the agent"
        if known is not None:
            candidates.append((known, how))
        elif not node[q.LINKS].known:
            link = Link(endpoint.ifindex or 0, endpoint.interface, mac=endpoint.host_mac)
            return link, how, endpoint_evidence(node, endpoint)
    if not candidates:
        return None, "", ()
    link, how = candidates[0]
    proof = endpoint_evidence(node, endpoint) if endpoint and endpoint.interface else ()
    return link, how, _node_link_evidence(node, link) + proof


def _node_link_evidence(node: NodeView, link: Link) -> tuple[Evidence, ...]:
    keep = ("ifindex", "ifname", "link_index", "flags", "mtu", "operstate", "address")
    return cite.of(node[q.LINKS].record, link.span.head(2), keep=keep)  # the second has the MAC


def _is_stray(node: NodeView, host_side: str, neighbour: Neighbour) -> bool:
    """Tell whether an entry that somebody wrote has a MAC that the host side does not have. One
    that was learned is asked for again when it stops working."""
    outer = node.link(host_side)
    if outer is None or not outer.mac or not neighbour.mac or "PERMANENT" not in neighbour.states:
        return False
    return neighbour.mac != outer.mac


def _check_mac(
    walk: PathBuilder, node: NodeView, outer: Link, neighbour: Neighbour | None, target: Address
) -> None:
    if neighbour is None or not neighbour.mac or not outer.mac or neighbour.mac == outer.mac:
        return
    walk.finding(
        Severity.WARNING,
        f"{target} is at {neighbour.mac} in the pod, but {outer.name} has {outer.mac}",
        "The pod sends to a MAC that its own host side does not have. An entry of a former "
        "veth, or something else answers ARP in the pod.",
        _node_link_evidence(node, outer),
    )
