"""The end of the way: the socket that takes the packet, or the refusal where there is none.

Where the sockets were not read, a listener is presumed. A redirection in a pod's own namespace (a
service mesh), another network stack (a RuntimeClass), IPVS and sk_lookup programs may take a packet
for which there is no socket: then it is not known what becomes of it, nor where the newest attempt
was answered without one. A full accept queue drops every SYN until the process accepts again; that
connections were answered just now proves nothing, since the kernel answers those that wait.

Sources: Linux net/ipv4/tcp_ipv4.c (tcp_v4_rcv: a RST without a socket), tcp_input.c
(tcp_conn_request), include/net/sock.h (sk_acceptq_is_full), net/ipv4/udp.c (__udp4_lib_rcv: ICMP
port unreachable).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import sockets as kernel
from kubectl_ebpfnet.explain.path import agent_behind, commands, host_ports
from kubectl_ebpfnet.explain.path.presumed import Look
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Where
from kubectl_ebpfnet.explain.path.wrong_port import Unmet, remedy
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.netns import Netns
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import LIVE
from kubectl_ebpfnet.model.kernel import Listener
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import SCTP, TCP, UDP, Flow, has_ports, protocol_name
from kubectl_ebpfnet.model.path import (
    Decides,
    Evidence,
    Fix,
    HopKind,
    HopPlace,
    Outcome,
    Severity,
    State,
)
from kubectl_ebpfnet.parse.node_side import is_node_question

_SOCKETS = {TCP: q.TCP_LISTENERS, UDP: q.UDP_SOCKETS, SCTP: q.SCTP_ENDPOINTS}
_REFUSALS = {TCP: "a RST", SCTP: "an ABORT"}
_MESHES = {15001: "Istio", 15006: "Istio or Kuma", 4143: "Linkerd", 20000: "Consul"}
"""Ports at which the proxy of a service mesh takes what rules in the pod redirect to it."""


@dataclass(frozen=True, slots=True)
class PacketEnd:
    """Where a packet comes to an end.

    Attributes:
        where: of the hop.
        netns: the network namespace.
        owner: whose it is: `pod default/web`, `node n1`.
        device: that the packet came in by.
        pod: that it is for, None for a node's own process or a pod that is not recorded.
    """

    where: Where
    netns: Netns
    owner: str
    device: str
    pod: Pod | None


def in_pod(walk: PathBuilder, here: PacketState, pod: Pod, device: str = "eth0") -> bool:
    """Hand the packet to a socket of a pod, as `meet`."""
    name = f"{pod.namespace}/{pod.name}"
    where = (HopPlace.POD, name, here.node, HopKind.SOCKET)
    netns = walk.cluster.pod_netns(pod.namespace, pod.name)
    return meet(walk, here, PacketEnd(where, netns, f"pod {name}", device, pod))


def on_node(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Hand the packet to a socket of a node, as `meet`."""
    device = here.in_device
    if device in ("", "lo"):  # it stays on lo (explain/kernel/sockets.py)
        owners = node.having(q.ADDRESSES, here.packet.flow.destination, "address")
        device = owners[0].device if owners else "lo"
    where, owner = here.on_node(HopKind.SOCKET), f"node {here.node}"
    return meet(walk, here, PacketEnd(where, node, owner, device, _host_network_pod(walk, here)))


def meet(walk: PathBuilder, here: PacketState, end: PacketEnd) -> bool:
    """Hand the packet to a socket; return False where the walk ends there."""
    flow = here.packet.flow
    fact = _SOCKETS.get(flow.protocol)
    if flow.destination_port is None or not has_ports(flow.protocol):
        return True
    if fact is None:
        walk.unread_listener = (
            f"a listener there is presumed: no sockets of {protocol_name(flow.protocol)} are read"
        )
        return True
    answer: Answer[Listener] = end.netns[fact]
    unmet = Unmet(flow, end.owner, end.pod, answer.facts, walk.ends.service)
    if not answer.known:
        _unread(walk, end, answer)
        _doubt_node_port(walk, end, flow)
        return True
    found = kernel.look_up(answer.facts, flow, end.device)
    if not found.takers:
        return _nobody(walk, here, end, unmet, answer)
    if found.v6_only_unread:
        walk.presumed.add(
            f"that {kernel.text(found.takers[0])} of {end.owner} takes IPv4 too (IPV6_V6ONLY)",
            Look.FIRST,
        )
    return _taken(walk, here, end, found.takers, answer)


def _unread(walk: PathBuilder, end: PacketEnd, answer: Answer[Listener]) -> None:
    """Presume a listener where the sockets were not read."""
    bundle = walk.cluster.bundle
    refused = any(not each.ran for place in end.netns.places for each in bundle.at(place))
    why, live = answer.missing, bundle.source == LIVE
    if answer.record is None and not refused:
        why = "they were not asked for" if live else "the capture lacks them"
    helps = "`--node-access pod` reads them"
    if not live:
        helps = "one that is made with `--node-access pod` has them"
    walk.presumed.add(f"the sockets of {end.owner}", Look.FIRST)
    walk.unread_listener = (
        f"a listener there is presumed: the sockets of {end.owner} were not read ({why}; {helps})"
    )


def _nobody(
    walk: PathBuilder,
    here: PacketState,
    end: PacketEnd,
    unmet: Unmet,
    answer: Answer[Listener],
) -> bool:
    """Refuse a packet for which there is no socket, unless something else may take it."""
    found = remedy(unmet)
    fix, behind = Fix("Send a packet, and ask again at once: what comes back decides it."), ""
    if end.pod is None and isinstance(end.netns, NodeView):
        other = host_ports.elsewhere(walk.cluster, end.netns.name, unmet.flow)
        found = replace(found, cause=f"{found.cause}; {other}") if other else found
        alone = walk.left_alone or agent_behind.lacks_port(walk.cluster, end.netns, unmet.flow)
        if alone is not None:
            fix, behind = alone.fix, f"; {alone.cause}"
            found = replace(alone, cause=f"{alone.cause}; {found.cause}")
    at_port = [s for s in answer.facts if s.port == unmet.flow.destination_port]
    proof = _cited(answer, at_port)
    summary = f"no socket of {end.owner} takes {unmet.target}"
    attempt = walk.attempt if walk.forced is None else None
    instead = _instead(walk, end, unmet, answer)
    if not instead and attempt is not None and attempt.outcome is Outcome.ANSWERED:
        walk.outdate()  # what answered is gone, or was not seen here
        instead = f"{attempt.text}: the process ended since, or something redirects the packet"
    if instead:
        walk.hop(
            *end.where, summary, State.UNKNOWN, here.packet, proof,
            reason=f"{summary}, but {instead}{behind}", decides=Decides.DROP, fix=fix,
        )  # fmt: skip
        return True
    how = _REFUSALS.get(unmet.flow.protocol, "ICMP port unreachable")
    seen = attempt is not None and attempt.now and attempt.outcome is Outcome.REFUSED
    if seen and attempt is not None:
        proof += attempt.evidence
    walk.drop(
        *end.where, f"{summary}: refused with {how}", State.OBSERVED if seen else State.DERIVED,
        here.packet, proof, seen=seen,
        title=found.cause, detail=found.fix.text, fix=found.fix, object=found.object,
    )  # fmt: skip
    return False


def _instead(walk: PathBuilder, end: PacketEnd, unmet: Unmet, answer: Answer[Listener]) -> str:
    """Return what may take a packet without a socket, "" for nothing that is known."""
    mesh = next((s for s in answer.facts if s.port in _MESHES), None)
    record = answer.record
    if isinstance(end.netns, NodeView):
        if end.netns.link("kube-ipvs0") is not None:
            return "IPVS, whose table was not read, may take it"
        if any(each.hook == "sk_lookup" for each in end.netns[q.ATTACHMENTS].facts):
            return "a program at sk_lookup may choose another socket"
        return _led_to_a_pod(walk, end.netns.name, unmet.flow)
    nat = (HopPlace.POD, end.where[1], HopKind.NAT)
    if any((hop.place, hop.where, hop.kind) == nat for hop in walk.hops):
        return "netfilter in the pod sends it elsewhere first"
    if mesh is not None:
        return (
            f"{kernel.text(mesh)} is a port of {_MESHES[mesh.port]}, to which rules in the pod's "
            "namespace may redirect it"
        )
    if end.pod is not None and end.pod.runtime_class and record and is_node_question(record.argv):
        return (
            f"RuntimeClass {end.pod.runtime_class} may give the pod a network stack of its own, "
            "whose sockets the node does not have"
        )
    return ""


def _doubt_node_port(walk: PathBuilder, end: PacketEnd, flow: Flow) -> None:
    """Presume no listener at a node's port that leads to pods elsewhere: Cilium and kube-proxy keep
    node ports from the node's own processes."""
    if not isinstance(end.netns, NodeView):
        return
    name = end.netns.name
    why = _led_to_a_pod(walk, name, flow) or host_ports.elsewhere(walk.cluster, name, flow)
    if not why:
        return
    text = (
        f"whether port {flow.destination_port} of {end.owner} is listened at is not known: {why}, "
        "and its sockets were not read"
    )
    fix = Fix("Read the node's sockets.", f"ss -ltnu sport = :{flow.destination_port}")
    alone = walk.left_alone or agent_behind.lacks_port(walk.cluster, end.netns, flow)
    if alone is not None:
        text, fix = f"{alone.cause}; {text}", alone.fix
    walk.doubt(text, Decides.DROP, fix)


def _led_to_a_pod(walk: PathBuilder, node: str, flow: Flow) -> str:
    """Return which object leads a node's port to a pod, though no rule of it was met."""
    kube, place = walk.cluster.kube, (flow.destination_port, flow.protocol)
    for pod in kube.pods:
        if pod.node == node and place in pod.host_ports and not pod.host_network:
            return f"it is a hostPort of pod {pod.namespace}/{pod.name}, whose rule was not met"
    for service in kube.services:
        if any((port.node_port, port.protocol) == place for port in service.ports):
            return f"it is a node port of svc {service.namespace}/{service.name}, not translated"
    return ""


def _taken(
    walk: PathBuilder,
    here: PacketState,
    end: PacketEnd,
    takers: Sequence[Listener],
    answer: Answer[Listener],
) -> bool:
    """Add the hop of the socket that takes the packet, where its queue has room."""
    many = f", one of {len(takers)} that take turns" if len(takers) > 1 else ""
    protocol = protocol_name(here.packet.flow.protocol)
    summary = f"{end.owner} listens on {protocol} {kernel.text(takers[0])}{many}"
    full = [socket for socket in takers if _is_full(socket)]
    if full:
        proof = _cited(answer, full)
        return _without_room(walk, here, end, summary, full, len(takers), proof)
    state = State.OBSERVED if walk.answered_now() else State.DERIVED
    walk.hop(*end.where, summary, state, here.packet, _cited(answer, takers))
    waiting = max(socket.waiting for socket in takers)
    if takers[0].backlog is None and waiting:
        walk.presumed.add(
            f"that the accept queue of {kernel.text(takers[0])} of {end.owner}, which holds "
            f"{waiting} connections, has room",
            Look.FIRST,
        )
    return True


def _without_room(
    walk: PathBuilder,
    here: PacketState,
    end: PacketEnd,
    summary: str,
    full: Sequence[Listener],
    of: int,
    proof: tuple[Evidence, ...],
) -> bool:
    """Drop the packet where every queue is full; leave it open where one of them is."""
    first = full[0]
    queue = f"{first.waiting} connections wait for accept(), at most {first.backlog} may"
    title = f"the process of {end.owner} at {kernel.text(first)} does not accept connections"
    detail = (
        f"{queue}, and the kernel drops each further SYN for {len(full)} of {of} sockets until the "
        "process accepts again."
    )
    fix, summary = _accept_again(end), f"{summary}: {queue}"
    if len(full) == of:
        walk.drop(
            *end.where, summary, State.DERIVED, here.packet, proof,
            title=title, detail=detail, cause=f"{title}: {queue}", fix=fix,
            object=f"Pod {end.pod.namespace}/{end.pod.name}" if end.pod else "",
        )  # fmt: skip
        return False
    walk.hop(*end.where, summary, State.DERIVED, here.packet, proof)
    walk.finding(Severity.WARNING, title, detail, proof)
    walk.doubt(title, Decides.DROP, fix)
    return True


def _is_full(socket: Listener) -> bool:
    return socket.backlog is not None and socket.waiting > socket.backlog


def _accept_again(end: PacketEnd) -> Fix:
    if end.pod is None:
        return Fix(f"See why the process on {end.owner} does not accept.", "ss -ltnp")
    return Fix(
        f"See why the process of {end.owner} does not accept: it may hang, or be too slow.",
        commands.pod_logs(end.pod.namespace, end.pod.name),
    )


def _cited(answer: Answer[Listener], sockets: Sequence[Listener]) -> tuple[Evidence, ...]:
    """Cite sockets, or the whole record as the proof that there is none."""
    if not sockets:
        return cite.whole(answer.record)
    return cite.of(answer.record, *(socket.span for socket in sockets[:3]))


def _host_network_pod(walk: PathBuilder, here: PacketState) -> Pod | None:
    """Return the hostNetwork pod that a packet for a node is for, None where none is known."""
    target, service = walk.ends.destination, walk.ends.service
    if target.kind == "pod":
        return walk.cluster.pod(target.namespace, target.name)
    flow = here.packet.flow
    for end in service.sliced or () if service is not None else ():
        if (end.address, end.port) == (flow.destination, flow.destination_port) and end.pod:
            return walk.cluster.pod(end.namespace, end.pod)
    return None
