"""What a node pod's status says: it runs, it comes, or why it never will.

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
_CONTAINER_SECONDS = 5.0  # the kubelet tries again, and some of these pass
_SCHEDULER_SECONDS = 2.0  # a node's status may lag behind
_IMAGE_HINT = (
    "--image names one that this node can pull, --image-pull-secret a login for its registry;"
    " --node-access agent asks Cilium's agent instead"
)


class Snapshot:
    """A run's pods as they were a moment ago: one list for all who wait."""

    def __init__(self, api: Api, path: str) -> None:
        """`path` is the path of the run's namespace."""
        self._api = api
        self._path = f"{path}/pods"
        self._lock = threading.Lock()
        self._taken = -1.0
        self._pods: dict[str, Object] = {}

    def pod(self, name: str, after: float) -> Object | None:
        """A pod as it was not long ago, and not before `after` (time.monotonic); None
        when it is not there. Raises as Api.list."""
        with self._lock:
            now = time.monotonic()
            # Long lists are not asked for as often.
            fresh = now - self._taken < POLL_SECONDS + 0.002 * len(self._pods)
            if self._taken < after or not fresh:
                self._pods = {p["metadata"]["name"]: p for p in self._api.list(self._path)}
                self._taken = now
            return self._pods.get(name)


def is_running(pod: Object) -> bool:
    """Whether its container runs, so that an exec has a place to go to."""
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return False
    return any("running" in (each.get("state") or {}) for each in _containers(pod))


def has_ended(pod: Object) -> bool:
    """Whether none of its processes is left: it came to its end, or never began."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    states = [each.get("state") or {} for each in _containers(pod)]
    return bool(states) and all("terminated" in state for state in states)


def failure_of(pod: Object, node: str, waited: float) -> ClusterError | None:
    """Why it will not run, as soon as that is sure; None while it may.

    Args:
        node: its name, for the words.
        waited: seconds since it was created.
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
            return ClusterError(f"the node pod finds no place on {node}{message}")
    return None


def not_ready(node: Object) -> str:
    """Why a node starts no pods, "" when its kubelet is well."""
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            since = condition.get("lastTransitionTime")
            return f"it is not ready since {since}{_suffix(condition.get('message'))}"
    return ""


def pod_deleted(node: str) -> ClusterError:
    """Somebody took it away."""
    return ClusterError(
        f"the node pod on {node} was deleted while it was needed",
        hint="`kubectl ebpfnet cleanup` of somebody else does that; try again",
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
