"""The far end of a path: the destination's address and port, by a bundle's objects and look-ups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kubectl_ebpfnet.errors import NotFound, UsageError
from kubectl_ebpfnet.explain.path import fqdn
from kubectl_ebpfnet.explain.path.names import look_up, preferred
from kubectl_ebpfnet.explain.path.no_endpoints import why_none
from kubectl_ebpfnet.explain.path.resolver import NameAnswer, NameSources
from kubectl_ebpfnet.explain.path.sender import first_lookup_of
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.services import find, sliced_of
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.in_capture import in_capture
from kubectl_ebpfnet.explain.views.placed import Placed, pods_in_capture
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import CLIENT, pod_place
from kubectl_ebpfnet.model.kube import Service, ServicePort
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, Address, protocol_name
from kubectl_ebpfnet.model.path import Fix, PathRequest
from kubectl_ebpfnet.model.resolver import LookupOutcome
from kubectl_ebpfnet.model.shell import word

_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
_MEANT = 2
"""Objects of the same name that are named."""


@dataclass(frozen=True, slots=True)
class FarAddress:
    """A destination as it was resolved.

    Attributes:
        address: None when it has none (Pending), or none could be found.
        port: destination port, None when none was given.
        service: the frontend, where the destination is a Service by name.
        note: how it was resolved, or why it was not, one sentence.
        name: what a DNS name came to, None for other destinations.
        fix: what to do where there is no address.
        meant: how to ask for the object that a bare word names, where it is no DNS name.
    """

    address: Address | None
    port: int | None = None
    service: ServiceAddress | None = None
    note: str = ""
    name: NameAnswer | None = None
    fix: Fix | None = None
    meant: Fix | None = None


def far_address(cluster: ClusterView, request: PathRequest, source: Placed) -> FarAddress:
    """Resolve the destination of a request.

    Args:
        cluster: the bundle's indexes.
        request: names the destination.
        source: who sends.

    Raises:
        NotFound: the destination object is not in the bundle.
        UsageError: the request must name a port of the Service, or names a port that it lacks.
    """
    kind, name = request.destination_kind, request.destination_name
    if kind == "pod":
        pod = cluster.pod(request.destination_namespace, name)
        if pod is None:
            hint = pods_in_capture(cluster, request.destination_namespace, name)
            raise NotFound("pod", name, request.destination_namespace, hint=hint)
        return _of_family(f"pod {pod.namespace}/{name}", pod.addresses, request, source)
    if kind == "node":
        node = cluster.kube_node(name)
        if node is None:
            raise NotFound("node", name, hint=in_capture("nodes", cluster.node_names, name))
        return _of_family(f"node {name}", node.internal_addresses, request, source)
    if kind == "service":
        service = cluster.index.service(request.destination_namespace, name)
        if service is not None:
            if service.external_name:
                return _of_external_name(cluster, service, request, source)
            return _of_service(cluster, service, request, source)
        names = (f"{service.namespace}/{service.name}" for service in cluster.kube.services)
        hint = in_capture("services", names, f"{request.destination_namespace}/{name}")
        raise NotFound("service", name, request.destination_namespace, hint=hint)
    if request.destination_address is not None:
        return FarAddress(request.destination_address, request.port, note=request.note)
    return _of_name(cluster, request, source)


def protocol_for(request: PathRequest, address: Address | None) -> int:
    """Return the packet's protocol: ICMP to an IPv6 address is ICMPv6."""
    six = address is not None and address.version == 6
    return ICMPV6 if request.protocol == ICMP and six else request.protocol


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
    if hits and not same and (len(hits) == 1 or request.port is not None):
        by = protocol_name(hits[0].protocol)
        raise UsageError(
            f"svc/{service.name} offers {hits[0].port} by {by} alone",
            hint=f"give --protocol {by.lower()}, or svc/{service.name}:{hits[0].port}/{by.lower()}",
        )
    if not same:
        asked = request.port_name or request.port
        hint = f"its ports are {offered or 'none'}{_another_kind_of_port(service, asked)}"
        raise UsageError(f"svc/{service.name} has no port {asked}", hint=hint)
    raise UsageError(
        f"svc/{service.name} has several ports", hint=f"name one of {offered}: svc/{service.name}:…"
    )


def _another_kind_of_port(service: Service, asked: str | int | None) -> str:
    """Return what else of a Service has the number or name that was asked for, "" for nothing."""
    for port in service.ports:
        if asked and asked == port.node_port:
            return f"; {asked} is the nodePort of {port.port}: node/NAME:{asked}"
        if asked and str(asked) == port.target_port:
            return f"; {asked} is the targetPort of {port.port}"
    return ""


def versions_of(request: PathRequest, source: Iterable[Address]) -> set[int]:
    """Return the IP versions that a packet may have: what was asked for, else the source's."""
    if request.ip_version is not None:
        return {request.ip_version}
    return {address.version for address in source} or {4, 6}


def _of_family(
    title: str, addresses: tuple[Address, ...], request: PathRequest, source: Placed
) -> FarAddress:
    """Return the first address of an object whose IP version the packet may have."""
    versions = versions_of(request, source.addresses)
    address = next((each for each in addresses if each.version in versions), None)
    if address is not None:
        return FarAddress(address, request.port, note=request.note)
    note = request.note or _why_none(title, addresses, versions)
    return FarAddress(None, request.port, note=note, fix=_other_version(addresses, request))


def _other_version(addresses: Iterable[Address], request: PathRequest) -> Fix | None:
    """Return how to ask for an address that the destination has, None where it has none."""
    has = next(iter(addresses), None)
    if has is None:
        return None
    if request.ip_version is not None:
        return Fix(f"Leave -{request.ip_version} out.")
    if request.source_address is not None:
        return Fix(f"Give an IPv{has.version} address of the client's.")
    return Fix(f"The source has no IPv{has.version} address: no packet can go from it to {has}.")


def _why_none(title: str, addresses: Iterable[Address], versions: set[int]) -> str:
    wanted = " or ".join(f"IPv{version}" for version in sorted(versions))
    has = ", ".join(map(str, addresses))
    return f"{title} has no {wanted} address" + (f" (it has {has})" if has else "")


def _of_service(
    cluster: ClusterView, service: Service, request: PathRequest, source: Placed
) -> FarAddress:
    port = service_port(service, request)
    if source.outside and service.cluster_addresses:
        return _from_outside(cluster, service, port, request, source)
    versions = versions_of(request, source.addresses)
    own = service.cluster_addresses
    address = next((each for each in own if each.version in versions), None)
    if address is not None:
        at = first_lookup_of(cluster, source, port.protocol)
        found = find(cluster, source.node, address, port.port, port.protocol, at)
        return FarAddress(address, port.port, found, request.note)
    title = f"svc {service.namespace}/{service.name}"
    if own:
        note = _why_none(title, own, versions)
        return FarAddress(None, port.port, note=note, fix=_other_version(own, request))
    return _of_headless(cluster, service, port, versions)


def _of_headless(
    cluster: ClusterView, service: Service, port: ServicePort, versions: set[int]
) -> FarAddress:
    """Return an endpoint of a Service without an address of its own: cluster DNS gives them all."""
    title = f"svc {service.namespace}/{service.name} is headless"
    unread = f"{title}, and its EndpointSlices were not read"
    note, fix = unread, None
    for version in sorted(versions):
        ends = sliced_of(cluster, service, port, version)
        ready = [end for end in ends or () if end.ready]
        if ready:
            first, many = ready[0], f"{len(ready)} ready " if len(ready) > 1 else ""
            note = f"headless: {first.pod or first.address} is one of its {many}endpoints"
            return FarAddress(first.address, first.port, note=note)
        if ends is None:
            continue
        if note == unread:
            note = f"{title}, and no endpoint is ready"
        found = why_none(cluster, service, port, ends, version)
        if found is not None:
            note, fix = f"{title}, and has no ready endpoint: {found.cause}", found.fix
    return FarAddress(None, port.port, note=note, fix=fix)


def _from_outside(
    cluster: ClusterView, service: Service, port: ServicePort, request: PathRequest, source: Placed
) -> FarAddress:
    """Return the address that a client's packet has where it enters: the load-balancer's, an
    external one, the node's own of these first; else the node's, at the node port."""
    versions, node = versions_of(request, source.addresses), cluster.kube_node(source.node)
    outside = service.outside_addresses
    fit = [each for each in outside if each.version in versions]
    own = (each for each in fit if cluster.node_of(each) == source.node)
    address = next(own, next(iter(fit), None))
    number, note = port.port, request.note
    if address is None and port.node_port and node is not None and not outside:
        address = next((a for a in node.internal_addresses if a.version in versions), None)
        number, note = port.node_port, f"the node port of svc {service.namespace}/{service.name}"
        if service.balancer:
            note += f", to which load-balancer {service.balancer} sends"
    if address is None:
        title = f"svc {service.namespace}/{service.name}"
        has = (*outside, *(node.internal_addresses if node is not None and not outside else ()))
        why = _why_none(title, has, versions) + " for a client outside"
        return FarAddress(None, number, note=why, fix=_other_version(has, request))
    at = first_lookup_of(cluster, source, port.protocol)
    found = find(cluster, source.node, address, number, port.protocol, at)
    return FarAddress(address, number, found, note)


# --- names ----------------------------------------------------------------------------------------


def external_name(service: Service) -> str:
    """Return the name that cluster DNS gives for an ExternalName, as one that is complete."""
    return f"{service.external_name.rstrip('.')}."


def _of_external_name(
    cluster: ClusterView, service: Service, request: PathRequest, source: Placed
) -> FarAddress:
    """Return the address of an ExternalName: nothing balances it, and no port is its own."""
    title = f"svc {service.namespace}/{service.name}"
    words = f"{title} is an ExternalName, which cluster DNS gives as {service.external_name}"
    name = replace(request, destination_name=external_name(service), port_name="")
    found = _of_name(cluster, name, source)
    fix = found.fix
    if found.address is None:
        port = f":{request.port}" if request.port else ""
        own = f"-n {word(source.namespace)} pod" if source.namespace else source.kind
        there = word(f"{service.external_name}{port}")
        command = f"kubectl ebpfnet path {own}/{word(source.name)} {there}"
        fix = Fix(f"Ask for {service.external_name}.", command if source.name else "")
    return replace(found, note=f"{words}; {found.note}", fix=fix)


def _of_name(cluster: ClusterView, request: PathRequest, source: Placed) -> FarAddress:
    name = request.destination_name or request.destination
    place = pod_place(source.namespace, source.name)
    sources = NameSources(
        source.namespace,
        source.pod,
        cluster.bundle.at(place),
        cluster.kube.services,
        cluster.kube.endpoints,
        cluster.bundle.at(CLIENT),
        fqdn.learned(cluster.node(source.node), name),
    )
    answer = look_up(name, sources)
    if answer.outcome is not LookupOutcome.FOUND:
        meant = _meant(cluster, request, source)
        fix = meant or _fix(name, answer, source)
        return FarAddress(None, request.port, None, answer.text, answer, fix, meant)
    if answer.service is not None and answer.service.external_name:
        return _of_external_name(cluster, answer.service, request, source)
    if answer.service is not None:
        service = answer.service
        found = _of_service(cluster, service, replace(request, note=answer.text), source)
        return replace(found, name=answer)
    address = preferred(answer, source.addresses, request.ip_version)
    if address is None:
        versions = versions_of(request, source.addresses)
        note = _why_none(name, answer.addresses, versions)
        return FarAddress(None, request.port, note=note, name=answer)
    note = answer.text.replace(f" is {answer.addresses[0]}", f" is {address}", 1)
    return FarAddress(address, request.port, note=note, name=answer)


def _meant(cluster: ClusterView, request: PathRequest, source: Placed) -> Fix | None:
    """Return which object was meant by a bare word, which is taken for a DNS name; None where none
    has that name, or the name is one of DNS."""
    name, port = request.destination_name, f":{request.port}" if request.port else ""
    if not name or "." in name:
        return None
    services = [(s.namespace, f"svc/{s.name}") for s in cluster.kube.services if s.name == name]
    pods = [
        (pod.namespace, f"pod/{pod.name}")
        for pod in cluster.kube.pods
        if pod.name == name or any(pod.belongs_to(kind, name) for kind in _WORKLOADS)
    ]
    found = [each for each in (*services, *pods) if each[0] == source.namespace]
    found = found or [*services, *pods]
    if not found:
        return None
    said = " or ".join(f"{each}{port}" for _, each in found[:_MEANT])
    namespace, first = found[0]
    within = f" --to-namespace {word(namespace)}" if namespace != source.namespace else ""
    who = word(f"node/{source.name}")
    if source.namespace:
        who = f"-n {word(source.namespace)} {word(f'pod/{source.name}')}"
    return Fix(
        f"{name} alone is taken for a DNS name. Did you mean {said}?",
        f"kubectl ebpfnet path {who} {word(f'{first}{port}')}{within}",
    )


def _fix(name: str, answer: NameAnswer, source: Placed) -> Fix:
    """Return what to do about a name that was not resolved."""
    pod = f"-n {word(source.namespace)} pod/{word(source.name)}"
    match answer.outcome:
        case LookupOutcome.NO_SUCH_NAME | LookupOutcome.NO_ADDRESS:
            text = "Check the name; a Service of another namespace is SERVICE.NAMESPACE."
            return Fix(text)
        case LookupOutcome.FAILED:
            return Fix("Look at the nameserver's log: it answers with an error.")
        case LookupOutcome.SILENT | LookupOutcome.NOTHING if answer.nameserver is not None:
            server = (
                f"[{answer.nameserver}]" if answer.nameserver.version == 6 else answer.nameserver
            )
            command = f"kubectl ebpfnet path {pod} {server}:53/udp"
            return Fix("See which way the pod's queries take to its nameserver.", command)
        case _:
            text = f"Give the address that {name} has, or name the object: svc/NAME, pod/NAME."
            return Fix(text)
