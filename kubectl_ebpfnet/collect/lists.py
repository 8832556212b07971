"""Survey one pod or node, for `programs` and `flows`, in a cluster or in a capture."""

from __future__ import annotations

from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.survey import ScopeOf, SurveyTarget, survey
from kubectl_ebpfnet.errors import NotFound
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.in_capture import in_capture
from kubectl_ebpfnet.explain.views.placed_pod import placed_pod
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle


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
    [name] = survey(gatherer, [target], scope, alone=True)
    bundle = gatherer.bundle()
    if target.kind.lower() == "node":
        return SurveyedTarget(name, "", "", bundle)
    return SurveyedTarget("", gatherer.session.namespace, name, bundle)


def target_in_bundle(bundle: Bundle, target: SurveyTarget, namespace: str) -> SurveyedTarget:
    """Find a target in a capture, as `path` finds its source.

    Args:
        bundle: the capture.
        target: a pod, a workload or a node.
        namespace: of the pod.

    Raises:
        NotFound: the capture has no record of the target; the hint lists the targets it has.
    """
    cluster = ClusterView(bundle)
    if target.kind == "node":
        if target.name in cluster.node_names:
            return SurveyedTarget(target.name, "", "", bundle)
        hint = in_capture("nodes", cluster.node_names, target.name)
        raise NotFound("node", target.name, hint=hint)
    pod = placed_pod(cluster, namespace, target.kind, target.name)
    return SurveyedTarget("", namespace, pod.name, bundle)
