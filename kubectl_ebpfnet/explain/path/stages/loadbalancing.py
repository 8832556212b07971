"""The choice of a backend, for socket, per-packet and netfilter load-balancing."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path import agent_behind, former_backends
from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.backends import Place
from kubectl_ebpfnet.explain.path.other_clusters import cluster_of
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.stages import cilium_behind
from kubectl_ebpfnet.explain.path.stages.l7_lb import to_envoy
from kubectl_ebpfnet.explain.path.stages.no_backend import without_backend
from kubectl_ebpfnet.explain.path.state import Choice, PathBuilder, Where
from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow, endpoint_text
from kubectl_ebpfnet.model.path import Decides, Evidence, Outcome, Packet, State, TrackedFlow


def backend_of(tracked: TrackedFlow | None, service: ServiceAddress) -> Flow | None:
    """Return the flow to the backend that a tracked flow was sent to, None when there is none."""
    if tracked is None:
        return None
    ends = {kinds.place(b) for b in service.backends}
    candidates: list[Flow] = []
    if tracked.cilium_ct is not None:
        candidates.append(tracked.cilium_ct.flow)
    if tracked.netfilter is not None:
        candidates.append(tracked.netfilter.translated())
    for flow in candidates:
        if flow.destination != service.address or (flow.destination, flow.destination_port) in ends:
            return flow
    return None


def rewrite(
    walk: PathBuilder,
    packet: Packet,
    service: ServiceAddress,
    where: Where,
    how: str,
    tracked: TrackedFlow | None = None,
    *,
    external: bool = False,
) -> Packet | None:
    """Add the load-balancing hop and send the packet to a backend.

    Args:
        walk: takes hops and findings.
        packet: for the frontend.
        service: the frontend.
        where: what balances.
        how: in words, e.g. "at connect(), by Cilium's socket load-balancer".
        tracked: the flow as that node tracks it; None for the sender's node.
        external: it came in from outside of the node, so that `externalTrafficPolicy` counts.

    Returns:
        The packet with the backend as its destination, or as it is where nothing translates it;
        None when the walk ends.
    """
    if service.by_proxy:
        to_envoy(walk, packet, service, where)
        return None
    _unread(walk, packet, service, where)
    cilium_behind.report(walk, service, where[2])
    if not service.usable and not service.missing:
        return without_backend(walk, packet, service, where, how, external=external)
    chosen = _chosen(walk, service, tracked or walk.tracked)
    if chosen is None:
        _not_known(walk, packet, service, where)
        return None
    flow = packet.flow.with_destination(*chosen.target)
    # A source that is translated later gets its port from that translation.
    seen = chosen.seen
    if seen is not None and seen.source == flow.source and seen.source_port is not None:
        flow = replace(flow, source_port=seen.source_port)
    packet = replace(packet, flow=flow)
    named = {kinds.place(end) for end in service.sliced or ()}
    node = walk.cluster.node(where[2])
    other = None if chosen.target in named else cluster_of(node, chosen.target[0])
    text = f"{service.title} → {endpoint_text(*chosen.target)} {how}"
    text += _how_chosen(service, chosen.target, chosen.state, other)
    short = f"{service.owner_title} {how}"
    _translated(walk, packet, service, where, text, chosen.state, chosen.evidence, short)
    answered = tracked or walk.tracked
    answers = seen is not None and answered is not None and answered.outcome is Outcome.ANSWERED
    _weigh(walk, packet, service, where[2], is_elsewhere=other is not None, answers=answers)
    every = (*service.usable, *_kept(walk, service))
    if walk.choice is None and len(every) > 1:
        others = tuple(b for b in every if kinds.place(b) != chosen.target)
        end = endpoint_text(*chosen.target)
        walk.choice = Choice(len(walk.hops), service.title, end, others)
    return packet


def _kept(walk: PathBuilder, service: ServiceAddress) -> tuple[Backend, ...]:
    """Return the backends beside the usable ones that the sender may keep to."""
    return former_backends.kept_by_affinity(walk.ends.flows, service)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The backend that is followed.

    Attributes:
        target: its address and port.
        state: OBSERVED where a flow shows it.
        evidence: the proof.
        seen: the flow to it that a table has, None without one.
    """

    target: tuple[Address, int | None]
    state: State
    evidence: tuple[Evidence, ...]
    seen: Flow | None = None


def _chosen(
    walk: PathBuilder, service: ServiceAddress, tracked: TrackedFlow | None
) -> _Chosen | None:
    """Return the backend to follow: the newest flow's where a new connection may go there too; None
    where none is known."""
    every = (*service.usable, *_kept(walk, service))
    forced = walk.forced if walk.forced in every else None
    seen = backend_of(tracked, service) if forced is None else None
    if seen is not None and service.mapped is not None and not service.missing:
        now = {kinds.place(b) for b in service.usable}
        seen = seen if (seen.destination, seen.destination_port) in now else None
    if seen is not None and tracked is not None:
        # Without an entry that names the frontend, the flow may have gone to the backend directly.
        state = State.OBSERVED if _names_frontend(tracked) else State.DERIVED
        end = (seen.destination, seen.destination_port)
        return _Chosen(end, state, service.evidence + tracked.evidence, seen)
    if not service.usable:
        return None
    followed = forced or _first(walk, service)
    return _Chosen(kinds.place(followed), State.DERIVED, service.evidence)


def _weigh(
    walk: PathBuilder,
    packet: Packet,
    service: ServiceAddress,
    node: str,
    *,
    is_elsewhere: bool,
    answers: bool,
) -> None:
    """Note what speaks against the backend that is followed.

    Args:
        walk: its last hop balances.
        packet: on its way to the backend.
        service: the frontend.
        node: that balances.
        is_elsewhere: the backend is a pod of another cluster.
        answers: the backend answered the newest attempt.
    """
    flow = packet.flow
    if service.redirects_locally and any(b.address == flow.source for b in service.backends):
        walk.presumed.add(
            f"that cilium_skip_lb{flow.source.version} of {node} has nothing of the pod, a backend "
            "of the local redirect policy itself (skipRedirectFromBackend)"
        )
    target = (flow.destination, flow.destination_port)
    gone = next((b for b in service.backends if kinds.place(b) == target), None)
    known = gone is not None and service.in_cilium and not is_elsewhere
    if gone is None or not known:
        return
    if service.stale([gone], walk.cluster.has_pod):
        agent_behind.note_stale(walk, service, gone, node, answered=answers)
    elif gone in cilium_behind.not_ready(service):
        agent_behind.note_not_ready(walk, service, gone, node)


def _first(walk: PathBuilder, service: ServiceAddress) -> Backend:
    """Return the backend that is followed: an EndpointSlice's or a pod's, where there is one; a
    ready one first."""
    ends = sorted(service.sliced or (), key=lambda end: not end.ready)
    named: list[Place] = [kinds.place(end) for end in ends]
    alive = [b for b in service.usable if kinds.place(b) in named]
    alive.sort(key=lambda backend: named.index(kinds.place(backend)))
    alive += [b for b in service.usable if walk.cluster.pod_with(b.address) is not None]
    return (alive or list(service.usable))[0]


def _translated(
    walk: PathBuilder,
    packet: Packet,
    service: ServiceAddress,
    where: Where,
    text: str,
    state: State,
    evidence: tuple[Evidence, ...],
    short: str,
) -> None:
    """Add the hop; it is not known where a backend's state is not understood."""
    unclear = kinds.not_understood(service.usable)
    if unclear and state is not State.OBSERVED:
        states = ", ".join(f"{kinds.text(b)} is “{b.state}”" for b in unclear)
        walk.hop(
            *where, text, State.UNKNOWN, packet, evidence, decides=Decides.WAY,
            reason=f"whether a backend in this state takes connections is not known: {states}",
            short=short,
        )  # fmt: skip
        return
    walk.hop(*where, text, state, packet, evidence, short=short)


def _unread(walk: PathBuilder, packet: Packet, service: ServiceAddress, where: Where) -> None:
    if service.in_cilium is None:
        walk.hop(
            *where, service.title, State.UNKNOWN, packet, service.evidence, decides=Decides.WAY,
            reason="neither Cilium's load-balancing map nor its agent's list of services could be "
            f"read: {service.unread}; the backend below is EndpointSlices'",
        )  # fmt: skip


def _not_known(walk: PathBuilder, packet: Packet, service: ServiceAddress, where: Where) -> None:
    text = f"{service.title}: backends not known"
    walk.hop(*where, text, State.UNKNOWN, packet, service.evidence, reason=service.missing)
    walk.unknown(f"the backends of {service.title} are not known: {service.missing}")


def _names_frontend(tracked: TrackedFlow | None) -> bool:
    if tracked is None:
        return False
    by_netfilter = tracked.netfilter is not None and tracked.netfilter.destination_nat
    return tracked.service_ct is not None or by_netfilter


def _how_chosen(
    service: ServiceAddress, target: tuple[Address, int | None], state: State, other: int | None
) -> str:
    """Return how the backend was chosen, in brackets.

    Args:
        service: the frontend.
        target: the backend.
        state: of the hop.
        other: the id of the backend's cluster where that is another one.
    """
    words = []
    if other is not None:
        words.append(f"a pod of cluster {other} of the clustermesh")
    others = len(service.usable) - 1
    if others > 0:
        verb = "chosen for the newest flow" if state is State.OBSERVED else "followed here"
        words.append(f"{verb}, one of {len(service.usable)} backends")
    if all(b.state == kinds.TERMINATING for b in service.usable):
        words.append("no backend is active: those that terminate serve")
    used = frozenset(service.usable)
    bad = [b for b in service.backends if b not in used]
    if any(b.preferred for b in used):
        words.append("the clustermesh affinity of the Service prefers it to those of other places")
    if bad:
        words.append(f"not used: {kinds.with_states(bad)}")
    if not any(kinds.place(b) == target for b in service.backends) and service.backends:
        words.append("this backend is no longer in the service")
    if "sessionAffinity" in service.flags:
        words.append("sessionAffinity: a client's connections keep to one backend")
    if service.rev_nat:
        words.append(f"replies get their source back by reverse NAT id {service.rev_nat}")
    return f" ({'; '.join(words)})" if words else ""
