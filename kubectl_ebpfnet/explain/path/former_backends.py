"""Tracked flows to a Service's former backends: what is sent now does not go where they went.

Cilium keeps a connection at its backend until it ends, and gives a new one a backend of its map
(bpf/lib/lb.h, lb4_local). So such a flow is shown, and is no attempt of what is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
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
        yield Finding(
            Severity.WARNING,
            f"a tracked flow to {service.title} goes to {endpoint_text(*former)}, no longer a "
            "backend",
            "Connections that were open when the backend went away stay with it until they end.",
            flow.evidence,
        )
        return


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
