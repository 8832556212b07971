"""The two ends of a path: the request's names resolved to objects, addresses and tracked flows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address

from kubectl_ebpfnet.errors import NotFound, UsageError
from kubectl_ebpfnet.explain.flows.attempt import newest
from kubectl_ebpfnet.explain.flows.match import FlowQuery, tracked_flows
from kubectl_ebpfnet.explain.path.services import ServiceAddress, find, first_lookup
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.cilium import DatapathConfig, Endpoint
from kubectl_ebpfnet.model.evidence import CLIENT, pod_place
from kubectl_ebpfnet.model.kube import Pod, Service, ServicePort
from kubectl_ebpfnet.model.net import Address, Flow, has_ports
from kubectl_ebpfnet.model.path import (
    Attempt,
    Finding,
    PathRequest,
    Severity,
    Target,
    TrackedFlow,
)
from kubectl_ebpfnet.parse import lookup


@dataclass(frozen=True, slots=True)
class PathEnds:
    """The resolved request.

    Attributes:
        source, destination: as the answer shows them.
        host_network: the source pod shares its node's network namespace.
        source_endpoint: Cilium's endpoint of the source, None when there is none.
        identity: security identity of the source, 0 when not known.
        service: the destination's frontend, None when the destination is not a frontend.
        flow: the packet as the source sends it; its source port is that of the newest tracked
            flow, None when there is none.
        flows: tracked flows that match, newest first.
        problem: why no walk is possible, "" when it is.
        findings: of the resolution.
        attempt: the newest attempt that a table of the source's node shows, None without one.
    """

    source: Target
    destination: Target
    host_network: bool
    source_endpoint: Endpoint | None
    identity: int
    service: ServiceAddress | None
    flow: Flow
    flows: tuple[TrackedFlow, ...] = ()
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    attempt: Attempt | None = None

    @property
    def tracked(self) -> TrackedFlow | None:
        """The newest tracked flow."""
        return self.flows[0] if self.flows else None


def resolve(cluster: ClusterView, request: PathRequest) -> PathEnds:
    """Resolve a request's names in the bundle.

    Raises:
        NotFound: the source pod or the destination object is not in the bundle.
        UsageError: the request must name a port of the Service, or names a port that it lacks.
    """
    namespace, name, pod, source_note = _source_pod(cluster, request)
    destination, port, service, note = _destination(cluster, request, pod)
    addresses = pod.addresses if pod else cluster.pod_netns(namespace, name).own_addresses
    version = destination.version if destination is not None else 4
    source = next((a for a in addresses if a.version == version), None)
    node = pod.node if pod else cluster.only_node
    problem, findings = _obstacle(cluster, request, pod, source, destination, version)
    source_target = Target(request.source, "pod", namespace, name, source, None, node, source_note)
    destination_target = _destination_target(cluster, request, destination, port, note)
    if problem or source is None or destination is None:
        empty = ip_address("0.0.0.0" if version == 4 else "::")  # noqa: S104 -- not a bind
        flow = Flow(request.protocol, source or empty, None, destination or empty, port)
        return PathEnds(
            source_target, destination_target, bool(pod and pod.host_network), None, 0, None, flow,
            problem=problem or note or "the destination has no address", findings=findings,
        )  # fmt: skip
    at = first_lookup(cluster.node(node), bool(pod and pod.host_network))
    service = service or find(cluster, node, destination, port, request.protocol, at)
    return _with_flows(
        cluster, request, pod, source_target, destination_target, source, service, findings
    )


def _with_flows(
    cluster: ClusterView,
    request: PathRequest,
    pod: Pod | None,
    source_target: Target,
    destination_target: Target,
    source: Address,
    service: ServiceAddress | None,
    findings: tuple[Finding, ...],
) -> PathEnds:
    node = cluster.node(source_target.node)
    destination = destination_target.address
    assert destination is not None
    host_network = bool(pod and pod.host_network)
    endpoint = None if host_network else _endpoint(cluster, source_target, source)
    port = destination_target.port
    query = _flow_query(
        request.protocol, source, destination, port, service, _by_socket(node.config, host_network)
    )
    flows = tuple(tracked_flows(node, query))
    if service is not None:
        frontend = service.address
        flows = tuple(sorted(flows, key=lambda flow: not _names_frontend(flow, frontend)))
    tracked = flows[0] if flows else None
    identity = endpoint.identity if endpoint else (1 if host_network else 0)
    if not identity and tracked and tracked.cilium_ct:
        identity = tracked.cilium_ct.source_identity
    return PathEnds(
        source_target,
        destination_target,
        host_network,
        endpoint,
        identity,
        service,
        _first_flow(request.protocol, source, destination, port, service, tracked),
        flows,
        "",
        findings,
        _attempt(flows, node, service),
    )


def _first_flow(
    protocol: int,
    source: Address,
    destination: Address,
    port: int | None,
    service: ServiceAddress | None,
    tracked: TrackedFlow | None,
) -> Flow:
    flow = Flow(protocol, source, None, destination, port if has_ports(protocol) else None)
    if tracked is None:
        return flow
    # The port of a tracked flow stands in where the request names none.
    seen = tracked.flow
    own_port = flow.destination_port
    if own_port is None and service is None and has_ports(protocol):
        own_port = seen.destination_port
    return Flow(protocol, source, seen.source_port, destination, own_port)


def _flow_query(
    protocol: int,
    source: Address,
    destination: Address,
    port: int | None,
    service: ServiceAddress | None,
    by_socket: bool,
) -> FlowQuery:
    direct = (destination, port if has_ports(protocol) else None)
    if service is None:
        return FlowQuery(protocol, source, frozenset({direct}))
    ends = frozenset((b.address, b.port) for b in service.backends)
    return FlowQuery(
        protocol, source, ends | {direct}, frozenset({direct}), service.rev_nat, by_socket
    )


def _by_socket(config: DatapathConfig, host_network: bool) -> bool:
    """Tell whether the source's sockets may replace a Service's address by a backend's."""
    return config.socket_lb is not False and (host_network or not config.socket_lb_host_only)


def _attempt(
    flows: tuple[TrackedFlow, ...], node: NodeView, service: ServiceAddress | None
) -> Attempt | None:
    attempt = newest(flows, node)
    if attempt is None or service is None or _names_frontend(attempt.flow, service.address):
        return attempt
    note = f"no table says whether it was sent to {service.address} or to this backend itself"
    return replace(attempt, text=f"{attempt.text} ({note})")


def _names_frontend(flow: TrackedFlow, frontend: Address) -> bool:
    """Tell whether a table shows that a flow went by the Service, and not straight to a backend."""
    ct, nf = flow.cilium_ct, flow.netfilter
    return (
        flow.flow.destination == frontend
        or (ct is not None and bool(ct.rev_nat))
        or (nf is not None and nf.original.destination == frontend)
    )


def _source_pod(cluster: ClusterView, request: PathRequest) -> tuple[str, str, Pod | None, str]:
    namespace, name = request.source_namespace, request.source_name
    if request.source_kind != "pod":
        pods = [
            pod
            for pod in cluster.kube.pods
            if pod.namespace == namespace and pod.belongs_to(request.source_kind, name)
        ]
        if not pods:
            raise NotFound(request.source_kind.lower(), name, namespace)
        best = min(pods, key=lambda pod: (not pod.ready, pod.name))
        return namespace, best.name, best, f"one of {len(pods)} pods of {request.source}"
    pod = cluster.pod(namespace, name)
    if pod is None and not cluster.bundle.at(pod_place(namespace, name)):
        known = ", ".join(f"{p.namespace}/{p.name}" for p in cluster.kube.pods[:8])
        hint = f"pods in this capture: {known}" if known else "this capture holds no pods"
        raise NotFound("pod", name, namespace, hint=hint)
    return namespace, name, pod, "" if pod else "its Pod object is not recorded"


def _destination(
    cluster: ClusterView, request: PathRequest, source: Pod | None
) -> tuple[Address | None, int | None, ServiceAddress | None, str]:
    """Return address, port, frontend and note of the destination."""
    kind, name = request.destination_kind, request.destination_name
    versions: set[int] = {4, 6}
    if source is not None and source.addresses:
        versions = {a.version for a in source.addresses}
    if kind == "address":
        return request.destination_address, request.port, None, request.note
    if kind == "pod":
        pod = _destination_pod(cluster, request)
        if pod is None:
            raise NotFound("pod", name, request.destination_namespace)
        return _first_of_version(pod.addresses, versions), request.port, None, request.note
    if kind == "node":
        node = cluster.kube_node(name)
        if node is None:
            raise NotFound("node", name)
        address = _first_of_version(node.internal_addresses, versions)
        return address, request.port, None, request.note
    if kind == "service":
        return _service(cluster, request, source, versions)
    if request.destination_address is not None:
        return request.destination_address, request.port, None, request.note
    address, where = _resolved_name(cluster, request)
    if address is None:
        by_name = _service_of_name(cluster, request)
        if by_name is not None:
            return _service(cluster, by_name, source, versions)
    return address, request.port, None, where


def _service(
    cluster: ClusterView, request: PathRequest, source: Pod | None, versions: set[int]
) -> tuple[Address | None, int | None, ServiceAddress | None, str]:
    namespace, name = request.destination_namespace, request.destination_name
    for service in cluster.kube.services:
        if (service.namespace, service.name) == (namespace, name):
            port = service_port(service, request)
            address = _first_of_version(service.cluster_addresses, versions)
            if address is None:
                return _headless(cluster, service, port, versions)
            node = cluster.node(source.node if source else "")
            at = first_lookup(node, bool(source and source.host_network))
            found = find(cluster, node.name, address, port.port, port.protocol, at)
            return address, port.port, found, request.note
    raise NotFound("service", name, namespace)


def _headless(
    cluster: ClusterView, service: Service, port: ServicePort, versions: set[int]
) -> tuple[Address | None, int | None, ServiceAddress | None, str]:
    if service.external_name:
        return None, port.port, None, f"an ExternalName for {service.external_name}: ask for that"
    for end in cluster.kube.endpoints:
        same = (end.namespace, end.service) == (service.namespace, service.name)
        if same and end.ready and end.address.version in versions:
            note = f"headless: {end.pod or end.address} is one of its endpoints"
            return end.address, end.port, None, note
    return None, port.port, None, "headless, and no endpoint is ready"


def service_port(service: Service, request: PathRequest) -> ServicePort:
    """Return the port of a Service that the request means.

    Raises:
        UsageError: the Service has several ports and the request names none, or has no such port.
    """
    offered = ", ".join(f"{p.port}{f' ({p.name})' if p.name else ''}" for p in service.ports)
    hits = [
        p
        for p in service.ports
        if (request.port in (None, p.port))
        and (not request.port_name or p.name == request.port_name)
    ]
    same = [p for p in hits if p.protocol == request.protocol]
    if len(same) == 1:
        return same[0]
    if len(hits) == 1 and request.port is None and not request.port_name and not same:
        raise UsageError(
            f"svc/{service.name} offers only {offered} by another protocol", hint="give --protocol"
        )
    if not same:
        asked = request.port_name or request.port
        raise UsageError(
            f"svc/{service.name} has no port {asked}", hint=f"its ports are {offered or 'none'}"
        )
    raise UsageError(
        f"svc/{service.name} has several ports", hint=f"name one of {offered}: svc/{service.name}:…"
    )


def _resolved_name(cluster: ClusterView, request: PathRequest) -> tuple[Address | None, str]:
    name = request.destination_name or request.destination
    places = (pod_place(request.source_namespace, request.source_name), CLIENT)
    for place in places:
        for record in cluster.bundle.at(place):
            if record.ok and record.argv[-1:] == (name,):
                for found in lookup.addresses(record.beginning):
                    return found, f"{name} is {found}, asked in {place}"
    return None, f"nothing says what {name} resolves to"


def _service_of_name(cluster: ClusterView, request: PathRequest) -> PathRequest | None:
    """Return the request with a Service as its destination, where the name is its cluster DNS name.

    `web`, `web.shop`, `web.shop.svc`, `web.shop.svc.cluster.local` (Kubernetes DNS specification);
    a pod's search path completes the shorter names from the pod's own namespace.
    """
    words = request.destination.rstrip(".").split(".")
    if len(words) > 2 and words[2] != "svc":
        return None
    name, namespace = words[0], words[1] if len(words) > 1 else request.source_namespace
    for service in cluster.kube.services:
        if (service.namespace, service.name) == (namespace, name):
            note = f"cluster DNS calls svc {namespace}/{name} so; no look-up is recorded"
            return replace(
                request,
                destination_kind="service",
                destination_namespace=namespace,
                destination_name=name,
                note=note,
            )
    return None


def _first_of_version(addresses: tuple[Address, ...], versions: set[int]) -> Address | None:
    return next((a for a in addresses if a.version in versions), None)


def _destination_target(
    cluster: ClusterView, request: PathRequest, address: Address | None, port: int | None, note: str
) -> Target:
    kind, node = request.destination_kind, ""
    if address is not None:
        pod = cluster.pod_with(address)
        node = pod.node if pod else cluster.node_of(address)
        if kind in ("address", "name") and pod is not None:
            owner = f"the address of pod {pod.namespace}/{pod.name}"
            note = f"{note}; {owner}" if note else owner
    namespace, name = request.destination_namespace, request.destination_name
    return Target(request.destination, kind, namespace, name, address, port, node, note)


def _endpoint(cluster: ClusterView, source: Target, address: Address) -> Endpoint | None:
    found = cluster.node(source.node).endpoint_of(address) if source.node else None
    if found is not None:
        return found
    for endpoint, _ in cluster.kube.cilium_endpoints:
        if (endpoint.namespace, endpoint.pod) == (source.namespace, source.name):
            return endpoint
    return None


def _obstacle(
    cluster: ClusterView,
    request: PathRequest,
    pod: Pod | None,
    source: Address | None,
    destination: Address | None,
    version: int,
) -> tuple[str, tuple[Finding, ...]]:
    for role, pod_at_end in (("source", pod), ("destination", _destination_pod(cluster, request))):
        if pod_at_end is not None and (
            pod_at_end.phase in ("Succeeded", "Failed") or not pod_at_end.addresses
        ):
            why = f": {pod_at_end.reason}" if pod_at_end.reason else ""
            state = pod_at_end.phase or "without an address"
            title = f"{role} pod {pod_at_end.namespace}/{pod_at_end.name} is {state}{why}"
            detail = (
                "It has no network namespace that a packet could leave or reach. "
                f"`kubectl describe pod -n {pod_at_end.namespace} {pod_at_end.name}` tells why."
            )
            record = cluster.api_record("pods", "pod")
            finding = Finding(Severity.ERROR, title, detail, cite.whole(record))
            return title, (finding,)
    if source is None and destination is not None:
        have = "no address" if pod is None or not pod.addresses else f"no IPv{version} address"
        return f"the source pod has {have}", ()
    return "", ()


def _destination_pod(cluster: ClusterView, request: PathRequest) -> Pod | None:
    if request.destination_kind != "pod":
        return None
    return cluster.pod(request.destination_namespace, request.destination_name)
