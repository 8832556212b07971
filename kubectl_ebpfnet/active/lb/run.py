"""A live run of `probe-lb`: netkat connects to a LoadBalancer through every node.

    1  the API server: the Service, its slices, nodes, pods; `judge` without attempts is the plan
    2  node pods on two nodes at most, which send; each node is probed from another node
    3  attempts side by side: frames for the Service's address, with the probed node as next hop
    4  the health checks; and every probed node's rules, tables and counters, which tell causes,
       with the entries of the probes' own flows, which show the source that the backend saw

The cluster is not changed, except for the namespace of the run, which is removed at its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

from kubectl_ebpfnet.active.lb.attempts import (
    SentAttempt,
    add_sources,
    attempt_flow,
    attempt_outcome,
    probe_argv,
    read_attempt,
    read_health_check,
)
from kubectl_ebpfnet.active.lb.plan import (
    choose_senders,
    node_address,
    plan_attempts,
    retry_by_node_port,
    sender_for,
)
from kubectl_ebpfnet.active.lb.topic import COUNTERS, causes_topic
from kubectl_ebpfnet.cluster.agents import Agent, find_agents
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods.deployment import NodePod
from kubectl_ebpfnet.collect import tasks
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.ask.container import ExecTarget, ask, error_sentence
from kubectl_ebpfnet.collect.ask.node_access import (
    Mode,
    NodeAccess,
    NodeAnswerers,
    PendingNodePod,
    ask_when_running,
)
from kubectl_ebpfnet.collect.ask.node_pod import NodeQuestion
from kubectl_ebpfnet.collect.path import resolve_locally
from kubectl_ebpfnet.collect.pool import Deadline, Pool
from kubectl_ebpfnet.collect.tasks import Topic
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.explain.lb import targets
from kubectl_ebpfnet.explain.lb.judge import judge
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import Bundle, Record, bundle_of, node_place
from kubectl_ebpfnet.model.kube import Node, Service
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.probe import AttemptOutcome, How, ProbeReport, ProbeRequest, TargetKind
from kubectl_ebpfnet.model.protocol.questions import FlowFilter

Notify = Callable[[str], object]
Answerer = ExecTarget | NodePod | PendingNodePod | Record
_ASK_SECONDS = 90.0
_SPARE_SECONDS = 75.0  # for a node pod to start, its image included


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """The connection and the node pods of probes; a second probe uses the same node pods.

    Attributes:
        session: the connection.
        access: how nodes may be asked.
        node_pods: the node pods that send.
        other_nodes: who answers for nodes that do not send.
        warn: takes lines that the user must read.
        progress: takes a line about the current step.
    """

    session: Session
    access: NodeAccess
    node_pods: NodeAnswerers
    other_nodes: NodeAnswerers
    warn: Notify
    progress: Notify


@contextlib.contextmanager
def probe_context(
    session: Session,
    access: NodeAccess,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> Iterator[ProbeContext]:
    """Make the context of some probes; its node pods are removed at the end of the block.

    Args:
        session: the connection.
        access: how nodes may be asked.
        warn: takes lines that the user must read.
        progress: takes a line about the current step.
    """
    with (
        NodeAnswerers(session, replace(access, mode=Mode.POD), warn) as node_pods,
        NodeAnswerers(session, access, warn) as other_nodes,
    ):
        yield ProbeContext(session, access, node_pods, other_nodes, warn, progress)


@dataclass(slots=True)
class Probe:
    """One probe. Its methods run in the caller's thread.

    Attributes:
        context: the connection and the node pods.
        request: the Service, and how to probe it.
        pool: runs calls beside each other.
        records: all records so far.
        agents: by node, once `plan` has listed them.
        why_no_agents: why the agents could not be listed, "" when they were.
        senders: who answers for the nodes that send, by node.
        others: who answers for the other probed nodes, by node.
    """

    context: ProbeContext
    request: ProbeRequest
    pool: Pool = field(default_factory=Pool)
    records: list[Record] = field(default_factory=list)
    agents: Mapping[str, Agent] = field(default_factory=dict)
    why_no_agents: str = ""
    senders: Mapping[str, Answerer] = field(default_factory=dict)
    others: Mapping[str, Answerer] = field(default_factory=dict)

    def plan(self) -> tuple[ProbeReport, Bundle]:
        """Report the expectation for each node; send and deploy nothing.

        Raises:
            NotFound, EbpfnetError, UsageError: as explain.lb.judge.
            ClusterError: the API server cannot be reached, or does not let this user read.
        """
        api = RecordingApi(self.context.session)
        self.context.progress("asking the API server")
        for future in [self.pool.start(call) for call in _api_reads(api, self.request)]:
            future.result()
        try:
            self.agents = find_agents(api) if self.context.access.mode is not Mode.POD else {}
        except ClusterError as error:
            self.why_no_agents = error_sentence(error, Deadline(None))
        namespace = next((a.container.namespace for a in self.agents.values()), "kube-system")
        _ignore_failure(lambda: api.config_map(namespace, "cilium-config"))
        self.records += api.take()
        # This machine's resolver resolves load-balancers that have a name instead of an address.
        for name in self._service().ingress_hostnames:
            self.records.append(resolve_locally(name))
        bundle = bundle_of(self.records)
        return judge(self.request, bundle), bundle

    def run(self) -> tuple[ProbeReport, Bundle]:
        """Probe every node and report. Raises as `plan`."""
        planned, bundle = self.plan()
        nodes = {node.name: node for node in ClusterView(bundle).kube.nodes}
        probed = [name for name in dict.fromkeys(row.node for row in planned.rows) if name in nodes]
        self._choose_answerers(planned, nodes, probed)
        # Counters before and after: a counter that grew meanwhile may have counted the probe.
        self._ask_node_pods(probed, COUNTERS)
        attempts = self._make_attempts(planned, nodes)
        checks = self._check_health(planned, nodes)
        self._ask_probed_nodes(probed, attempts)
        bundle = bundle_of(self.records)
        health = [read_health_check(bundle, check) for check in checks]
        return judge(
            self.request,
            bundle,
            add_sources(bundle, [read_attempt(bundle, attempt) for attempt in attempts]),
            [check for check in health if check is not None],
        ), bundle

    def _choose_answerers(
        self, planned: ProbeReport, nodes: Mapping[str, Node], probed: Sequence[str]
    ) -> None:
        """Choose the nodes that send, and who answers for each probed node."""
        node_pods, other_nodes = self.context.node_pods, self.context.other_nodes
        kept_pods = node_pods.find_pods(RecordingApi(self.context.session))
        node_pods.set_available({}, "", kept_pods)
        other_nodes.set_available(self.agents, self.why_no_agents, kept_pods)
        service = (self.request.namespace, self.request.service)
        endpoints = ClusterView(bundle_of(self.records)).kube.endpoints
        serving = {e.node for e in endpoints if (e.namespace, e.service) == service}
        self.senders = node_pods.for_nodes(choose_senders(self.request, nodes, planned, serving))
        self.others = other_nodes.for_nodes([name for name in probed if name not in self.senders])

    # --- attempts ---------------------------------------------------------------------------------

    def _make_attempts(self, planned: ProbeReport, nodes: Mapping[str, Node]) -> list[SentAttempt]:
        """Make every attempt; go to the node port where the node is no next hop of the sender."""
        attempts = plan_attempts(self.request, nodes, planned, list(self.senders))
        records = self._send(attempts)
        unreached = [
            attempt
            for attempt in attempts
            if attempt.how is How.NEXT_HOP
            and attempt_outcome(records, attempt) is AttemptOutcome.UNREACHABLE
        ]
        retries = retry_by_node_port(self.request, nodes, unreached)
        if retries:
            names = ", ".join(sorted({retry.node for retry in retries}))
            self.context.warn(f"{names}: not on one L2 with the sender; the node port is tried")
            records += self._send(retries)
            replaced = {(retry.target, retry.node) for retry in retries}
            attempts = [a for a in attempts if (a.target, a.node) not in replaced]
        self.records += records
        return [*attempts, *retries]

    def _send(self, attempts: Iterable[SentAttempt]) -> list[Record]:
        """Make attempts, beside each other: one exec a sender."""
        sent = [attempt for attempt in attempts if attempt.from_node]
        by_sender: dict[str, dict[tuple[str, ...], NodeQuestion]] = {}
        for attempt in sent:
            question = NodeQuestion(node_place(attempt.from_node), attempt.argv)
            by_sender.setdefault(attempt.from_node, {})[attempt.argv] = question
        futures = [
            self._start_sender(sender, list(questions.values()))
            for sender, questions in by_sender.items()
        ]
        self.context.progress(f"{len(sent)} connections from {', '.join(by_sender)}")
        return [record for future in futures for record in future.result()]

    def _start_sender(self, node: str, questions: list[NodeQuestion]) -> Future[list[Record]]:
        answerer = self.senders[node]
        assert not isinstance(answerer, ExecTarget), "only node pods send"
        if isinstance(answerer, Record):
            refused = [replace(answerer, argv=question.argv) for question in questions]
            return self.pool.start(lambda: refused)
        context, deadline = self.context, Deadline(self.request.wait * 2 + _SPARE_SECONDS)
        return self.pool.start(
            lambda: ask_when_running(
                context.session, context.node_pods, answerer, questions, deadline
            )
        )

    def _check_health(self, planned: ProbeReport, nodes: Mapping[str, Node]) -> list[SentAttempt]:
        """Ask every node's health check, if the Service has a health check node port."""
        port = self._service().health_check_node_port
        if not port or not planned.targets:
            return []
        target = replace(
            planned.targets[0], kind=TargetKind.NODE_PORT, address=None, port=port, protocol=TCP
        )
        checks = []
        for name in dict.fromkeys(row.node for row in planned.rows):
            address = node_address(nodes[name], target.version)
            sender = sender_for(list(self.senders), nodes, name, target.version)
            if address is None or not sender:
                continue
            argv = probe_argv(address, port, wait=self.request.wait, http="/healthz")
            checks.append(
                SentAttempt(target, name, sender, How.NODE_PORT, address, port, argv=argv)
            )
        self.records += self._send(checks)
        return checks

    # --- causes -----------------------------------------------------------------------------------

    def _ask_probed_nodes(self, probed: Sequence[str], attempts: Sequence[SentAttempt]) -> None:
        """Ask every probed node for the facts that tell causes, and for the flows of the probes."""
        bundle = bundle_of(self.records)
        flows = [attempt_flow(bundle, attempt) for attempt in attempts]
        filters = tuple(dict.fromkeys(flow for flow in flows if flow is not None))
        futures: list[Future[list[Record]]] = []
        deadline = Deadline(_ASK_SECONDS)
        for name in probed:
            topic = causes_topic(_flows_through(name, attempts, flows) or filters[:1])
            answerer = self.senders.get(name) or self.others[name]
            if isinstance(answerer, Record):
                self.records.append(answerer)
            elif isinstance(answerer, ExecTarget):
                for lane in tasks.agent_lanes(topic):
                    call = partial(ask, self.context.session, answerer, lane, deadline)
                    futures.append(self.pool.start(call))
            else:
                futures.append(self._ask_pod(name, answerer, topic, deadline))
        for count, future in enumerate(futures):
            self.context.progress(f"looking at the nodes ({len(futures) - count} to go)")
            self.records += future.result()

    def _ask_node_pods(self, probed: Sequence[str], topic: Topic) -> None:
        """Ask the probed nodes that have a node pod."""
        deadline = Deadline(_ASK_SECONDS)
        futures = []
        for name in probed:
            answerer = self.senders.get(name) or self.others[name]
            if isinstance(answerer, NodePod | PendingNodePod):
                futures.append(self._ask_pod(name, answerer, topic, deadline))
        for future in futures:
            self.records += future.result()

    def _ask_pod(
        self, node: str, answerer: NodePod | PendingNodePod, topic: Topic, deadline: Deadline
    ) -> Future[list[Record]]:
        context = self.context
        answerers = context.node_pods if node in self.senders else context.other_nodes
        questions = tasks.node_pod_questions(topic.node_pod, topic, node_place(node))
        return self.pool.start(
            partial(ask_when_running, context.session, answerers, answerer, questions, deadline)
        )

    def _service(self) -> Service:
        return targets.service(ClusterView(bundle_of(self.records)), self.request)


def _flows_through(
    node: str, attempts: Sequence[SentAttempt], flows: Sequence[FlowFilter | None]
) -> tuple[FlowFilter, ...]:
    """Return the flows of the attempts through one node."""
    through = (flow for attempt, flow in zip(attempts, flows, strict=True) if attempt.node == node)
    return tuple(dict.fromkeys(flow for flow in through if flow is not None))


def _api_reads(api: RecordingApi, request: ProbeRequest) -> list[Callable[[], object]]:
    """Return the reads of the API server; only the read of the Service itself may raise."""
    namespace, service = request.namespace, request.service
    return [
        lambda: api.service(namespace, service),
        api.nodes,
        lambda: _ignore_failure(lambda: api.endpoint_slices(namespace, service)),
        lambda: _ignore_failure(lambda: api.pods(namespace)),
        lambda: _ignore_failure(lambda: api.cilium("ciliumnodes")),
    ]


def _ignore_failure(call: Callable[[], object]) -> None:
    try:
        call()
    except ClusterError:
        return  # the record has the reason
