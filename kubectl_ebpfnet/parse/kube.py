"""Objects of Kubernetes and Cilium, as JSON of the API server.

Source: Kubernetes API reference (core/v1, apps/v1, discovery.k8s.io v1 and v1beta1); Cilium
pkg/k8s/apis/cilium.io/v2. The items of a List have a kind, the items of a PodList have none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.cilium import CiliumNode, Endpoint, Identity
from kubectl_ebpfnet.model.kube import (
    KubeObjects,
    Node,
    Pod,
    Service,
    ServiceEndpoint,
    ServicePort,
)
from kubectl_ebpfnet.model.net import TCP, Address, protocol_number
from kubectl_ebpfnet.parse._text import json_value
from kubectl_ebpfnet.parse.cilium.agent import endpoint

SOURCE = "Kubernetes API"
_POLICIES = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def objects(data: bytes) -> KubeObjects:
    """Return the facts of an object or a list; kinds that no answer depends on are left out.

    Raises:
        ParseError: not JSON, no object, or an object of a known kind without a name.
    """
    value = json_value(data, SOURCE)
    if not isinstance(value, dict):
        raise ParseError(SOURCE, 0, "not a JSON object")
    kind = json_members.text(value, "kind")
    listed = value.get("items")
    if not isinstance(listed, list):
        return _objects_of_kind(kind, [value])
    default = "" if kind == "List" else kind.removesuffix("List")
    by_kind: dict[str, list[Any]] = {}
    for item in listed:
        by_kind.setdefault(json_members.text(item, "kind") or default, []).append(item)
    found = KubeObjects()
    for name, values in by_kind.items():
        found = found.merged(_objects_of_kind(name, values))
    return found


def _objects_of_kind(kind: str, values: list[Any]) -> KubeObjects:
    if kind == "Pod":
        return KubeObjects(pods=tuple(map(_pod, values)))
    if kind == "Node":
        return KubeObjects(nodes=tuple(map(_node, values)))
    if kind == "Service":
        return KubeObjects(services=tuple(map(_service, values)))
    if kind == "EndpointSlice":
        return KubeObjects(endpoints=tuple(e for value in values for e in _slice(value)))
    if kind == "CiliumEndpoint":
        return KubeObjects(cilium_endpoints=tuple(map(_cilium_endpoint, values)))
    if kind == "CiliumNode":
        return KubeObjects(cilium_nodes=tuple(map(_cilium_node, values)))
    if kind == "CiliumIdentity":
        return KubeObjects(identities=tuple(i for value in values for i in _identity(value)))
    if kind in _POLICIES:
        return KubeObjects(
            network_policies=tuple((kind, _namespace(value), _name(value)) for value in values)
        )
    if kind == "ConfigMap":
        return KubeObjects(
            config_maps=tuple(
                (_namespace(value), _name(value), json_members.pairs(value, "data"))
                for value in values
            )
        )
    return KubeObjects()


def _name(value: Any) -> str:
    name = json_members.text(value, "metadata", "name")
    if not name:
        raise ParseError(SOURCE, 0, "an object without a name")
    return name


def _namespace(value: Any) -> str:
    return json_members.text(value, "metadata", "namespace")


def _pod(value: Any) -> Pod:
    spec, status = json_members.dig(value, "spec"), json_members.dig(value, "status")
    ips = [json_members.text(item, "ip") for item in json_members.items(status, "podIPs")]
    names = [json_members.text(item, "name") for item in json_members.items(spec, "containers")]
    default = json_members.text(value, "metadata", "annotations", _DEFAULT_CONTAINER)
    owner = next(
        (
            o
            for o in json_members.items(value, "metadata", "ownerReferences")
            if json_members.flag(o, "controller")
        ),
        None,
    )
    return Pod(
        namespace=_namespace(value),
        name=_name(value),
        node=json_members.text(spec, "nodeName"),
        phase=json_members.text(status, "phase"),
        addresses=json_members.addresses(ips)
        or json_members.addresses([json_members.text(status, "podIP")]),
        host_network=bool(json_members.flag(spec, "hostNetwork")),
        ready=_condition(status, "Ready"),
        containers=tuple(sorted((n for n in names if n), key=lambda name: name != default)),
        reason=_reason(status),
        labels=json_members.pairs(value, "metadata", "labels"),
        owner_kind=json_members.text(owner, "kind"),
        owner_name=json_members.text(owner, "name"),
    )


def _condition(status: Any, kind: str) -> bool:
    return any(
        json_members.text(item, "type") == kind and json_members.text(item, "status") == "True"
        for item in json_members.items(status, "conditions")
    )


def _reason(status: Any) -> str:
    """Return why a pod does not run: the reason of a waiting container, else of the status
    (`Evicted`), else of a condition that is False."""
    for item in json_members.items(status, "containerStatuses"):
        waiting = json_members.text(item, "state", "waiting", "reason")
        if waiting:
            return waiting
    if json_members.text(status, "reason"):
        return json_members.text(status, "reason")
    for item in json_members.items(status, "conditions"):
        if json_members.text(item, "status") == "False" and json_members.text(item, "reason"):
            message = json_members.text(item, "message")
            return (
                f"{json_members.text(item, 'reason')}: {message}"
                if message
                else json_members.text(item, "reason")
            )
    return ""


def _node(value: Any) -> Node:
    addresses: dict[str, list[str]] = {}
    for item in json_members.items(value, "status", "addresses"):
        addresses.setdefault(json_members.text(item, "type"), []).append(
            json_members.text(item, "address")
        )
    cidrs = [
        *json_members.texts(value, "spec", "podCIDRs"),
        json_members.text(value, "spec", "podCIDR"),
    ]
    return Node(
        name=_name(value),
        internal_addresses=json_members.addresses(addresses.get("InternalIP", [])),
        external_addresses=json_members.addresses(addresses.get("ExternalIP", [])),
        pod_cidrs=json_members.networks(cidrs),
        ready=_condition(json_members.dig(value, "status"), "Ready"),
        reason=_not_ready(json_members.dig(value, "status")),
        unschedulable=bool(json_members.flag(value, "spec", "unschedulable")),
        labels=json_members.pairs(value, "metadata", "labels"),
        taints=tuple(
            json_members.text(item, "key") for item in json_members.items(value, "spec", "taints")
        ),
        version=json_members.text(value, "status", "nodeInfo", "kubeletVersion"),
    )


def _not_ready(status: Any) -> str:
    for item in json_members.items(status, "conditions"):
        if (
            json_members.text(item, "type") == "Ready"
            and json_members.text(item, "status") != "True"
        ):
            return json_members.text(item, "message") or json_members.text(item, "reason")
    return ""


def _protocol(name: str) -> int:
    return protocol_number(name) or TCP


def _service(value: Any) -> Service:
    spec = json_members.dig(value, "spec")
    addresses = [*json_members.texts(spec, "clusterIPs"), json_members.text(spec, "clusterIP")]
    ports = tuple(
        ServicePort(
            name=json_members.text(port, "name"),
            protocol=_protocol(json_members.text(port, "protocol")),
            port=json_members.number(port, "port") or 0,
            target_port=str(json_members.dig(port, "targetPort") or ""),
            node_port=json_members.number(port, "nodePort") or 0,
        )
        for port in json_members.items(spec, "ports")
    )
    ingress = json_members.items(value, "status", "loadBalancer", "ingress")
    proxied = [item for item in ingress if json_members.text(item, "ipMode") == "Proxy"]
    hostnames = [json_members.text(item, "hostname") for item in ingress]
    return Service(
        namespace=_namespace(value),
        name=_name(value),
        type=json_members.text(spec, "type") or "ClusterIP",
        cluster_addresses=json_members.addresses(addresses),
        ports=ports,
        external_addresses=json_members.addresses(json_members.texts(spec, "externalIPs")),
        ingress_addresses=json_members.addresses(
            [json_members.text(item, "ip") for item in ingress]
        ),
        selector=json_members.pairs(spec, "selector"),
        external_traffic_policy=json_members.text(spec, "externalTrafficPolicy"),
        internal_traffic_policy=json_members.text(spec, "internalTrafficPolicy"),
        external_name=json_members.text(spec, "externalName"),
        health_check_node_port=json_members.number(spec, "healthCheckNodePort") or 0,
        ingress_hostnames=tuple(name for name in hostnames if name),
        proxied_addresses=json_members.addresses(
            [json_members.text(item, "ip") for item in proxied]
        ),
        # Validation accepts white space (pkg/proxy/serviceport.go).
        source_ranges=json_members.networks(
            [text.strip() for text in json_members.texts(spec, "loadBalancerSourceRanges")]
        ),
        publish_not_ready=bool(json_members.flag(spec, "publishNotReadyAddresses")),
        labels=json_members.pairs(value, "metadata", "labels"),
        annotations=json_members.pairs(value, "metadata", "annotations"),
    )


def _slice(value: Any) -> list[ServiceEndpoint]:
    """Return every address with every port. A condition that is not said counts as the API tells:
    ready and serving true, terminating false."""
    service = json_members.text(value, "metadata", "labels", "kubernetes.io/service-name")
    ports = json_members.items(value, "ports")
    found = []
    for item in json_members.items(value, "endpoints"):
        conditions = json_members.dig(item, "conditions")
        ready = json_members.flag(conditions, "ready")
        serving = json_members.flag(conditions, "serving")
        target = json_members.dig(item, "targetRef")
        node = json_members.text(item, "nodeName") or json_members.text(
            item, "topology", "kubernetes.io/hostname"
        )
        for address in json_members.addresses(json_members.texts(item, "addresses")):
            for port in ports:
                found.append(
                    ServiceEndpoint(
                        namespace=_namespace(value),
                        service=service,
                        address=address,
                        port_name=json_members.text(port, "name"),
                        protocol=_protocol(json_members.text(port, "protocol")),
                        port=json_members.number(port, "port") or 0,
                        ready=ready is not False,
                        serving=(ready is not False) if serving is None else serving,
                        terminating=bool(json_members.flag(conditions, "terminating")),
                        node=node,
                        pod=json_members.text(target, "name")
                        if json_members.text(target, "kind") == "Pod"
                        else "",
                    )
                )
    return found


def _cilium_endpoint(value: Any) -> tuple[Endpoint, Address | None]:
    status = json_members.dig(value, "status")
    found = endpoint(json_members.number(status, "id") or 0, status)
    found = replace(found, namespace=_namespace(value), pod=_name(value))
    return found, json_members.address(json_members.text(status, "networking", "node"))


def _cilium_node(value: Any) -> CiliumNode:
    spec = json_members.dig(value, "spec")
    own: list[str] = []
    router: list[str] = []
    for item in json_members.items(spec, "addresses"):
        kind = json_members.text(item, "type")
        (router if kind == "CiliumInternalIP" else own).append(json_members.text(item, "ip"))
    return CiliumNode(
        name=_name(value),
        addresses=json_members.addresses(own),
        router_addresses=json_members.addresses(router),
        pod_cidrs=json_members.networks(list(json_members.texts(spec, "ipam", "podCIDRs"))),
    )


def _identity(value: Any) -> list[Identity]:
    name = _name(value)
    # As the agent prints them: a label without a value has no `=`.
    pairs = json_members.pairs(value, "security-labels")
    labels = tuple(f"{key}={text}" if text else key for key, text in pairs)
    if name.isdigit() and name.isascii() and len(name) < 12:
        return [Identity(int(name), labels)]
    return []
