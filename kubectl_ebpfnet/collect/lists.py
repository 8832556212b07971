"""Survey one pod or node, for `programs` and `flows`, in a cluster or in a capture."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.survey import ScopeOf, SurveyTarget, survey
from kubectl_ebpfnet.errors import NotFound
from kubectl_ebpfnet.model.evidence import Bundle, PlaceKind
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
        target: a pod or a node.
        namespace: of the pod.

    Raises:
        NotFound: the capture has no record of the target; the hint lists the targets it has.
    """
    if target.kind == "node":
        nodes = {place.node for kind in _NODE_KINDS for place in bundle.places(kind)}
        if target.name in nodes:
            return SurveyedTarget(target.name, "", "", bundle)
        raise NotFound("node", target.name, hint=_names_hint("nodes", nodes))
    pods = set()
    for record in bundle.records:
        if record.place.kind is PlaceKind.API and record.ok:
            pods |= {(pod.namespace, pod.name) for pod in kube.objects(record.stdout.read()).pods}
    if target.kind == "pod" and (namespace, target.name) in pods:
        return SurveyedTarget("", namespace, target.name, bundle)
    names = {name for ns, name in pods if ns == namespace}
    raise NotFound(target.kind.lower(), target.name, namespace, hint=_names_hint("pods", names))


_NODE_KINDS = (PlaceKind.AGENT, PlaceKind.NODE)


def _names_hint(what: str, names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:8])
    return f"{what} in the capture: {shown}" if names else f"there are no {what} in the capture"
