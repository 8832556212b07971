"""Ask pods and nodes what a scope has: `capture`, `flows` and `programs` ask named targets, `path`,
`doctor` and `probe-lb` places that they choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

from kubectl_ebpfnet.cluster.resolve import find_node, find_pod
from kubectl_ebpfnet.collect.ask.access import Mode
from kubectl_ebpfnet.collect.ask.answerer import Answerer
from kubectl_ebpfnet.collect.ask.api import RecordingApi, RecordsAlone
from kubectl_ebpfnet.collect.ask.container import AgentExec
from kubectl_ebpfnet.collect.ask.node_pod import NodePodExec
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.targets import pod_answerer
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.policies import NETWORK_POLICIES
from kubectl_ebpfnet.collect.scope import Scope
from kubectl_ebpfnet.model.catalogue import FACTS
from kubectl_ebpfnet.model.evidence import Record, node_place, pod_place
from kubectl_ebpfnet.model.fact import Need
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import PodNamespace
from kubectl_ebpfnet.parse import kube

ScopeOf = Callable[[tuple[Address, ...]], Scope]
"""Addresses of the pods that are asked → what to ask."""
_SERVICE_CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
_CILIUM_LISTS = (
    "ciliumnodes",
    "ciliumendpoints",
    "ciliumidentities",
    "ciliumnetworkpolicies",
    "ciliumclusterwidenetworkpolicies",
    "ciliumegressgatewaypolicies",
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


def survey(
    gatherer: Gatherer,
    targets: Iterable[SurveyTarget],
    scope: ScopeOf,
    ends: Iterable[Pod] = (),
    *,
    alone: bool = False,
) -> list[str]:
    """Start to ask targets, whatever the packet; the gatherer yields the records.

    Args:
        gatherer: asks; pods and workloads are looked for in its session's namespace.
        targets: the places; without any, every node with an agent, or all nodes if no node has an
            agent. A pod's node is asked too.
        scope: says what to ask once the addresses are known.
        ends: as of `ask_places`.
        alone: the targets tell all that is wanted: no list of the cluster's objects is read.

    Returns:
        The targets' names; for a workload, that of the pod that stands for it.

    Raises:
        NotFound: a target does not exist.
        ClusterError: the API server cannot be reached, or does not let this user read a target.
    """
    gatherer.look_for_answerers(few=alone)
    if not alone:
        gatherer.read(_lists(gatherer.api))
    api, namespace = gatherer.api, gatherer.session.namespace
    names: list[str] = []
    lines: list[str] = []  # warnings of a thread, printed below
    nodes: list[str] = []
    pods: list[Pod] = []
    for target in targets:
        kind, name = target.kind.lower(), target.name
        if kind == "node":
            names.append(gatherer.needed(gatherer.start(partial(find_node, api, name))).name)
            nodes.append(names[-1])
        else:
            found = gatherer.start(partial(find_pod, api, kind, name, namespace, lines.append))
            pods.append(gatherer.needed(found))
            names.append(pods[-1].name)
            nodes.append(pods[-1].node)
    for line in lines:
        gatherer.warn(line)
    agents = gatherer.find_answerers()
    if not names:
        listed = [] if agents else gatherer.needed(gatherer.start(api.nodes))
        nodes = [*agents, *(kube.node(each).name for each in listed)]
    addresses = tuple(address for pod in pods for address in pod.addresses)
    named = {(pod.namespace, pod.name) for pod in pods}
    others = [pod for pod in ends if (pod.namespace, pod.name) not in named]
    ask_places(gatherer, scope(addresses), nodes, pods, ends=others)
    return names


def _lists(recording: RecordingApi) -> list[Callable[[], object]]:
    api = RecordsAlone(recording)
    return [
        api.pods,
        api.nodes,
        api.services,
        api.endpoint_slices,
        partial(api.list, NETWORK_POLICIES.format("")),
        api.cidr_groups,
        api.bgp_advertisements,
        partial(api.list, _SERVICE_CIDRS),
        partial(api.list, _LEASES),
        *(partial(api.cilium, resource) for resource in _CILIUM_LISTS),
    ]


def ask_places(
    gatherer: Gatherer,
    scope: Scope,
    nodes: Iterable[str],
    pods: Iterable[Pod] = (),
    mode: Mode | None = None,
    ends: Iterable[Pod] = (),
) -> None:
    """Ask nodes and pods the questions of a scope that are for their answerers.

    Args:
        gatherer: asks.
        scope: of the run.
        nodes: names of nodes, "" for none; those of `pods` as well, unless they were asked before.
        pods: a node pod of their node answers for them, if there is one, else an exec.
        mode: instead of that of --node-access.
        ends: pods in which a packet may end. Those without a shell are not asked: what they would
            tell is worth no exec a command.
    """
    names, pods = [name for name in dict.fromkeys(nodes) if name], list(pods)
    ends = list(ends)
    far = scope.of_far_pod
    asked = [(pod, scope) for pod in pods] + [(pod, far) for pod in ends]
    asked = [(pod, wanted) for pod, wanted in asked if not pod.host_network]
    everywhere = dict.fromkeys([*names, *(pod.node for pod, _ in asked if pod.node)])
    answerers = gatherer.answerers.for_nodes(everywhere, gatherer.deadline, mode)
    by_node: dict[str, list[Question]] = {}
    by_exec: list[tuple[Answerer | Record, list[Question]]] = []
    for pod, wanted in asked:
        place = pod_place(pod.namespace, pod.name)
        if isinstance(answerers.get(pod.node), NodePodExec):
            by_node.setdefault(pod.node, []).extend(_of_pod(pod, wanted))
            if Need.NAMES in wanted.need:  # its resolver's files, which no node pod reads
                files = Scope(Need.NAMES).questions(place)
                by_exec.append((pod_answerer(gatherer.session, pod), files))
        elif questions := wanted.questions(place):
            one = pod_answerer(gatherer.session, pod, by_shell=wanted is far)
            by_exec.append((one, questions))
    for node, answerer in answerers.items():
        further = by_node.get(node, ())
        if node not in names:
            if further:
                gatherer.ask(answerer, further)
            continue
        instead = None
        here = [pod for pod in pods if pod.node == node and not pod.host_network]
        if mode is None and isinstance(answerer, AgentExec):
            instead = partial(_ask_node_pod, gatherer, scope, node, here)
        elif mode is None and node in gatherer.answerers.kept_nodes:
            there = [pod for pod in ends if pod.node == node]
            instead = partial(_ask_others, gatherer, scope, node, here, there)
        ask_node(gatherer, scope, answerer, further, instead)
    for pod_one, questions in by_exec:  # nodes take longer, and begin first
        gatherer.ask(pod_one, questions)


def ask_tables(gatherer: Gatherer, tables: Iterable[tuple[str, str]]) -> None:
    """Ask nodes for whole tables.

    Args:
        gatherer: asks.
        tables: (node, name of the fact).
    """
    by_node: dict[str, list[str]] = {}
    for node, fact in tables:
        by_node.setdefault(node, []).append(fact)
    answerers = gatherer.answerers.for_nodes(by_node, gatherer.deadline)
    for node, answerer in answerers.items():
        if not isinstance(answerer, Record):
            facts = (fact for fact in FACTS if fact.name in by_node[node])
            gatherer.ask(answerer, [Question(fact, answerer.place) for fact in facts])


def _ask_node_pod(gatherer: Gatherer, scope: Scope, node: str, pods: Sequence[Pod]) -> None:
    """Ask a node pod what a scope has, of a node whose agent does not answer."""
    answerer = gatherer.answerers.instead_of_agent(node, gatherer.deadline)
    if answerer is not None:
        further = [question for pod in pods for question in _of_pod(pod, scope)]
        ask_node(gatherer, scope, answerer, further)


def _ask_others(
    gatherer: Gatherer, scope: Scope, node: str, pods: Sequence[Pod], ends: Sequence[Pod]
) -> None:
    """Ask who answers for a node whose kept node pod does not: it ended since it was listed."""
    gatherer.answerers.forget_kept(node)
    ask_places(gatherer, scope, [node], pods, ends=ends)


def ask_node(
    gatherer: Gatherer,
    scope: Scope,
    answerer: Answerer | Record,
    further: Sequence[Question] = (),
    instead: Callable[[], object] | None = None,
) -> None:
    """Ask a node the questions of a scope that are for its answerer.

    Args:
        gatherer: asks.
        scope: of the run.
        answerer: of the node.
        further: questions about pods, for a node pod.
        instead: as for Gatherer.ask.
    """
    own = [] if isinstance(answerer, Record) else scope.questions(answerer.place)
    gatherer.ask(answerer, [*own, *further], instead)


def _of_pod(pod: Pod, scope: Scope) -> Iterator[Question]:
    """Yield the questions to a node pod about the network namespace of a pod."""
    place = pod_place(pod.namespace, pod.name)
    ids = (status.id for status in pod.main_statuses)
    netns = PodNamespace(pod.uid, tuple(id_ for id_ in ids if id_))
    yield from scope.questions(place, netns)
    yield from scope.lookups(place, node_place(pod.node), netns, pod.addresses)
