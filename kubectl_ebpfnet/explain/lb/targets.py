"""The targets of `probe-lb`: a Service, its outside addresses, the nodes.

Kubernetes API reference, core/v1 Service and Node, "Labels and Selectors" for the selector.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from kubectl_ebpfnet.errors import EbpfnetError, NotFound, UsageError
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.in_capture import in_capture, like
from kubectl_ebpfnet.model.evidence import CLIENT
from kubectl_ebpfnet.model.kube import Node, Service, ServicePort
from kubectl_ebpfnet.model.net import SCTP, Address, protocol_name
from kubectl_ebpfnet.model.probe import ProbeRequest, ProbeTarget, TargetKind
from kubectl_ebpfnet.parse import lookup

_TERM = re.compile(
    r"\s*(?:(?P<set>[^\s,!=()]+)\s+(?P<how>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<key>[^\s,!=()]+)\s*(?P<sign>!=|==|=)\s*(?P<value>[^\s,!=()]*)"
    r"|(?P<no>!?)\s*(?P<exists>[^\s,!=()]+))\s*(?:,|$)"
)


def service(cluster: ClusterView, request: ProbeRequest) -> Service:
    """Return the Service of the request.

    Raises:
        NotFound: there is no Service of this name.
        EbpfnetError: clients outside the cluster cannot reach it; the message says why.
    """
    for found in cluster.kube.services:
        if (found.namespace, found.name) == (request.namespace, request.service):
            why, hint = _why_unreachable(found, request.node_ports)
            if why:
                raise EbpfnetError(f"svc/{found.name} {why}", hint=hint)
            return found
    names = (f"{service.namespace}/{service.name}" for service in cluster.kube.services)
    hint = in_capture("services", names, f"{request.namespace}/{request.service}")
    raise NotFound("service", request.service, request.namespace, hint=hint)


def _why_unreachable(service: Service, node_ports: bool) -> tuple[str, str]:
    """Return why clients outside cannot reach a Service, and a remedy; ("", "") when they can."""
    if service.type == "ExternalName":
        name = service.external_name
        return f"is an ExternalName: a DNS alias of {name}, without an address", f"probe {name}"
    if service.ingress_addresses or service.ingress_hostnames or service.external_addresses:
        return "", ""
    if service.type == "LoadBalancer":
        has_ports = any(port.node_port for port in service.ports)
        if node_ports and has_ports:
            return "", ""
        hint = "see the events of the Service for its load-balancer's controller"
        if has_ports:
            hint += "; --node-port probes its node ports meanwhile"
        return "has no load-balancer address yet (status.loadBalancer is empty)", hint
    if service.type == "NodePort":
        if node_ports:
            return "", ""
        return "is a NodePort Service without an address of its own", "add --node-port"
    inside = "the cluster alone reaches it; `path` explains its traffic"
    if not service.cluster_addresses:
        return "is headless: its name resolves to its pods, and no node balances for it", inside
    return f"is a {service.type} Service: it has no address outside the cluster", inside


def ports(request: ProbeRequest, service: Service) -> tuple[ServicePort, ...]:
    """Return the ports that the request means, without SCTP ports, which netkat cannot probe.

    Raises:
        UsageError: no port matches; the message lists the Service's ports.
    """
    named = [
        port
        for port in service.ports
        if request.port in ("", port.name, str(port.port))
        and request.protocol in (None, port.protocol)
    ]
    found = tuple(port for port in named if port.protocol != SCTP)
    if found:
        return found
    if named:
        raise UsageError(f"svc/{service.name}: SCTP ports cannot be probed")
    wanted = request.port or protocol_name(request.protocol or 0)
    raise UsageError(
        f"svc/{service.name} has no port {wanted}",
        hint="it has " + ", ".join(map(_port_title, service.ports)),
    )


def _port_title(port: ServicePort) -> str:
    number = f"{port.port}/{protocol_name(port.protocol)}"
    return f"{port.name} ({number})" if port.name else number


def resolved(cluster: ClusterView, service: Service) -> dict[str, tuple[Address, ...]]:
    """Return the addresses of ingress entries that are names, by the client's resolver."""
    found: dict[str, tuple[Address, ...]] = {}
    for name in service.ingress_hostnames:
        record = cluster.bundle.record(CLIENT, ("resolve", name))
        if record is not None and record.ok:
            found[name] = lookup.addresses(record.beginning)
    return found


def targets(
    request: ProbeRequest,
    service: Service,
    nodes: Iterable[Node],
    resolved: Mapping[str, Sequence[Address]],
) -> tuple[ProbeTarget, ...]:
    """Return every address and port to probe: ingress first, then external IPs, then node ports.

    Args:
        request: what to probe.
        service: the Service.
        nodes: their addresses decide the IP versions of node ports.
        resolved: addresses of the ingress entries that are names; others are left out.

    Raises:
        UsageError: the Service has no such port.
    """
    wanted = ports(request, service)
    places: list[tuple[TargetKind, Address, str]] = [
        (TargetKind.INGRESS, address, "") for address in service.ingress_addresses
    ]
    for name in service.ingress_hostnames:
        places += [(TargetKind.INGRESS, address, name) for address in resolved.get(name, ())]
    places += [(TargetKind.EXTERNAL_IP, address, "") for address in service.external_addresses]
    found: dict[tuple[Address, ServicePort], ProbeTarget] = {}
    for kind, address, name in places:
        for port in wanted:
            target = ProbeTarget(
                kind, address, address.version, port.port, port.protocol, port.name,
                port.node_port, name,
            )  # fmt: skip
            found.setdefault((address, port), target)
    return (*found.values(), *(_node_ports(wanted, service, nodes) if request.node_ports else ()))


def _node_ports(
    wanted: Sequence[ServicePort], service: Service, nodes: Iterable[Node]
) -> list[ProbeTarget]:
    versions = {a.version for node in nodes for a in node.internal_addresses}
    versions &= {a.version for a in service.cluster_addresses} or versions
    return [
        ProbeTarget(
            TargetKind.NODE_PORT, None, version, port.node_port, port.protocol, port.name,
            port.node_port,
        )
        for version in sorted(versions)
        for port in wanted
        if port.node_port
    ]  # fmt: skip


def nodes(cluster: ClusterView, selector: str) -> tuple[Node, ...]:
    """Return the nodes whose labels fit the selector, by name.

    Raises:
        UsageError: the text is not a label selector, or no node fits.
    """
    terms = _terms(selector)
    found = [node for node in cluster.kube.nodes if _fits(terms, dict(node.labels))]
    if not found and cluster.kube.nodes:
        named = any(node.name == selector for node in cluster.kube.nodes)
        own = f"the node itself is --nodes kubernetes.io/hostname={selector}"
        raise UsageError(
            f"no node fits the selector {selector!r}",
            hint=own if named else "`kubectl get nodes --show-labels` tells what they have",
        )
    return tuple(sorted(found, key=lambda node: node.name))


def check_sender(cluster: ClusterView, name: str) -> None:
    """Refuse a sender that is no node of the cluster; "" is any. Raises NotFound."""
    names = [node.name for node in cluster.kube.nodes]
    if name and names and name not in names:
        raise NotFound("node", name, hint=f"nodes there are: {like(names, name)}")


def selects(selector: str, labels: Iterable[tuple[str, str]]) -> bool:
    """Tell whether labels fit a selector, as `kubectl -l` reads it. Raises UsageError."""
    return _fits(_terms(selector), dict(labels))


def _terms(selector: str) -> list[re.Match[str]]:
    found, at = [], 0
    while at < len(selector.rstrip()):
        term = _TERM.match(selector, at)
        if term is None:
            raise UsageError(f"{selector!r} is no label selector")
        found.append(term)
        at = term.end()
    return found


def _fits(terms: Iterable[re.Match[str]], labels: Mapping[str, str]) -> bool:
    for term in terms:
        if term["set"]:
            values = [value.strip() for value in term["values"].split(",")]
            # As with !=, a label that is not set is not in the set.
            if (labels.get(term["set"]) in values) != (term["how"] == "in"):
                return False
        elif term["key"]:
            if (labels.get(term["key"]) == term["value"]) != (term["sign"] != "!="):
                return False
        elif (term["exists"] in labels) == bool(term["no"]):
            return False
    return True
