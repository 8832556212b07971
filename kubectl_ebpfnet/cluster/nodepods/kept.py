"""Node pods that are there: those that somebody installed, and those that earlier runs kept."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.client.api import CORE, Api, Object, Objects
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.nodepods import manifest
from kubectl_ebpfnet.cluster.nodepods.manifest import (
    CONTAINER,
    EXPIRES,
    RUN,
    STANDING,
    STANDING_SELECTOR,
    VERSION,
    run_of,
)
from kubectl_ebpfnet.cluster.nodepods.status import has_ended, is_running
from kubectl_ebpfnet.errors import ClusterError, Forbidden, NotFound
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.node_pods import INSTALLED_NAMESPACE
from kubectl_ebpfnet.parse import kube

_LOST = frozenset(("Evicted", "NodeLost", "Shutdown", "Terminated"))
"""Reasons in a pod's status while its containers may still be listed as running (kubelet)."""
NOT_RUNNING = "it does not run"
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


def find_node_pods(api: Api, namespace: str = "") -> Mapping[str, NodePod]:
    """Return node pods that are there, by node name: those of somebody's DaemonSet, and those that
    earlier runs of this version kept. {} where this user may not list any.

    Args:
        api: the API server.
        namespace: where to look, beside INSTALLED_NAMESPACE, for a user who may not list the pods
            of all namespaces.

    Raises:
        ClusterError: the API server refused otherwise, or cannot be reached.
    """
    found: dict[str, NodePod] = {}
    standing = standing_pods(api, namespace)
    now = api.session.clock.now()
    for value in standing:
        pod = kube.pod(value)
        kept = RUN in dict(pod.labels)
        if not why_not_used(value, now) and not (kept and pod.node in found):
            found[pod.node] = node_pod(pod)
    namespaces = dict.fromkeys(pod.container.namespace for pod in found.values())
    leaving = {name for name in namespaces if _is_leaving(api, name)}
    return {node: pod for node, pod in found.items() if pod.container.namespace not in leaving}


def standing_pods(api: Api, namespace: str = "") -> Objects:
    """Return the pods with the label of node pods that stay. Args, raises: as find_node_pods."""
    try:
        return api.pods(label_selector=STANDING_SELECTOR)
    except Forbidden:
        found: Objects = []
        for name in dict.fromkeys((INSTALLED_NAMESPACE, *filter(None, [namespace]))):
            with contextlib.suppress(Forbidden):
                found = [*found, *api.pods(name, label_selector=STANDING_SELECTOR)]
        return found


def why_not_used(value: Object, now: datetime) -> str:
    """Return why runs do not use a pod with a label of ours, "" for one that they use; `now` is
    the time of the server that listed it."""
    pod = kube.pod(value)
    labels, notes = dict(pod.labels), dict(pod.annotations)
    kept = RUN in labels
    if labels.get(STANDING) != "true":
        return "it is of one run"
    if not is_node_pod(value) or (kept and not run_of(pod.namespace, labels)):
        return "it has the label of a node pod, but is not made as one"
    if kept and labels.get(VERSION) != __version__:
        return f"version {labels.get(VERSION, '')} kept it, this is {__version__}"
    if not is_running(pod) or has_ended(pod) or pod.status_reason in _LOST:
        return NOT_RUNNING
    soon = manifest.rfc3339(now + timedelta(seconds=_SPARE_SECONDS))
    if kept and notes.get(EXPIRES, "") <= soon:  # RFC 3339 in UTC sorts as text
        return "its time is over"
    return ""


def is_node_pod(pod: Object) -> bool:
    """Tell whether a pod with the label of a node pod is made as one.

    A label is not enough: whoever may label a pod could have questions sent to it, and answer them.
    Who can make a pod with these rights could be root on its node, and change what a real node pod
    reads there.
    """
    spec = js.dig(pod, "spec")
    ours = next((c for c in js.items(spec, "containers") if js.text(c, "name") == CONTAINER), None)
    if not (js.flag(spec, "hostNetwork") and js.flag(spec, "hostPID") and ours):
        return False
    added = js.texts(ours, "securityContext", "capabilities", "add")
    privileged = js.flag(ours, "securityContext", "privileged")
    return bool(privileged) or "ALL" in added or {"SYS_ADMIN", "NET_ADMIN"} <= set(added)


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
