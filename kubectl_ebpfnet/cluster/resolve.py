"""Resolve a kind and a name (`pod/x`, `deployment/x`, `service/x`, `node/x`) to an object.

A workload stands for one ready pod of it, as in `kubectl exec deploy/x`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from kubectl_ebpfnet.cluster.client.api import Api, Objects
from kubectl_ebpfnet.errors import ClusterError, NotFound
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kube import Node, Pod, Service
from kubectl_ebpfnet.model.shell import word
from kubectl_ebpfnet.model.spelling import near
from kubectl_ebpfnet.parse import kube

Warn = Callable[[str], object]
"""Takes a line for stderr."""

_MAX_NAMES = 5


def find_pod(api: Api, kind: str, name: str, namespace: str, warn: Warn) -> Pod:
    """Return a pod, or for a workload one of its pods, a ready one if possible.

    Args:
        api: the API server.
        kind: `pod`, or that of a workload: `deployment`, `statefulset`, `daemonset`, `replicaset`,
            `job`.
        name: name of the object.
        namespace: namespace of the object.
        warn: takes a line that names the pod chosen for a workload.

    Raises:
        NotFound: no such object; the hint names similar objects.
        ClusterError: the API server refused or could not be reached.
    """
    if kind == "pod":
        with _hint_added(api, kind, name, namespace):
            return kube.pod(api.pod(namespace, name))
    with _hint_added(api, kind, name, namespace):
        workload = api.workload(f"{kind}s", namespace, name)
    return _pod_of_workload(api, workload, f"{kind}/{name}", namespace, warn)


def find_pods(api: Api, kind: str, name: str, namespace: str, selector: str = "") -> list[Pod]:
    """Return the pods of a workload, or those with labels, whatever their state.

    Args:
        api: the API server.
        kind, name: of the workload, "" where `selector` chooses.
        namespace: namespace of the pods.
        selector: of their labels.

    Raises: as find_pod.
    """
    if kind:
        with _hint_added(api, kind, name, namespace):
            workload = api.workload(f"{kind}s", namespace, name)
        selector = selector_text(js.dig(workload, "spec", "selector"))
    found = api.pods(namespace, label_selector=selector) if selector else []
    return [kube.pod(each) for each in found]


def find_service(api: Api, name: str, namespace: str) -> Service:
    """Return a Service. Raises as find_pod."""
    with _hint_added(api, "service", name, namespace):
        return kube.service(api.service(namespace, name))


def find_node(api: Api, name: str) -> Node:
    """Return a node. Raises as find_pod."""
    with _hint_added(api, "node", name):
        return kube.node(api.node(name))


def _pod_of_workload(
    api: Api, workload: dict[str, Any], ref: str, namespace: str, warn: Warn
) -> Pod:
    selector = selector_text(js.dig(workload, "spec", "selector"))
    found = api.pods(namespace, label_selector=selector) if selector else []
    if not found:
        none = js.number(workload, "spec", "replicas") == 0
        raise NotFound(
            "pod",
            ref,
            namespace,
            hint=f"{ref} has no pods: "
            + ("replicas is 0" if none else f"`kubectl describe -n {namespace} {word(ref)}`"),
        )
    pods = [kube.pod(each) for each in found]
    pods.sort(key=lambda pod: (not pod.serves, _phase_order(pod), pod.name))
    chosen, ready = pods[0], sum(pod.serves for pod in pods)
    state = "" if chosen.serves else f", which is not ready ({chosen.state})"
    warn(f"{ref}: taking pod/{chosen.name}{state}; {ready} of {len(pods)} pods are ready")
    return chosen


def selector_text(selector: Any) -> str:
    """Write a LabelSelector (matchLabels, matchExpressions) as a `labelSelector` parameter."""
    terms = [f"{key}={value}" for key, value in js.pairs(selector, "matchLabels")]
    for expression in js.items(selector, "matchExpressions"):
        key = js.text(expression, "key")
        values = ",".join(js.texts(expression, "values"))
        form = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": f"{key}",
            "DoesNotExist": f"!{key}",
        }.get(js.text(expression, "operator"))
        if form:
            terms.append(form)
    return ",".join(terms)


def _phase_order(pod: Pod) -> int:
    order = ("Running", "Pending", "Unknown", "Failed", "Succeeded")
    return order.index(pod.phase) if pod.phase in order else len(order)


# --- similar names --------------------------------------------------------------------------------


@contextlib.contextmanager
def _hint_added(api: Api, kind: str, name: str, namespace: str = "") -> Iterator[None]:
    """Add a hint to NotFound: the 404 is clear; the hint names objects that do exist."""
    try:
        yield
    except NotFound as e:
        e.hint = _near(api, kind, name, namespace) or e.hint
        raise


def _near(api: Api, kind: str, name: str, namespace: str) -> str:
    """Return a hint for a name that does not exist; "" when objects may not be listed."""
    try:
        if kind == "node":
            return _similar(name, api.nodes(), "nodes are")
        if not _namespace_exists(api, namespace):
            return f"namespace {namespace!r} does not exist; choose another with -n"
        if kind in ("pod", "service"):
            here = api.pods(namespace) if kind == "pod" else api.services(namespace)
            elsewhere = _elsewhere(api, kind, name, namespace)
        else:
            base = "/apis/batch/v1" if kind == "job" else "/apis/apps/v1"
            here, elsewhere = api.list(f"{base}/namespaces/{namespace}/{kind}s"), ""
        return elsewhere or _similar(name, here, f"in {namespace} there are")
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


def _elsewhere(api: Api, kind: str, name: str, namespace: str) -> str:
    try:
        matches = api.list(f"/api/v1/{kind}s", field_selector=f"metadata.name={name}")
    except ClusterError:
        return ""
    others = {js.text(each, "metadata", "namespace") for each in matches} - {"", namespace}
    if not others:
        return ""
    return f"{kind}/{name} is in namespace {', '.join(sorted(others)[:_MAX_NAMES])}: use -n"


def _similar(name: str, objects: Objects, lead: str) -> str:
    names = sorted(js.text(each, "metadata", "name") for each in objects)
    if not names:
        return f"{lead} none"
    close = [each for each in names if each.startswith(name)]
    close += near(name, names)
    shown = list(dict.fromkeys(close))[:_MAX_NAMES]
    if shown:
        return f"did you mean {', '.join(shown)}?"
    return f"{lead} {few(names, _MAX_NAMES)}"
