"""Ask named pods and nodes about a topic, independent of any packet: for `capture`, `flows` and
`programs`.

Records are yielded as they come, so a capture of long tables needs little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from pathlib import Path
from typing import Protocol, cast

from kubectl_ebpfnet.capture.spool import Spool
from kubectl_ebpfnet.cluster.agents import Agent, find_agents
from kubectl_ebpfnet.cluster.client.api import Object
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods.deployment import NodePod
from kubectl_ebpfnet.cluster.resolve import Kind, TargetRef, name_of, resolve
from kubectl_ebpfnet.collect import tasks
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.ask.container import EXEC, ExecTarget, ask, error_sentence
from kubectl_ebpfnet.collect.ask.node_access import NodeAnswerers, PendingNodePod, ask_when_running
from kubectl_ebpfnet.collect.ask.node_pod import NodeQuestion
from kubectl_ebpfnet.collect.ask.shell_script import ShellQuestion, unavailable_record
from kubectl_ebpfnet.collect.ask.targets import (
    namespace_in_kernel,
    namespace_of,
    node_of,
    pod_target,
    shares_node,
)
from kubectl_ebpfnet.collect.pool import Deadline, Pool
from kubectl_ebpfnet.collect.tasks import Topic
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.evidence import Place, Record, node_place, pod_place

Notify = Callable[[str], object]
_GRACE_SECONDS = 1.0
_POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
_CILIUM_LISTS = (
    "ciliumnodes",
    "ciliumendpoints",
    "ciliumidentities",
    "ciliumnetworkpolicies",
    "ciliumclusterwidenetworkpolicies",
)
_DONE: Future[list[Record]] = Future()


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
    session: Session,
    targets: Iterable[SurveyTarget],
    topic: Topic,
    answerers: NodeAnswerers,
    *,
    folder: Path | None = None,
    timeout: float | None = None,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> Iterator[Record]:
    """Yield the records of some places as they come.

    Args:
        session: the connection; pods and workloads are looked for in its namespace.
        targets: the places; without any, every node with an agent, or all nodes if no node has an
            agent. A pod's node is asked too.
        topic: the questions.
        answerers: who answers for nodes; the caller removes node pods by leaving it.
        folder: where unnamed files hold long outputs; None for the temporary folder.
        timeout: seconds for the whole run; late answers are left out.
        warn: takes lines that the user must read.
        progress: takes a line about the current step.

    Raises:
        NotFound: a target does not exist.
        ClusterError: the API server cannot be reached, or does not let this user read a target.
    """
    run = _Survey(session, topic, answerers, Deadline(timeout), folder)
    yield from run.records(targets, warn, progress)


class _Survey:
    """One run, with the calls that it started."""

    def __init__(
        self,
        session: Session,
        topic: Topic,
        answerers: NodeAnswerers,
        deadline: Deadline,
        folder: Path | None,
    ) -> None:
        self.session, self.topic, self.answerers = session, topic, answerers
        self.deadline, self.folder = deadline, folder
        self.api = RecordingApi(session)
        self.pool = Pool()
        self.pending: list[tuple[Place, Future[list[Record]]]] = []

    def records(
        self, targets: Iterable[SurveyTarget], warn: Notify, progress: Notify
    ) -> Iterator[Record]:
        """Yield all records; the places work while the first records are consumed."""
        api = self.api
        progress("asking the API server")
        lists = [self.pool.start(call) for call in _lists(api)]
        agents, why_none = _agents(api, self.answerers)
        self.answerers.set_available(agents, why_none, self.answerers.find_pods(api))
        where = next((agent.container.namespace for agent in agents.values()), "kube-system")
        lists.append(self.pool.start(lambda: api.config_map(where, "cilium-config")))
        pods, nodes = _places(api, targets, self.session.namespace, warn)
        if not pods and not nodes:
            nodes = list(agents) or [name_of(node) for node in api.nodes()]
        yield from self._start(pods, nodes)
        for future in lists:
            _settled(future, self.deadline)
        yield from api.take()
        yield from self._gathered(progress)

    def _start(self, pods: list[Object], nodes: list[str]) -> Iterator[Record]:
        """Ask every place; yield a record for each place that cannot be asked."""
        answerers = self.answerers.for_nodes(nodes)
        pod_questions: dict[str, list[NodeQuestion]] = {}
        for pod in pods:
            if shares_node(pod):
                continue
            if isinstance(answerers.get(node_of(pod)), (NodePod, PendingNodePod)):
                pod_questions.setdefault(node_of(pod), []).extend(self._of_pod(pod))
                continue
            target = pod_target(pod)
            if isinstance(target, Record):
                yield target
            elif self.topic.pod:
                self._ask(target, tasks.shell_questions(self.topic.pod, self.topic))
        for node, answerer in answerers.items():
            if isinstance(answerer, Record):
                yield answerer
            elif isinstance(answerer, ExecTarget):
                for lane in tasks.agent_lanes(self.topic):
                    self._ask(answerer, lane)
            else:
                place = node_place(node)
                node_questions = tasks.node_pod_questions(self.topic.node_pod, self.topic, place)
                self._ask_node_pod(answerer, place, [*pod_questions.get(node, []), *node_questions])

    def _of_pod(self, pod: Object) -> list[NodeQuestion]:
        place = pod_place(namespace_of(pod), name_of(pod))
        netns = namespace_in_kernel(pod)
        return tasks.node_pod_questions(self.topic.pod_by_node, self.topic, place, netns)

    def _ask(self, target: ExecTarget, questions: list[ShellQuestion]) -> None:
        def call() -> list[Record]:
            return ask(self.session, target, questions, self.deadline, lambda: Spool(self.folder))

        self.pending.append((target.place, self.pool.start(call)))

    def _ask_node_pod(
        self, answerer: NodePod | PendingNodePod, place: Place, questions: Sequence[NodeQuestion]
    ) -> None:
        def call() -> list[Record]:
            return ask_when_running(
                self.session, self.answerers, answerer, questions, self.deadline,
                lambda: Spool(self.folder),
            )  # fmt: skip

        self.pending.append((place, self.pool.start(call)))

    def _gathered(self, progress: Notify) -> Iterator[Record]:
        for count, (place, answer) in enumerate(self.pending):
            progress(f"waiting for {place} ({len(self.pending) - count} to go)")
            left = self.deadline.left
            try:
                yield from answer.result(None if left is None else left + _GRACE_SECONDS)
            except NotDone:
                reason = f"no answer within the {self.deadline} that --timeout allows"
                yield unavailable_record(place, EXEC, reason)
            self.pending[count] = (place, _DONE)  # the outputs are written: free them


def _lists(api: RecordingApi) -> list[Callable[[], object]]:
    calls: list[Callable[[], object]] = [
        api.pods,
        api.nodes,
        api.services,
        api.endpoint_slices,
        lambda: api.list(_POLICIES),
    ]
    calls += [lambda resource=resource: api.cilium(resource) for resource in _CILIUM_LISTS]  # type: ignore[misc]
    return calls


def _agents(api: RecordingApi, answerers: NodeAnswerers) -> tuple[Mapping[str, Agent], str]:
    if not answerers.looks_for_agents:
        return {}, ""
    try:
        return find_agents(api), ""
    except ClusterError as error:
        return {}, error_sentence(error, Deadline(None))


def _places(
    api: RecordingApi, targets: Iterable[SurveyTarget], namespace: str, warn: Notify
) -> tuple[list[Object], list[str]]:
    """Resolve the targets: pods, and nodes that are targets or run such a pod."""
    pods: list[Object] = []
    nodes: list[str] = []
    for place in targets:
        ref = TargetRef(cast(Kind, place.kind.lower()), place.name)
        found = resolve(api, ref, namespace, warn)
        if ref.kind == "node":
            nodes.append(ref.name)
            continue
        pods.append(found)
        if node_of(found):
            nodes.append(node_of(found))
    return pods, list(dict.fromkeys(nodes))


def _settled(future: Future[object], deadline: Deadline) -> None:
    try:
        future.result(deadline.left)
    except (NotDone, ClusterError):
        return  # the record has the reason, or the answer is late
