"""Why a Service has no endpoint, by its own objects: its selector against the labels of the pods,
the names of its ports, the state of its pods.

Source: Kubernetes' endpoint slice controller (staging/src/k8s.io/endpointslice): a pod counts if
its labels hold the whole selector and it has an address of the slice's family; a targetPort by name
is that of a container's port; an endpoint is ready as its pod is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.explain.views import lists
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kube import Pod, Service, ServiceEndpoint, ServicePort
from kubectl_ebpfnet.model.path import Fix
from kubectl_ebpfnet.model.shell import word

_NAMED = 3
"""Pods that a sentence names."""
_ALIKE = 0.6
"""How like two values must be (0 to 1) for one to be a slip of the other."""
_LONGEST = 63
"""Characters of a label's value in Kubernetes; a longer one is not compared."""


def why_no_endpoint(cluster: ClusterView, service: ServiceAddress) -> Remedy | None:
    """Return why no endpoint of a frontend's Service is ready and what to edit; None where its
    objects do not tell.

    Args:
        cluster: the bundle's indexes.
        service: a frontend of a Service of Kubernetes.
    """
    owner, ends = service.owner, service.sliced
    if owner is None or ends is None or service.redirects_locally or service.by_proxy:
        return None
    return why_none(cluster, owner, service.owner_port, ends, service.address.version)


def why_none(
    cluster: ClusterView,
    owner: Service,
    port: ServicePort | None,
    ends: Sequence[ServiceEndpoint],
    version: int,
) -> Remedy | None:
    """Return why no endpoint of a Service is ready, as `why_no_endpoint`.

    Args:
        cluster: the bundle's indexes.
        owner: the Service.
        port: of it, None where that is not known.
        ends: of that port, in one IP version.
        version: that version.
    """
    if ends:
        return None if any(end.ready for end in ends) else _none_ready(cluster, owner, ends)
    if not owner.selector:
        return Remedy(
            "its EndpointSlices name no endpoint, and it has no selector: nobody fills them in",
            Fix("Give it a selector, or an EndpointSlice of its own.", _edit(owner)),
            _title(owner),
        )
    pods = [pod for pod in cluster.kube.pods if pod.namespace == owner.namespace]
    matching = [pod for pod in pods if _holds(pod, owner)]
    if matching:
        return _matching_and_left_out(owner, port, version, matching)
    if not _listed(cluster, owner):
        selector = _selector(owner)
        return Remedy(
            f"its EndpointSlices name no endpoint, so no pod that has an address matches {selector}"
            "; which pods there are was not read",
            Fix(
                "See which pods there are.",
                f"kubectl get pods -n {word(owner.namespace)} -l {word(selector)}",
            ),
            _title(owner),
        )
    return _none_matches(cluster, owner, pods)


def _listed(cluster: ClusterView, owner: Service) -> bool:
    """Tell whether the pods that the selector may match were listed."""
    return lists.read(cluster, "pods", owner.namespace, _selector(owner)) is not None


def _selector(owner: Service) -> str:
    return ",".join(f"{key}={value}" for key, value in owner.selector)


def _none_ready(cluster: ClusterView, owner: Service, ends: Sequence[ServiceEndpoint]) -> Remedy:
    """Pods are there, and none of them is ready."""
    listed = few(ends, _NAMED, lambda end: _with_state(cluster, end))
    cause = f"none of its {len(ends)} endpoints is ready: {listed}"
    pod = next((end.pod for end in ends if end.pod), "")
    if not pod:
        return Remedy(cause, Fix("See what the Service has.", _slices(owner)), _title(owner))
    describe = commands.describe_pod(owner.namespace, pod)
    title = f"Pod {owner.namespace}/{pod}"
    return Remedy(cause, Fix(f"See why {title.lower()} is not ready.", describe), title)


def _with_state(cluster: ClusterView, end: ServiceEndpoint) -> str:
    """Return an endpoint and what its pod is: `10.0.0.1:80 (pod web-1, CrashLoopBackOff)`."""
    pod = cluster.pod(end.namespace, end.pod) if end.pod else None
    words = [f"pod {end.pod}" if end.pod else "no pod"]
    if pod is not None and pod.state != "Running":
        words.append(pod.state)
    elif pod is not None:
        words += [f"{c.kind} {c.status}: {c.message or c.reason}" for c in pod.unmet[:1]]
    elif end.terminating:
        words.append("terminating")
    return f"{kinds.text(end)} ({', '.join(words)})"


def _matching_and_left_out(
    owner: Service, port: ServicePort | None, version: int, pods: Sequence[Pod]
) -> Remedy | None:
    """Pods match the selector, and the slices name none of them for this port."""
    named = f"{owner.namespace}/{pods[0].name}"
    if not any(pod.addresses for pod in pods):
        describe = commands.describe_pod(owner.namespace, pods[0].name)
        cause = f"its selector matches pod {named}, which has no address yet: {pods[0].state}"
        return Remedy(cause, Fix("See why the pod does not start.", describe), f"Pod {named}")
    meant = [pod for pod in pods if any(each.version == version for each in pod.addresses)]
    if not meant:
        cause = f"its pods, as {named}, have no IPv{version} address"
        fix = Fix(f"Give the pods IPv{version}, or the Service the other family alone.")
        return Remedy(cause, fix, _title(owner))
    if port is not None and port.target_port and not port.target_port.isdecimal():
        name = port.target_port
        meant = [pod for pod in meant if any(each.name == name for each in pod.ports)]
        if not meant:
            return _no_such_port(owner, port, pods)
    ready = next((pod for pod in meant if pod.serves), None)
    if ready is not None:
        return Remedy(
            f"its selector matches pod {owner.namespace}/{ready.name}, which is ready, and no "
            "EndpointSlice names it: what fills these in (kube-controller-manager) is behind",
            Fix("See whether kube-controller-manager runs, and its log.", _slices(owner)),
        )
    return None


def _no_such_port(owner: Service, port: ServicePort, pods: Sequence[Pod]) -> Remedy:
    """The targetPort is a name that no container of the pods declares."""
    declared = dict.fromkeys(
        f"{each.name or 'without a name'} {each.number}" for pod in pods for each in pod.ports
    )
    has = few(declared, _NAMED) or "none"
    names = [each.name for pod in pods for each in pod.ports if each.name]
    return Remedy(
        f"its targetPort {port.target_port} is a name, and no container of pod "
        f"{owner.namespace}/{pods[0].name} declares a port of that name (declared: {has})",
        Fix(
            f"Set targetPort of port {port.port} to {names[0] if names else 'a number'} in "
            f"Service {owner.name}, or name the container's port {port.target_port}.",
            _edit(owner),
        ),
        _title(owner),
    )


def _none_matches(cluster: ClusterView, owner: Service, pods: Sequence[Pod]) -> Remedy:
    """No pod holds the selector: which comes nearest, and which label differs?"""
    cause = f"no pod in namespace {owner.namespace} matches its selector {_selector(owner)}"
    near = max(pods, key=lambda pod: (_likeness(pod, owner), pod.serves), default=None)
    if near is not None and _likeness(near, owner) > 0:
        return _differing(owner, near, cause)
    elsewhere = next((pod for pod in cluster.kube.pods if _holds(pod, owner)), None)
    if elsewhere is not None:
        cause += f"; pod {elsewhere.namespace}/{elsewhere.name} does, in another namespace"
        fix = Fix(f"Make the Service in namespace {elsewhere.namespace}, beside its pods.")
        return Remedy(cause, fix, _title(owner))
    fix = Fix(
        "Run a pod with these labels: a Deployment that is scaled to 0, or gone, has none.",
        f"kubectl get deployments,statefulsets,daemonsets -n {word(owner.namespace)} -o wide",
    )
    return Remedy(cause, fix, _title(owner))


def _differing(owner: Service, near: Pod, cause: str) -> Remedy:
    """Name the labels of the nearest pod that differ from the selector."""
    said, wanted = [], []
    for key, value in owner.selector:
        if near.label(key) == value:
            continue
        has = near.label(key)
        other = next((k for k, v in near.labels if v == value and k != key), "")
        if has:
            said.append(f"{key}={has} where the selector has {key}={value}")
            wanted.append(f"{key}: {has}")
        elif other:
            said.append(f"{other}={value} where the selector has {key}={value}")
            wanted.append(f"{other}: {value} in place of {key}")
        else:
            said.append(f"no label {key}")
            wanted.append(f"no {key}")
    labels = ",".join(f"{k}={v}" for k, v in owner.selector if near.label(k) != v)
    return Remedy(
        f"{cause}; pod {near.name} comes nearest, and has {', and '.join(said)}",
        Fix(
            f"Give the selector of Service {owner.name} {', '.join(wanted)}, or the pods "
            f"{labels} (in their Deployment's template).",
            _edit(owner),
        ),
        _title(owner),
    )


def _likeness(pod: Pod, owner: Service) -> float:
    """Return how much of a selector a pod's labels hold, 0 for nothing alike."""
    return sum(_label_likeness(pod, key, value) for key, value in owner.selector)


def _label_likeness(pod: Pod, key: str, value: str) -> float:
    if pod.label(key) == value:
        return 1.0
    if any(has == value for _, has in pod.labels):
        return 0.7
    ratio = _ratio(pod.label(key), value)
    return ratio / 2 if ratio >= _ALIKE else 0.0


@lru_cache(1024)
def _ratio(has: str, wanted: str) -> float:
    """Return how like two values of a label are; a namespace's pods have few of them."""
    from difflib import SequenceMatcher  # only a selector that no pod matches needs it

    if not has or max(len(has), len(wanted)) > _LONGEST:
        return 0.0
    return SequenceMatcher(None, has, wanted).ratio()


def _holds(pod: Pod, owner: Service) -> bool:
    return set(owner.selector) <= set(pod.labels)


def _title(owner: Service) -> str:
    return f"Service {owner.namespace}/{owner.name}"


def _edit(owner: Service) -> str:
    return commands.edit_service(owner.namespace, owner.name)


def _slices(owner: Service) -> str:
    return commands.list_slices(owner.namespace, owner.name)
