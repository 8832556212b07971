"""A live run of `probe-lb`: netkat connects to a LoadBalancer through every node.

    1  the API server: the Service, its slices, nodes, pods; `judge` without attempts is the plan
    2  node pods on two nodes at most, which send; each node is probed from another node
    3  attempts side by side: frames for the Service's address, with the probed node as next hop
    4  the health checks; and every probed node's rules, tables and counters, which tell causes,
       with the entries of the probes' own flows, which show the source that the backend saw

The cluster is not changed, except for the namespace of the run, which is removed at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace

from kubectl_ebpfnet.active.lb.attempts import (
    SentAttempt,
    add_sources,
    attempt_flow,
    attempt_outcome,
    probe_of,
    read_attempt,
    read_health_check,
)
from kubectl_ebpfnet.active.lb.plan import (
    choose_senders,
    node_address,
    plan_attempts,
    plan_internal,
    retry_by_node_port,
    sender_for,
)
from kubectl_ebpfnet.cluster.resolve import find_service, selector_text
from kubectl_ebpfnet.collect.ask.access import Mode
from kubectl_ebpfnet.collect.ask.answerer import Answerer
from kubectl_ebpfnet.collect.ask.api import RecordsAlone
from kubectl_ebpfnet.collect.ask.node_pod import NodePodExec
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.resolver import LocalResolver, resolve_question
from kubectl_ebpfnet.collect.ask.unasked import EXEC
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.scope import Scope
from kubectl_ebpfnet.collect.survey import ask_node
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.explain.lb import targets
from kubectl_ebpfnet.explain.lb.judge import judge
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.catalogue import COUNTERS
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle, Record, bundle_of, node_place
from kubectl_ebpfnet.model.fact import Need
from kubectl_ebpfnet.model.kube import Node, Service
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.probe import AttemptOutcome, How, ProbeReport, ProbeRequest, TargetKind
from kubectl_ebpfnet.model.protocol.questions import FlowFilter

_START_SECONDS = 90.0  # for node pods to start, their images included, and to answer once
_ASK_SECONDS = 30.0  # of what runs
_SEND_SECONDS = 15.0  # beyond what an attempt may wait


@dataclass(slots=True)
class Probe:
    """One probe. Its methods run in the caller's thread.

    Attributes:
        gatherer: asks the cluster; a second probe with it uses the same node pods.
        request: the Service, and how to probe it.
        records: all records so far.
        senders: who answers for the nodes that send, by node.
        others: who answers for the other probed nodes, by node.
        started: until when the node pods may start.
    """

    gatherer: Gatherer
    request: ProbeRequest
    records: list[Record] = field(default_factory=list)
    senders: Mapping[str, Answerer | Record] = field(default_factory=dict)
    others: Mapping[str, Answerer | Record] = field(default_factory=dict)
    started: Deadline = field(default_factory=lambda: Deadline(0.0))

    def plan(self) -> tuple[ProbeReport, Bundle]:
        """Report the expectation for each node; send and deploy nothing.

        Raises:
            NotFound, EbpfnetError, UsageError: as explain.lb.judge.
            ClusterError: the API server cannot be reached, or does not let this user read.
        """
        gatherer, request, api = self.gatherer, self.request, self.gatherer.api
        gatherer.restart(None)
        gatherer.look_for_answerers(Mode.POD)
        service = gatherer.start(lambda: find_service(api, request.service, request.namespace))
        nodes = gatherer.start(api.nodes)
        gatherer.read([
            lambda: api.endpoint_slices(request.namespace, request.service),
            lambda: api.cilium("ciliumnodes"),
        ])  # fmt: skip
        # Pods of its endpoints alone: those of a namespace may be 30,000. Without a selector, who
        # wrote the slices knows which pods those are.
        wanted = selector_text({"matchLabels": dict(gatherer.needed(service).selector)})
        gatherer.read([lambda: RecordsAlone(api).pods(request.namespace, label_selector=wanted)])
        gatherer.needed(nodes)
        gatherer.find_answerers()
        self.records += gatherer.records()
        # This machine's resolver resolves load-balancers that have a name instead of an address.
        names = self._service().ingress_hostnames
        for name in names:
            gatherer.ask(LocalResolver(), [resolve_question(name)])
        self.records += gatherer.records()
        bundle = bundle_of(self.records)
        return judge(self.request, bundle), bundle

    def run(self) -> tuple[ProbeReport, Bundle]:
        """Probe every node and report. Raises as `plan`, and ClusterError if no node can send."""
        planned, bundle = self.plan()
        nodes = {node.name: node for node in ClusterView(bundle).kube.nodes}
        probed = [name for name in dict.fromkeys(row.node for row in planned.rows) if name in nodes]
        self._choose_answerers(planned, nodes, probed)
        self._ask_counters(probed)
        internal = plan_internal(self.request, nodes, planned, list(self.senders))
        attempts = self._make_attempts(planned, nodes, internal)
        checks = self._check_health(planned, nodes)
        self._ask_probed_nodes(probed, attempts)
        bundle = bundle_of(self.records)
        health = [read_health_check(bundle, check) for check in checks]
        return judge(
            self.request,
            bundle,
            add_sources(bundle, [read_attempt(bundle, attempt) for attempt in attempts]),
            [check for check in health if check is not None],
            [read_attempt(bundle, attempt) for attempt in internal],
        ), bundle

    def _choose_answerers(
        self, planned: ProbeReport, nodes: Mapping[str, Node], probed: Sequence[str]
    ) -> None:
        """Choose the nodes that send, and who answers for each probed node."""
        service = (self.request.namespace, self.request.service)
        endpoints = ClusterView(bundle_of(self.records)).kube.endpoints
        serving = {e.node for e in endpoints if (e.namespace, e.service) == service}
        senders = choose_senders(self.request, nodes, planned, serving)
        choose, deadline = self.gatherer.answerers.for_nodes, self.gatherer.deadline
        self.senders = choose(senders, deadline, Mode.POD)
        self.others = choose([name for name in probed if name not in senders], deadline)

    # --- attempts ---------------------------------------------------------------------------------

    def _make_attempts(
        self,
        planned: ProbeReport,
        nodes: Mapping[str, Node],
        internal: Sequence[SentAttempt],
    ) -> list[SentAttempt]:
        """Make every attempt; go to the node port where the node is no next hop of the sender.

        Args:
            planned: has the nodes and targets to probe.
            nodes: all nodes, by name.
            internal: attempts of clients on nodes, made beside the others.

        Raises:
            ClusterError: no node could send.
        """
        attempts = plan_attempts(self.request, nodes, planned, list(self.senders))
        records = self._send([*attempts, *internal])
        if records and not any(record.ran for record in records):
            why = "; ".join(dict.fromkeys(record.why_not() for record in records))
            raise ClusterError(
                f"no probe was sent: {why}",
                hint="--dry-run=client shows the expected results without node pods",
            )
        unreached = [
            attempt
            for attempt in attempts
            if attempt.how is How.NEXT_HOP
            and attempt_outcome(records, attempt) is AttemptOutcome.UNREACHABLE
        ]
        retries = retry_by_node_port(self.request, nodes, unreached)
        if retries:
            names = ", ".join(sorted({retry.node for retry in retries}))
            self.gatherer.warn(f"{names}: not on one L2 with the sender; the node port is tried")
            records += self._send(retries)
            replaced = {(retry.target, retry.node) for retry in retries}
            attempts = [a for a in attempts if (a.target, a.node) not in replaced]
        self.records += records
        return [*attempts, *retries]

    def _send(self, attempts: Iterable[SentAttempt]) -> list[Record]:
        """Make attempts, beside each other: one exec a sender."""
        sent = [attempt for attempt in attempts if attempt.from_node]
        by_sender: dict[str, dict[tuple[str, ...], Question]] = {}
        for attempt in sent:
            question = Question(attempt.probe, node_place(attempt.from_node))
            by_sender.setdefault(attempt.from_node, {})[attempt.probe.node_argv] = question
        self.gatherer.restart(self._seconds(self.request.wait * 2 + _SEND_SECONDS), "")
        for sender, questions in by_sender.items():
            self.gatherer.ask(self.senders[sender], list(questions.values()))
        self.gatherer.progress(f"{len(sent)} connections from {', '.join(by_sender)}")
        return [
            refusal
            for record in self.gatherer.records()
            for refusal in _refusals(record, by_sender)
        ]

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
            probe = probe_of(address, port, wait=self.request.wait, http="/healthz")
            checks.append(
                SentAttempt(target, name, sender, How.NODE_PORT, address, port, probe=probe)
            )
        self.records += self._send(checks)
        return checks

    # --- causes -----------------------------------------------------------------------------------

    def _ask_probed_nodes(self, probed: Sequence[str], attempts: Sequence[SentAttempt]) -> None:
        """Ask every probed node for the facts that tell causes, and for the flows of the probes."""
        bundle = bundle_of(self.records)
        through: dict[str, list[FlowFilter]] = {}
        for attempt in attempts:
            flow = attempt_flow(bundle, attempt)
            if flow is not None:
                through.setdefault(attempt.node, []).append(flow)
        any_flow = [flow for flows in through.values() for flow in flows][:1]
        self.gatherer.restart(self._seconds(_ASK_SECONDS), "")
        for name in probed:
            scope = Scope(Need.LB, tuple(dict.fromkeys(through.get(name, any_flow))))
            ask_node(self.gatherer, scope, self._answerer(name))
        self.records += self.gatherer.records()

    def _ask_counters(self, probed: Sequence[str]) -> None:
        """Ask the node pods of probed nodes for counters, which are asked again after the attempts:
        a counter that grew meanwhile may have counted the probe."""
        self.started = Deadline(_START_SECONDS)
        self.gatherer.restart(_START_SECONDS, "")
        for name in probed:
            answerer = self._answerer(name)
            if isinstance(answerer, NodePodExec):
                self.gatherer.ask(answerer, [Question(COUNTERS, answerer.place)])
        self.records += self.gatherer.records()

    def _seconds(self, needed: float) -> float:
        """Return the seconds of a step: what it needs, or what node pods may still take to start,
        so that a network that falls silent is not waited for at each step anew."""
        return max(needed, round(self.started.left or 0.0))

    def _answerer(self, node: str) -> Answerer | Record:
        return self.senders.get(node) or self.others[node]

    def _service(self) -> Service:
        return targets.service(ClusterView(bundle_of(self.records)), self.request)


def _refusals(
    record: Record, asked: Mapping[str, Mapping[tuple[str, ...], Question]]
) -> list[Record]:
    """Return a sender's refusal as a record of each of its attempts, any other record alone."""
    if record.argv != EXEC:
        return [record]
    return [replace(record, argv=argv) for argv in asked.get(record.place.node, ())]
