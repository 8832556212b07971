"""Frontends: which frontend a destination is, and the backends that it may go to.

Cilium's own tables come first (the datapath uses them); Kubernetes' Service and EndpointSlices
stand in where they cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Backend, Frontend
from kubectl_ebpfnet.model.kube import Service, ServicePort
from kubectl_ebpfnet.model.net import Address, endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import Evidence

_UNUSABLE = frozenset({"terminating", "quarantined", "maintenance"})


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """A frontend and its backends.

    Attributes:
        address, port, protocol: of the frontend.
        type: ClusterIP, NodePort, LoadBalancer, …
        namespace, name: of the Service, "" when not known.
        rev_nat: Cilium's reverse NAT id, 0 when Cilium does not have the frontend.
        in_cilium: the frontend is in Cilium's load-balancer on the sender's node.
        backends: all of them, with their state.
        evidence: the proof.
        missing: why the backends are not known, "" when they are.
        mapped: backends in the datapath's map, None where the map was not read.
        sliced: backends that EndpointSlices name; () where no slice is recorded.
    """

    address: Address
    port: int
    protocol: int
    type: str
    namespace: str
    name: str
    rev_nat: int
    in_cilium: bool
    backends: tuple[Backend, ...]
    evidence: tuple[Evidence, ...]
    missing: str = ""
    mapped: frozenset[tuple[Address, int]] | None = None
    sliced: frozenset[tuple[Address, int]] = frozenset()

    @property
    def usable(self) -> tuple[Backend, ...]:
        """Backends that take new connections."""
        return tuple(
            b
            for b in self.backends
            if b.state not in _UNUSABLE
            and (self.mapped is None or (b.address, b.port) in self.mapped)
        )

    @property
    def title(self) -> str:
        """`ClusterIP 10.96.0.10:53/UDP of default/web`."""
        text = f"{endpoint_text(self.address, self.port)}/{protocol_name(self.protocol)}"
        owner = f" of svc {self.namespace}/{self.name}" if self.name else ""
        return f"{self.type or 'service'} {text}{owner}"


def find(
    cluster: ClusterView, node_name: str, address: Address, port: int | None, protocol: int
) -> ServiceAddress | None:
    """Return the frontend at an address and port, None when there is none.

    Args:
        cluster: the bundle's indexes.
        node_name: the node whose load-balancer is read.
        address: of the destination.
        port: of the destination; None finds the frontend of a Service with a single port.
        protocol: IANA number.
    """
    node = cluster.node(node_name)
    owner = _owner(cluster, address, port, protocol)
    listed = _match(node[q.SERVICES], cluster, address, port, protocol)
    mapped = _match(node[q.LB_MAP], cluster, address, port, protocol)
    frontend = listed or mapped
    if frontend is None and owner is None:
        return None
    evidence: tuple[Evidence, ...] = ()
    if mapped is not None:
        spans = [mapped.span, *(backend.span for backend in mapped.backends)]
        evidence += cite.of(node[q.LB_MAP].record, *spans)
    if listed is not None:
        evidence += cite.of(node[q.SERVICES].record, listed.span.member("frontend-address"))
    kube_backends = _backends_of(cluster, owner, address)
    if frontend is None:
        assert owner is not None
        service, service_port = owner
        number = service_port.port if port is None else port
        missing = "" if kube_backends or cluster.kube.endpoints else "no EndpointSlice is recorded"
        return ServiceAddress(
            address, number, protocol, _type(service, address, number), service.namespace,
            service.name, 0, False, kube_backends, cite.whole(cluster.api_record("services")),
            missing,
        )  # fmt: skip
    owned = owner[0] if owner else None
    return ServiceAddress(
        address,
        frontend.port,
        protocol,
        frontend.type,
        frontend.namespace or (owned.namespace if owned else ""),
        frontend.name or (owned.name if owned else ""),
        (mapped or frontend).rev_nat,
        True,
        frontend.backends,
        evidence,
        mapped=_places(mapped.backends) if mapped is not None else None,
        sliced=_places(kube_backends),
    )


def _places(backends: tuple[Backend, ...]) -> frozenset[tuple[Address, int]]:
    return frozenset((b.address, b.port) for b in backends)


def _match(
    answer: Answer[Frontend],
    cluster: ClusterView,
    address: Address,
    port: int | None,
    protocol: int,
) -> Frontend | None:
    """Return the frontend for clients in the cluster: of the internal scope if there is one."""
    hits = [
        f
        for f in answer.facts
        if f.port
        and (port is None or f.port == port)
        and f.protocol in (None, protocol)
        and _same_address(f, cluster, address)
    ]
    if port is None and len({f.port for f in hits}) != 1:
        return None
    return max(hits, key=lambda f: (f.internal, f.address == address), default=None)


def _same_address(frontend: Frontend, cluster: ClusterView, address: Address) -> bool:
    if frontend.address == address:
        return True
    wildcard = frontend.address.is_unspecified and frontend.type == "NodePort"
    return (
        wildcard
        and frontend.address.version == address.version
        and address in cluster.node_addresses
    )


def _owner(
    cluster: ClusterView, address: Address, port: int | None, protocol: int
) -> tuple[Service, ServicePort] | None:
    for service in cluster.kube.services:
        outside = (*service.external_addresses, *service.ingress_addresses)
        virtual = address in (*service.cluster_addresses, *outside)
        for service_port in service.ports:
            if service_port.protocol != protocol:
                continue
            only = port is None and len(service.ports) == 1
            if virtual and (port == service_port.port or only):
                return service, service_port
            on_node = address in cluster.node_addresses
            if on_node and service_port.node_port and port == service_port.node_port:
                return service, service_port
    return None


def _backends_of(
    cluster: ClusterView, owner: tuple[Service, ServicePort] | None, address: Address
) -> tuple[Backend, ...]:
    if owner is None:
        return ()
    service, service_port = owner
    return tuple(
        Backend(
            end.address,
            end.port,
            end.protocol,
            "active" if end.ready else "terminating" if end.terminating else "quarantined",
            node=end.node,
        )
        for end in cluster.kube.endpoints
        if (end.namespace, end.service) == (service.namespace, service.name)
        and end.port_name == service_port.name
        and end.address.version == address.version
    )


def _type(service: Service, address: Address, port: int) -> str:
    if address in service.cluster_addresses:
        return "ClusterIP"
    if address in service.ingress_addresses:
        return "LoadBalancer"
    if address in service.external_addresses:
        return "ExternalIPs"
    return "NodePort" if any(p.node_port == port for p in service.ports) else service.type
