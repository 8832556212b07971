"""Survey one pod or node, for `programs` and `flows`, in a cluster or in a capture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import cast

from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.resolve import Kind, TargetRef, name_of, resolve
from kubectl_ebpfnet.collect.ask.node_access import BY_AGENT, NodeAccess, NodeAnswerers
from kubectl_ebpfnet.collect.ask.targets import addresses_of
from kubectl_ebpfnet.collect.survey import SurveyTarget, survey
from kubectl_ebpfnet.collect.tasks import Topic
from kubectl_ebpfnet.errors import NotFound
from kubectl_ebpfnet.model.evidence import Bundle, PlaceKind, bundle_of
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.parse import kube

Notify = Callable[[str], object]
TopicOf = Callable[[tuple[Address, ...]], Topic]
"""Addresses of the pod, () for a node → the questions."""


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


@dataclass(frozen=True, slots=True)
class _Place:
    kind: str
    name: str


class TargetSurveyor:
    """Surveys targets in a cluster, any number of times. Use it in a `with`: the node pods that it
    deploys serve every survey and are removed at the end."""

    def __init__(
        self,
        session: Session,
        access: NodeAccess = BY_AGENT,
        timeout: float | None = None,
        warn: Notify = lambda _: None,
        progress: Notify = lambda _: None,
    ) -> None:
        """
        Args:
            session: the connection.
            access: how nodes may be asked.
            timeout: seconds for each survey.
            warn: takes lines that the user must read.
            progress: takes a line about the current step.
        """
        self._session, self._timeout = session, timeout
        self._warn, self._progress = warn, progress
        self._answerers = NodeAnswerers(session, access, warn)

    def __enter__(self) -> TargetSurveyor:
        self._answerers.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answerers.__exit__(kind, error, trace)

    def survey_target(self, target: SurveyTarget, topic: TopicOf) -> SurveyedTarget:
        """Ask one target, and for a pod its node too.

        Args:
            target: a pod, a workload (a warning names the pod that stands for it) or a node.
            topic: gives the questions once the addresses are known.

        Raises:
            NotFound: the target does not exist.
            ClusterError: the API server cannot be reached, or does not let this user read the
                target.
        """
        ref = TargetRef(cast(Kind, target.kind.lower()), target.name)
        found = resolve(Api(self._session), ref, self._session.namespace, self._warn)
        kind = "node" if ref.kind == "node" else "pod"
        place = _Place(kind, name_of(found))
        questions = topic(() if kind == "node" else addresses_of(found))
        records = survey(
            self._session, [place], questions, self._answerers,
            timeout=self._timeout, warn=self._warn, progress=self._progress,
        )  # fmt: skip
        bundle = bundle_of(records)
        if kind == "node":
            return SurveyedTarget(place.name, "", "", bundle)
        return SurveyedTarget("", self._session.namespace, place.name, bundle)


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
