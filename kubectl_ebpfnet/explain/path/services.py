"""Frontends: which frontend a destination is, and the backends that it may go to.

Cilium's own tables come first: its map, which the datapath uses, then its agent's list. Kubernetes'
Service and EndpointSlices stand in where neither has the frontend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.backends import Place
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup, Search
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Backend, Frontend
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint, ServicePort
from kubectl_ebpfnet.model.net import Address, endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import Evidence

_L7 = "l7-load-balancer"
_PROXY_DUMMY = "192.192.192.192"
"""The endpoint that Cilium's Gateway and Ingress Services are given: nothing has it
(operator/pkg/model/translation)."""


_HEALTH_CHECK = "healthserver"
"""What Cilium's name of the frontend of a health check ends with, behind a colon."""
_REDIRECTS = (":local-redirect", "-local-redirect")
"""Ends of the names of frontends by address, behind their policy's (pkg/redirectpolicy)."""
_GLOBAL = ("service.cilium.io/global", "io.cilium/global-service")


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """A frontend and its backends.

    Attributes:
        address, port, protocol: of the frontend.
        type: ClusterIP, NodePort, LoadBalancer, …
        namespace, name: of the Service, "" when not known.
        rev_nat: Cilium's reverse NAT id, 0 when Cilium does not have the frontend.
        in_cilium: Cilium's load-balancer on the node translates the frontend where it was looked
            up; None where neither of its tables was read.
        backends: all of them, with their state.
        evidence: the proof.
        missing: why the backends are not known, "" when they are.
        mapped: backends in the datapath's map, None where the map was not read.
        sliced: what EndpointSlices name; None where no slice could be read, or no Service of
            Kubernetes is behind the frontend.
        owner: the Service, None when none is recorded.
        flags: Cilium's words, e.g. `Local`, `InternalLocal`, `l7-load-balancer`.
        proxy_port: of the node's Envoy for an L7 load-balancer, 0 where not known.
        unresolved: slots of the map whose backend is missing.
        unread: for in_cilium None: why neither table was read.
        slotted: the map numbers its slots (Cilium 1.12 and later), None when that is not known.
        by_protocol: the map's keys have a protocol (Cilium 1.17 and later).
        passed_over: a socket leaves it alone, though the map has it: an external IP, or a hostPort,
            that is not the node's own address.
    """

    address: Address
    port: int
    protocol: int
    type: str
    namespace: str
    name: str
    rev_nat: int
    in_cilium: bool | None
    backends: tuple[Backend, ...]
    evidence: tuple[Evidence, ...]
    missing: str = ""
    mapped: frozenset[Place] | None = None
    sliced: tuple[ServiceEndpoint, ...] | None = None
    owner: Service | None = None
    flags: frozenset[str] = frozenset()
    proxy_port: int = 0
    unresolved: int = 0
    unread: str = ""
    slotted: bool | None = None
    by_protocol: bool = False
    passed_over: bool = False

    @property
    def usable(self) -> tuple[Backend, ...]:
        """Backends that take new connections."""
        there = (b for b in self.backends if self.mapped is None or kinds.place(b) in self.mapped)
        return kinds.taking(there)

    @property
    def owner_port(self) -> ServicePort | None:
        """The port of the Service that the frontend is, None where that is not known."""
        ports = self.owner.ports if self.owner is not None else ()
        same = (p for p in ports if p.protocol == self.protocol)
        return next((p for p in same if self.port in (p.port, p.node_port)), None)

    @property
    def by_proxy(self) -> bool:
        """The node's Envoy takes its traffic, so it has no backends of its own."""
        places = [*map(kinds.place, self.backends), *map(kinds.place, self.sliced or ())]
        dummy = any(str(address) == _PROXY_DUMMY for address, _ in places)
        return _L7 in self.flags or bool(self.proxy_port) or dummy

    @property
    def redirects_locally(self) -> bool:
        """A CiliumLocalRedirectPolicy chose its backends."""
        return self.type == "LocalRedirect"

    @property
    def named_elsewhere(self) -> bool:
        """Local redirect policies, Envoy and other clusters (clustermesh) give it backends that no
        EndpointSlice of the Service names."""
        owner = self.owner
        shared = owner and any(owner.annotation(key).lower() == "true" for key in _GLOBAL)
        return self.redirects_locally or self.by_proxy or bool(shared)

    def is_stale(self, backend: Backend) -> bool:
        """Tell whether the Service has lost a backend that Cilium still has."""
        if self.sliced is None or self.named_elsewhere:
            return False
        return kinds.place(backend) not in {kinds.place(end) for end in self.sliced}

    @property
    def title(self) -> str:
        """`ClusterIP 10.96.0.10:53/UDP of svc default/web`."""
        text = f"{endpoint_text(self.address, self.port)}/{protocol_name(self.protocol)}"
        return f"{self.type or 'service'} {text}" + (f" of {self.owner_title}" if self.name else "")

    @property
    def owner_title(self) -> str:
        """`svc default/web`, or the frontend's title where no Service is known. Cilium's own
        frontends are of other objects: a hostPort's pod, a local redirect policy, a Service's
        health check (pkg/loadbalancer, pkg/redirectpolicy)."""
        if not self.name:
            return self.title
        name, _, what = self.name.replace("/", ":").partition(":")
        if what.startswith("host-port"):
            return f"pod {self.namespace}/{name}"
        if what == _HEALTH_CHECK:
            return f"the health check of svc {self.namespace}/{name}"
        policy = self.redirect_policy
        return policy or f"svc {self.namespace}/{self.name}"

    @property
    def redirect_policy(self) -> str:
        """`CiliumLocalRedirectPolicy default/dns` of an address that a policy names; "" otherwise:
        a Service that a policy takes keeps its own name."""
        name = next((self.name.removesuffix(end) for end in _REDIRECTS if end in self.name), "")
        named = self.redirects_locally and name
        return f"CiliumLocalRedirectPolicy {self.namespace}/{name}" if named else ""


def find(
    cluster: ClusterView,
    node_name: str,
    address: Address,
    port: int | None,
    protocol: int,
    at: Lookup = Lookup.POD,
) -> ServiceAddress | None:
    """Return the frontend at an address and port, None when there is none.

    Args:
        cluster: the bundle's indexes.
        node_name: the node whose load-balancer is read.
        address: of the destination.
        port: of the destination; None finds the frontend of a Service with a single port.
        protocol: IANA number.
        at: the place that looks it up.
    """
    node = cluster.node(node_name)
    node.want(q.LB_MAP, address)
    search = Search(cluster, node, address, port, protocol, at)
    listed, mapped = (search.among(node[table].facts) for table in (q.SERVICES, q.LB_MAP))
    owner = _owner(cluster, address, port, protocol)
    # The datapath has what its map has: a frontend of the agent's list alone is not translated.
    record = node[q.LB_MAP].record
    filled = bool(node[q.LB_MAP].facts) or (record is not None and record.left_out > 0)
    unmapped = mapped is None and filled
    frontend = mapped or listed
    if frontend is None and owner is None:
        return None
    if frontend is None:
        assert owner is not None
        over = search.passed_over(node[q.LB_MAP].facts)
        found = _of_kubernetes(search, *owner)
        return found if over is None else _left_alone(node, found, over)
    backends = kinds.merged(listed, mapped)
    found = ServiceAddress(
        address,
        frontend.port,
        protocol,
        frontend.type,
        (listed or frontend).namespace,
        (listed or frontend).name,
        frontend.rev_nat,
        not unmapped,
        backends,
        _evidence(node, listed, mapped),
        missing=_torn(node, mapped),
        mapped=frozenset(map(kinds.place, mapped.backends)) if mapped is not None else None,
        flags=frontend.flags,
        proxy_port=frontend.proxy_port,
        unresolved=frontend.unresolved,
        slotted=_slotted(node),
        by_protocol=any(f.protocol is not None for f in node[q.LB_MAP].facts),
    )
    checked = None if owner is not None else _health_check_of(cluster, found)
    if checked is not None and not found.name:
        found = replace(found, namespace=checked.namespace, name=f"{checked.name}:{_HEALTH_CHECK}")
    if owner is not None:
        found = replace(
            found,
            namespace=found.namespace or owner[0].namespace,
            name=found.name or owner[0].name,
            owner=owner[0],
            sliced=_sliced(cluster, *owner, address.version),
        )
    return found


def _health_check_of(cluster: ClusterView, found: ServiceAddress) -> Service | None:
    """Return the Service whose health check, which the agent answers, a frontend is."""
    return next(
        (
            service
            for service in cluster.kube.services
            if service.health_check_node_port == found.port
            and found.address in service.ingress_addresses
        ),
        None,
    )


def _left_alone(node: NodeView, found: ServiceAddress, over: Frontend) -> ServiceAddress:
    evidence = _evidence(node, None, over) + found.evidence
    return replace(found, type=over.type, evidence=evidence, passed_over=True)


def _evidence(
    node: NodeView, listed: Frontend | None, mapped: Frontend | None
) -> tuple[Evidence, ...]:
    evidence: tuple[Evidence, ...] = ()
    if mapped is not None:
        spans = [mapped.span, *(backend.span for backend in mapped.backends)]
        evidence += cite.of(node[q.LB_MAP].record, *spans)
    if listed is not None:
        evidence += cite.of(node[q.SERVICES].record, listed.span.member("frontend-address"))
    return evidence


def _torn(node: NodeView, mapped: Frontend | None) -> str:
    """Return why a frontend's backends are not known although its row was read: rows of the same
    address have no frontend of their own, as where a table was cut or changed meanwhile."""
    if mapped is None or mapped.backends:
        return ""
    rows = node.having(q.LB_MAP, (mapped.address, mapped.port), "address", "port")
    torn = any(not row.type and row.backends for row in rows)
    return "rows of its address in Cilium's map have no frontend" if torn else ""


def _slotted(node: NodeView) -> bool | None:
    """Tell whether the map's rows have slots: those of Cilium up to 1.11 have none."""
    backends = [b for f in node[q.LB_MAP].facts for b in f.backends]
    return any(b.slot for b in backends) if backends else None


def _of_kubernetes(search: Search, service: Service, port: ServicePort) -> ServiceAddress:
    """Return a frontend that Cilium's load-balancer does not translate there, or may."""
    cluster, node = search.cluster, search.node
    number = port.port if search.port is None else search.port
    sliced = _sliced(cluster, service, port, search.address.version)
    unread = ""
    if not node[q.LB_MAP].known and not node[q.SERVICES].known:
        unread = node[q.LB_MAP].missing
    return ServiceAddress(
        search.address,
        number,
        search.protocol,
        _type(service, search.address, number),
        service.namespace,
        service.name,
        0,
        None if unread else False,
        tuple(map(kinds.of_endpoint, sliced or ())),
        cite.whole(cluster.api_record("services")),
        "no EndpointSlice is recorded" if sliced is None else "",
        sliced=sliced,
        owner=service,
        unread=unread,
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


def _sliced(
    cluster: ClusterView, service: Service, port: ServicePort, version: int
) -> tuple[ServiceEndpoint, ...] | None:
    """Return what EndpointSlices name for a port; None where no slice could be read."""
    read = cluster.kube.endpoints or cluster.api_record("endpointslices") is not None
    named: Sequence[ServiceEndpoint] = [
        end
        for end in cluster.kube.endpoints
        if (end.namespace, end.service) == (service.namespace, service.name)
        and end.port_name == port.name
        and end.protocol == port.protocol
        and end.address.version == version
    ]
    return tuple(named) if read else None


def _type(service: Service, address: Address, port: int) -> str:
    if address in service.cluster_addresses:
        return "ClusterIP"
    if address in service.ingress_addresses:
        return "LoadBalancer"
    if address in service.external_addresses:
        return "ExternalIPs"
    return "NodePort" if any(p.node_port == port for p in service.ports) else service.type
