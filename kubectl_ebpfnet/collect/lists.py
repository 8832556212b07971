"""Survey one pod or node, for `programs` and `flows`, in a cluster or in a capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.survey import ScopeOf, SurveyTarget, survey
from kubectl_ebpfnet.errors import NotFound
from kubectl_ebpfnet.model.evidence import Bundle, PlaceKind, pod_place
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.parse import kube


@dataclass(frozen=True, slots=True)
class SurveyedTarget:
    """A pod or a node, and the records of it.

    Attributes:
        node: name of the node, "" for a pod.
        namespace, pod: names of the pod, "" for a node.
        bundle: the records.
    """

    node: str
    namespace: str
    pod: str
    bundle: Bundle


def survey_target(gatherer: Gatherer, target: SurveyTarget, scope: ScopeOf) -> SurveyedTarget:
    """Ask one target, and for a pod its node too.

    Args:
        gatherer: asks.
        target: a pod, a workload (a warning names the pod that stands for it) or a node.
        scope: says what to ask once the addresses are known.

    Raises:
        NotFound: the target does not exist.
        ClusterError: the API server cannot be reached, or does not let this user read the target.
    """
    [name] = survey(gatherer, [target], scope)
    bundle = gatherer.bundle()
    if target.kind.lower() == "node":
        return SurveyedTarget(name, "", "", bundle)
    return SurveyedTarget("", gatherer.session.namespace, name, bundle)


def target_in_bundle(bundle: Bundle, target: SurveyTarget, namespace: str) -> SurveyedTarget:
    """Find a target in a capture.

    Args:
        bundle: the capture.
        target: a pod, a workload or a node.
        namespace: of the pod.

    Raises:
        NotFound: the capture has no record of the target; the hint lists the targets it has.
    """
    if target.kind == "node":
        nodes = {place.node for kind in _NODE_KINDS for place in bundle.places(kind)}
        if target.name in nodes:
            return SurveyedTarget(target.name, "", "", bundle)
        raise NotFound("node", target.name, hint=_names_hint("nodes", nodes))
    pods: list[Pod] = []
    for record in bundle.records:
        if record.place.kind is PlaceKind.API and record.ok:
            pods += kube.objects(record.stdout.read()).pods
    found = _pod_of(bundle, target, namespace, pods)
    if found:
        return SurveyedTarget("", namespace, found, bundle)
    names = {pod.name for pod in pods if pod.namespace == namespace}
    names |= {p.pod for p in bundle.places(PlaceKind.POD) if p.namespace == namespace}
    raise NotFound(target.kind.lower(), target.name, namespace, hint=_names_hint("pods", names))


def _pod_of(bundle: Bundle, target: SurveyTarget, namespace: str, pods: Sequence[Pod]) -> str:
    """Return the name of the pod that a target means, "" without one, as `path` finds its source.

    A pod is known by its object, or by what was asked in it; a workload stands for one of its pods.
    """
    here = [pod for pod in pods if pod.namespace == namespace]
    if target.kind == "pod":
        known = any(pod.name == target.name for pod in here)
        return target.name if known or bundle.at(pod_place(namespace, target.name)) else ""
    own = [pod for pod in here if pod.belongs_to(target.kind, target.name)]
    return min(own, key=lambda pod: (not pod.ready, pod.name)).name if own else ""


_NODE_KINDS = (PlaceKind.AGENT, PlaceKind.NODE)


def _names_hint(what: str, names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:8])
    return f"{what} in the capture: {shown}" if names else f"there are no {what} in the capture"
