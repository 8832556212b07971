"""Who sends the packet of a live `path`: a pod, a process of a node, or a client outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cluster.resolve import find_node, find_pod
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.request import PathRequest
from kubectl_ebpfnet.parse import kube

if TYPE_CHECKING:
    from kubectl_ebpfnet.collect.gatherer import Gatherer


@dataclass(frozen=True, slots=True)
class Sender:
    """The source of a packet.

    Attributes:
        addresses: its own, of both IP versions.
        node: that it is on, "" off the nodes.
        pod: None for a node and a client outside.
        host_network: it sends from its node's own network namespace.
    """

    addresses: tuple[Address, ...]
    node: str = ""
    pod: Pod | None = None
    host_network: bool = False

    @property
    def title(self) -> str:
        """The places of the sender, in words."""
        if self.pod is None:
            return f"node {self.node}"
        return f"pod {self.pod.namespace}/{self.pod.name} and its node"

    @property
    def pods(self) -> list[Pod]:
        """The pod, if it is one."""
        return [self.pod] if self.pod is not None else []


def of_its_pod(gatherer: Gatherer, request: PathRequest) -> PathRequest:
    """Return the request with the pod in place of its address, where a pod has the address of a
    client outside; the request itself where none has, or nobody may list pods."""
    address = request.source_address
    if address is None or request.via:
        return request
    selector = f"status.podIP={address}"
    asked = gatherer.start(lambda: gatherer.api.pods(field_selector=selector))
    there = [kube.pod(each) for each in gatherer.tried(asked)[0] or ()]
    ended = ("Succeeded", "Failed")
    from kubectl_ebpfnet.explain.path.sender import of_pod  # for an address alone

    own = [pod for pod in there if not pod.host_network and pod.phase not in ended]
    return of_pod(request, own[0], address) if len(own) == 1 else request


def find_sender(api: RecordingApi, request: PathRequest, warn: Callable[[str], object]) -> Sender:
    """Return the pod or the node that sends a packet.

    Args:
        api: reads objects.
        request: names the source.
        warn: takes a line that names the pod chosen for a workload.

    Raises:
        NotFound: the source does not exist.
        ClusterError: it cannot be read.
    """
    if request.source_kind == "node":
        node = find_node(api, request.source_name)
        return Sender(node.internal_addresses, node.name, host_network=True)
    kind, namespace = request.source_kind.lower(), request.source_namespace
    pod = find_pod(api, kind, request.source_name, namespace, warn)
    return Sender(pod.addresses, pod.node, pod, pod.host_network)
