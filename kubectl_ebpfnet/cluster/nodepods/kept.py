"""Node pods that run, and those that earlier runs kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.client.api import CORE, Api
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.nodepods import manifest
from kubectl_ebpfnet.cluster.nodepods.manifest import CONTAINER, EXPIRES, KEEP, VERSION, run_of
from kubectl_ebpfnet.cluster.nodepods.status import has_ended, is_running
from kubectl_ebpfnet.errors import ClusterError, Forbidden, NotFound
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.parse import kube

_LOST = frozenset(("Evicted", "NodeLost", "Shutdown", "Terminated"))
"""Reasons in a pod's status while its containers may still be listed as running (kubelet)."""
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
    found: dict[str, NodePod] = {}
    soon = manifest.rfc3339(datetime.now(UTC) + timedelta(seconds=_SPARE_SECONDS))
    for pod in map(kube.pod, pods):
        expires = dict(pod.annotations).get(EXPIRES, "")
        # RFC 3339 in UTC sorts as text.
        usable = is_running(pod) and not has_ended(pod) and pod.status_reason not in _LOST
        if usable and run_of(pod.namespace, dict(pod.labels)) and expires > soon:
            found[pod.node] = node_pod(pod)
    namespaces = dict.fromkeys(pod.container.namespace for pod in found.values())
    leaving = {name for name in namespaces if _is_leaving(api, name)}
    return {node: pod for node, pod in found.items() if pod.container.namespace not in leaving}


def _is_leaving(api: Api, namespace: str) -> bool:
    """Tell whether a namespace is being deleted, or gone: its pods are ended one after another, and
    for a moment nothing of them tells it."""
    try:
        found = api.get(f"{CORE}/namespaces/{namespace}")
    except NotFound:
        return True
    except ClusterError:
        return False  # this user may not read namespaces
    return bool(js.text(found, "metadata", "deletionTimestamp")) or (
        js.text(found, "status", "phase") == "Terminating"
    )


def node_pod(pod: Pod) -> NodePod:
    """Return the node pod that a pod is."""
    return NodePod(pod.node, Container(pod.namespace, pod.name, CONTAINER))
