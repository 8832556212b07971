"""The far end of a path: which pods and nodes a destination is on, as the API server knows it.

Field selectors: Kubernetes docs, "Field Selectors" (`status.podIP` of pods).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from kubectl_ebpfnet.cluster.client.api import Object, Objects
from kubectl_ebpfnet.cluster.resolve import TargetRef, name_of, resolve, selector_text
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

T = TypeVar("T")


@dataclass(slots=True)
class FarEnd:
    """Where a packet goes, as far as it is known.

    Attributes:
        nodes: names, in the order in which they were found.
        pods: objects with an address of their own.
        leaves: it may be outside of the cluster.
        versions: IP versions of its addresses; none when not known.
        frontends: addresses of the Service that it is behind.
    """

    nodes: list[str] = field(default_factory=list)
    pods: Objects = field(default_factory=list)
    leaves: bool = True
    versions: frozenset[int] = frozenset()
    frontends: tuple[Address, ...] = ()


def of_object(api: RecordingApi, request: PathRequest) -> FarEnd:
    """The far end of a request for a pod, a service or a node; an empty one for others.

    Raises:
        NotFound: it is not there.
        ClusterError: it may not be read.
    """
    far = FarEnd()
    kind, name = request.destination_kind, request.destination_name
    namespace = request.destination_namespace
    if kind == "pod":
        pod = resolve(api, TargetRef("pod", name), namespace, _nobody)
        far.pods, far.leaves = [pod], False
        far.nodes = [node_of(pod)] if node_of(pod) else []
        far.versions = frozenset(address.version for address in addresses_of(pod))
    elif kind == "service":
        _add_service(api, far, resolve(api, TargetRef("service", name), namespace, _nobody))
    elif kind == "node":
        resolve(api, TargetRef("node", name), "", _nobody)
        far.nodes = [name]
        _add_node_port(api, far, request.port)
    return far


def of_address(
    api: RecordingApi, address: Address, nodes: Objects, port: int | None = None
) -> FarEnd:
    """Who has an address: pods, a node or a Service. What cannot be read is not known.

    Args:
        port: that is asked for there; on a node it may be the node port of a Service.
    """
    far = FarEnd(versions=frozenset((address.version,)))
    pods = tried(lambda: api.pods(field_selector=f"status.podIP={address}")) or []
    owners = [name_of(node) for node in nodes if str(address) in _node_addresses(node)]
    far.pods = [pod for pod in pods if not shares_node(pod)]
    far.nodes = [*(node_of(pod) for pod in pods if node_of(pod)), *owners]
    if far.nodes:
        far.leaves = False
        if owners:
            _add_node_port(api, far, port)
    elif not address.is_global or _in_pod_cidr(address, nodes):
        # A public address may be a load balancer's too: the agent's service list knows those.
        for service in tried(api.services) or []:
            if str(address) in _service_addresses(service):
                _add_service(api, far, service)
    return far


def tried(call: Callable[[], T]) -> T | None:
    """What a read gives, None when it fails; its record says why."""
    try:
        return call()
    except ClusterError:
        return None


def _nobody(_: str) -> None:
    """Pods, services and nodes are taken as they are: there is nothing to say."""


def _add_service(api: RecordingApi, far: FarEnd, service: Object) -> None:
    """The nodes of a Service's endpoints, and the pods that it selects."""
    namespace, name = namespace_of(service), name_of(service)
    far.leaves = False
    far.frontends += tuple(_addresses_in(_service_addresses(service)))
    for endpoint_slice in tried(lambda: api.endpoint_slices(namespace, name)) or []:
        for endpoint in endpoint_slice.get("endpoints") or []:
            topology = part(endpoint, "topology")  # of v1beta1
            node = endpoint.get("nodeName") or topology.get("kubernetes.io/hostname")
            if isinstance(node, str) and node:
                far.nodes.append(node)
    selector = selector_text({"matchLabels": part(service, "spec", "selector")})
    if selector:
        far.pods += tried(lambda: api.pods(namespace, label_selector=selector)) or []


def _add_node_port(api: RecordingApi, far: FarEnd, port: int | None) -> None:
    """The far end of the Service that has this port on every node, if one has."""
    if port is None:
        return
    for service in tried(api.services) or []:
        ports = part(service, "spec", "ports") or []
        if any(entry.get("nodePort") == port for entry in ports):
            _add_service(api, far, service)


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
