"""The choice of a backend, for socket, per-packet and netfilter load-balancing."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path.services import ServiceAddress
from kubectl_ebpfnet.explain.path.state import PathBuilder, Where
from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.net import Address, Flow, endpoint_text
from kubectl_ebpfnet.model.path import Packet, State, TrackedFlow


def backend_of(tracked: TrackedFlow | None, service: ServiceAddress) -> Flow | None:
    """Return the flow to the backend that a tracked flow was sent to, None when there is none."""
    if tracked is None:
        return None
    ends = {(b.address, b.port) for b in service.backends}
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
) -> Packet | None:
    """Add the load-balancing hop and send the packet to a backend.

    Args:
        walk: takes hops and findings.
        packet: for the frontend.
        service: the frontend.
        where: what balances.
        how: in words, e.g. "at connect(), by Cilium's socket load-balancer".
        tracked: the flow as that node tracks it; None for the sender's node.

    Returns:
        The packet with the backend as its destination; None when it is dropped, or the backends
        are not known.
    """
    if not service.usable and not service.missing:
        _no_backend(walk, packet, service, where, how)
        return None
    tracked = tracked or walk.tracked
    chosen = backend_of(tracked, service)
    if chosen is not None:
        target: tuple[Address, int | None] = (chosen.destination, chosen.destination_port)
        # Without an entry that names the frontend, the flow may have gone to the backend directly.
        state = State.OBSERVED if _names_frontend(tracked) else State.DERIVED
        evidence = service.evidence + (tracked.evidence if tracked else ())
    elif service.usable:
        target = (service.usable[0].address, service.usable[0].port)
        state, evidence = State.DERIVED, service.evidence
    else:
        walk.hop(
            *where,
            f"{service.title}: backends not known",
            State.UNKNOWN,
            packet,
            service.evidence,
            reason=service.missing,
        )
        walk.unknown(f"the backends of {service.title} are not known: {service.missing}")
        return None
    flow = packet.flow.with_destination(*target)
    # A source that is translated later gets its port from that translation.
    same_source = chosen is not None and chosen.source == flow.source
    if chosen is not None and same_source and chosen.source_port is not None:
        flow = replace(flow, source_port=chosen.source_port)
    walk.hop(
        *where,
        f"{service.title} → {endpoint_text(*target)} {how}{_how_chosen(service, target, state)}",
        state,
        replace(packet, flow=flow),
        evidence,
    )
    return replace(packet, flow=flow)


def _names_frontend(tracked: TrackedFlow | None) -> bool:
    if tracked is None:
        return False
    by_netfilter = tracked.netfilter is not None and tracked.netfilter.destination_nat
    return tracked.service_ct is not None or by_netfilter


def _how_chosen(service: ServiceAddress, target: tuple[Address, int | None], state: State) -> str:
    words = []
    others = len(service.usable) - 1
    if others > 0:
        verb = "chosen for the newest flow" if state is State.OBSERVED else "followed here"
        words.append(f"{verb}, one of {len(service.usable)} backends")
    bad = [b for b in service.backends if b not in service.usable]
    if bad:
        words.append("not used: " + ", ".join(_with_state(b) for b in bad))
    if not any((b.address, b.port) == target for b in service.backends) and service.backends:
        words.append("this backend is no longer in the service")
    if service.rev_nat:
        words.append(f"replies get their source back by reverse NAT id {service.rev_nat}")
    return f" ({'; '.join(words)})" if words else ""


def _with_state(backend: Backend) -> str:
    return f"{endpoint_text(backend.address, backend.port)} {backend.state}"


def _no_backend(
    walk: PathBuilder, packet: Packet, service: ServiceAddress, where: Where, how: str
) -> None:
    name = f"svc {service.namespace}/{service.name}" if service.name else service.title
    listed = ", ".join(_with_state(b) for b in service.backends)
    walk.drop(
        *where,
        f"{service.title} has no ready backend: refused {how}",
        State.DERIVED,
        packet,
        service.evidence,
        title=f"{name} has no ready backend",
        detail=(f"Its backends are {listed}" if listed else "No pod matches it, or none is ready")
        + f". `kubectl get endpointslices -n {service.namespace or 'NAMESPACE'} "
        f"-l kubernetes.io/service-name={service.name or 'NAME'}` shows what it has.",
    )
