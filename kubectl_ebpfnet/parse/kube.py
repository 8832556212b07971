"""Objects of Kubernetes and Cilium, as JSON of the API server.

`objects` reads the output of a record; `pod`, `node`, `service` and `slice_endpoints` read
decoded objects and raise nothing: members that are missing or of another type are empty.

Source: Kubernetes API reference (core/v1, apps/v1, discovery.k8s.io v1 and v1beta1); Cilium
pkg/k8s/apis/cilium.io/v2. The items of a List have a kind, the items of a PodList have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.kube import (
    Condition,
    ContainerPort,
    ContainerStatus,
    DnsConfig,
    KubeObjects,
    Lease,
    Node,
    Pod,
    Service,
    ServiceEndpoint,
    ServicePort,
)
from kubectl_ebpfnet.model.net import TCP, Address, protocol_number
from kubectl_ebpfnet.parse._text import json_value

# Cilium's classes are imported with the first of its objects: pods come before, and may be all.
if TYPE_CHECKING:
    from kubectl_ebpfnet.model.cilium import CiliumNode, Endpoint, Identity

SOURCE = "Kubernetes API"
_EGRESS = ("CiliumEgressGatewayPolicy", "CiliumEgressNATPolicy")
_POLICIES = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_NAMED = (
    "Pod", "Node", "Service", "CiliumEndpoint", "CiliumNode", "CiliumIdentity", "ConfigMap",
    "CiliumCIDRGroup", *_EGRESS, *_POLICIES,
)  # fmt: skip
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def objects(data: bytes) -> KubeObjects:
    """Return the facts of an object or a list; kinds that no answer depends on are left out.

    Raises:
        ParseError: not JSON, no object, or an object of a known kind without a name.
    """
    value = json_value(data, SOURCE)
    if not isinstance(value, dict):
        raise ParseError(SOURCE, 0, "not a JSON object")
    kind = js.text(value, "kind")
    listed = value.get("items")
    if not isinstance(listed, list):
        return _objects_of_kind(kind, [(NOWHERE, value)])
    default = "" if kind == "List" else kind.removesuffix("List")
    by_kind: dict[str, list[tuple[Span, Any]]] = {}
    for index, item in enumerate(listed):
        place = Span(path=("items", index))
        by_kind.setdefault(js.text(item, "kind") or default, []).append((place, item))
    found = KubeObjects()
    for name, values in by_kind.items():
        found = found.merged(_objects_of_kind(name, values))
    return found


def _objects_of_kind(kind: str, located: list[tuple[Span, Any]]) -> KubeObjects:
    values = [value for _, value in located]
    if kind == "EndpointSlice":
        return KubeObjects(
            endpoints=tuple(e for span, value in located for e in slice_endpoints(value, span))
        )
    if kind in _NAMED and not all(map(_name, values)):
        raise ParseError(SOURCE, 0, "an object without a name")
    if kind == "Pod":
        return KubeObjects(pods=tuple(pod(value, span) for span, value in located))
    if kind == "Node":
        return KubeObjects(nodes=tuple(map(node, values)))
    if kind == "Service":
        return KubeObjects(services=tuple(service(value, span) for span, value in located))
    if kind == "CiliumEndpoint":
        return KubeObjects(cilium_endpoints=tuple(map(_cilium_endpoint, values)))
    if kind == "CiliumNode":
        return KubeObjects(cilium_nodes=tuple(map(cilium_node, values)))
    if kind == "CiliumIdentity":
        return KubeObjects(identities=tuple(i for value in values for i in _identity(value)))
    if kind in _POLICIES:
        from kubectl_ebpfnet.parse import policies

        found = tuple(policies.policy(value, kind, span) for span, value in located)
        return KubeObjects(network_policies=found)
    if kind in _EGRESS:
        from kubectl_ebpfnet.parse import egress_policies

        made = tuple(egress_policies.policy(value, kind, span) for span, value in located)
        return KubeObjects(egress_policies=made)
    if kind == "CiliumCIDRGroup":
        from kubectl_ebpfnet.parse import policies

        return KubeObjects(cidr_groups=tuple(map(policies.cidr_group, values)))
    if kind == "ConfigMap":
        return KubeObjects(
            config_maps=tuple(
                (_namespace(value), _name(value), js.pairs(value, "data")) for value in values
            )
        )
    if kind == "Lease":
        return KubeObjects(
            leases=tuple(
                Lease(
                    _namespace(value),
                    _name(value),
                    js.text(value, "spec", "holderIdentity"),
                    js.text(value, "spec", "renewTime"),
                    js.number(value, "spec", "leaseDurationSeconds") or 0,
                )
                for value in values
            )
        )
    if kind == "ServiceCIDR":
        return KubeObjects(
            service_cidrs=js.networks(
                [cidr for value in values for cidr in js.texts(value, "spec", "cidrs")]
            )
        )
    return KubeObjects()


def _name(value: Any) -> str:
    return js.text(value, "metadata", "name")


def _namespace(value: Any) -> str:
    return js.text(value, "metadata", "namespace")


def pod(value: Any, span: Span = NOWHERE) -> Pod:
    """Return a Pod; `span` is its place in a record."""
    spec, status = js.dig(value, "spec"), js.dig(value, "status")
    ips = [js.text(item, "ip") for item in js.items(status, "podIPs")]
    containers = js.items(spec, "containers")
    names = [js.text(item, "name") for item in containers]
    annotations = js.pairs(value, "metadata", "annotations")
    default = dict(annotations).get(_DEFAULT_CONTAINER)
    owner = next(
        (o for o in js.items(value, "metadata", "ownerReferences") if js.flag(o, "controller")),
        None,
    )
    conditions = js.items(status, "conditions")
    unmet = tuple(_condition(c) for c in conditions if js.text(c, "status") != "True")
    statuses = (
        *(_container(item, init=True) for item in js.items(status, "initContainerStatuses")),
        *(_container(item, init=False) for item in js.items(status, "containerStatuses")),
    )
    status_reason = js.text(status, "reason")
    return Pod(
        namespace=_namespace(value),
        name=_name(value),
        node=js.text(spec, "nodeName"),
        phase=js.text(status, "phase"),
        addresses=js.addresses(ips) or js.addresses([js.text(status, "podIP")]),
        host_network=bool(js.flag(spec, "hostNetwork")),
        ready=_is_ready(conditions),
        containers=tuple(sorted((n for n in names if n), key=lambda name: name != default)),
        reason=_reason(statuses, status_reason, unmet),
        labels=js.pairs(value, "metadata", "labels"),
        owner_kind=js.text(owner, "kind"),
        owner_name=js.text(owner, "name"),
        span=span,
        uid=js.text(value, "metadata", "uid"),
        deleting=bool(js.text(value, "metadata", "deletionTimestamp")),
        status_reason=status_reason,
        status_message=js.text(status, "message"),
        unmet=unmet,
        statuses=statuses,
        annotations=annotations,
        image=js.text(containers[0], "image") if containers else "",
        nominated_node=js.text(status, "nominatedNodeName"),
        host_ports=tuple(
            (number, _protocol(js.text(port, "protocol")))
            for container in containers
            for port in js.items(container, "ports")
            if (number := js.number(port, "hostPort"))
        ),
        ports=tuple(
            ContainerPort(number, _protocol(js.text(port, "protocol")), js.text(port, "name"))
            for container in containers
            for port in js.items(container, "ports")
            if (number := js.number(port, "containerPort"))
        ),
        runtime_class=js.text(spec, "runtimeClassName"),
        dns_policy=js.text(spec, "dnsPolicy"),
        dns=_dns_config(js.dig(spec, "dnsConfig")),
        host_aliases=tuple(
            (address, js.texts(item, "hostnames"))
            for item in js.items(spec, "hostAliases")
            for address in js.addresses([js.text(item, "ip")])
        ),
    )


def _dns_config(value: Any) -> DnsConfig:
    options = {js.text(item, "name"): js.text(item, "value") for item in js.items(value, "options")}
    ndots = options.get("ndots", "")
    return DnsConfig(
        js.addresses(js.texts(value, "nameservers")),
        js.texts(value, "searches"),
        int(ndots) if ndots.isascii() and ndots.isdecimal() and len(ndots) < 4 else None,
    )


def _condition(item: Any) -> Condition:
    return Condition(*(js.text(item, name) for name in ("type", "status", "reason", "message")))


def _is_ready(conditions: list[Any]) -> bool:
    return any(
        js.text(item, "type") == "Ready" and js.text(item, "status") == "True"
        for item in conditions
    )


def _container(item: Any, *, init: bool) -> ContainerStatus:
    states = js.dig(item, "state")
    known = states if isinstance(states, dict) else {}
    state = next((each for each in ("running", "terminated", "waiting") if each in known), "")
    why = known.get(state)
    return ContainerStatus(
        name=js.text(item, "name"),
        id=js.text(item, "containerID").rpartition("//")[2],
        state=state,
        reason=js.text(why, "reason"),
        message=js.text(why, "message"),
        exit_code=js.number(why, "exitCode"),
        restarts=max(js.number(item, "restartCount") or 0, 0),
        init=init,
    )


def _reason(
    statuses: Iterable[ContainerStatus], status_reason: str, unmet: Iterable[Condition]
) -> str:
    """Return why a pod does not run: the reason of a waiting container, else of the status
    (`Evicted`), else of a condition that is False."""
    for status in statuses:
        if status.state == "waiting" and status.reason and not status.init:
            return status.reason
    if status_reason:
        return status_reason
    for c in unmet:
        if c.status == "False" and c.reason:
            return f"{c.reason}: {c.message}" if c.message else c.reason
    return ""


def node(value: Any) -> Node:
    """Return a Node."""
    addresses: dict[str, list[str]] = {}
    for item in js.items(value, "status", "addresses"):
        addresses.setdefault(js.text(item, "type"), []).append(js.text(item, "address"))
    cidrs = [*js.texts(value, "spec", "podCIDRs"), js.text(value, "spec", "podCIDR")]
    conditions = js.items(value, "status", "conditions")
    unready = next(
        (c for c in conditions
         if js.text(c, "type") == "Ready" and js.text(c, "status") != "True"), None
    )  # fmt: skip
    return Node(
        name=_name(value),
        internal_addresses=js.addresses(addresses.get("InternalIP", [])),
        external_addresses=js.addresses(addresses.get("ExternalIP", [])),
        pod_cidrs=js.networks(cidrs),
        ready=_is_ready(conditions),
        reason=js.text(unready, "message") or js.text(unready, "reason"),
        unschedulable=bool(js.flag(value, "spec", "unschedulable")),
        labels=js.pairs(value, "metadata", "labels"),
        taints=tuple(js.text(item, "key") for item in js.items(value, "spec", "taints")),
        version=js.text(value, "status", "nodeInfo", "kubeletVersion"),
        kernel=js.text(value, "status", "nodeInfo", "kernelVersion"),
        not_ready_since=js.text(unready, "lastTransitionTime"),
    )


def _protocol(name: str) -> int:
    return protocol_number(name) or TCP


def service(value: Any, span: Span = NOWHERE) -> Service:
    """Return a Service; `span` is its place in a record."""
    spec = js.dig(value, "spec")
    addresses = [*js.texts(spec, "clusterIPs"), js.text(spec, "clusterIP")]
    ports = tuple(
        ServicePort(
            name=js.text(port, "name"),
            protocol=_protocol(js.text(port, "protocol")),
            port=js.number(port, "port") or 0,
            target_port=str(js.dig(port, "targetPort") or ""),
            node_port=js.number(port, "nodePort") or 0,
        )
        for port in js.items(spec, "ports")
    )
    ingress = js.items(value, "status", "loadBalancer", "ingress")
    proxied = [item for item in ingress if js.text(item, "ipMode") == "Proxy"]
    hostnames = [js.text(item, "hostname") for item in ingress]
    return Service(
        namespace=_namespace(value),
        name=_name(value),
        type=js.text(spec, "type") or "ClusterIP",
        cluster_addresses=js.addresses(addresses),
        ports=ports,
        external_addresses=js.addresses(js.texts(spec, "externalIPs")),
        ingress_addresses=js.addresses([js.text(item, "ip") for item in ingress]),
        selector=js.pairs(spec, "selector"),
        external_traffic_policy=js.text(spec, "externalTrafficPolicy"),
        internal_traffic_policy=js.text(spec, "internalTrafficPolicy"),
        external_name=js.text(spec, "externalName"),
        health_check_node_port=js.number(spec, "healthCheckNodePort") or 0,
        ingress_hostnames=tuple(name for name in hostnames if name),
        proxied_addresses=js.addresses([js.text(item, "ip") for item in proxied]),
        # Validation accepts white space (pkg/proxy/serviceport.go).
        source_ranges=js.networks(
            [text.strip() for text in js.texts(spec, "loadBalancerSourceRanges")]
        ),
        load_balancer_class=js.text(spec, "loadBalancerClass"),
        publish_not_ready=bool(js.flag(spec, "publishNotReadyAddresses")),
        labels=js.pairs(value, "metadata", "labels"),
        annotations=js.pairs(value, "metadata", "annotations"),
        conditions=tuple(map(_condition, js.items(value, "status", "conditions"))),
        span=span,
    )


def slice_endpoints(value: Any, span: Span = NOWHERE) -> list[ServiceEndpoint]:
    """Return every address of an EndpointSlice with every port; `span` is its place in a record.

    A condition that is not said counts as the API tells: ready and serving true, terminating false.
    """
    service_name = js.text(value, "metadata", "labels", "kubernetes.io/service-name")
    ports = js.items(value, "ports")
    found = []
    for index, item in enumerate(js.items(value, "endpoints")):
        place = span.member("endpoints", index)
        conditions = js.dig(item, "conditions")
        ready = js.flag(conditions, "ready")
        serving = js.flag(conditions, "serving")
        target = js.dig(item, "targetRef")
        zones = tuple(js.text(zone, "name") for zone in js.items(item, "hints", "forZones"))
        node_name = js.text(item, "nodeName") or js.text(item, "topology", "kubernetes.io/hostname")
        for address in js.addresses(js.texts(item, "addresses")):
            for port in ports:
                found.append(
                    ServiceEndpoint(
                        namespace=_namespace(value),
                        service=service_name,
                        address=address,
                        port_name=js.text(port, "name"),
                        protocol=_protocol(js.text(port, "protocol")),
                        port=js.number(port, "port") or 0,
                        ready=ready is not False,
                        serving=(ready is not False) if serving is None else serving,
                        terminating=bool(js.flag(conditions, "terminating")),
                        node=node_name,
                        pod=js.text(target, "name") if js.text(target, "kind") == "Pod" else "",
                        zones=zones,
                        span=place,
                    )
                )
    return found


def _cilium_endpoint(value: Any) -> tuple[Endpoint, Address | None]:
    from kubectl_ebpfnet.parse.cilium.agent import endpoint

    status = js.dig(value, "status")
    found = endpoint(js.number(status, "id") or 0, status)
    found = replace(found, namespace=_namespace(value), pod=_name(value))
    return found, js.address(js.text(status, "networking", "node"))


def cilium_node(value: Any) -> CiliumNode:
    """Return a CiliumNode."""
    from kubectl_ebpfnet.model.cilium import CiliumNode

    spec = js.dig(value, "spec")
    own: list[str] = []
    router: list[str] = []
    for item in js.items(spec, "addresses"):
        kind = js.text(item, "type")
        (router if kind == "CiliumInternalIP" else own).append(js.text(item, "ip"))
    return CiliumNode(
        name=_name(value),
        addresses=js.addresses(own),
        router_addresses=js.addresses(router),
        pod_cidrs=js.networks(list(js.texts(spec, "ipam", "podCIDRs"))),
        wireguard_key=js.text(value, "metadata", "annotations", "network.cilium.io/wg-pub-key"),
    )


def _identity(value: Any) -> list[Identity]:
    from kubectl_ebpfnet.model.cilium import Identity

    name = _name(value)
    # As the agent prints them: a label without a value has no `=`.
    pairs = js.pairs(value, "security-labels")
    labels = tuple(f"{key}={text}" if text else key for key, text in pairs)
    if name.isdigit() and name.isascii() and len(name) < 12:
        return [Identity(int(name), labels)]
    return []
