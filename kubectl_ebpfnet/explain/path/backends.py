"""Backends of a frontend: which take new connections, and why there may be none.

Sources: Cilium pkg/loadbalancer/writer and reconciler (backends that terminate serve while none is
active; quarantined ones and those in maintenance never), pkg/clustermesh/selectbackends.go and up
to 1.17 pkg/service (affinity of a clustermesh), bpf/lib/lb.h; kube-proxy does the same with those
that terminate since 1.26 (KEP-1669). Traffic policies and zones: Kubernetes' Service and
EndpointSlice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kubectl_ebpfnet.model.cilium import Backend, Frontend
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint
from kubectl_ebpfnet.model.net import Address, endpoint_text

Place = tuple[Address, int]
"""Address and port of a backend."""
ACTIVE, TERMINATING, NOT_READY = "active", "terminating", "not ready"
_IDLE = frozenset({"quarantined", "maintenance", NOT_READY})
_KNOWN = _IDLE | {"", ACTIVE, TERMINATING}

_SHOWN = 5
"""Backends that a sentence names."""


def place(backend: Backend | ServiceEndpoint) -> Place:
    """Return where a backend listens."""
    return backend.address, backend.port


def text(backend: Backend | ServiceEndpoint) -> str:
    """`10.0.0.1:80`."""
    return endpoint_text(backend.address, backend.port)


def with_states(backends: Sequence[Backend]) -> str:
    """`10.0.0.1:80 terminating, 10.0.0.2:80 and 7 more`."""
    return few(backends, _SHOWN, lambda each: f"{text(each)} {each.state}".strip())


def taking(backends: Iterable[Backend]) -> tuple[Backend, ...]:
    """Return the backends that new connections go to: active ones, of these the preferred, else
    those that terminate."""
    there = tuple(backends)
    active = tuple(b for b in there if b.state not in _IDLE and b.state != TERMINATING)
    preferred = tuple(b for b in active if b.preferred)
    return preferred or active or tuple(b for b in there if b.state == TERMINATING)


def by_affinity(
    backends: Sequence[Backend], affinity: str, sliced: Sequence[ServiceEndpoint] | None
) -> tuple[Backend, ...]:
    """Return backends with those preferred that the clustermesh affinity of their Service prefers.

    Up to Cilium 1.17 the map keeps the others in slots behind these, and does not print its count;
    the agent's list says which they are. Later versions leave the others out.

    Args:
        backends: of the map, or of the agent's list.
        affinity: `local`, `remote`; "" prefers nothing.
        sliced: what the slices of this cluster name; None where they were not read.
    """
    if not affinity or sliced is None or any(each.preferred for each in backends):
        return tuple(backends)
    here = {place(end) for end in sliced}
    return tuple(
        replace(each, preferred=(place(each) in here) is (affinity == "local")) for each in backends
    )


def not_understood(backends: Iterable[Backend]) -> tuple[Backend, ...]:
    """Return the backends in a state that is not known: they may take connections or not."""
    return tuple(b for b in backends if b.state not in _KNOWN)


def of_endpoint(endpoint: ServiceEndpoint) -> Backend:
    """Return an EndpointSlice's endpoint as a backend with its state."""
    state = ACTIVE if endpoint.ready else NOT_READY
    if not endpoint.ready and endpoint.terminating and endpoint.serving:
        state = TERMINATING
    return Backend(endpoint.address, endpoint.port, endpoint.protocol, state, node=endpoint.node)


def merged(listed: Frontend | None, mapped: Frontend | None) -> tuple[Backend, ...]:
    """Return the backends of the agent's list, and those that only the datapath's map has.

    Args:
        listed: of the agent's list, which tells states and nodes; None where it has none.
        mapped: of the map; None where it has none.
    """
    rows = {place(row): row for row in (mapped.backends if mapped is not None else ())}
    told = listed.backends if listed is not None else ()
    if all(each.preferred for each in told):  # as agents since 1.18 say of every backend
        told = tuple(replace(each, preferred=False) for each in told)
    # The datapath goes by the map: a slot that says quarantined is not used.
    both = [
        replace(each, state=rows[place(each)].state)
        if place(each) in rows and rows[place(each)].state
        else each
        for each in told
    ]
    known = {place(backend) for backend in told}
    return (*both, *(row for at, row in rows.items() if at not in known))


def ending(
    backends: Sequence[Backend], sliced: Sequence[ServiceEndpoint] | None
) -> tuple[Backend, ...]:
    """Return backends with the state `terminating` where EndpointSlices tell it alone: the map
    keeps them in slots behind those that it chooses from, and does not print its count.

    Args:
        backends: of the map, or of the agent's list.
        sliced: what the slices name; None where they were not read.
    """
    gone = {place(end) for end in sliced or () if end.terminating and not end.ready}
    return tuple(
        replace(each, state=TERMINATING) if not each.state and place(each) in gone else each
        for each in backends
    )


def kept_out(service: Service | None, end: ServiceEndpoint, node: str) -> bool:
    """Tell whether a node may leave an endpoint of another node out by choice: Cilium since 1.20,
    and kube-proxy by hints, with trafficDistribution PreferSameNode.

    Args:
        service: whose endpoint it is, None where that is not known.
        end: the endpoint.
        node: that balances.
    """
    prefers = service is not None and service.traffic_distribution == "PreferSameNode"
    return prefers and end.node != node


def only_elsewhere(ends: tuple[ServiceEndpoint, ...] | None, node: str) -> bool:
    """Tell whether endpoints are ready, all of them on other nodes; None is not read."""
    ready = [end for end in ends or () if end.ready]
    return bool(ready) and all(end.node != node for end in ready)


def other_zones(ready: Sequence[ServiceEndpoint], zone: str) -> str:
    """Return the zones that the hints of all endpoints name, where none of them is the node's.

    Args:
        ready: endpoints that take connections.
        zone: the topology zone of the node that balances, "" when not known.
    """
    if not zone or not ready or any(not end.zones or zone in end.zones for end in ready):
        return ""
    return ", ".join(sorted({each for end in ready for each in end.zones}))
