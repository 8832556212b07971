"""Node pods that run, and those that earlier runs kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.nodepods import manifest
from kubectl_ebpfnet.cluster.nodepods.manifest import CONTAINER, EXPIRES, KEEP, VERSION, run_of
from kubectl_ebpfnet.cluster.nodepods.status import is_running
from kubectl_ebpfnet.errors import Forbidden
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.parse import kube

_SPARE_SECONDS = 60  # a kept pod with less lifetime left is not used


@dataclass(frozen=True, slots=True)
class NodePod:
    """A running node pod.

    Attributes:
        node: name of the node.
        container: the container to exec into.
    """

    node: str
    container: Container


def find_node_pods(api: Api) -> Mapping[str, NodePod]:
    """Return node pods that earlier runs of this version kept, by node name; {} where this user
    may not list pods in all namespaces.

    Raises:
        ClusterError: the API server refused otherwise, or cannot be reached.
    """
    selector = f"{manifest.SELECTOR},{KEEP}=true,{VERSION}={__version__}"
    try:
        pods = api.pods(label_selector=selector)
    except Forbidden:
        return {}
    soon = manifest.rfc3339(datetime.now(UTC) + timedelta(seconds=_SPARE_SECONDS))
    found = {}
    for pod in map(kube.pod, pods):
        expires = dict(pod.annotations).get(EXPIRES, "")
        # RFC 3339 in UTC sorts as text.
        if is_running(pod) and run_of(pod.namespace, dict(pod.labels)) and expires > soon:
            found[pod.node] = node_pod(pod)
    return found


def node_pod(pod: Pod) -> NodePod:
    """Return the node pod that a pod is."""
    return NodePod(pod.node, Container(pod.namespace, pod.name, CONTAINER))
