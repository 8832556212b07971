"""Frontends: which frontend a destination is, and the backends that it may go to.

Cilium's own tables come first: its map, which the datapath uses, then its agent's list. Kubernetes'
Service and EndpointSlices stand in where neither has the frontend.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup, Search
from kubectl_ebpfnet.explain.path.service_address import (
    HEALTH_CHECK,
    ServiceAddress,
    affinity_of,
)
from kubectl_ebpfnet.explain.views import cite, lists
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Frontend
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint, ServicePort
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence

Owner = tuple[Service, ServicePort]
"""A Service, and the port of it that a frontend is."""


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
    brought = node.want(q.LB_MAP, address)
    search = Search(cluster, node, address, port, protocol, at)
    listed, mapped = map(search.among, (q.SERVICES, q.LB_MAP))
    owners = list(_owners(cluster, address, port, protocol))
    owner = owners[0] if owners else None
    # The datapath has what its map has: a frontend of the agent's list alone is not translated.
    record = node[q.LB_MAP].record
    filled = bool(node[q.LB_MAP].facts) or (record is not None and record.left_out > 0)
    # An empty map lacks what the agent's list has.
    filled = filled or (node[q.LB_MAP].known and listed is not None)
    unmapped = mapped is None and filled and brought
    frontend = mapped or listed
    if frontend is None and owner is None:
        return None
    if frontend is None:
        assert owner is not None
        over = search.passed_over(q.LB_MAP)
        found = _of_kubernetes(search, *owner)
        return found if over is None else _left_alone(node, found, over)
    found = replace(_of_cilium(search, listed, mapped), in_cilium=not unmapped)
    if owner is None and frontend.type == "NodePort":  # at loopback, or another own address
        for each in islice(cluster.node_addresses, 1):
            owner = next(_owners(cluster, each, port, protocol), None)
    if len(owners) > 1:
        owner = _of_several(cluster, owners, found)
        others = (one for one, _ in owners if owner is None or one is not owner[0])
        found = replace(found, rivals=tuple(others))
    checked = None if owner is not None else _health_check_of(cluster, found)
    if checked is not None and not found.name:
        found = replace(found, namespace=checked.namespace, name=f"{checked.name}:{HEALTH_CHECK}")
    if owner is not None:
        sliced = sliced_of(cluster, *owner, address.version)
        found = replace(
            found,
            namespace=found.namespace or owner[0].namespace,
            name=found.name or owner[0].name,
            owner=owner[0],
            sliced=sliced,
            backends=kinds.by_affinity(
                kinds.ending(found.backends, sliced), affinity_of(owner[0]), sliced
            ),
        )
    return found


def _of_cilium(search: Search, listed: Frontend | None, mapped: Frontend | None) -> ServiceAddress:
    """Return a frontend of the agent's list, or of the map, or of both."""
    node, frontend = search.node, mapped or listed
    assert frontend is not None
    return ServiceAddress(
        search.address,
        frontend.port,
        search.protocol,
        frontend.type,
        (listed or frontend).namespace,
        (listed or frontend).name,
        frontend.rev_nat,
        None,
        kinds.merged(listed, mapped),
        _evidence(node, listed, mapped),
        missing=_torn(node, mapped),
        mapped=frozenset(map(kinds.place, mapped.backends)) if mapped is not None else None,
        flags=frontend.flags,
        proxy_port=frontend.proxy_port,
        unresolved=frontend.unresolved,
        slotted=node.lb_slotted,
        by_protocol=node.lb_by_protocol,
    )


def _health_check_of(cluster: ClusterView, found: ServiceAddress) -> Service | None:
    """Return the Service whose health check, which the agent answers, a frontend is."""
    checked = cluster.index.health_checked_at(found.port)
    return next((each for each in checked if found.address in each.ingress_addresses), None)


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


def _of_kubernetes(search: Search, service: Service, port: ServicePort) -> ServiceAddress:
    """Return a frontend that Cilium's load-balancer does not translate there, or may."""
    cluster, node = search.cluster, search.node
    number = port.port if search.port is None else search.port
    sliced = sliced_of(cluster, service, port, search.address.version)
    unread = ""
    if not node[q.LB_MAP].known and not node[q.SERVICES].known:
        unread = node[q.LB_MAP].missing
    elif node.left_out(q.LB_MAP, search.address):
        unread = f"the map's rows of {search.address} were left out"
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


def _of_several(
    cluster: ClusterView, owners: Sequence[Owner], found: ServiceAddress
) -> Owner | None:
    """Return whose frontend Cilium has, of several Services with the same address and port."""
    named = [
        each
        for each in owners
        if (each[0].namespace, each[0].name) == (found.namespace, found.name)
    ]
    places = set(map(kinds.place, found.backends))
    fitting = (
        each
        for each in owners
        if places & set(map(kinds.place, sliced_of(cluster, *each, found.address.version) or ()))
    )
    return next(iter(named), None) or next(fitting, owners[0])


def _owners(
    cluster: ClusterView, address: Address, port: int | None, protocol: int
) -> Iterator[Owner]:
    """Yield the Services, each with its port, that have an address and port."""
    on_node = address in cluster.node_addresses
    for service in cluster.index.services_at(address, port or 0 if on_node else 0):
        virtual = address in service.addresses
        for service_port in service.ports:
            if service_port.protocol != protocol:
                continue
            only = port is None and len(service.ports) == 1
            by_address = virtual and (port == service_port.port or only)
            by_node_port = on_node and service_port.node_port and port == service_port.node_port
            if by_address or by_node_port:
                yield service, service_port


def sliced_of(
    cluster: ClusterView, service: Service, port: ServicePort, version: int
) -> tuple[ServiceEndpoint, ...] | None:
    """Return what EndpointSlices name for a port; None where its slices were not read.

    Args:
        cluster: the bundle's indexes.
        service: the Service.
        port: of it.
        version: of IP.
    """
    own = cluster.index.endpoints_of(service.namespace, service.name)
    label = f"kubernetes.io/service-name={service.name}"
    if not own and lists.read(cluster, "endpointslices", service.namespace, label) is None:
        return None
    return tuple(
        end
        for end in own
        if end.port_name == port.name
        and end.protocol == port.protocol
        and end.address.version == version
    )


def _type(service: Service, address: Address, port: int) -> str:
    if address in service.cluster_addresses:
        return "ClusterIP"
    if address in service.ingress_addresses:
        return "LoadBalancer"
    if address in service.external_addresses:
        return "ExternalIPs"
    return "NodePort" if any(p.node_port == port for p in service.ports) else service.type
