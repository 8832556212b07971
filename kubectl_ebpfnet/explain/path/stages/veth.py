"""The host side veth: the programs there, Cilium's conntrack, load-balancing and egress policy.

Source: Cilium bpf/bpf_lxc.c (cil_from_container): per-packet load-balancing, conntrack look-up,
egress policy, then the forwarding decision.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from kubectl_ebpfnet.explain.kernel import kube_proxy
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.services import find
from kubectl_ebpfnet.explain.path.stages import forward, loadbalancing, proxy, reply_nat
from kubectl_ebpfnet.explain.path.stages.losses import device_losses
from kubectl_ebpfnet.explain.path.stages.missing_programs import without_cilium
from kubectl_ebpfnet.explain.path.stages.policy_hop import policy_hop
from kubectl_ebpfnet.explain.path.stages.program_hops import show_programs
from kubectl_ebpfnet.explain.path.stages.sctp import is_tracked
from kubectl_ebpfnet.explain.path.stages.tail_calls import calls_nothing
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.programs.at_device import Presence
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.path import Decides, HopKind, HopPlace, Outcome, Packet, State

_LOOPBACK, _LOOPBACK6 = "169.254.42.1", "fe80::1"
"""Cilium's defaults (ipv4-service-loopback-address)."""


def enter(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Receive the packet from the pod at its host side device."""
    node = walk.cluster.node(here.node)
    device_losses(walk, node, here.device, "rx")
    cilium = show_programs(walk, here, here.device, "ingress")
    packet: Packet | None = here.packet
    if cilium is not Presence.PRESENT and not has_cilium(walk, node):
        return here.to(Stage.HOST)
    if cilium is Presence.ABSENT:
        without_cilium(walk, here, here.device, "pod")
        return here.to(Stage.HOST, in_device=here.device)
    if calls_nothing(walk, here, node, here.device):
        return None
    if walk.forth is not None:
        return _answered(walk, here, node)
    if not is_tracked(walk, here, node):
        return None
    service = _frontend(walk, here, node)
    to_service = service is not None and here.packet.flow.destination == service.address
    if service is not None and to_service and not _left_to_others(walk, service, node):
        where = here.in_cilium(HopKind.LOAD_BALANCING)
        how = f"at {here.device}, packet by packet"
        packet = loadbalancing.rewrite(walk, here.packet, service, where, how)
        if packet is None:
            return None
    assert packet is not None
    if packet.flow.destination == packet.flow.source:
        return _to_itself(walk, here, packet)
    _conntrack(walk, here, packet)
    if not _egress_policy(walk, here, node, packet):
        return None
    redirect = proxy.redirect_at(walk, here.node, "egress")
    here = here.to(Stage.FORWARD, packet=packet)
    return here if redirect is None else proxy.take(walk, here, node, redirect)


def _to_itself(walk: PathBuilder, here: PacketState, packet: Packet) -> PacketState:
    """Send a packet back to its own pod, which the load-balancer chose: with a source of its own,
    so that the answer comes by Cilium, and past policies (bpf/lib/lb.h, lb4_local, loopback)."""
    six = packet.flow.source.version == 6
    source = ip_address(_LOOPBACK6 if six else _LOOPBACK)
    translated = replace(packet, flow=packet.flow.with_source(source, packet.flow.source_port))
    walk.hop(
        *here.in_cilium(HopKind.NAT),
        f"the pod is a backend itself: the source becomes {source} (Cilium's service loopback), "
        "and no policy is asked",
        State.UNKNOWN if six else State.DERIVED,
        packet if six else translated,
        reason="over IPv6 only new versions of Cilium change the source; the pod drops a packet "
        "from its own address" if six else "",
        decides=Decides.DROP,
    )  # fmt: skip
    return here.to(Stage.FORWARD, packet=packet if six else translated, unpoliced=True)


def _answered(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Pass an answer: conntrack knows its connection, and no policy is asked (CT_REPLY). That of a
    backend to which this node balanced goes on past the node's stack (rev_nodeport_lb4)."""
    redirect = proxy.redirect_at(walk, here.node, "ingress")
    if redirect is not None:
        return proxy.answer(walk, here, redirect)
    came = here.packet.flow
    here = reply_nat.undo(walk, here, reply_nat.Undone.BY_CILIUM)
    walk.hop(
        *here.in_cilium(HopKind.CONNTRACK),
        "an answer of a connection that Cilium's conntrack has: no policy is asked",
        State.DERIVED, here.packet, short="Cilium has the connection: no policy is asked",
    )  # fmt: skip
    by_dsr = walk.forth is not None and reply_nat.answers_by_itself(walk.forth)
    to_itself = node.local_endpoint(here.packet.flow.destination) is not None
    if here.packet.flow != came and not by_dsr and not to_itself:
        return forward.to_other_node(walk, here, node)
    return here.to(Stage.FORWARD)


def has_cilium(walk: PathBuilder, node: NodeView) -> bool:
    """Tell whether any record shows that Cilium runs this node's datapath."""
    return (
        node.config.state != ""
        or node[q.ENDPOINTS].known
        or node[q.ENDPOINT_MAP].known
        or walk.endpoint is not None
        or walk.cluster.settings_record is not None
        or (walk.tracked is not None and walk.tracked.cilium_ct is not None)
    )


def _frontend(walk: PathBuilder, here: PacketState, node: NodeView) -> ServiceAddress | None:
    """Return the frontend that the packet is for, as cil_from_container finds it: where sockets
    leave one alone it may balance."""
    service, packet_lb = walk.ends.service, node.config.packet_lb
    if service is None or not service.passed_over:
        return service
    if walk.tracked is not None and walk.tracked.service_ct is not None:
        packet_lb = True
    # Both settings are off unless they are set.
    if packet_lb is False or (packet_lb is None and walk.cluster.settings_record is not None):
        return service
    if packet_lb is None:
        walk.hop(
            *here.in_cilium(HopKind.LOAD_BALANCING), service.title, State.UNKNOWN, here.packet,
            service.evidence, decides=Decides.WAY,
            reason="whether the program at the pod's device balances as well is not known: the "
            "settings enable-envoy-config and enable-sctp of Cilium were not read",
        )  # fmt: skip
        return service
    return find(
        walk.cluster, node.name, service.address, service.port, service.protocol, Lookup.POD
    )


def _left_to_others(walk: PathBuilder, service: ServiceAddress, node: NodeView) -> bool:
    """Tell whether cil_from_container leaves the service's address as it is: kube-proxy's rules
    rewrite it later in the node's stack, or the node that has the address does."""
    tracked = walk.tracked
    if tracked is not None and tracked.service_ct is not None:
        return False
    if tracked is not None and tracked.netfilter is not None and tracked.netfilter.destination_nat:
        return True
    if service.in_cilium is not None:
        return not service.in_cilium
    rules = node.ruleset(service.address.version)
    return bool(rules.facts and kube_proxy.has_kube_proxy(rules.facts[0]))


def _conntrack(walk: PathBuilder, here: PacketState, packet: Packet) -> None:
    tracked = walk.tracked
    where = (HopPlace.CILIUM, here.device, here.node, HopKind.CONNTRACK)
    if tracked is None or tracked.cilium_ct is None:
        return
    entry = tracked.cilium_ct
    seen = CAME_BACK[tracked.outcome]
    walk.hop(
        *where,
        f"{ct_text(entry)}, identity {entry.source_identity}{seen}{_lifetime(entry)}",
        State.OBSERVED,
        packet,
        tracked.evidence[:1],
        short=f"{ct_short(entry)}{seen}{_lifetime(entry)}",
    )


CAME_BACK = {
    Outcome.ANSWERED: ", replies seen",
    Outcome.REFUSED: ", refused",
    Outcome.UNANSWERED: ", no reply seen",
    Outcome.UNKNOWN: "",
}
"""What came back to a flow, at the end of a sentence on its entry."""
_SIDES = {"OUT": "egress", "IN": "ingress", "SVC": "service"}


def ct_text(entry: CtEntry) -> str:
    """Return a CT entry's direction and tuple: `CT entry (egress) TCP … → …`."""
    return f"CT entry ({_SIDES.get(entry.direction, entry.direction)}) {entry.flow}"


def ct_short(entry: CtEntry) -> str:
    """Return a CT entry's direction alone: `Cilium, egress`."""
    return f"Cilium, {_SIDES.get(entry.direction, entry.direction)}"


def _lifetime(entry: CtEntry) -> str:
    if entry.remaining is None:
        return ""
    if entry.remaining < 0:
        return f", expired {-entry.remaining}s ago"
    return f", expires in {entry.remaining}s"


def _egress_policy(walk: PathBuilder, here: PacketState, node: NodeView, packet: Packet) -> bool:
    """Add the egress policy hop; return whether the packet goes on."""
    endpoint = walk.endpoint
    remote = node.ipcache_of(packet.flow.destination)
    identity = remote.identity if remote is not None else _local_identity(node, packet)
    endpoint_id = endpoint.id if endpoint is not None else None
    return policy_hop(walk, here, node, packet, endpoint_id, "egress", identity)


def _local_identity(node: NodeView, packet: Packet) -> int | None:
    endpoint = node.local_endpoint(packet.flow.destination)
    return endpoint.identity if endpoint is not None and endpoint.identity else None
