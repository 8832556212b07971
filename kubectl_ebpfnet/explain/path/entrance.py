"""By which nodes the packet of a client outside may enter the cluster.

A node's own address leads to that node, a pod's to the pod's node where the network routes it. The
address of a load-balancer, or an external IP, leads to whatever node is announced or chosen for it:
by a cloud's load-balancer, BGP or L2 announcements. Load-balancers leave out what model/kube.py
names (Node.not_balanced_to), and, where externalTrafficPolicy is Local, nodes whose health check
finds no local endpoint (Kubernetes docs, "Create an External Load Balancer").
"""

from __future__ import annotations

from kubectl_ebpfnet.errors import NotFound
from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.announced import (
    Announced,
    announced,
    lease_of,
    not_given,
    pending,
)
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.in_capture import like
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import API, PlaceKind
from kubectl_ebpfnet.model.kube import Pod, Service
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import ClosedEntry, Fix, PathRequest

MOST = 8
"""Nodes that are asked, and walked from; a cluster may have thousands."""
_LONGEST = 100
"""Characters of a load-balancer's name that are shown."""


@dataclass(frozen=True, slots=True)
class WaysIn:
    """Where a client outside may enter.

    Attributes:
        nodes: by which it may enter, the likeliest first, at most MOST.
        why: how they were chosen, one sentence.
        left_out: how many more may be entered by.
        closed: nodes that it does not enter by, each with the reason, at most MOST.
        more_closed: how many more there are of these.
        problem: why it enters by none, "" where it does.
        fix: what to do about that.
        doubt: why perhaps none takes it in, "" for nothing; `fix` is then about that.
        unchecked: the permission that is missing to tell which of them a load-balancer's health
            checks close, "" where that is known.
    """

    nodes: tuple[str, ...] = ()
    why: str = ""
    left_out: int = 0
    closed: tuple[ClosedEntry, ...] = ()
    more_closed: int = 0
    problem: str = ""
    fix: Fix | None = None
    doubt: str = ""
    unchecked: str = ""


def ways_in(cluster: ClusterView, request: PathRequest) -> WaysIn:
    """Return by which nodes the packet of a client outside may enter.

    Raises:
        NotFound: the bundle does not know the node of --via.
    """
    known = set(cluster.node_names)
    if request.via:
        if request.via not in known:
            nodes = like(cluster.node_names, request.via)  # of a capture, or of a live cluster
            raise NotFound("node", request.via, hint=f"nodes are {nodes}" if nodes else "")
        return WaysIn((request.via,), "as --via says")
    service = service_of(cluster, request)
    if service is not None:
        client = request.source_address
        return _of_service(cluster, service, client.version if client is not None else 4)
    kind, name = request.destination_kind, request.destination_name
    if kind == "node":
        return _by(name, "it has the address")
    if kind == "pod":
        pod = cluster.pod(request.destination_namespace, name)
        if pod is None:
            return WaysIn()
        return _by(pod.node, "the node of the pod") if pod.node else _not_placed(pod)
    address = request.destination_address
    return _of_address(cluster, address) if address is not None else WaysIn()


def _not_placed(pod: Pod) -> WaysIn:
    why = f": {pod.reason}" if pod.reason else ""
    return WaysIn(
        problem=f"pod {pod.namespace}/{pod.name} is on no node ({pod.state}{why})",
        fix=Fix("See why it is not scheduled.", commands.describe_pod(pod.namespace, pod.name)),
    )


def service_of(cluster: ClusterView, request: PathRequest) -> Service | None:
    """Return the Service that a request is for, by its name or its address; None for another
    destination."""
    address = request.destination_address
    if address is None:
        named = request.destination_kind == "service"
        namespace, name = request.destination_namespace, request.destination_name
        return cluster.index.service(namespace, name) if named else None
    if cluster.node_of(address) or cluster.pod_with(address) is not None:
        return None
    return next(iter(cluster.index.services_with(address)), None)


def service_outside(cluster: ClusterView, request: PathRequest) -> Service | None:
    """Return the Service of `service_of` that has an address for clients outside, which a node may
    announce."""
    service = service_of(cluster, request)
    if service is None or not service.outside_addresses:
        return None
    return service


def _by(node: str, why: str) -> WaysIn:
    return WaysIn((node,), why)


def _of_address(cluster: ClusterView, address: Address) -> WaysIn:
    """Return who may take in a packet for an address that is no Service's."""
    node = cluster.owner_of(address)
    if node:
        return _by(node, "it has the address")
    pod = cluster.pod_with(address)
    if pod is not None and pod.node:
        return _by(pod.node, "the node of the pod")
    cidrs = [(node.name, node.pod_cidrs) for node in cluster.kube.nodes]
    cidrs += [(node.name, node.pod_cidrs) for node in cluster.cilium_nodes]
    for name, owned in cidrs:
        if any(address in cidr for cidr in owned):
            return _by(name, "its pod CIDR has the address")
    return WaysIn(
        problem=f"nobody in the cluster is known to have {address}, so nothing tells by which node "
        "a packet for it enters",
        fix=Fix("Name the node by which it enters: --via node/NAME."),
    )


def _of_service(cluster: ClusterView, service: Service, version: int) -> WaysIn:
    """Return the nodes that may take in a packet for a Service."""
    title = f"svc {service.namespace}/{service.name}"
    if service.external_name:
        return WaysIn()  # its name is an alias: what that is, the destination's look-up says
    if not service.cluster_addresses:
        return _to_endpoint(cluster, service, version)
    outside = [each for each in service.outside_addresses if each.version == version]
    if service.type == "LoadBalancer" and not service.outside_addresses and not service.balancer:
        problem, fix = pending(cluster, service)
        return WaysIn(problem=problem, fix=fix)
    if not service.outside_addresses and not any(port.node_port for port in service.ports):
        if service.balancer:
            return _past_nodes(service)
        return WaysIn(
            problem=f"{title} is a {service.type} Service: it has no address that a client outside "
            "can send to",
            fix=Fix("Give it the type LoadBalancer or NodePort, or externalIPs."),
        )
    lacks = None if outside or not service.outside_addresses else not_given(service, version)
    if lacks is not None:
        return WaysIn(problem=lacks[0], fix=lacks[1])
    local = _with_endpoints(cluster, service)
    by = announced(cluster, service) if outside else Announced()
    if by.node:
        why = f"it announces the address: it holds the lease {lease_of(service)}"
        return WaysIn((by.node,), why, doubt=by.doubt, fix=by.fix)
    owners = list(dict.fromkeys(map(cluster.node_of, outside)))
    if owners and all(owners):  # as of a load-balancer of hostPorts
        return WaysIn(tuple(owners[:MOST]), "they have its addresses", len(owners[MOST:]))
    balanced = bool(service.outside_addresses or service.balancer)
    nodes, closed = [], []
    for node in cluster.kube.nodes:
        why = node.not_balanced_to if balanced else ""
        if not why and balanced and _is_checked(service) and node.name not in local:
            why = "its health check finds no local endpoint (externalTrafficPolicy Local)"
        if why:
            closed.append(ClosedEntry(node.name, why))
        else:
            nodes.append(node.name)
    if not nodes:  # no load-balancer finds one; what a node does is still worth knowing
        nodes, closed = list(cluster.node_names), []
    recorded = {
        place.node
        for kind in (PlaceKind.AGENT, PlaceKind.NODE)
        for place in cluster.bundle.places(kind)
    }
    nodes.sort(key=lambda name: (name not in recorded, name not in local, name))
    why = "each node takes it in" if not balanced else "each node that a load-balancer may use"
    why += _lease_unread(cluster, service) if outside else ""
    unread = _slices_unread(cluster) if balanced and not local and _is_checked(service) else ""
    why += f"; which ones their health checks close was not read ({unread})" if unread else ""
    return WaysIn(
        tuple(nodes[:MOST]), why, len(nodes[MOST:]), tuple(closed[:MOST]), len(closed[MOST:]),
        doubt=by.doubt, fix=by.fix, unchecked=unread,
    )  # fmt: skip


def _past_nodes(service: Service) -> WaysIn:
    """A load-balancer outside of the cluster has no node port to send to."""
    title, pod = f"svc {service.namespace}/{service.name}", "path CLIENT pod/NAME"
    balancer = service.balancer[:_LONGEST]
    return WaysIn(
        problem=f"{title} has no node ports, so its load-balancer {balancer} can send to its pods "
        "alone, past the Service",
        fix=Fix(
            f"Where the load-balancer sends to pods, ask for one of them: `{pod}`. Else give the "
            "Service node ports (allocateLoadBalancerNodePorts: true).",
            commands.edit_service(service.namespace, service.name),
        ),
    )


def _lease_unread(cluster: ClusterView, service: Service) -> str:
    """Return that the lease of a Service may not be read, as the end of a sentence; "" where it
    may."""
    name = lease_of(service)
    denied = next((r.denied for r in cluster.bundle.at(API) if r.denied and name in r.argv), "")
    return f"; whether Cilium announces it by one of them was not read ({denied})" if denied else ""


def _slices_unread(cluster: ClusterView) -> str:
    """Return the permission that is missing to tell where endpoints are, "" for none."""
    denied = (r.denied for r in cluster.bundle.at(API) if "endpointslices" in r.denied)
    return next(denied, "")


def _is_checked(service: Service) -> bool:
    """Tell whether load-balancers leave out nodes without a local endpoint."""
    return service.external_traffic_policy == "Local" and bool(service.health_check_node_port)


def _with_endpoints(cluster: ClusterView, service: Service) -> set[str]:
    """Return the nodes that have endpoints of a Service which take connections."""
    ends = cluster.index.endpoints_of(service.namespace, service.name)
    return {end.node for end in ends if end.ready or end.serving}


def _to_endpoint(cluster: ClusterView, service: Service, version: int) -> WaysIn:
    """Return the node of the endpoint of a headless Service that a client is taken to ask."""
    for end in cluster.index.endpoints_of(service.namespace, service.name):
        if end.ready and end.node and end.address.version == version:
            return _by(end.node, "the node of an endpoint: the Service is headless")
    return WaysIn()
