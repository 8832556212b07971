"""Read a node pod's status: running, starting, or the reason why it never runs.

Reasons: kubelet (pkg/kubelet/images/types.go, pkg/kubelet/container/sync_result.go,
pkg/kubelet/eviction), scheduler (condition PodScheduled, `nominatedNodeName` while it makes room),
Kubernetes docs, "Pod Lifecycle" and "Node conditions".
"""

from __future__ import annotations

import threading
import time

from kubectl_ebpfnet.cluster.client.api import Api, Object
from kubectl_ebpfnet.errors import ClusterError

POLL_SECONDS = 0.1
_IMAGE = frozenset(
    ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName",
     "ImageInspectError", "RegistryUnavailable")
)  # fmt: skip
_CONTAINER = frozenset(("CreateContainerError", "CreateContainerConfigError", "RunContainerError"))
_CONTAINER_SECONDS = 5.0  # the kubelet retries, and some of these reasons pass
_SCHEDULER_SECONDS = 2.0  # a node's status may lag behind
_IMAGE_HINT = (
    "use --image for an image that this node can pull, --image-pull-secret for a registry login,"
    " or --node-access agent for Cilium's agent"
)


class Snapshot:
    """A recent list of a run's pods, shared by all waiting threads."""

    def __init__(self, api: Api, path: str) -> None:
        """Take the API server and the path of the run's namespace."""
        self._api = api
        self._path = f"{path}/pods"
        self._lock = threading.Lock()
        self._taken = -1.0
        self._pods: dict[str, Object] = {}

    def pod(self, name: str, after: float) -> Object | None:
        """Return a pod by name from a list made after `after` (time.monotonic()), None when it
        does not exist. Raises as Api.list."""
        with self._lock:
            now = time.monotonic()
            # Long lists are read less often.
            fresh = now - self._taken < POLL_SECONDS + 0.002 * len(self._pods)
            if self._taken < after or not fresh:
                self._pods = {p["metadata"]["name"]: p for p in self._api.list(self._path)}
                self._taken = now
            return self._pods.get(name)


def is_running(pod: Object) -> bool:
    """Tell whether the container runs, so that an exec can start."""
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return False
    return any("running" in (each.get("state") or {}) for each in _containers(pod))


def has_ended(pod: Object) -> bool:
    """Tell whether no process of the pod is left."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    states = [each.get("state") or {} for each in _containers(pod)]
    return bool(states) and all("terminated" in state for state in states)


def failure_of(pod: Object, node: str, waited: float) -> ClusterError | None:
    """Return why a pod will never run, None while it may still run.

    Args:
        pod: the node pod.
        node: name of the node, for messages.
        waited: seconds since the pod was created.
    """
    status = pod.get("status") or {}
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return pod_deleted(node)
    if has_ended(pod):
        return ClusterError(f"the node pod on {node} has ended: {_end(pod)}")
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), _suffix(waiting.get("message"))
        if reason in _IMAGE:
            image = ((pod.get("spec") or {}).get("containers") or [{}])[0].get("image")
            return ClusterError(
                f"node {node} cannot pull the image {image}: {reason}{message}", hint=_IMAGE_HINT
            )
        if reason in _CONTAINER and waited > _CONTAINER_SECONDS:
            return ClusterError(f"the node pod on {node} cannot start: {reason}{message}")
    if status.get("nominatedNodeName") or waited < _SCHEDULER_SECONDS:
        return None
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message = _suffix(condition.get("message"))
            return ClusterError(f"the node pod cannot be scheduled on {node}{message}")
    return None


def not_ready(node: Object) -> str:
    """Return why a node starts no pods, "" when the node is Ready."""
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            since = condition.get("lastTransitionTime")
            return f"not Ready since {since}{_suffix(condition.get('message'))}"
    return ""


def pod_deleted(node: str) -> ClusterError:
    """Return the error for a node pod that was deleted during the run."""
    return ClusterError(
        f"the node pod on {node} was deleted during the run",
        hint="another user may have run `kubectl ebpfnet cleanup`; try again",
    )


def _end(pod: Object) -> str:
    status = pod.get("status") or {}
    for container in _containers(pod):
        ended = (container.get("state") or {}).get("terminated")
        if ended and not status.get("reason"):
            code = f"{ended.get('reason') or 'Error'}, exit code {ended.get('exitCode')}"
            return code + _suffix(ended.get("message"))
    return str(status.get("reason") or status.get("phase")) + _suffix(status.get("message"))


def _containers(pod: Object) -> list[Object]:
    return list((pod.get("status") or {}).get("containerStatuses") or [])


def _suffix(message: object) -> str:
    message = " ".join(str(message or "").split())
    return f": {message}" if message else ""
