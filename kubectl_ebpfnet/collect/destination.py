"""The far end of a path: pods and nodes of a destination, as the API server knows them.

Field selectors: Kubernetes docs, "Field Selectors" (`status.podIP` of pods).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, cast

from kubectl_ebpfnet.cluster.client.api import Object, Objects
from kubectl_ebpfnet.cluster.resolve import Kind, TargetRef, name_of, resolve, selector_text
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.ask.targets import (
    addresses_of,
    namespace_of,
    node_of,
    part,
    shares_node,
)
from kubectl_ebpfnet.errors import ClusterError, ParseError
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import PathRequest
from kubectl_ebpfnet.model.untrusted import address as an_address
from kubectl_ebpfnet.model.untrusted import network
from kubectl_ebpfnet.parse import kube

T = TypeVar("T")


@dataclass(slots=True)
class FarEnd:
    """The pods and nodes that a packet may go to.

    Attributes:
        nodes: names, in the order of discovery.
        pods: objects with an address of their own.
        leaves: the destination may be outside of the cluster.
        versions: IP versions of the destination's addresses; empty when unknown.
        frontends: addresses of the Service in front of the pods.
    """

    nodes: list[str] = field(default_factory=list)
    pods: Objects = field(default_factory=list)
    leaves: bool = True
    versions: frozenset[int] = frozenset()
    frontends: tuple[Address, ...] = ()


def destination_object(api: RecordingApi, request: PathRequest) -> Object:
    """Return the pod, Service or node that a request is for; {} for an address or a name.

    Raises:
        NotFound: the object does not exist.
        UsageError: a Service does not have the port, or has several and the request names none.
        ClusterError: the object cannot be read.
    """
    kind = request.destination_kind
    if kind not in ("pod", "service", "node"):
        return {}
    ref = TargetRef(cast(Kind, kind), request.destination_name)
    found = resolve(api, ref, request.destination_namespace, _ignore)
    if kind == "service":
        _check_port(found, request)
    return found


def far_end_of_object(api: RecordingApi, request: PathRequest, found: Object) -> FarEnd:
    """Return the far end of a request for an object; an empty one without. A failed read adds
    nothing.

    Args:
        api: reads objects.
        request: names the kind of the object.
        found: of `destination_object`.
    """
    far_end = FarEnd()
    if request.destination_kind == "pod":
        far_end.pods, far_end.leaves = [found], False
        far_end.nodes = [node_of(found)] if node_of(found) else []
        far_end.versions = frozenset(address.version for address in addresses_of(found))
    elif request.destination_kind == "service":
        _add_service(api, far_end, found)
    elif request.destination_kind == "node":
        far_end.nodes = [name_of(found)]
        _add_node_port(api, far_end, request.port)
    return far_end


def far_end_of_address(
    api: RecordingApi, address: Address, nodes: Objects, port: int | None = None
) -> FarEnd:
    """Return the pods, node or Service that have an address. A failed read adds nothing.

    Args:
        api: reads objects.
        address: the destination.
        nodes: all Node objects.
        port: destination port; on a node it may be the node port of a Service.
    """
    far_end = FarEnd(versions=frozenset((address.version,)))
    pods = _result_or_none(lambda: api.pods(field_selector=f"status.podIP={address}")) or []
    owning_nodes = [name_of(node) for node in nodes if str(address) in _node_addresses(node)]
    far_end.pods = [pod for pod in pods if not shares_node(pod)]
    far_end.nodes = [*(node_of(pod) for pod in pods if node_of(pod)), *owning_nodes]
    if far_end.nodes:
        far_end.leaves = False
        if owning_nodes:
            _add_node_port(api, far_end, port)
    elif not address.is_global or _in_pod_cidr(address, nodes):
        # A public address may be a load balancer's too: the agent's service list knows those.
        for service in _result_or_none(api.services) or []:
            if str(address) in _service_addresses(service):
                _add_service(api, far_end, service)
    return far_end


def _check_port(service: Object, request: PathRequest) -> None:
    """Refuse a port before any place is asked, as the explanation would. Raises UsageError."""
    # Imported late: the API server is asked first, and cli imports it meanwhile.
    from kubectl_ebpfnet.explain.path.endpoints import service_port

    with contextlib.suppress(ParseError):
        for parsed in kube.objects(json.dumps(service).encode()).services:
            service_port(parsed, request)


def _result_or_none(call: Callable[[], T]) -> T | None:
    """Return the result of a read, None when it fails; the record of the read has the reason."""
    try:
        return call()
    except ClusterError:
        return None


def _ignore(_: str) -> None:
    """Drop the warning: only a workload, resolved to one of its pods, causes any."""


def _add_service(api: RecordingApi, far_end: FarEnd, service: Object) -> None:
    """Add the nodes of a Service's endpoints, and the pods that it selects."""
    namespace, name = namespace_of(service), name_of(service)
    far_end.leaves = False
    far_end.frontends += tuple(_addresses_in(_service_addresses(service)))
    for endpoint_slice in _result_or_none(lambda: api.endpoint_slices(namespace, name)) or []:
        for endpoint in endpoint_slice.get("endpoints") or []:
            topology = part(endpoint, "topology")  # of v1beta1
            node = endpoint.get("nodeName") or topology.get("kubernetes.io/hostname")
            if isinstance(node, str) and node:
                far_end.nodes.append(node)
    selector = selector_text({"matchLabels": part(service, "spec", "selector")})
    if selector:
        far_end.pods += _result_or_none(lambda: api.pods(namespace, label_selector=selector)) or []


def _add_node_port(api: RecordingApi, far_end: FarEnd, port: int | None) -> None:
    """Add the far end of a Service that has this node port."""
    if port is None:
        return
    for service in _result_or_none(api.services) or []:
        ports = part(service, "spec", "ports") or []
        if any(entry.get("nodePort") == port for entry in ports):
            _add_service(api, far_end, service)


def _node_addresses(node: Object) -> set[str]:
    return {str(entry.get("address")) for entry in part(node, "status", "addresses") or []}


def _in_pod_cidr(address: Address, nodes: Objects) -> bool:
    for node in nodes:
        for text in part(node, "spec", "podCIDRs") or []:
            try:
                if address in network(text, "a node's pod CIDR"):
                    return True
            except ParseError:
                continue
    return False


def _addresses_in(words: Iterable[str]) -> Iterator[Address]:
    for word in sorted(words):
        try:
            yield an_address(word, "a Service")
        except ParseError:
            continue  # "None" of a headless Service


def _service_addresses(service: Object) -> set[str]:
    spec = part(service, "spec")
    words = [*(spec.get("clusterIPs") or [spec.get("clusterIP")]), *(spec.get("externalIPs") or [])]
    ingress = part(service, "status", "loadBalancer", "ingress") or []
    return {str(word) for word in (*words, *(entry.get("ip") for entry in ingress)) if word}
