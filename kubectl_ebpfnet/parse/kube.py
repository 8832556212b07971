"""Objects of Kubernetes and Cilium, as JSON of the API server.

`objects` reads the output of a record; `pod`, `node`, `service` and `slice_endpoints` read
decoded objects and raise nothing: members that are missing or of another type are empty.

Source: Kubernetes API reference (core/v1, apps/v1, discovery.k8s.io v1 and v1beta1); Cilium
pkg/k8s/apis/cilium.io/v2. The items of a List have a kind, the items of a PodList have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.kube import NODE_COLUMNS, KubeObjects, Lease, Node, NodeRow
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.parse import _kube as members
from kubectl_ebpfnet.parse._text import json_value
from kubectl_ebpfnet.parse.kube_pod import pod as pod
from kubectl_ebpfnet.parse.kube_service import service as service
from kubectl_ebpfnet.parse.kube_service import slice_endpoints as slice_endpoints

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


def objects(data: bytes) -> KubeObjects:
    """Return the facts of an object or a list; kinds that no answer depends on are left out.

    Raises:
        ParseError: not JSON, no object, or an object of a known kind without a name.
    """
    value = json_value(data, SOURCE)
    if not isinstance(value, dict):
        raise ParseError(SOURCE, 0, "not a JSON object")
    kind = js.text(value, "kind")
    if kind == "Table":
        return _of_table(value)
    listed = value.get("items")
    if not isinstance(listed, list):
        return _objects_of_kind(kind, [(NOWHERE, value)])
    default = "" if kind == "List" else kind.removesuffix("List")
    by_kind: dict[str, list[tuple[Span, Any]]] = {}
    for index, item in enumerate(listed):
        place = Span(path=("items", index))
        by_kind.setdefault(js.text(item, "kind") or default, []).append((place, item))
    if len(by_kind) == 1:
        return _objects_of_kind(*by_kind.popitem())
    return KubeObjects.of_all([_objects_of_kind(*each) for each in by_kind.items()])


def _objects_of_kind(kind: str, located: list[tuple[Span, Any]]) -> KubeObjects:
    if kind in _NAMED and not all(members.name(value) for _, value in located):
        raise ParseError(SOURCE, 0, "an object without a name")
    if kind in _POLICIES:
        return _network_policies(kind, located)
    if kind in _EGRESS:
        return _egress_policies(kind, located)
    return _READERS[kind](located) if kind in _READERS else KubeObjects()


def _network_policies(kind: str, located: list[tuple[Span, Any]]) -> KubeObjects:
    from kubectl_ebpfnet.parse import policies

    found = tuple(policies.policy(value, kind, span) for span, value in located)
    return KubeObjects(network_policies=found)


def _of_table(value: Any) -> KubeObjects:
    heads = tuple(js.text(each, "name") for each in js.items(value, "columnDefinitions"))
    if heads != NODE_COLUMNS:
        return KubeObjects()
    rows = [js.texts(row, "cells") for row in js.items(value, "rows")]
    if not all(len(row) == len(heads) and row[0] for row in rows):
        raise ParseError(SOURCE, 0, "a row of a node without a name")
    return KubeObjects(
        node_rows=tuple(
            NodeRow(name, js.addresses([inside]), js.addresses([outside]))
            for name, inside, outside in rows
        )
    )


def _egress_policies(kind: str, located: list[tuple[Span, Any]]) -> KubeObjects:
    from kubectl_ebpfnet.parse import egress_policies

    found = tuple(egress_policies.policy(value, kind, span) for span, value in located)
    return KubeObjects(egress_policies=found)


def _cidr_groups(located: list[tuple[Span, Any]]) -> KubeObjects:
    from kubectl_ebpfnet.parse import policies

    return KubeObjects(cidr_groups=tuple(policies.cidr_group(value) for _, value in located))


def _advertisements(located: list[tuple[Span, Any]]) -> KubeObjects:
    from kubectl_ebpfnet.parse import advertisements

    found = (advertisements.of_services(value, span) for span, value in located)
    return KubeObjects(advertisements=tuple(chain.from_iterable(found)))


def _endpoints(located: list[tuple[Span, Any]]) -> KubeObjects:
    found = (slice_endpoints(value, span) for span, value in located)
    return KubeObjects(endpoints=tuple(chain.from_iterable(found)))


def _identities(located: list[tuple[Span, Any]]) -> KubeObjects:
    found = (_identity(value) for _, value in located)
    return KubeObjects(identities=tuple(chain.from_iterable(found)))


def _service_cidrs(located: list[tuple[Span, Any]]) -> KubeObjects:
    found = (js.texts(value, "spec", "cidrs") for _, value in located)
    return KubeObjects(service_cidrs=js.networks(list(chain.from_iterable(found))))


def _config_map(value: Any) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    return members.namespace(value), members.name(value), js.pairs(value, "data")


def _lease(value: Any) -> Lease:
    return Lease(
        members.namespace(value),
        members.name(value),
        js.text(value, "spec", "holderIdentity"),
        js.text(value, "spec", "renewTime"),
        js.number(value, "spec", "leaseDurationSeconds") or 0,
    )


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
        name=members.name(value),
        internal_addresses=js.addresses(addresses.get("InternalIP", [])),
        external_addresses=js.addresses(addresses.get("ExternalIP", [])),
        pod_cidrs=js.networks(cidrs),
        ready=members.is_ready(conditions),
        reason=js.text(unready, "message") or js.text(unready, "reason"),
        unschedulable=bool(js.flag(value, "spec", "unschedulable")),
        labels=js.pairs(value, "metadata", "labels"),
        taints=tuple(js.text(item, "key") for item in js.items(value, "spec", "taints")),
        version=js.text(value, "status", "nodeInfo", "kubeletVersion"),
        kernel=js.text(value, "status", "nodeInfo", "kernelVersion"),
        not_ready_since=js.text(unready, "lastTransitionTime"),
    )


def _cilium_endpoint(value: Any) -> tuple[Endpoint, Address | None]:
    from kubectl_ebpfnet.parse.cilium.agent import endpoint

    status = js.dig(value, "status")
    found = endpoint(js.number(status, "id") or 0, status)
    found = replace(found, namespace=members.namespace(value), pod=members.name(value))
    return found, js.address(js.text(status, "networking", "node"))


def cilium_node(value: Any) -> CiliumNode:
    """Return a CiliumNode."""
    from kubectl_ebpfnet.model.cilium import CiliumNode

    spec = js.dig(value, "spec")
    own: list[str] = []
    internal: list[str] = []
    router: list[str] = []
    for item in js.items(spec, "addresses"):
        kind, address = js.text(item, "type"), js.text(item, "ip")
        (router if kind == "CiliumInternalIP" else own).append(address)
        if kind == "InternalIP":
            internal.append(address)
    addresses = js.addresses(own)
    return CiliumNode(
        name=members.name(value),
        addresses=addresses,
        internal_addresses=addresses if own == internal else js.addresses(internal),
        router_addresses=js.addresses(router),
        pod_cidrs=js.networks(list(js.texts(spec, "ipam", "podCIDRs"))),
        wireguard_key=js.text(value, "metadata", "annotations", "network.cilium.io/wg-pub-key"),
    )


def _identity(value: Any) -> list[Identity]:
    from kubectl_ebpfnet.model.cilium import Identity

    name = members.name(value)
    # As the agent prints them: a label without a value has no `=`.
    pairs = js.pairs(value, "security-labels")
    labels = tuple(f"{key}={text}" if text else key for key, text in pairs)
    if name.isdigit() and name.isascii() and len(name) < 12:
        return [Identity(int(name), labels)]
    return []


_READERS: dict[str, Callable[[list[tuple[Span, Any]]], KubeObjects]] = {
    "Pod": lambda located: KubeObjects(pods=tuple(pod(value, span) for span, value in located)),
    "Node": lambda located: KubeObjects(nodes=tuple(node(value) for _, value in located)),
    "Service": lambda located: KubeObjects(services=tuple(service(v, span) for span, v in located)),
    "EndpointSlice": _endpoints,
    "CiliumEndpoint": lambda located: KubeObjects(
        cilium_endpoints=tuple(_cilium_endpoint(value) for _, value in located)
    ),
    "CiliumNode": lambda located: KubeObjects(
        cilium_nodes=tuple(cilium_node(value) for _, value in located)
    ),
    "CiliumIdentity": _identities,
    "CiliumCIDRGroup": _cidr_groups,
    "CiliumBGPAdvertisement": _advertisements,
    "ConfigMap": lambda located: KubeObjects(
        config_maps=tuple(_config_map(value) for _, value in located)
    ),
    "Lease": lambda located: KubeObjects(leases=tuple(_lease(value) for _, value in located)),
    "ServiceCIDR": _service_cidrs,
}
"""Kind → reader of its objects with their places; policies are read by their own modules."""
