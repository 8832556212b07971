"""Survey a pod, a node or several pods, for `programs` and `flows`, live or in a capture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from kubectl_ebpfnet.cluster.client.api import CORE
from kubectl_ebpfnet.cluster.resolve import find_node, find_pod, find_service
from kubectl_ebpfnet.collect.gatherer import Gatherer, Notify
from kubectl_ebpfnet.collect.survey import ScopeOf, SurveyTarget, ask_places, survey
from kubectl_ebpfnet.errors import NotFound, UsageError
from kubectl_ebpfnet.explain.flows.peers import of_addresses, of_service
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.in_capture import in_capture
from kubectl_ebpfnet.explain.views.placed import Placed, placed_pod
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.label_selector import label_selector
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from kubectl_ebpfnet.parse import kube

MOST_PODS = 100
"""Pods that are asked, with their nodes, where a selector or --all-namespaces chooses them."""


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
class PodChoice:
    """Several pods.

    Attributes:
        everywhere: of all namespaces, not of the run's alone.
        selector: of their labels, "" for all.
    """

    everywhere: bool
    selector: str = ""


@dataclass(frozen=True, slots=True)
class SurveyedPods:
    """Several pods, and the records of them.

    Attributes:
        target: in words which pods they are.
        pods: by namespace and name.
        left_out: pods that fit as well, of which nothing was asked.
        bundle: the records.
    """

    target: str
    pods: tuple[Placed, ...]
    left_out: int
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class PeerObject:
    """An object that flows go to.

    Attributes:
        kind: `pod`, `service` or `node`.
        namespace: "" for that of the run.
        name: of the object.
        port: number or name, None for any.
        protocol: IANA number, None for any.
    """

    kind: str
    namespace: str
    name: str
    port: int | str | None
    protocol: int | None


class ListReader(Protocol):
    """Reads what `flows` and `programs` are made of."""

    def target(self, wanted: SurveyTarget, scope: ScopeOf, /) -> SurveyedTarget:
        """Read a pod, a workload or a node. Raises NotFound, and ClusterError."""
        ...

    def pods(self, choice: PodChoice, scope: ScopeOf, /) -> SurveyedPods:
        """Read several pods. Raises ClusterError, and UsageError for a selector."""
        ...

    def peers(self, peer: PeerObject, /) -> tuple[FlowFilter, ...]:
        """Return the filters for flows to an object. Raises NotFound, UsageError, ClusterError."""
        ...


class LiveLists:
    """Reads a cluster."""

    def __init__(self, gatherer: Gatherer, timeout: float | None) -> None:
        """`timeout`: seconds of each reading, None for no limit."""
        self._gatherer, self._timeout = gatherer, timeout

    def target(self, wanted: SurveyTarget, scope: ScopeOf) -> SurveyedTarget:
        """Read a pod, a workload or a node."""
        self._gatherer.begin(self._timeout)
        return survey_target(self._gatherer, wanted, scope)

    def pods(self, choice: PodChoice, scope: ScopeOf) -> SurveyedPods:
        """Read several pods."""
        gatherer = self._gatherer
        gatherer.begin(self._timeout)
        namespace = "" if choice.everywhere else gatherer.session.namespace
        gatherer.look_for_answerers()
        path = f"{CORE}/namespaces/{namespace}/pods" if namespace else f"{CORE}/pods"
        read = partial(
            gatherer.api.list_of, path, lambda page: [*map(kube.pod, page)],
            label_selector=choice.selector,
        )  # fmt: skip
        found = gatherer.needed(gatherer.start(read))
        gatherer.find_answerers()
        pods = sorted((pod for pod in found if pod.running), key=_by_name)
        asked = pods[:MOST_PODS]
        addresses = tuple(address for pod in asked for address in pod.addresses)
        own = [pod for pod in asked if not pod.host_network]
        ask_places(gatherer, scope(addresses), [pod.node for pod in own], own)
        return SurveyedPods(
            _words(choice, namespace), _placed(asked), len(pods) - len(asked), gatherer.bundle()
        )

    def peers(self, peer: PeerObject) -> tuple[FlowFilter, ...]:
        """Return the filters for flows to an object."""
        gatherer = self._gatherer
        gatherer.begin(self._timeout)
        api, namespace = gatherer.api, peer.namespace or gatherer.session.namespace
        if peer.kind == "service":
            one = gatherer.start(partial(find_service, api, peer.name, namespace))
            listed = gatherer.start(partial(api.endpoint_slices, namespace, peer.name))
            service = gatherer.needed(one)
            endpoints = [e for each in gatherer.needed(listed) for e in kube.slice_endpoints(each)]
            return of_service(service, endpoints, peer.port, peer.protocol)
        if peer.kind == "node":
            node = gatherer.needed(gatherer.start(partial(find_node, api, peer.name)))
            addresses = node.internal_addresses
        else:
            find = partial(find_pod, api, "pod", peer.name, namespace, gatherer.warn)
            addresses = gatherer.needed(gatherer.start(find)).addresses
        return _of_object(peer, addresses)


class CapturedLists:
    """Reads a capture."""

    def __init__(self, bundle: Bundle, namespace: str, warn: Notify) -> None:
        """`namespace`: of the run; `warn`: takes the line that names the pod of a workload."""
        self._bundle, self._namespace, self._warn = bundle, namespace, warn
        self._cluster = ClusterView(bundle)

    def target(self, wanted: SurveyTarget, _scope: ScopeOf) -> SurveyedTarget:
        """Find a pod, a workload or a node."""
        return target_in_bundle(self._bundle, wanted, self._namespace, self._warn)

    def pods(self, choice: PodChoice, _scope: ScopeOf) -> SurveyedPods:
        """Find several pods."""
        terms = label_selector(choice.selector)
        namespace = "" if choice.everywhere else self._namespace
        pods = [
            pod
            for pod in self._cluster.kube.pods
            if namespace in ("", pod.namespace)
            and pod.running
            and all(term.holds(dict(pod.labels)) for term in terms)
        ]
        pods.sort(key=_by_name)
        return SurveyedPods(_words(choice, namespace), _placed(pods), 0, self._bundle)

    def peers(self, peer: PeerObject) -> tuple[FlowFilter, ...]:
        """Return the filters for flows to an object."""
        cluster, namespace = self._cluster, peer.namespace or self._namespace
        if peer.kind == "service":
            service = next(
                (
                    s
                    for s in cluster.kube.services
                    if (s.namespace, s.name) == (namespace, peer.name)
                ),
                None,
            )
            if service is None:
                names = [f"{each.namespace}/{each.name}" for each in cluster.kube.services]
                hint = in_capture("Services", names, f"{namespace}/{peer.name}")
                raise NotFound("service", peer.name, namespace, hint=hint)
            endpoints = [
                each
                for each in cluster.kube.endpoints
                if (each.namespace, each.service) == (namespace, peer.name)
            ]
            return of_service(service, endpoints, peer.port, peer.protocol)
        if peer.kind == "node":
            node = cluster.kube_node(peer.name)
            if node is None:
                hint = in_capture("nodes", cluster.node_names, peer.name)
                raise NotFound("node", peer.name, hint=hint)
            return _of_object(peer, node.internal_addresses)
        return _of_object(peer, placed_pod(cluster, namespace, "pod", peer.name).addresses)


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


def target_in_bundle(
    bundle: Bundle, target: SurveyTarget, namespace: str, warn: Notify
) -> SurveyedTarget:
    """Find a target in a capture, as `path` finds its source.

    Args:
        bundle: the capture.
        target: a pod, a workload or a node.
        namespace: of the pod.
        warn: takes the line that names the pod of a workload.

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
    if target.kind != "pod":
        warn(f"{target.kind.lower()}/{target.name}: taking pod/{pod.name}, {pod.note}")
    return SurveyedTarget("", namespace, pod.name, bundle)


def _of_object(peer: PeerObject, addresses: Sequence[Address]) -> tuple[FlowFilter, ...]:
    assert not isinstance(peer.port, str)  # cli refuses it: only a Service names its ports
    if not addresses:
        raise UsageError(f"--to {peer.kind}/{peer.name}: its address is not known")
    return of_addresses(addresses, peer.port, peer.protocol)


def _by_name(pod: Pod) -> tuple[str, str]:
    return pod.namespace, pod.name


def _placed(pods: Sequence[Pod]) -> tuple[Placed, ...]:
    return tuple(Placed("pod", p.namespace, p.name, p, p.node, p.addresses) for p in pods)


def _words(choice: PodChoice, namespace: str) -> str:
    where = f"namespace {namespace}" if namespace else "all namespaces"
    return f"pods in {where}" + (f" with {choice.selector}" if choice.selector else "")
