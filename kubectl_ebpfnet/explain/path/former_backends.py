"""Tracked flows to a Service's former backends: what is sent now does not go where they went.

Cilium keeps a connection at its backend until it ends, and gives a new one a backend of its map
(bpf/lib/lb.h, lb4_local). So such a flow is shown, and is no attempt of what is asked. Only with
sessionAffinity a new connection of the same client follows it, as long as the map has the backend:
one that terminates too (__lb4_affinity_backend_id; cilium/cilium#27096).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.net import Address, endpoint_text
from kubectl_ebpfnet.model.path import Finding, Severity, TrackedFlow


def current(
    flows: Sequence[TrackedFlow], service: ServiceAddress | None
) -> tuple[TrackedFlow, ...]:
    """Return the flows without those to former backends of a Service.

    Args:
        flows: that match the request.
        service: the destination's frontend, None without one.
    """
    return tuple(flow for flow in flows if _former(flow, service) is None)


def findings(flows: Sequence[TrackedFlow], service: ServiceAddress | None) -> Iterator[Finding]:
    """Report connections that are still open to a backend that takes no new ones."""
    for flow in flows:
        former = _former(flow, service)
        entry = flow.cilium_ct
        if former is None or service is None or entry is None or _is_over(flow):
            continue
        kept = bool(kept_by_affinity([flow], service))
        yield Finding(
            Severity.WARNING,
            f"a tracked flow to {service.title} goes to {endpoint_text(*former)}, "
            + ("which takes no new clients" if kept else "no longer a backend"),
            "Connections that were open when the backend went away stay with it until they end."
            + (" By sessionAffinity new ones of this client may go there as well." if kept else ""),
            flow.evidence,
        )
        return


def kept_by_affinity(flows: Sequence[TrackedFlow], service: ServiceAddress) -> tuple[Backend, ...]:
    """Return the backends that take no new clients, to which the client of tracked flows may keep.

    Args:
        flows: of the client.
        service: the frontend.
    """
    if "sessionAffinity" not in service.flags or service.mapped is None:
        return ()
    went = {
        (flow.cilium_ct.flow.destination, flow.cilium_ct.flow.destination_port)
        for flow in flows
        if flow.cilium_ct is not None
    }
    usable = frozenset(service.usable)
    there = (b for b in service.backends if b not in usable and kinds.place(b) in service.mapped)
    return tuple(b for b in there if kinds.place(b) in went)


def _former(flow: TrackedFlow, service: ServiceAddress | None) -> tuple[Address, int | None] | None:
    """Return the backend of a flow that went by the Service, where that gives it to nobody now."""
    entry = flow.cilium_ct
    if service is None or entry is None or flow.service_ct is None:
        return None
    if service.mapped is None or service.missing or service.by_proxy:
        return None
    target = (entry.flow.destination, entry.flow.destination_port)
    return None if target in {kinds.place(b) for b in service.usable} else target


def _is_over(flow: TrackedFlow) -> bool:
    entry = flow.cilium_ct
    assert entry is not None
    expired = entry.remaining is not None and entry.remaining < 0
    return expired or {"RxClosing", "TxClosing"} <= entry.flags
