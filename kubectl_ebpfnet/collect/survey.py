"""Ask pods and nodes what a scope has: `capture`, `flows` and `programs` ask named targets, `path`,
`doctor` and `probe-lb` places that they choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol, cast

from kubectl_ebpfnet.cluster.client.api import Object, Objects
from kubectl_ebpfnet.cluster.pool import MOST
from kubectl_ebpfnet.cluster.resolve import Kind, TargetRef, name_of, resolve
from kubectl_ebpfnet.collect.ask.answerer import Answerer
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.ask.container import AGENT_LANES
from kubectl_ebpfnet.collect.ask.node_access import Mode
from kubectl_ebpfnet.collect.ask.node_pod import NodePodExec
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.targets import (
    addresses_of,
    namespace_in_kernel,
    namespace_of,
    node_of,
    pod_answerer,
    shares_node,
)
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.scope import Scope
from kubectl_ebpfnet.model.evidence import Record, node_place, pod_place
from kubectl_ebpfnet.model.net import Address

ScopeOf = Callable[[tuple[Address, ...]], Scope]
"""Addresses of the pods that are asked → what to ask."""
_POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
_CILIUM_LISTS = (
    "ciliumnodes",
    "ciliumendpoints",
    "ciliumidentities",
    "ciliumnetworkpolicies",
    "ciliumclusterwidenetworkpolicies",
)


class SurveyTarget(Protocol):
    """A pod, a node or a workload to survey."""

    @property
    def kind(self) -> str:
        """`pod`, `node`, `Deployment`, …"""
        ...

    @property
    def name(self) -> str:
        """The object's name."""
        ...


def survey(gatherer: Gatherer, targets: Iterable[SurveyTarget], scope: ScopeOf) -> Objects:
    """Start to ask targets, whatever the packet; the gatherer yields the records.

    Args:
        gatherer: asks; pods and workloads are looked for in its session's namespace.
        targets: the places; without any, every node with an agent, or all nodes if no node has an
            agent. A pod's node is asked too.
        scope: says what to ask once the addresses are known.

    Returns:
        The targets' objects: pods (of a workload, the pod that stands for it) and nodes.

    Raises:
        NotFound: a target does not exist.
        ClusterError: the API server cannot be reached, or does not let this user read a target.
    """
    gatherer.look_for_answerers()
    gatherer.read(_lists(gatherer.api))
    found: Objects = []
    lines: list[str] = []  # warnings of a thread, printed below
    nodes: list[str] = []
    pods: Objects = []
    for target in targets:
        ref = TargetRef(cast(Kind, target.kind.lower()), target.name)
        namespace = gatherer.session.namespace
        resolved = gatherer.start(partial(resolve, gatherer.api, ref, namespace, lines.append))
        found.append(gatherer.needed(resolved))
        if ref.kind == "node":
            nodes.append(ref.name)
        else:
            pods.append(found[-1])
            nodes.append(node_of(found[-1]))
    for line in lines:
        gatherer.warn(line)
    agents = gatherer.find_answerers()
    if not found:
        listed = [] if agents else gatherer.needed(gatherer.start(gatherer.api.nodes))
        nodes = [*agents, *(name_of(node) for node in listed)]
    addresses = tuple(address for pod in pods for address in addresses_of(pod))
    ask_places(gatherer, scope(addresses), nodes, pods)
    return found


def _lists(api: RecordingApi) -> list[Callable[[], object]]:
    return [
        api.pods,
        api.nodes,
        api.services,
        api.endpoint_slices,
        partial(api.list, _POLICIES),
        *(partial(api.cilium, resource) for resource in _CILIUM_LISTS),
    ]


def ask_places(
    gatherer: Gatherer,
    scope: Scope,
    nodes: Iterable[str],
    pods: Iterable[Object] = (),
    mode: Mode | None = None,
) -> None:
    """Ask nodes and pods the questions of a scope that are for their answerers.

    Args:
        gatherer: asks.
        scope: of the run.
        nodes: names of nodes, "" for none; those of `pods` as well.
        pods: a node pod of their node answers for them, if there is one, else an exec.
        mode: instead of that of --node-access.
    """
    names = [name for name in dict.fromkeys(nodes) if name]
    answerers = gatherer.answerers.for_nodes(names, gatherer.deadline, mode)
    by_node: dict[str, list[Question]] = {}
    for pod in pods:
        if shares_node(pod):
            continue
        if isinstance(answerers.get(node_of(pod)), NodePodExec):
            by_node.setdefault(node_of(pod), []).extend(_of_pod(pod, scope))
        elif asked := scope.questions(pod_place(namespace_of(pod), name_of(pod))):
            gatherer.ask(pod_answerer(gatherer.session, pod), asked)
    beside = len(answerers) * AGENT_LANES <= MOST
    for node, answerer in answerers.items():
        ask_node(gatherer, scope, answerer, by_node.get(node, ()), beside=beside)


def ask_node(
    gatherer: Gatherer,
    scope: Scope,
    answerer: Answerer | Record,
    further: Sequence[Question] = (),
    *,
    beside: bool = True,
) -> None:
    """Ask a node the questions of a scope that are for its answerer.

    Args:
        gatherer: asks.
        scope: of the run.
        answerer: of the node.
        further: questions about pods, for a node pod.
        beside: as for Gatherer.ask.
    """
    own = [] if isinstance(answerer, Record) else scope.questions(answerer.place)
    gatherer.ask(answerer, [*further, *own], beside=beside)


def _of_pod(pod: Object, scope: Scope) -> Iterator[Question]:
    """Yield the questions to a node pod about the network namespace of a pod."""
    place = pod_place(namespace_of(pod), name_of(pod))
    netns = namespace_in_kernel(pod)
    yield from scope.questions(place, netns)
    yield from scope.lookups(place, node_place(node_of(pod)), netns)
