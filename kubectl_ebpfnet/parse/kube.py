"""Kubernetes' and Cilium's objects as the API server prints them in JSON.

Source: Kubernetes API reference (core/v1, apps/v1, discovery.k8s.io v1 and v1beta1); Cilium
pkg/k8s/apis/cilium.io/v2. A List's items carry their kind, those of a PodList do not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.errors import ParseError
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
from kubectl_ebpfnet.parse import _json
from kubectl_ebpfnet.parse._text import json_value
from kubectl_ebpfnet.parse.cilium.agent import endpoint

SOURCE = "Kubernetes API"
_POLICIES = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def objects(data: bytes) -> KubeObjects:
    """One object, or a list of them; kinds that a path does not depend on are left out.

    Raises:
        ParseError: not JSON, no object, or an object of a wanted kind without a name.
    """
    value = json_value(data, SOURCE)
    if not isinstance(value, dict):
        raise ParseError(SOURCE, 0, "not a JSON object")
    kind = _json.text(value, "kind")
    listed = value.get("items")
    if not isinstance(listed, list):
        return _of(kind, [value])
    default = "" if kind == "List" else kind.removesuffix("List")
    by_kind: dict[str, list[Any]] = {}
    for item in listed:
        by_kind.setdefault(_json.text(item, "kind") or default, []).append(item)
    found = KubeObjects()
    for name, many in by_kind.items():
        found = found.merged(_of(name, many))
    return found


def _of(kind: str, values: list[Any]) -> KubeObjects:
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
                (_namespace(value), _name(value), _json.pairs(value, "data")) for value in values
            )
        )
    return KubeObjects()


def _name(value: Any) -> str:
    name = _json.text(value, "metadata", "name")
    if not name:
        raise ParseError(SOURCE, 0, "an object without a name")
    return name


def _namespace(value: Any) -> str:
    return _json.text(value, "metadata", "namespace")


def _pod(value: Any) -> Pod:
    spec, status = _json.dig(value, "spec"), _json.dig(value, "status")
    ips = [_json.text(item, "ip") for item in _json.items(status, "podIPs")]
    names = [_json.text(item, "name") for item in _json.items(spec, "containers")]
    default = _json.text(value, "metadata", "annotations", _DEFAULT_CONTAINER)
    owner = next(
        (
            o
            for o in _json.items(value, "metadata", "ownerReferences")
            if _json.flag(o, "controller")
        ),
        None,
    )
    return Pod(
        namespace=_namespace(value),
        name=_name(value),
        node=_json.text(spec, "nodeName"),
        phase=_json.text(status, "phase"),
        addresses=_json.addresses(ips) or _json.addresses([_json.text(status, "podIP")]),
        host_network=bool(_json.flag(spec, "hostNetwork")),
        ready=_condition(status, "Ready"),
        containers=tuple(sorted((n for n in names if n), key=lambda name: name != default)),
        reason=_reason(status),
        labels=_json.pairs(value, "metadata", "labels"),
        owner_kind=_json.text(owner, "kind"),
        owner_name=_json.text(owner, "name"),
    )


def _condition(status: Any, kind: str) -> bool:
    return any(
        _json.text(item, "type") == kind and _json.text(item, "status") == "True"
        for item in _json.items(status, "conditions")
    )


def _reason(status: Any) -> str:
    """Why a pod does not run: a container that waits, else the status's own word (`Evicted`), else
    a condition that is False."""
    for item in _json.items(status, "containerStatuses"):
        waiting = _json.text(item, "state", "waiting", "reason")
        if waiting:
            return waiting
    if _json.text(status, "reason"):
        return _json.text(status, "reason")
    for item in _json.items(status, "conditions"):
        if _json.text(item, "status") == "False" and _json.text(item, "reason"):
            said = _json.text(item, "message")
            return f"{_json.text(item, 'reason')}: {said}" if said else _json.text(item, "reason")
    return ""


def _node(value: Any) -> Node:
    addresses: dict[str, list[str]] = {}
    for item in _json.items(value, "status", "addresses"):
        addresses.setdefault(_json.text(item, "type"), []).append(_json.text(item, "address"))
    cidrs = [*_json.texts(value, "spec", "podCIDRs"), _json.text(value, "spec", "podCIDR")]
    return Node(
        name=_name(value),
        internal_addresses=_json.addresses(addresses.get("InternalIP", [])),
        external_addresses=_json.addresses(addresses.get("ExternalIP", [])),
        pod_cidrs=_json.networks(cidrs),
        ready=_condition(_json.dig(value, "status"), "Ready"),
        reason=_not_ready(_json.dig(value, "status")),
        unschedulable=bool(_json.flag(value, "spec", "unschedulable")),
        labels=_json.pairs(value, "metadata", "labels"),
        taints=tuple(_json.text(item, "key") for item in _json.items(value, "spec", "taints")),
        version=_json.text(value, "status", "nodeInfo", "kubeletVersion"),
    )


def _not_ready(status: Any) -> str:
    for item in _json.items(status, "conditions"):
        if _json.text(item, "type") == "Ready" and _json.text(item, "status") != "True":
            return _json.text(item, "message") or _json.text(item, "reason")
    return ""


def _protocol(name: str) -> int:
    return protocol_number(name) or TCP


def _service(value: Any) -> Service:
    spec = _json.dig(value, "spec")
    addresses = [*_json.texts(spec, "clusterIPs"), _json.text(spec, "clusterIP")]
    ports = tuple(
        ServicePort(
            name=_json.text(port, "name"),
            protocol=_protocol(_json.text(port, "protocol")),
            port=_json.number(port, "port") or 0,
            target_port=str(_json.dig(port, "targetPort") or ""),
            node_port=_json.number(port, "nodePort") or 0,
        )
        for port in _json.items(spec, "ports")
    )
    ingress = _json.items(value, "status", "loadBalancer", "ingress")
    proxied = [item for item in ingress if _json.text(item, "ipMode") == "Proxy"]
    hostnames = [_json.text(item, "hostname") for item in ingress]
    return Service(
        namespace=_namespace(value),
        name=_name(value),
        type=_json.text(spec, "type") or "ClusterIP",
        cluster_addresses=_json.addresses(addresses),
        ports=ports,
        external_addresses=_json.addresses(_json.texts(spec, "externalIPs")),
        ingress_addresses=_json.addresses([_json.text(item, "ip") for item in ingress]),
        selector=_json.pairs(spec, "selector"),
        external_traffic_policy=_json.text(spec, "externalTrafficPolicy"),
        internal_traffic_policy=_json.text(spec, "internalTrafficPolicy"),
        external_name=_json.text(spec, "externalName"),
        health_check_node_port=_json.number(spec, "healthCheckNodePort") or 0,
        ingress_hostnames=tuple(name for name in hostnames if name),
        proxied_addresses=_json.addresses([_json.text(item, "ip") for item in proxied]),
        # Validation lets white space through (pkg/proxy/serviceport.go).
        source_ranges=_json.networks(
            [text.strip() for text in _json.texts(spec, "loadBalancerSourceRanges")]
        ),
        publish_not_ready=bool(_json.flag(spec, "publishNotReadyAddresses")),
        labels=_json.pairs(value, "metadata", "labels"),
        annotations=_json.pairs(value, "metadata", "annotations"),
    )


def _slice(value: Any) -> list[ServiceEndpoint]:
    """Every address with every port. A condition that is not said counts as the API tells:
    ready and serving true, terminating false."""
    service = _json.text(value, "metadata", "labels", "kubernetes.io/service-name")
    ports = _json.items(value, "ports")
    found = []
    for item in _json.items(value, "endpoints"):
        conditions = _json.dig(item, "conditions")
        ready = _json.flag(conditions, "ready")
        serving = _json.flag(conditions, "serving")
        target = _json.dig(item, "targetRef")
        node = _json.text(item, "nodeName") or _json.text(
            item, "topology", "kubernetes.io/hostname"
        )
        for where in _json.addresses(_json.texts(item, "addresses")):
            for port in ports:
                found.append(
                    ServiceEndpoint(
                        namespace=_namespace(value),
                        service=service,
                        address=where,
                        port_name=_json.text(port, "name"),
                        protocol=_protocol(_json.text(port, "protocol")),
                        port=_json.number(port, "port") or 0,
                        ready=ready is not False,
                        serving=(ready is not False) if serving is None else serving,
                        terminating=bool(_json.flag(conditions, "terminating")),
                        node=node,
                        pod=_json.text(target, "name")
                        if _json.text(target, "kind") == "Pod"
                        else "",
                    )
                )
    return found


def _cilium_endpoint(value: Any) -> tuple[Endpoint, Address | None]:
    status = _json.dig(value, "status")
    found = endpoint(_json.number(status, "id") or 0, status)
    found = replace(found, namespace=_namespace(value), pod=_name(value))
    return found, _json.address(_json.text(status, "networking", "node"))


def _cilium_node(value: Any) -> CiliumNode:
    spec = _json.dig(value, "spec")
    own: list[str] = []
    router: list[str] = []
    for item in _json.items(spec, "addresses"):
        kind = _json.text(item, "type")
        (router if kind == "CiliumInternalIP" else own).append(_json.text(item, "ip"))
    return CiliumNode(
        name=_name(value),
        addresses=_json.addresses(own),
        router_addresses=_json.addresses(router),
        pod_cidrs=_json.networks(list(_json.texts(spec, "ipam", "podCIDRs"))),
    )


def _identity(value: Any) -> list[Identity]:
    name = _name(value)
    # As the agent prints them: a label without a value stands alone.
    pairs = _json.pairs(value, "security-labels")
    labels = tuple(f"{key}={text}" if text else key for key, text in pairs)
    if name.isdigit() and name.isascii() and len(name) < 12:
        return [Identity(int(name), labels)]
    return []
