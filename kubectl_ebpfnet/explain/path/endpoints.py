"""The two ends of a path: the request's names resolved to objects, addresses and tracked flows."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from kubectl_ebpfnet.explain.flows.attempt import newest, untracked
from kubectl_ebpfnet.explain.flows.match import FlowQuery, tracked_flows
from kubectl_ebpfnet.explain.path import former_backends
from kubectl_ebpfnet.explain.path.destinations import far_address, protocol_for
from kubectl_ebpfnet.explain.path.obstacles import obstacle
from kubectl_ebpfnet.explain.path.own_source import own_source
from kubectl_ebpfnet.explain.path.resolver import NameAnswer
from kubectl_ebpfnet.explain.path.sender import as_target, first_lookup_of, sender_of
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.services import find
from kubectl_ebpfnet.explain.path.special import of_address
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.explain.views.placed import Placed
from kubectl_ebpfnet.model.cilium import Endpoint
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow, has_ports
from kubectl_ebpfnet.model.path import (
    Attempt,
    Finding,
    Fix,
    PathRequest,
    Target,
    TrackedFlow,
)


@dataclass(frozen=True, slots=True)
class PathEnds:
    """The resolved request.

    Attributes:
        source, destination: as the answer shows them.
        host_network: the source is a node, or a pod that shares its node's network namespace.
        source_endpoint: Cilium's endpoint of the source, None when there is none.
        identity: security identity of the source, 0 when not known.
        service: the destination's frontend, None when the destination is not a frontend.
        flow: the packet as the source sends it; its source port is that of the newest tracked
            flow, None when there is none.
        flows: tracked flows that match, newest first.
        problem: why no walk is possible, "" when it is.
        fix: what to do about the problem, None where nothing is known to help.
        refused: why the sender's kernel sends no such packet, "" where it does.
        doubt: why nobody may answer though the packet is let through, "" for no doubt.
        name: what the destination's DNS name came to, None for other destinations.
        name_asked: the name, "" for other destinations.
        query: as of the request.
        findings: of the resolution.
        attempt: the newest attempt that a table of the source's node shows, None without one.
        untracked: why there is none: nothing is tracked, or a table was not read.
        tracked: the newest tracked flow that goes where a new one would go, None without one.
        entry: the node by which a client outside enters, "" for a source in the cluster.
        via: that node where the user named it, else "".
        meant: how to ask for the object that a bare word names, where it is no DNS name.
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
    untracked: str = ""
    fix: Fix | None = None
    refused: str = ""
    doubt: str = ""
    name: NameAnswer | None = None
    name_asked: str = ""
    query: tuple[str, ...] = ()
    tracked: TrackedFlow | None = None
    entry: str = ""
    via: str = ""
    meant: Fix | None = None

    @property
    def first_node(self) -> str:
        """The node that the packet meets first, whose tables tell of attempts; "" when not
        known."""
        return self.entry or self.source.node


def resolve(cluster: ClusterView, request: PathRequest, entry: str = "") -> PathEnds:
    """Resolve a request's names in the bundle.

    Args:
        cluster: the bundle's indexes.
        request: the packet's ends.
        entry: the node by which a client outside enters, "" for other sources.

    Raises:
        NotFound: the source or the destination object is not in the bundle.
        UsageError: the request must name a port of the Service, or names a port that it lacks; or
            a client outside has an address of the cluster.
    """
    sender = sender_of(cluster, request, entry)
    far = far_address(cluster, request, sender)
    destination, port = far.address, far.port
    request = replace(request, protocol=protocol_for(request, destination))
    version = destination.version if destination is not None else request.ip_version or 4
    source = next((a for a in sender.addresses if a.version == version), None)
    problem, fix, findings = obstacle(cluster, request, sender, source, destination, version)
    source_target = as_target(sender, request, source)
    unresolved = problem or source is None or destination is None
    # Why a destination that does not run has no address is the problem itself.
    note = "" if unresolved and not (problem and destination) else far.note
    destination_target = _destination_target(cluster, request, destination, port, note)
    if unresolved or source is None or destination is None:
        empty = ip_address("0.0.0.0" if version == 4 else "::")  # noqa: S104 -- not a bind
        flow = Flow(request.protocol, source or empty, None, destination or empty, port)
        return PathEnds(
            source_target, destination_target, sender.host_network, None, 0, None, flow,
            problem=problem or far.note or "the destination has no address", findings=findings,
            fix=fix or far.fix, meant=far.meant, name=None if problem else far.name, entry=entry,
            via=request.via,
        )  # fmt: skip
    service = far.service
    # A node's address without a port is the node itself, not the only Service with a node port.
    if service is None and not (port is None and destination in cluster.node_addresses):
        at = first_lookup_of(cluster, sender, request.protocol)
        service = find(cluster, sender.node, destination, port, request.protocol, at)
    if service is not None and port is None:
        destination_target = replace(destination_target, port=service.port)
    special = of_address(cluster, destination, request.protocol, is_service=service is not None)
    ends = _with_flows(
        cluster, request, sender, source_target, destination_target, source, service,
        (*findings, *special.findings),
    )  # fmt: skip
    return replace(
        ends,
        problem=special.problem,
        fix=special.fix,
        refused=special.refused,
        doubt=special.doubt,
        name=far.name,
        name_asked=request.destination_name if request.destination_kind == "name" else "",
        query=request.query,
    )


def _with_flows(
    cluster: ClusterView,
    request: PathRequest,
    sender: Placed,
    source_target: Target,
    destination_target: Target,
    source: Address,
    service: ServiceAddress | None,
    findings: tuple[Finding, ...],
) -> PathEnds:
    node = cluster.node(sender.node)
    destination = destination_target.address
    assert destination is not None
    host_network = sender.host_network
    is_pod = not host_network and not sender.outside
    endpoint = _endpoint(cluster, source_target, source) if is_pod else None
    port = destination_target.port
    by_socket = not sender.outside and _by_socket(node.config, host_network)
    if host_network:
        replaced = service is not None and by_socket and service.in_cilium is not False
        backends = service.backends if service is not None and replaced else ()
        first = Flow(request.protocol, source, None, destination, port)
        source = own_source(node, first, {b.address for b in backends} or {destination})
    query = _flow_query(request.protocol, source, destination, port, service, by_socket)
    flows = tuple(tracked_flows(node, replace(query, passed_by=sender.outside)))
    if service is None and port is None and destination in cluster.node_addresses:
        flows = tuple(each for each in flows if not _goes_to_a_pod(cluster, destination, each))
    # It comes in at its pod, or at the node; of a Service that entry does not tell which frontend.
    if sender.outside and not flows and service is None:
        flows = tuple(tracked_flows(node, query, "IN"))
    if service is not None:
        frontend = service.address
        flows = tuple(sorted(flows, key=lambda flow: not _names_frontend(flow, frontend)))
    now = former_backends.current(flows, service)
    tracked = now[0] if now else None
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
        _attempt(now, node, service),
        untracked(node, {end for end, _ in query.ends}),
        tracked=tracked,
        entry=sender.node if sender.outside else "",
        via=request.via,
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
    # What a socket leaves alone is in no flow to a backend.
    behind = () if service.passed_over else service.backends
    ends = frozenset((b.address, b.port) for b in behind)
    return FlowQuery(
        protocol, source, ends | {direct}, frozenset({direct}), service.rev_nat, by_socket
    )


def _goes_to_a_pod(cluster: ClusterView, address: Address, tracked: TrackedFlow) -> bool:
    """Tell whether a flow to a node's address is one to a node port or a hostPort: who names no
    port asks about the node itself."""
    flow, name = tracked.flow, cluster.node_of(address)
    place = (flow.destination_port, flow.protocol)
    if tracked.translated.destination != address:
        return True
    pods = (pod for pod in cluster.kube.pods if pod.node == name and not pod.host_network)
    return any(place in pod.host_ports for pod in pods) or any(
        place == (port.node_port, port.protocol)
        for service in cluster.kube.services
        for port in service.ports
    )


def _by_socket(config: DatapathConfig, host_network: bool) -> bool:
    """Tell whether the source's sockets may replace a Service's address by a backend's."""
    return bool(config.socket_lb) and (host_network or not config.socket_lb_host_only)


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
    return cluster.index.cilium_endpoint(source.namespace, source.name)
