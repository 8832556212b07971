"""The words `pod/x`, `deploy/x`, `svc/x:80`, `node/x` → the objects they mean.

Names of types are kubectl's (short names, singular and plural: `kubectl api-resources`); a
workload stands for one ready pod of it, as in `kubectl exec deploy/x`. Names: Kubernetes docs,
"Object Names and IDs" (RFC 1123 subdomain and label, RFC 1035 label for Services).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kubectl_ebpfnet.cluster.api import Api, Object, Objects
from kubectl_ebpfnet.errors import ClusterError, NotFound, UsageError

Kind = Literal[
    "pod", "service", "node", "deployment", "statefulset", "daemonset", "replicaset", "job"
]
Say = Callable[[str], object]
"""Takes one line of talk for stderr."""

_WORDS: dict[str, Kind] = {
    **dict.fromkeys(("pod", "po", "pods"), "pod"),
    **dict.fromkeys(("service", "svc", "services"), "service"),
    **dict.fromkeys(("node", "no", "nodes"), "node"),
    **dict.fromkeys(("deployment", "deploy", "deployments"), "deployment"),
    **dict.fromkeys(("statefulset", "sts", "statefulsets"), "statefulset"),
    **dict.fromkeys(("daemonset", "ds", "daemonsets"), "daemonset"),
    **dict.fromkeys(("replicaset", "rs", "replicasets"), "replicaset"),
    **dict.fromkeys(("job", "jobs"), "job"),
}
_KNOWN = "pod, deploy, sts, ds, rs, job, svc, node"
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PORT_NAME = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_NEAR = 5


@dataclass(frozen=True, slots=True)
class TargetRef:
    """What a word of the command line means, before the cluster is asked.

    Attributes:
        kind: what it is a name of.
        name: the object's name.
        port: "" when none was given; a number, or for services also a port's name.
    """

    kind: Kind
    name: str
    port: str = ""

    @property
    def is_workload(self) -> bool:
        """Whether it stands for one of several pods."""
        return self.kind not in ("pod", "service", "node")

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" + (f":{self.port}" if self.port else "")


def parse_target(word: str) -> TargetRef:
    """Read `TYPE/NAME[:PORT]`, or a bare `NAME[:PORT]`, which is a pod's. Asks nobody.

    Raises:
        UsageError: an unknown type, no name, or characters that no name may have; says what to do.
    """
    type_word, slash, rest = word.partition("/")
    if not slash:
        type_word, rest = "pod", word
    kind = _WORDS.get(type_word.lower())
    if kind is None:
        raise UsageError(
            f"{word!r}: there is no type {type_word!r}",
            hint=f"types are: {_KNOWN}; e.g. pod/{rest.partition(':')[0] or 'NAME'}",
        )
    name, colon, port = rest.partition(":")
    if not name:
        raise UsageError(f"{word!r}: the name is missing", hint=f"e.g. {type_word}/NAME")
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        raise UsageError(f"{word!r}: {name!r} cannot be a name", hint=_name_hint(name))
    if colon and not _is_port(port, named=kind == "service"):
        what = "a number from 1 to 65535"
        what += " or the name of one of the Service's ports" if kind == "service" else ""
        raise UsageError(f"{word!r}: {port!r} is not a port", hint=f"a port is {what}")
    return TargetRef(kind, name, port)


def _is_port(port: str, *, named: bool) -> bool:
    if port.isascii() and port.isdecimal():
        return len(port) <= 5 and 1 <= int(port) <= 65535
    return named and _PORT_NAME.fullmatch(port) is not None


def _name_hint(name: str) -> str:
    lower = name.lower()
    if lower != name and _SUBDOMAIN.fullmatch(lower):
        return f"names are in lower case: {lower}"
    if "/" in name:
        return "the namespace goes into -n (or --to-namespace for the destination)"
    return "names are of a-z, 0-9, '-' and '.', and begin and end with a letter or a digit"


# --- look-ups -----------------------------------------------------------------------------------


def resolve(api: Api, ref: TargetRef, namespace: str, say: Say) -> Object:
    """The object that a reference means: a Pod, a Service or a Node.

    Args:
        api: who is asked.
        ref: what is meant; a workload gives one of its pods, a ready one if there is one.
        namespace: where to look; not used for nodes.
        say: told which pod was taken for a workload.

    Raises:
        NotFound: with a hint about what is there instead.
        ClusterError: the API server refused or could not be reached.
    """
    if ref.is_workload:
        return _pod_of_workload(api, ref, namespace, say)
    try:
        if ref.kind == "pod":
            return api.pod(namespace, ref.name)
        if ref.kind == "service":
            return api.service(namespace, ref.name)
        return api.node(ref.name)
    except NotFound as e:
        # 404 of the object is clear as it is; what helps is what there is instead.
        e.hint = _near(api, ref, namespace) or e.hint
        raise


def _pod_of_workload(api: Api, ref: TargetRef, namespace: str, say: Say) -> Object:
    try:
        workload = api.workload(f"{ref.kind}s", namespace, ref.name)
    except NotFound as e:
        e.hint = _near(api, ref, namespace) or e.hint
        raise
    selector = selector_text(_dict(_dict(workload.get("spec")).get("selector")))
    pods = api.pods(namespace, label_selector=selector) if selector else []
    if not pods:
        wanted = _dict(workload.get("spec")).get("replicas")
        raise NotFound(
            "pod",
            str(ref),
            namespace,
            hint=f"{ref} has no pods"
            + (" and wants none: replicas is 0" if wanted == 0 else f": kubectl describe {ref}"),
        )
    pods.sort(key=lambda pod: (not is_ready(pod), _phase_order(pod), name_of(pod)))
    chosen = pods[0]
    ready = sum(map(is_ready, pods))
    state = "" if is_ready(chosen) else f", which is not ready ({state_of(chosen)})"
    say(f"{ref}: taking pod/{name_of(chosen)}{state}; {ready} of {len(pods)} pods are ready")
    return chosen


def selector_text(selector: Object) -> str:
    """A LabelSelector (matchLabels, matchExpressions) as the `labelSelector` parameter takes it."""
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
    """metadata.name."""
    return str(_dict(obj.get("metadata")).get("name", ""))


def is_ready(pod: Object) -> bool:
    """The Ready condition is True, and nobody is deleting the pod."""
    if _dict(pod.get("metadata")).get("deletionTimestamp"):
        return False
    conditions = _dict(pod.get("status")).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def state_of(pod: Object) -> str:
    """In one or two words why a pod is as it is, as in kubectl's STATUS column: `Running`,
    `Pending`, `CrashLoopBackOff`, `ContainerCreating`, `Terminating`, `Evicted`."""
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


# --- what is near ---------------------------------------------------------------------------------


def _near(api: Api, ref: TargetRef, namespace: str) -> str:
    """A hint for a name that is not there; "" when nothing helps, or may not be listed."""
    try:
        if ref.kind == "node":
            return _similar(ref, api.nodes(), "nodes are")
        if not _namespace_exists(api, namespace):
            return f"there is no namespace {namespace!r}; name another with -n"
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
        return True  # not for this user to know
    return True


def _elsewhere(api: Api, ref: TargetRef, namespace: str) -> str:
    if ref.is_workload:
        return ""
    collection = "pods" if ref.kind == "pod" else "services"
    try:
        same = api.list(f"/api/v1/{collection}", field_selector=f"metadata.name={ref.name}")
    except ClusterError:
        return ""
    others = sorted(str(_dict(obj.get("metadata")).get("namespace", "")) for obj in same)
    others = [other for other in others if other not in ("", namespace)]
    if not others:
        return ""
    return f"{ref.kind}/{ref.name} is in namespace {', '.join(others[:_NEAR])}: use -n"


def _similar(ref: TargetRef, objects: Objects, lead: str) -> str:
    import difflib

    names = sorted(map(name_of, objects))
    if not names:
        return f"{lead} none"
    near = [name for name in names if name.startswith(ref.name)]
    near += difflib.get_close_matches(ref.name, names, n=_NEAR, cutoff=0.5)
    shown = list(dict.fromkeys(near))[:_NEAR]
    if shown:
        return f"did you mean {', '.join(shown)}?"
    more = f" and {len(names) - _NEAR} more" if len(names) > _NEAR else ""
    return f"{lead} {', '.join(names[:_NEAR])}{more}"


def _dict(value: object) -> Object:
    return value if isinstance(value, dict) else {}
