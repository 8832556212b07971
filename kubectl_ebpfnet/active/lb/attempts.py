"""Records of a probe → attempts: the outcome of each, and the source that the backend saw.

An echo server at the backend returns the address that it saw (agnhost netexec's `/clientip`, and
its UDP server's word `clientip`). Without an echo server the tables of the probed node tell: the
nf_conntrack entry of the flow has the reply tuple, whose source is the backend and whose
destination is the source that the backend saw; Cilium's NAT entry has Cilium's own SNAT. For an
unanswered packet the entry tells the backend that the node chose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle, Record, Span, node_place
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.net import TCP, UDP, Address, Flow
from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.probe import AttemptOutcome, HealthCheck, How, ProbeAttempt, ProbeTarget
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from kubectl_ebpfnet.model.untrusted import address, port
from kubectl_ebpfnet.parse import node_side

_STATUS = re.compile(r"HTTP/1\.[01] ([0-9]{3})\b")
_LOCAL = re.compile(r'"localEndpoints"\s*:\s*([0-9]{1,9})(?![0-9.])')
_BODY_KEPT = 300


@dataclass(frozen=True, slots=True)
class SentAttempt:
    """An attempt, and the question to the node side that makes it.

    Attributes:
        target: the probed frontend.
        node: the probed node.
        from_node: the sender, "" when there is none.
        how: how the packet reaches the node.
        destination, port: where the packet goes.
        via: address of the next hop, "" for the sender's own route.
        number: from 1, of attempts at the same target and node.
        note: how the attempt differs from the request, "" for not at all.
        probe: the question to the sender's node side; attempts by several next hops share one.
        line: line of this attempt in the answer, from 1.
    """

    target: ProbeTarget
    node: str
    from_node: str
    how: How
    destination: Address
    port: int
    via: str = ""
    number: int = 1
    note: str = ""
    probe: Fact[ConnectAttempt] = q.PROBE
    line: int = 1


def probe_of(
    address: Address,
    port: int,
    *,
    via: str = "",
    wait: float = 5.0,
    http: str = "",
    protocol: int = TCP,
    number: int = 1,
    own: bool = False,
) -> Fact[ConnectAttempt]:
    """Return the question that makes one attempt (node/probe/attempts.py).

    Args:
        address, port: the destination.
        via: next hops, separated by commas; "" for the sender's route.
        wait: seconds to wait for an answer.
        http: path to GET, "" for none.
        protocol: TCP or UDP.
        number: makes attempts at the same destination different questions.
        own: by the sender's own stack, as any of its processes connects.
    """
    words = [str(address), str(port), "wait", f"{wait:g}", "number", str(number)]
    words += ["via", via] if via else []
    words += ["own", "yes"] if own else []
    words += ["udp", "yes"] if protocol == UDP else ["http", http] if http else []
    return q.PROBE.about(*words)


def attempt_outcome(records: Iterable[Record], sent: SentAttempt) -> AttemptOutcome:
    """Return the outcome of an attempt, from the records so far."""
    place, argv = node_place(sent.from_node), sent.probe.node_argv
    for record in records:
        if record.place == place and record.argv == argv:
            found = _connect_attempt(record, sent.line)
            return AttemptOutcome(found.outcome) if found is not None else AttemptOutcome.ERROR
    return AttemptOutcome.NOT_TRIED


def attempt_flow(bundle: Bundle, sent: SentAttempt) -> FlowFilter | None:
    """Return the flow of an attempt, None when no packet was sent."""
    record = bundle.record(node_place(sent.from_node), sent.probe.node_argv)
    found = _connect_attempt(record, sent.line)
    if found is None or found.source is None:
        return None
    return FlowFilter(
        found.source, found.source_port, sent.destination, sent.port, sent.target.protocol
    )


def read_attempt(bundle: Bundle, sent: SentAttempt) -> ProbeAttempt:
    """Return an attempt with the outcome that its record has."""
    attempt = ProbeAttempt(
        target=sent.target,
        node=sent.node,
        from_node=sent.from_node,
        how=sent.how,
        outcome=AttemptOutcome.NOT_TRIED,
        destination=sent.destination,
        destination_port=sent.port,
        note=sent.note,
    )
    if not sent.from_node:
        return replace(attempt, detail="there is no other node to send from")
    record = bundle.record(node_place(sent.from_node), sent.probe.node_argv)
    if record is None:
        return replace(attempt, detail="it was not made")
    evidence = cite.of(record, Span(sent.line)) if record.ok else cite.whole(record)
    found = _connect_attempt(record, sent.line)
    if found is None:
        detail = record.why_not() or "its answer is no fact"
        return replace(attempt, outcome=AttemptOutcome.ERROR, detail=detail, evidence=evidence)
    by_udp = sent.target.protocol == UDP
    status, body = (None, found.answer) if by_udp else _http(found.answer)
    seen = _client(body) if by_udp or status == 200 else None
    return replace(
        attempt,
        outcome=AttemptOutcome(found.outcome),
        detail=found.detail,
        seconds=found.seconds,
        source=found.source,
        source_port=found.source_port,
        source_seen=seen[0] if seen else None,
        source_seen_port=seen[1] if seen else None,
        source_from=("udp" if by_udp else "http") if seen else "",
        http_status=status,
        body=body[:_BODY_KEPT],
        evidence=evidence,
    )


def read_health_check(bundle: Bundle, sent: SentAttempt) -> HealthCheck | None:
    """Return a health check's answer, None when the question failed before it reached the node."""
    record = bundle.record(node_place(sent.from_node), sent.probe.node_argv)
    found = _connect_attempt(record, sent.line)
    if record is None or found is None or not AttemptOutcome(found.outcome).conclusive:
        return None
    evidence = cite.of(record, Span(sent.line))
    check = HealthCheck(sent.node, sent.from_node, sent.port, None, evidence=evidence)
    status, body = _http(found.answer)
    if status is None:
        error = found.detail or f"{found.outcome}, without an HTTP answer"
        refused = AttemptOutcome(found.outcome) is AttemptOutcome.REFUSED
        return replace(check, error=error, refused=refused)
    count = _LOCAL.search(body)
    return replace(check, status=status, local_endpoints=int(count[1]) if count else None)


def add_sources(bundle: Bundle, attempts: Sequence[ProbeAttempt]) -> list[ProbeAttempt]:
    """Return the attempts, with sources from the probed nodes' tables where no backend told."""
    cluster_view = ClusterView(bundle)
    return [_add_source(cluster_view.node(attempt.node), attempt) for attempt in attempts]


def _add_source(node: NodeView, attempt: ProbeAttempt) -> ProbeAttempt:
    if attempt.source is None or attempt.destination is None or not attempt.outcome.conclusive:
        return attempt
    sent = Flow(
        attempt.target.protocol,
        attempt.source,
        attempt.source_port,
        attempt.destination,
        attempt.destination_port,
    )
    answered = attempt.outcome is AttemptOutcome.CONNECTED
    needs_source = attempt.source_seen is None and (answered or sent.protocol == UDP)
    for entry in node.lines(q.CONNTRACK, [str(attempt.source), attempt.source.exploded]):
        if entry.fact.original != sent:
            continue
        if not answered and not entry.fact.destination_nat:
            return attempt  # tracked, but without a backend
        seen = entry.fact.translated()
        evidence = (*attempt.evidence, *entry.evidence)
        attempt = replace(attempt, backend=seen.destination, evidence=evidence)
        return _with_source(attempt, seen, "conntrack") if needs_source else attempt
    return _by_cilium(node, attempt, sent) if needs_source else attempt


def _with_source(attempt: ProbeAttempt, seen: Flow, table: str) -> ProbeAttempt:
    return replace(
        attempt, source_seen=seen.source, source_seen_port=seen.source_port, source_from=table
    )


def _by_cilium(node: NodeView, attempt: ProbeAttempt, sent: Flow) -> ProbeAttempt:
    """Add the source from Cilium's tables: CT entries have the backend, NAT entries the SNAT."""
    addresses, client = [str(sent.source)], (sent.protocol, sent.source, sent.source_port)
    for entry in node.lines(q.CT, addresses):
        flow = entry.fact.flow
        is_clients = (flow.protocol, flow.source, flow.source_port) == client
        if entry.fact.direction != "OUT" or not is_clients or not entry.fact.rev_nat:
            continue
        seen, evidence = flow, entry.evidence
        for nat in node.lines(q.NAT, addresses):
            if nat.fact.direction == "OUT" and nat.fact.flow == flow:
                seen = nat.fact.translated()
                evidence += nat.evidence
        evidence = (*attempt.evidence, *evidence)
        attempt = replace(attempt, backend=flow.destination, evidence=evidence)
        return _with_source(attempt, seen, "cilium-ct")
    why = f"the backend did not tell, and no table of {node.name} has the flow"
    return replace(attempt, source_missing=why)


def _connect_attempt(record: Record | None, line: int) -> ConnectAttempt | None:
    if record is None or not record.ok:
        return None
    try:
        found = node_side.facts(record.stdout.read(), record.argv)[line - 1]
    except (ParseError, IndexError):
        return None
    return (
        found
        if isinstance(found, ConnectAttempt) and found.outcome in list(AttemptOutcome)
        else None
    )


def _http(answer: str) -> tuple[int | None, str]:
    """Return status and body of an HTTP answer; (None, the text) for anything else."""
    status = _STATUS.match(answer)
    if status is None:
        return None, answer
    return int(status[1]), answer.partition("\r\n\r\n")[2]


def _client(body: str) -> tuple[Address, int | None] | None:
    """Return the client in a body: `10.0.0.1:4711`, `[fd00::1]:4711`, or an address alone."""
    text = body.strip().partition("\n")[0].strip().strip('"')
    for host, number in ((text, ""), text.rpartition(":")[::2]):
        try:
            seen = address(host.strip("[]").removeprefix("::ffff:"), "a client's address")
        except ParseError:
            continue
        try:
            return seen, port(number, "a client's port")
        except ParseError:
            return seen, None
    return None
