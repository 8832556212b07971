"""Cilium's frontends against Kubernetes' Services and EndpointSlices: backends and frontends that
are gone, lacking, or in another state there, source ranges that only one of them has.

Source: Cilium pkg/k8s/endpoints.go: an endpoint that is not ready is no backend, but one that
terminates and serves; pkg/loadbalancer: source ranges are a flag of the frontends of a
LoadBalancer, unless enable-svc-source-range-check is false.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path import unnamed_backend
from kubectl_ebpfnet.explain.path.other_clusters import cluster_of
from kubectl_ebpfnet.explain.path.service_address import HEALTH_CHECK, ServiceAddress
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite, lists
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.explain.views.settings import setting
from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.net import endpoint_text
from kubectl_ebpfnet.model.path import Finding, Severity

_OF_SERVICES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalIPs")
_LOCAL = frozenset({"Local", "InternalLocal"})
_SEE_WHY = "the agent's connection to the API server, and its log, tell why."
_NAMED = 3
"""Endpoints that a sentence names."""


def report(walk: PathBuilder, service: ServiceAddress, node_name: str) -> None:
    """Report a map of Cilium's that is behind its agent, or an agent that is behind Kubernetes.

    Args:
        walk: takes findings.
        service: the frontend that a packet is for.
        node_name: whose load-balancer it is.
    """
    if not service.in_cilium or service.by_proxy:
        return
    node = walk.cluster.node(node_name)
    for finding in (
        *_without_service(walk, service, node),
        *_of_another(service, node),
    ):
        walk.findings.append(finding)
        walk.lets_pass_though(finding.title, finding.evidence)
    for rule in (
        _without_pod, _rivals, _not_mapped, _stale, _other_states, _late,
        _source_ranges, _settings,
    ):  # fmt: skip
        walk.findings += rule(walk, service, node)


def not_ready(service: ServiceAddress) -> list[Backend]:
    """Return the backends that take connections though the EndpointSlices have them as not ready,
    and as terminating where the agent says that they are active."""
    if service.named_elsewhere:
        return []
    ends = {kinds.place(end): end for end in service.sliced or () if not end.ready}
    return [
        backend
        for backend in service.usable
        if (end := ends.get(kinds.place(backend))) is not None
        and (backend.state == kinds.ACTIVE or (not end.terminating and not backend.state))
    ]


def _without_service(
    walk: PathBuilder, service: ServiceAddress, node: NodeView
) -> Iterator[Finding]:
    """Report a frontend that no Service has; the agent's own are of other objects."""
    if service.owner is not None or service.type not in _OF_SERVICES or service.redirects_locally:
        return
    if service.name.endswith(HEALTH_CHECK) or "host-port" in service.name:
        return
    record = lists.read(walk.cluster, "services")
    if record is None or _has_port(walk, service):
        return
    yield Finding(
        Severity.WARNING,
        f"Cilium's map on {node.name} still has {service.title}, and no Service has that address "
        "and port",
        f"The Service was deleted, or changed, and the agent did not see it: {_SEE_WHY}",
        service.evidence + cite.whole(record),
    )


def _of_another(service: ServiceAddress, node: NodeView) -> Iterator[Finding]:
    """Report a frontend that the agent has as another Service's than that of the API server."""
    owner, name = service.owner, f"{service.namespace}/{service.name}"
    if owner is None or not service.name or ":" in service.name or service.redirects_locally:
        return
    same = {f"{each.namespace}/{each.name}" for each in (owner, *service.rivals)}
    if service.type in _OF_SERVICES and name not in same:
        yield Finding(
            Severity.WARNING,
            f"Cilium on {node.name} has {endpoint_text(service.address, service.port)} as that of "
            f"svc {name}, and svc {owner.namespace}/{owner.name} has it",
            f"Cilium on {node.name} is behind its Services: {_SEE_WHY}",
            service.evidence,
        )


def _without_pod(walk: PathBuilder, service: ServiceAddress, node: NodeView) -> Iterator[Finding]:
    """Report a hostPort's frontend that no pod of the node has."""
    record = lists.read(walk.cluster, "pods")
    if service.type != "HostPort" or record is None:
        return
    pods = [walk.cluster.pod_with(backend.address) for backend in service.backends]
    if any(pods) or any(
        pod.node == node.name and any(port == service.port for port, _ in pod.host_ports)
        for pod in walk.cluster.kube.pods
    ):
        return
    yield Finding(
        Severity.WARNING,
        f"Cilium's map on {node.name} still has {service.title}, and no pod of {node.name} has "
        "that hostPort",
        f"The pod was deleted, and the agent did not see it: {_SEE_WHY}",
        service.evidence + cite.whole(record),
    )


def _rivals(_: PathBuilder, service: ServiceAddress, node: NodeView) -> Iterator[Finding]:
    """Report an address and port that several Services have: one of them gets all of it."""
    if not service.rivals:
        return
    names = ", ".join(f"svc {each.namespace}/{each.name}" for each in service.rivals[:_NAMED])
    yield Finding(
        Severity.WARNING,
        f"{names} has {endpoint_text(service.address, service.port)} as well as "
        f"{service.owner_title}",
        f"Cilium on {node.name} sends all of it to one of them, {service.owner_title}. Give each "
        "an address, or a port, of its own.",
        service.evidence,
    )


def _settings(walk: PathBuilder, service: ServiceAddress, node: NodeView) -> Iterator[Finding]:
    """Report a traffic policy that the Service has and its frontend has not, or the reverse."""
    owner = service.owner
    if owner is None or service.mapped is None or service.named_elsewhere:
        return
    inside = service.type == "ClusterIP"
    policy = owner.internal_traffic_policy if inside else owner.external_traffic_policy
    local = ("InternalLocal" if inside else "Local") in service.flags
    # Versions before 1.17, whose keys have no protocol, may not know the internal one.
    if service.type not in _OF_SERVICES or (inside and not service.by_protocol):
        return
    if inside and setting(walk.cluster, "enable-internal-traffic-policy") == "false":
        return
    if policy not in ("Local", "Cluster") or (policy == "Local") == local:
        return
    name = "internalTrafficPolicy" if inside else "externalTrafficPolicy"
    yield Finding(
        Severity.WARNING,
        f"Cilium's map on {node.name} has {service.title} with {name} "
        f"{'Local' if local else 'Cluster'}, and the Service has {policy}",
        f"Cilium on {node.name} is behind its Service: {_SEE_WHY}",
        service.evidence,
    )


def _has_port(walk: PathBuilder, service: ServiceAddress) -> bool:
    """Tell whether a Service has the frontend's address and port, by whatever protocol: maps up to
    Cilium 1.16 do not tell those apart."""
    return any(
        service.port in ((port.node_port,) if service.type == "NodePort" else (port.port,))
        and (service.type == "NodePort" or service.address in owner.addresses)
        for owner in walk.cluster.kube.services
        for port in owner.ports
    )


def _active(service: ServiceAddress) -> list[Backend]:
    return [b for b in service.backends if b.state in ("", kinds.ACTIVE)]


def _not_mapped(_: PathBuilder, service: ServiceAddress, node: NodeView) -> Iterator[Finding]:
    mapped = service.mapped
    lost = [b for b in _active(service) if mapped is not None and kinds.place(b) not in mapped]
    if lost:
        yield Finding(
            Severity.WARNING if service.usable else Severity.ERROR,
            f"the datapath of {node.name} lacks a backend of {service.title}: {_listed(lost)}",
            f"The agent has it as active, its map has not: `{node.cilium('bpf lb list')}` against "
            f"`{node.cilium('service list')}`, and the agent's log.",
            service.evidence,
        )


def _stale(walk: PathBuilder, service: ServiceAddress, node: NodeView) -> Iterator[Finding]:
    gone = service.stale(_active(service), walk.cluster.has_pod)
    stale = [b for b in gone if cluster_of(node, b.address) is None]
    used = (kinds.place(b) for b in stale if b in service.usable)
    lost = any(unnamed_backend.why_open(walk.cluster, service, place) for place in used)
    if stale:
        yield Finding(
            Severity.ERROR if lost else Severity.WARNING,
            f"{service.title} still has a backend that no EndpointSlice names: {_listed(stale)}",
            f"Cilium did not see that it is gone: {_SEE_WHY}",
            service.evidence,
        )


def _other_states(walk: PathBuilder, service: ServiceAddress, node: NodeView) -> Iterator[Finding]:
    """Report backends that are not in the state which the EndpointSlices tell."""
    idle = not_ready(service)
    if idle:
        serving = {kinds.place(end) for end in service.sliced or () if end.serving}
        useless = len(idle) == len(service.usable) and serving.isdisjoint(map(kinds.place, idle))
        places = map(kinds.place, idle)
        useless = useless and not all(
            unnamed_backend.sockets_read(walk.cluster, service, place) for place in places
        )
        yield Finding(
            Severity.ERROR if useless else Severity.WARNING,
            f"{service.title} still sends to a backend that is not ready by its EndpointSlices: "
            f"{_listed(idle)}",
            f"Cilium on {node.name} is behind Kubernetes: {_SEE_WHY}",
            service.evidence,
        )
    ready = {kinds.place(end) for end in service.sliced or () if end.ready and not end.terminating}
    left = [
        b for b in service.backends
        if b.state in (kinds.TERMINATING, kinds.NOT_READY) and kinds.place(b) in ready
    ]  # fmt: skip
    if left and not service.named_elsewhere:
        yield Finding(
            Severity.WARNING,
            f"{service.title} has a backend that is ready by its EndpointSlices as "
            f"{left[0].state}: {_listed(left)}",
            f"Cilium on {node.name} is behind Kubernetes: {_SEE_WHY}",
            service.evidence,
        )


def _late(_: PathBuilder, service: ServiceAddress, node: NodeView) -> Iterator[Finding]:
    """Report ready endpoints that the map lacks, where no policy or hint leaves them out."""
    if service.sliced is None or service.named_elsewhere or not _active(service):
        return
    if service.flags & _LOCAL or (service.type != "ClusterIP" and service.mapped is None):
        return
    known = {kinds.place(b) for b in service.backends}
    late = [
        end
        for end in service.sliced
        if end.ready
        and kinds.place(end) not in known
        and not kinds.kept_out(service.owner, end, node.name)
    ]
    if late and not any(end.zones for end in service.sliced):
        yield Finding(
            Severity.WARNING,
            f"{service.title} lacks a ready endpoint of its EndpointSlices: "
            f"{', '.join(kinds.text(end) for end in late[:_NAMED])}",
            f"Cilium on {node.name} is behind Kubernetes: {_SEE_WHY}",
            service.evidence,
        )


def _source_ranges(_: PathBuilder, service: ServiceAddress, node: NodeView) -> Iterator[Finding]:
    """Report source ranges that either the Service or its frontend has."""
    owner, version = service.owner, service.address.version
    known = service.mapped is not None and owner is not None
    if not known or owner is None or service.type != "LoadBalancer":
        return
    ranges = [each for each in owner.source_ranges if each.version == version]
    checked = service.checks_source
    if bool(ranges) == checked or (owner.source_ranges and not ranges):
        return
    if not checked and node.config.source_ranges is False:
        return
    listed = ", ".join(map(str, ranges))
    yield Finding(
        Severity.WARNING,
        f"Cilium's map on {node.name} lets only some sources in to {service.title}, and the "
        "Service has no loadBalancerSourceRanges"
        if checked
        else f"Cilium's map on {node.name} lets every source in to {service.title}, and the "
        f"Service has loadBalancerSourceRanges {listed}",
        f"Cilium on {node.name} is behind its Service: {_SEE_WHY}",
        service.evidence,
    )


def _listed(found: Iterable[Backend]) -> str:
    return ", ".join(kinds.text(backend) for backend in found)
