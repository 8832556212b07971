"""Read a node pod's status: running, starting, or the reason why it never runs.

Reasons: kubelet (pkg/kubelet/images/types.go, pkg/kubelet/container/sync_result.go,
pkg/kubelet/eviction), scheduler (condition PodScheduled, `nominatedNodeName` while it makes room),
Kubernetes docs, "Pod Lifecycle" and "Node conditions".
"""

from __future__ import annotations

import re
import threading
import time

from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.nodepods.sides import no_python
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.node_pods import ANY_IMAGE, EXAMPLE_IMAGE, NO_IMAGE
from kubectl_ebpfnet.parse import kube

POLL_SECONDS = 0.1
_IMAGE = frozenset(
    ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName",
     "ImageInspectError", "RegistryUnavailable")
)  # fmt: skip
_CONTAINER = frozenset(("CreateContainerError", "CreateContainerConfigError", "RunContainerError"))
_CONTAINER_SECONDS = 5.0  # the kubelet retries, and some of these reasons pass
_SCHEDULER_SECONDS = 2.0  # a node's status may lag behind
_IMAGE_HINT = (
    f"your registry's copy of {EXAMPLE_IMAGE} will do; --image-pull-secret logs in; --node-access"
    " agent asks Cilium's agent"
)
_NO_PYTHON = re.compile('"?python3"?: (stat python3: )?(executable file not found|no such file)')
_OTHER_MACHINE = re.compile("exec format error|no match for platform|does not match the specified")
_OLD_PYTHON = re.compile(r"its Python is [0-9.]+, the node side needs [0-9.]+ or later")


class Snapshot:
    """A recent list of a run's pods, shared by all waiting threads."""

    def __init__(self, api: Api, path: str) -> None:
        """Take the API server and the path of the run's namespace."""
        self._api = api
        self._path = f"{path}/pods"
        self._lock = threading.Lock()
        self._taken = -1.0
        self._pods: dict[str, Pod] = {}

    def pod(self, name: str, after: float) -> Pod | None:
        """Return a pod by name from a list made after `after` (time.monotonic()), None when it
        does not exist. Raises as Api.list."""
        with self._lock:
            now = time.monotonic()
            # Long lists are read less often.
            fresh = now - self._taken < POLL_SECONDS + 0.002 * len(self._pods)
            if self._taken < after or not fresh:
                pods = map(kube.pod, self._api.list(self._path))
                self._pods = {pod.name: pod for pod in pods}
                self._taken = now
            return self._pods.get(name)


def is_running(pod: Pod) -> bool:
    """Tell whether the container runs, so that an exec can start."""
    return bool(pod.running) and not pod.deleting


def has_ended(pod: Pod) -> bool:
    """Tell whether no process of the pod is left."""
    states = {status.state for status in pod.main_statuses}
    return pod.phase in ("Succeeded", "Failed") or states == {"terminated"}


def failure_of(pod: Pod, node: str, waited: float) -> ClusterError | None:
    """Return why a pod will never run, None while it may still run.

    Args:
        pod: the node pod.
        node: name of the node, for messages.
        waited: seconds since the pod was created.
    """
    if pod.deleting:
        return pod_deleted(node)
    unfit = _unfit_image(pod)
    if unfit is not None:
        return unfit
    if has_ended(pod):
        return ClusterError(f"the node pod on {node} has ended: {_end(pod)}")
    for status in pod.main_statuses:
        reason = status.reason if status.state == "waiting" else ""
        why = f"{reason}{_suffix(status.message)}"
        if reason in _IMAGE:
            # In one sentence: in an answer of many it stands without a hint.
            return ClusterError(
                f"node {node} {NO_IMAGE} {pod.image}: {why}; {ANY_IMAGE}", hint=_IMAGE_HINT
            )
        if reason in _CONTAINER and waited > _CONTAINER_SECONDS:
            return ClusterError(f"the node pod on {node} cannot start: {why}")
    if pod.nominated_node or waited < _SCHEDULER_SECONDS:
        return None
    for condition in pod.unmet:
        if (condition.kind, condition.reason) == ("PodScheduled", "Unschedulable"):
            message = _suffix(condition.message)
            return ClusterError(f"the node pod cannot be scheduled on {node}{message}")
    return None


def _unfit_image(pod: Pod) -> ClusterError | None:
    """Return why no node side can run in an image, by the words of runtimes and of first.py."""
    said = " ".join(status.message for status in pod.main_statuses)
    if _NO_PYTHON.search(said):
        return no_python(f"the image {pod.image}")
    if _OTHER_MACHINE.search(said):
        return ClusterError(
            f"the image {pod.image} is not for the processor of node {pod.node}; {ANY_IMAGE}",
            hint=_IMAGE_HINT,
        )
    old = _OLD_PYTHON.search(said)
    if old is None:
        return None
    return ClusterError(f"the image {pod.image}: {old[0]}; {ANY_IMAGE}", hint=_IMAGE_HINT)


def pod_deleted(node: str) -> ClusterError:
    """Return the error for a node pod that was deleted during the run."""
    return ClusterError(
        f"the node pod on {node} was deleted during the run",
        hint="another user may have run `kubectl ebpfnet cleanup`; try again",
    )


def _end(pod: Pod) -> str:
    for status in pod.main_statuses:
        if status.state == "terminated" and not pod.status_reason:
            code = f"{status.reason or 'Error'}, exit code {status.exit_code}"
            return code + _suffix(status.message)
    return (pod.status_reason or pod.phase) + _suffix(pod.status_message)


def _suffix(message: str) -> str:
    message = " ".join(message.split())
    return f": {message}" if message else ""
