"""Looks at one pod or node as a whole: for `programs` and `flows`."""

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
"""Addresses of the pod, none for a node → what is asked."""


@dataclass(frozen=True, slots=True)
class LookedAt:
    """A pod or a node, and what was said of it.

    Attributes:
        node: the node's name when it is one, else "".
        namespace, pod: of the pod, "" when it is a node.
        bundle: the records.
    """

    node: str
    namespace: str
    pod: str
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class _Named:
    kind: str
    name: str


class Looker:
    """A cluster that is looked at, once or again and again. Use it in a `with`: node pods that it
    deploys serve every look and go away at the end."""

    def __init__(
        self,
        session: Session,
        access: NodeAccess = BY_AGENT,
        timeout: float | None = None,
        warn: Notify = lambda _: None,
        progress: Notify = lambda _: None,
    ) -> None:
        """As for survey.survey; `timeout` is of each look."""
        self._session, self._timeout = session, timeout
        self._warn, self._progress = warn, progress
        self._answerers = NodeAnswerers(session, access, warn)

    def __enter__(self) -> Looker:
        self._answerers.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answerers.__exit__(kind, error, trace)

    def look(self, wanted: SurveyTarget, topic: TopicOf) -> LookedAt:
        """Ask one place, and for a pod its node too.

        Args:
            wanted: a pod, a workload (one of its pods is taken, and said) or a node.
            topic: what it is asked, once its addresses are known.

        Raises:
            NotFound: it is not there.
            ClusterError: the API server cannot be reached, or does not let this user read it.
        """
        ref = TargetRef(cast(Kind, wanted.kind.lower()), wanted.name)
        found = resolve(Api(self._session), ref, self._session.namespace, self._warn)
        kind = "node" if ref.kind == "node" else "pod"
        named = _Named(kind, name_of(found))
        asked = topic(() if kind == "node" else addresses_of(found))
        records = survey(
            self._session, [named], asked, self._answerers,
            timeout=self._timeout, warn=self._warn, progress=self._progress,
        )  # fmt: skip
        bundle = bundle_of(records)
        if kind == "node":
            return LookedAt(named.name, "", "", bundle)
        return LookedAt("", self._session.namespace, named.name, bundle)


def in_bundle(bundle: Bundle, wanted: SurveyTarget, namespace: str) -> LookedAt:
    """The same out of a capture.

    Raises:
        NotFound: the capture knows nothing of it; the hint names what it does know.
    """
    if wanted.kind == "node":
        nodes = {place.node for kind in _NODE_KINDS for place in bundle.places(kind)}
        if wanted.name in nodes:
            return LookedAt(wanted.name, "", "", bundle)
        raise NotFound("node", wanted.name, hint=_there("nodes", nodes))
    pods = set()
    for record in bundle.records:
        if record.place.kind is PlaceKind.API and record.ok:
            pods |= {(pod.namespace, pod.name) for pod in kube.objects(record.stdout.read()).pods}
    if wanted.kind == "pod" and (namespace, wanted.name) in pods:
        return LookedAt("", namespace, wanted.name, bundle)
    names = {name for ns, name in pods if ns == namespace}
    raise NotFound(wanted.kind.lower(), wanted.name, namespace, hint=_there("pods", names))


_NODE_KINDS = (PlaceKind.AGENT, PlaceKind.NODE)


def _there(what: str, names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:8])
    return f"{what} in the capture: {shown}" if names else f"there are no {what} in the capture"
