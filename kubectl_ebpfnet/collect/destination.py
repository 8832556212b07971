"""The far end of a path: pods and nodes of a destination, as the API server knows them.

Field selectors: Kubernetes docs, "Field Selectors" (`status.podIP` of pods).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import TypeVar

from kubectl_ebpfnet.cluster.client.api import CORE
from kubectl_ebpfnet.cluster.resolve import find_node, find_pod, find_service, selector_text
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Node, Pod, Service
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.request import PathRequest
from kubectl_ebpfnet.parse import kube

NEAREST = 100
"""Pods that are read to find the one whose labels come nearest to a selector."""
T = TypeVar("T")
_SERVICE_CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"


@dataclass(slots=True)
class FarEnd:
    """The pods and nodes that a packet may go to.

    Attributes:
        nodes: names, in the order of discovery.
        pods: those with an address of their own.
        leaves: the destination may be outside of the cluster.
        versions: IP versions of the destination's addresses; empty when unknown.
        frontends: addresses of the Service in front of the pods.
        by_node: the destination is a node's own address: a NodePort is looked up there.
    """

    nodes: list[str] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    leaves: bool = True
    versions: frozenset[int] = frozenset()
    frontends: tuple[Address, ...] = ()
    by_node: bool = False

    @property
    def ends_on_node(self) -> bool:
        """The packet may end at a socket of a node: its own, or a hostNetwork pod's."""
        return self.by_node or any(pod.host_network for pod in self.pods)

    @property
    def running_pods(self) -> list[Pod]:
        """The pods of `pods` in which something runs, those that serve first."""
        return sorted((p for p in self.pods if p.running), key=lambda pod: not pod.serves)


def destination_object(api: RecordingApi, request: PathRequest) -> Pod | Service | Node | None:
    """Return the pod, Service or node that a request is for; None for an address or a
    name.

    Raises:
        NotFound: the object does not exist.
        UsageError: a Service does not have the port, or has several and the request names none.
        ClusterError: the object cannot be read.
    """
    kind, name = request.destination_kind, request.destination_name
    if kind == "pod":
        return find_pod(api, kind, name, request.destination_namespace, lambda _: None)
    if kind == "node":
        return find_node(api, name)
    if kind != "service":
        return None
    service = find_service(api, name, request.destination_namespace)
    # Imported late: the API server is asked first, and cli imports it meanwhile.
    from kubectl_ebpfnet.explain.path.destinations import service_port

    if not service.external_name:
        service_port(service, request)  # refuses a port before any place is asked
    return service


def far_end_of_target(
    api: RecordingApi, kind: str, name: str, namespace: str, address: Address | None
) -> tuple[FarEnd, tuple[Address, ...]]:
    """Return the far end of any packet to a destination, and the destination's addresses.

    Args:
        api: reads objects.
        kind: `pod`, `service`, `node` or `address`.
        name, namespace: of the object.
        address: for an address.

    Raises:
        NotFound: the object does not exist.
        ClusterError: the object cannot be read.
    """
    if address is not None:
        nodes = [kube.node(each) for each in _result_or_none(api.nodes) or []]
        return far_end_of_address(api, address, nodes), (address,)
    if kind == "node":
        node = find_node(api, name)
        return far_end_of_object(api, node, None), node.internal_addresses
    found: Pod | Service = (
        find_pod(api, kind, name, namespace, lambda _: None)
        if kind == "pod"
        else find_service(api, name, namespace)
    )
    far_end = far_end_of_object(api, found, None)
    behind = (address for pod in far_end.pods for address in pod.addresses)
    return far_end, tuple(dict.fromkeys((*far_end.frontends, *behind)))


def far_end_of_object(
    api: RecordingApi, found: Pod | Service | Node | None, port: int | None
) -> FarEnd:
    """Return the far end of a request for an object; an empty one without. A failed read adds
    nothing.

    Args:
        api: reads objects.
        found: of `destination_object`.
        port: destination port; on a node it may be the node port of a Service.
    """
    far_end = FarEnd()
    if isinstance(found, Pod):
        far_end.pods, far_end.leaves = [found], False
        far_end.nodes = [found.node] if found.node else []
        far_end.versions = frozenset(address.version for address in found.addresses)
    elif isinstance(found, Service):
        _add_service(api, far_end, found)
    elif isinstance(found, Node):
        far_end.nodes, far_end.by_node = [found.name], True
        _add_node_port(api, far_end, port)
    return far_end


def far_end_of_address(
    api: RecordingApi,
    address: Address,
    nodes: list[Node],
    port: int | None = None,
    *,
    whole: bool = True,
) -> FarEnd:
    """Return the pods, node or Service that have an address. A failed read adds nothing.

    Args:
        api: reads objects.
        address: the destination.
        nodes: all nodes.
        port: destination port; on a node it may be the node port of a Service.
        whole: the nodes have all of their addresses, and not the first one alone.
    """
    far_end = FarEnd(versions=frozenset((address.version,)))
    pods = _pods(api, f"status.podIP={address}")
    owning_nodes = [
        node.name
        for node in nodes
        if address in (*node.internal_addresses, *node.external_addresses)
    ]
    if not pods and not owning_nodes:
        pods = _pods_of_second_address(api, address, nodes, whole=whole)
    far_end.pods = [pod for pod in pods if not pod.host_network]
    far_end.nodes = [*(pod.node for pod in pods if pod.node), *owning_nodes]
    if far_end.nodes:
        far_end.leaves, far_end.by_node = False, bool(owning_nodes)
        if owning_nodes:
            _add_node_port(api, far_end, port)
    elif not address.is_global or any(address in c for node in nodes for c in node.pod_cidrs):
        # A public address may be a load balancer's too: the agent's service list knows those.
        owners = [service for service in _services(api) if address in service.addresses]
        for service in owners:
            _add_service(api, far_end, service)
        if not owners:  # is it in the Service range?
            _result_or_none(lambda: api.list(_SERVICE_CIDRS))
    return far_end


def _pods(api: RecordingApi, field_selector: str = "") -> list[Pod]:
    found = _result_or_none(lambda: api.pods(field_selector=field_selector)) or []
    return [kube.pod(each) for each in found]


def _pods_of_second_address(
    api: RecordingApi, address: Address, nodes: list[Node], *, whole: bool
) -> list[Pod]:
    """Return the pods that have an address beside their first one, which alone can be selected."""
    families = {a.version for node in nodes for a in (*node.internal_addresses, *node.pod_cidrs)}
    if len(families) < 2 and (whole or address.version in families):
        return []
    holders = {node.name for node in nodes if any(address in cidr for cidr in node.pod_cidrs)}
    # Cilium's own allocator leaves the prefixes of the Node objects alone.
    for value in _result_or_none(lambda: api.cilium("ciliumnodes")) or []:
        node = kube.cilium_node(value)
        families.update(a.version for a in (*node.addresses, *node.pod_cidrs))
        if any(address in cidr for cidr in node.pod_cidrs):
            holders.add(node.name)
    if len(families) < 2:
        return []
    found = [pod for name in sorted(holders) for pod in _pods(api, f"spec.nodeName={name}")]
    if not holders and not address.is_global:
        found = _pods(api)
    return [pod for pod in found if address in pod.addresses]


def _result_or_none(call: Callable[[], T]) -> T | None:
    """Return the result of a read, None when it fails; the record of the read has the reason."""
    try:
        return call()
    except ClusterError:
        return None


def _services(api: RecordingApi) -> list[Service]:
    return [kube.service(each) for each in _result_or_none(api.services) or []]


def _add_service(api: RecordingApi, far_end: FarEnd, service: Service) -> None:
    """Add the nodes of a Service's endpoints, and the pods that it selects."""
    namespace, name = service.namespace, service.name
    far_end.leaves = False
    far_end.frontends += tuple(sorted(dict.fromkeys(service.addresses), key=str))
    slices = _result_or_none(lambda: api.endpoint_slices(namespace, name))
    for value in slices or []:
        far_end.nodes += [each.node for each in kube.slice_endpoints(value) if each.node]
    selector = selector_text({"matchLabels": dict(service.selector)})
    if selector:
        found = _result_or_none(lambda: api.pods(namespace, label_selector=selector)) or []
        pods = [kube.pod(each) for each in found]
        far_end.pods += pods
        if slices is None:  # the pods tell their nodes too
            far_end.nodes += [pod.node for pod in pods if pod.node]
        if not pods:
            _read_nearest(api, service)


def _read_nearest(api: RecordingApi, service: Service) -> None:
    """Read pods that a selector without a match may have meant: those with its keys, else any."""
    path = f"{CORE}/namespaces/{service.namespace}/pods"
    keys = ",".join(key for key, _ in service.selector)
    for labels, fields in ((keys, ""), ("", "status.phase=Running")):
        read = partial(
            api.list, path, label_selector=labels, field_selector=fields, limit=NEAREST,
            first_page=True,
        )  # fmt: skip
        if _result_or_none(read):
            return


def _add_node_port(api: RecordingApi, far_end: FarEnd, port: int | None) -> None:
    """Add the far end of a Service that has this node port."""
    if port is None:
        return
    for service in _services(api):
        if any(each.node_port == port for each in service.ports):
            _add_service(api, far_end, service)
