"""Resolve a kind and a name (`pod/x`, `deployment/x`, `service/x`, `node/x`) to an object.

A workload stands for one ready pod of it, as in `kubectl exec deploy/x`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kubectl_ebpfnet.cluster.client.api import Api, Object, Objects
from kubectl_ebpfnet.errors import ClusterError, NotFound

Kind = Literal[
    "pod", "service", "node", "deployment", "statefulset", "daemonset", "replicaset", "job"
]
Warn = Callable[[str], object]
"""Takes a line for stderr."""

_MAX_NAMES = 5


@dataclass(frozen=True, slots=True)
class TargetRef:
    """The kind and name of an object that is not resolved yet.

    Attributes:
        kind: kind of the object.
        name: name of the object.
    """

    kind: Kind
    name: str

    @property
    def is_workload(self) -> bool:
        """Whether the object stands for one of its pods."""
        return self.kind not in ("pod", "service", "node")

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


# --- look-ups -----------------------------------------------------------------------------------


def resolve(api: Api, ref: TargetRef, namespace: str, warn: Warn) -> Object:
    """Return the object of a reference: a Pod, a Service or a Node.

    Args:
        api: the API server.
        ref: kind and name; a workload gives one of its pods, a ready one if possible.
        namespace: namespace of the object; unused for nodes.
        warn: takes a line that names the pod chosen for a workload.

    Raises:
        NotFound: no such object; the hint names similar objects.
        ClusterError: the API server refused or could not be reached.
    """
    if ref.is_workload:
        return _pod_of_workload(api, ref, namespace, warn)
    try:
        if ref.kind == "pod":
            return api.pod(namespace, ref.name)
        if ref.kind == "service":
            return api.service(namespace, ref.name)
        return api.node(ref.name)
    except NotFound as e:
        # The 404 is clear; the hint adds the objects that do exist.
        e.hint = _near(api, ref, namespace) or e.hint
        raise


def _pod_of_workload(api: Api, ref: TargetRef, namespace: str, warn: Warn) -> Object:
    try:
        workload = api.workload(f"{ref.kind}s", namespace, ref.name)
    except NotFound as e:
        e.hint = _near(api, ref, namespace) or e.hint
        raise
    selector = selector_text(_dict(_dict(workload.get("spec")).get("selector")))
    pods = api.pods(namespace, label_selector=selector) if selector else []
    if not pods:
        replicas = _dict(workload.get("spec")).get("replicas")
        raise NotFound(
            "pod",
            str(ref),
            namespace,
            hint=f"{ref} has no pods"
            + (": replicas is 0" if replicas == 0 else f": kubectl describe {ref}"),
        )
    pods.sort(key=lambda pod: (not is_ready(pod), _phase_order(pod), name_of(pod)))
    chosen = pods[0]
    ready = sum(map(is_ready, pods))
    state = "" if is_ready(chosen) else f", which is not ready ({state_of(chosen)})"
    warn(f"{ref}: taking pod/{name_of(chosen)}{state}; {ready} of {len(pods)} pods are ready")
    return chosen


def selector_text(selector: Object) -> str:
    """Write a LabelSelector (matchLabels, matchExpressions) as a `labelSelector` parameter."""
    terms = [f"{key}={value}" for key, value in _dict(selector.get("matchLabels")).items()]
    for expression in selector.get("matchExpressions") or []:
        key, operator = expression.get("key", ""), expression.get("operator", "")
        values = ",".join(map(str, expression.get("values") or []))
        form = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": f"{key}",
            "DoesNotExist": f"!{key}",
        }.get(operator)
        if form:
            terms.append(form)
    return ",".join(terms)


# --- reading pods ---------------------------------------------------------------------------------


def name_of(obj: Object) -> str:
    """Return metadata.name, "" without one."""
    return str(_dict(obj.get("metadata")).get("name", ""))


def is_ready(pod: Object) -> bool:
    """Tell whether the Ready condition is True and the pod is not being deleted."""
    if _dict(pod.get("metadata")).get("deletionTimestamp"):
        return False
    conditions = _dict(pod.get("status")).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def state_of(pod: Object) -> str:
    """Return the state of a pod as in kubectl's STATUS column: `Running`, `Pending`,
    `CrashLoopBackOff`, `ContainerCreating`, `Terminating`, `Evicted`."""
    status = _dict(pod.get("status"))
    if _dict(pod.get("metadata")).get("deletionTimestamp"):
        return "Terminating"
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(key) or []:
            state = _dict(container.get("state"))
            reason = _dict(state.get("waiting")).get("reason")
            ended = _dict(state.get("terminated"))
            if reason and reason != "PodInitializing":
                return str(reason)
            if ended and ended.get("exitCode") != 0:
                return str(ended.get("reason") or "Error")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("reason") or "Pending")
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _phase_order(pod: Object) -> int:
    order = ("Running", "Pending", "Unknown", "Failed", "Succeeded")
    phase = _dict(pod.get("status")).get("phase")
    return order.index(phase) if phase in order else len(order)


# --- similar names --------------------------------------------------------------------------------


def _near(api: Api, ref: TargetRef, namespace: str) -> str:
    """Return a hint for a name that does not exist; "" when objects may not be listed."""
    try:
        if ref.kind == "node":
            return _similar(ref, api.nodes(), "nodes are")
        if not _namespace_exists(api, namespace):
            return f"namespace {namespace!r} does not exist; choose another with -n"
        if ref.is_workload:
            base = "/apis/batch/v1" if ref.kind == "job" else "/apis/apps/v1"
            here = api.list(f"{base}/namespaces/{namespace}/{ref.kind}s")
        else:
            here = api.pods(namespace) if ref.kind == "pod" else api.services(namespace)
        return _elsewhere(api, ref, namespace) or _similar(ref, here, f"in {namespace} there are")
    except ClusterError:
        return ""


def _namespace_exists(api: Api, namespace: str) -> bool:
    try:
        api.namespace(namespace)
    except NotFound:
        return False
    except ClusterError:
        return True  # this user may not read namespaces
    return True


def _elsewhere(api: Api, ref: TargetRef, namespace: str) -> str:
    if ref.is_workload:
        return ""
    collection = "pods" if ref.kind == "pod" else "services"
    try:
        matches = api.list(f"/api/v1/{collection}", field_selector=f"metadata.name={ref.name}")
    except ClusterError:
        return ""
    others = sorted(str(_dict(obj.get("metadata")).get("namespace", "")) for obj in matches)
    others = [other for other in others if other not in ("", namespace)]
    if not others:
        return ""
    return f"{ref.kind}/{ref.name} is in namespace {', '.join(others[:_MAX_NAMES])}: use -n"


def _similar(ref: TargetRef, objects: Objects, lead: str) -> str:
    import difflib

    names = sorted(map(name_of, objects))
    if not names:
        return f"{lead} none"
    close = [name for name in names if name.startswith(ref.name)]
    close += difflib.get_close_matches(ref.name, names, n=_MAX_NAMES, cutoff=0.5)
    shown = list(dict.fromkeys(close))[:_MAX_NAMES]
    if shown:
        return f"did you mean {', '.join(shown)}?"
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{lead} {', '.join(names[:_MAX_NAMES])}{more}"


def _dict(value: object) -> Object:
    return value if isinstance(value, dict) else {}
