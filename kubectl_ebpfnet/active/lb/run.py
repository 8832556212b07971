"""A live run of `probe-lb`: connections to a LoadBalancer through every node, made by netkats.

    1  the API server: the Service, its slices, nodes, pods; `judge` without attempts is the plan
    2  node pods on two nodes at most, which send; each node is probed from another one
    3  attempts side by side: frames for the Service's address, with the probed node as next hop
    4  the health checks; and of every probed node what tells causes: rules, tables, counters, and
       the entries of exactly the flows that were sent, which show what the backend saw

Nothing of the cluster is changed but for the namespace of the run, which is gone at its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

from kubectl_ebpfnet.active.lb import attempts as lb_reading
from kubectl_ebpfnet.active.lb import plan as lb_sends
from kubectl_ebpfnet.active.lb import topic as lb_topic
from kubectl_ebpfnet.active.lb.attempts import Sent
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
from kubectl_ebpfnet.explain.lb import judge as judging
from kubectl_ebpfnet.explain.lb import targets
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import Bundle, Record, bundle_of, node_place
from kubectl_ebpfnet.model.kube import Node, Service
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.probe import (
    AttemptOutcome,
    How,
    ProbeReport,
    ProbeRequest,
    TargetKind,
)
from kubectl_ebpfnet.model.protocol.questions import FlowFilter

Notify = Callable[[str], object]
Answerer = ExecTarget | NodePod | PendingNodePod | Record
_LOOK_SECONDS = 90.0
_SPARE_SECONDS = 75.0  # for a node pod to come, its image included


@dataclass(frozen=True, slots=True)
class Means:
    """What probes are made with; it outlives one of them, so that a second deploys nothing again.

    Attributes:
        session: the connection.
        access: how nodes may be asked.
        pods: node pods, which send.
        others: who answers for nodes that do not send.
        warn, progress: as for collect.runner.collect_path.
    """

    session: Session
    access: NodeAccess
    pods: NodeAnswerers
    others: NodeAnswerers
    warn: Notify
    progress: Notify


@contextlib.contextmanager
def means(
    session: Session,
    access: NodeAccess,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> Iterator[Means]:
    """Means for some probes; what they deploy is gone at the end of the block."""
    with (
        NodeAnswerers(session, replace(access, mode=Mode.POD), warn) as pods,
        NodeAnswerers(session, access, warn) as others,
    ):
        yield Means(session, access, pods, others, warn, progress)


@dataclass(slots=True)
class Probe:
    """One run. Its methods run in the caller's thread.

    Attributes:
        means: the connection, and who answers for nodes.
        request: what is probed.
    """

    means: Means
    request: ProbeRequest
    pool: Pool = field(default_factory=Pool)
    records: list[Record] = field(default_factory=list)
    agents: Mapping[str, Agent] = field(default_factory=dict)
    why_no_agents: str = ""

    def plan(self) -> tuple[ProbeReport, Bundle]:
        """What is expected of each node; nothing is sent and nothing deployed.

        Raises:
            NotFound, EbpfnetError, UsageError: as explain.probe.judge.
            ClusterError: the API server cannot be reached, or does not let this user read.
        """
        api = RecordingApi(self.means.session)
        self.means.progress("asking the API server")
        for waiting in [self.pool.start(call) for call in _reads(api, self.request)]:
            waiting.result()
        try:
            self.agents = find_agents(api) if self.means.access.mode is not Mode.POD else {}
        except ClusterError as error:
            self.why_no_agents = error_sentence(error, Deadline(None))
        where = next((a.container.namespace for a in self.agents.values()), "kube-system")
        _quietly(lambda: api.config_map(where, "cilium-config"))
        self.records += api.take()
        # Load-balancers that are given by name, by this machine's resolver.
        for name in self._service(bundle_of(self.records)).ingress_hostnames:
            self.records.append(resolve_locally(name))
        bundle = bundle_of(self.records)
        return judging.judge(self.request, bundle), bundle

    def run(self) -> tuple[ProbeReport, Bundle]:
        """Probe. Raises as `plan`."""
        planned, bundle = self.plan()
        nodes = {node.name: node for node in ClusterView(bundle).kube.nodes}
        probed = [name for name in dict.fromkeys(row.node for row in planned.rows) if name in nodes]
        pods, others = self.means.pods, self.means.others
        kept = pods.find_pods(RecordingApi(self.means.session))
        pods.set_available({}, "", kept)
        others.set_available(self.agents, self.why_no_agents, kept)
        service = (self.request.namespace, self.request.service)
        ends = ClusterView(bundle).kube.endpoints
        serving = {end.node for end in ends if (end.namespace, end.service) == service}
        senders = lb_sends.senders(self.request, nodes, planned, serving)
        chosen = pods.for_nodes(senders)
        rest = others.for_nodes([name for name in probed if name not in chosen])
        # Counters before and after: what grew meanwhile was lost to the probe.
        self._look_by_pods(probed, chosen, rest, lb_topic.COUNTERS)
        sent, records = self._send(planned, nodes, senders, chosen, pods)
        self.records += records
        checks, records = self._health(planned, nodes, senders, chosen, pods)
        self.records += records
        self._look(probed, sent, chosen, rest)
        whole = bundle_of(self.records)
        attempts = [lb_reading.attempt(whole, one) for one in sent]
        return judging.judge(
            self.request,
            whole,
            lb_reading.with_sources(whole, attempts),
            [found for one in checks if (found := lb_reading.health(whole, one)) is not None],
        ), whole

    # --- what is sent -----------------------------------------------------------------------------

    def _send(
        self,
        planned: ProbeReport,
        nodes: Mapping[str, Node],
        senders: Sequence[str],
        chosen: Mapping[str, Answerer],
        pods: NodeAnswerers,
    ) -> tuple[list[Sent], list[Record]]:
        """Every attempt; those whose next hop does not answer are made again to the node port."""
        first = lb_sends.attempts(self.request, nodes, planned, senders)
        records = self._ask(first, chosen, pods)
        unreached = [
            one
            for one in first
            if one.how is How.NEXT_HOP
            and lb_reading.outcome(records, one) is AttemptOutcome.UNREACHABLE
        ]
        again = lb_sends.by_node_port(self.request, nodes, unreached)
        if again:
            named = ", ".join(sorted({one.node for one in again}))
            self.means.warn(f"{named}: not on one L2 with the sender; the node port is tried")
            records += self._ask(again, chosen, pods)
            replaced = {(one.target, one.node) for one in again}
            first = [one for one in first if (one.target, one.node) not in replaced]
        return [*first, *again], records

    def _ask(
        self, sent: Iterable[Sent], chosen: Mapping[str, Answerer], pods: NodeAnswerers
    ) -> list[Record]:
        """Make attempts: many in one exec, which makes them side by side."""
        made = [one for one in sent if one.from_node]
        by_sender: dict[str, dict[tuple[str, ...], NodeQuestion]] = {}
        for one in made:
            asked = NodeQuestion(node_place(one.from_node), one.argv)
            by_sender.setdefault(one.from_node, {})[one.argv] = asked
        waiting = [
            self._start(sender, list(asked.values()), chosen, pods)
            for sender, asked in by_sender.items()
        ]
        self.means.progress(f"{len(made)} connections from {', '.join(by_sender)}")
        return [record for future in waiting for record in future.result()]

    def _start(
        self,
        node: str,
        asked: list[NodeQuestion],
        chosen: Mapping[str, Answerer],
        pods: NodeAnswerers,
    ) -> Future[list[Record]]:
        answerer = chosen[node]
        assert not isinstance(answerer, ExecTarget), "only node pods send"
        if isinstance(answerer, Record):
            refused = [replace(answerer, argv=one.argv) for one in asked]
            return self.pool.start(lambda: refused)
        deadline = Deadline(self.request.wait * 2 + _SPARE_SECONDS)
        return self.pool.start(
            lambda: ask_when_running(self.means.session, pods, answerer, asked, deadline)
        )

    def _health(
        self,
        planned: ProbeReport,
        nodes: Mapping[str, Node],
        senders: Sequence[str],
        chosen: Mapping[str, Answerer],
        pods: NodeAnswerers,
    ) -> tuple[list[Sent], list[Record]]:
        """Ask every node's health check, where the Service has one."""
        service = self._service(bundle_of(self.records))
        port = service.health_check_node_port
        if not port or not planned.targets:
            return [], []
        first = planned.targets[0]
        target = replace(first, kind=TargetKind.NODE_PORT, address=None, port=port, protocol=TCP)
        checks = []
        for name in dict.fromkeys(row.node for row in planned.rows):
            address = lb_sends.address(nodes[name], target.version)
            sender = lb_sends.sender(senders, nodes, name, target.version)
            if address is None or not sender:
                continue
            argv = lb_reading.words(address, port, wait=self.request.wait, http="/healthz")
            checks.append(Sent(target, name, sender, How.NODE_PORT, address, port, argv=argv))
        return checks, self._ask(checks, chosen, pods)

    # --- what is looked at ------------------------------------------------------------------------

    def _look(
        self,
        probed: Sequence[str],
        sent: Sequence[Sent],
        chosen: Mapping[str, Answerer],
        rest: Mapping[str, Answerer],
    ) -> None:
        """Ask every probed node for what tells causes, and for the flows that were sent."""
        so_far = bundle_of(self.records)
        flows = [lb_reading.flow(so_far, one) for one in sent]
        filters = tuple(dict.fromkeys(f for f in flows if f is not None))
        waiting: list[Future[list[Record]]] = []
        deadline = Deadline(_LOOK_SECONDS)
        for name in probed:
            topic = lb_topic.causes(_of_node(name, sent, flows) or filters[:1])
            answerer = chosen.get(name) or rest[name]
            if isinstance(answerer, Record):
                self.records.append(answerer)
            elif isinstance(answerer, ExecTarget):
                for lane in tasks.agent_lanes(topic):
                    call = partial(ask, self.means.session, answerer, lane, deadline)
                    waiting.append(self.pool.start(call))
            else:
                waiting.append(self._ask_pod(name, answerer, topic, chosen, deadline))
        for count, future in enumerate(waiting):
            self.means.progress(f"looking at the nodes ({len(waiting) - count} to go)")
            self.records += future.result()

    def _look_by_pods(
        self,
        probed: Sequence[str],
        chosen: Mapping[str, Answerer],
        rest: Mapping[str, Answerer],
        topic: Topic,
    ) -> None:
        """Ask those nodes that have a node pod."""
        answerers = {name: chosen.get(name) or rest[name] for name in probed}
        deadline = Deadline(_LOOK_SECONDS)
        waiting = []
        for name, answerer in answerers.items():
            if isinstance(answerer, NodePod | PendingNodePod):
                waiting.append(self._ask_pod(name, answerer, topic, chosen, deadline))
        for future in waiting:
            self.records += future.result()

    def _ask_pod(
        self,
        name: str,
        answerer: NodePod | PendingNodePod,
        topic: Topic,
        chosen: Mapping[str, Answerer],
        deadline: Deadline,
    ) -> Future[list[Record]]:
        whose = self.means.pods if name in chosen else self.means.others
        asked = tasks.node_pod_questions(topic.node_pod, topic, node_place(name))
        session = self.means.session
        return self.pool.start(partial(ask_when_running, session, whose, answerer, asked, deadline))

    def _service(self, bundle: Bundle) -> Service:
        return targets.service(ClusterView(bundle), self.request)


def _of_node(
    name: str, sent: Sequence[Sent], flows: Sequence[FlowFilter | None]
) -> tuple[FlowFilter, ...]:
    """The flows that were sent through one node."""
    mine = (flow for one, flow in zip(sent, flows, strict=True) if one.node == name)
    return tuple(dict.fromkeys(flow for flow in mine if flow is not None))


def _reads(api: RecordingApi, request: ProbeRequest) -> list[Callable[[], object]]:
    """What is read of the API server; only the Service itself has to be there."""
    namespace, service = request.namespace, request.service
    return [
        lambda: api.service(namespace, service),
        api.nodes,
        lambda: _quietly(lambda: api.endpoint_slices(namespace, service)),
        lambda: _quietly(lambda: api.pods(namespace)),
        lambda: _quietly(lambda: api.cilium("ciliumnodes")),
    ]


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except ClusterError:
        return  # its record says why
