"""Records of a probe → attempts: what came of each, and what the backend saw.

An echo server at the backend tells the address that it saw (agnhost netexec's `/clientip`, and its
UDP server's word `clientip`). Where none does, the node that took the packet knows: its
nf_conntrack entry of exactly this flow holds the reply's tuple, whose destination is what the
backend sees and whose source is the backend; Cilium's NAT entry says the same of its own SNAT. Of
a packet that nobody answered it tells where the node sent it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.evidence import Bundle, Record, node_place
from kubectl_ebpfnet.model.net import TCP, UDP, Address, Flow
from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.probe import AttemptOutcome, HealthCheck, How, ProbeAttempt, ProbeTarget
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, ask
from kubectl_ebpfnet.model.untrusted import address, port
from kubectl_ebpfnet.parse import node_side

_STATUS = re.compile(r"HTTP/1\.[01] ([0-9]{3})\b")
_LOCAL = re.compile(r'"localEndpoints"\s*:\s*([0-9]{1,9})(?![0-9.])')
_BODY_KEPT = 300


@dataclass(frozen=True, slots=True)
class Sent:
    """An attempt that was made: what it is of, and the question that made it.

    Attributes:
        target: what is probed.
        node: through which node; from_node: the sender, "" when there is none.
        how: the way to the node.
        destination, port: what is sent to.
        via: address of the next hop, "" for the way there.
        number: which of several attempts at the same.
        note: what is done otherwise than asked, "" for nothing.
        argv: the question to the sender's node side; one may be of several next hops.
        line: of this attempt in the answer, from 1.
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
    argv: tuple[str, ...] = ()
    line: int = 1


def words(
    address: Address,
    port: int,
    *,
    via: str = "",
    wait: float = 5.0,
    http: str = "",
    protocol: int = TCP,
    number: int = 1,
) -> tuple[str, ...]:
    """The argv that makes one attempt (kubectl_ebpfnet/node/probe/attempts.py)."""
    said = [str(address), str(port), "wait", f"{wait:g}", "number", str(number)]
    said += ["via", via] if via else []
    said += ["udp", "yes"] if protocol == UDP else ["http", http] if http else []
    return ask("probe", *said)


def outcome(records: Iterable[Record], sent: Sent) -> AttemptOutcome:
    """What came of an attempt, by the records so far."""
    place = node_place(sent.from_node)
    for record in records:
        if record.place == place and record.argv == sent.argv:
            found = _probed(record, sent.line)
            return AttemptOutcome(found.outcome) if found is not None else AttemptOutcome.ERROR
    return AttemptOutcome.NOT_TRIED


def flow(bundle: Bundle, sent: Sent) -> FlowFilter | None:
    """The flow of an attempt, None when it did not come to a packet."""
    record = bundle.record(node_place(sent.from_node), sent.argv)
    found = _probed(record, sent.line) if record is not None else None
    if found is None or found.source is None:
        return None
    return FlowFilter(
        found.source, found.source_port, sent.destination, sent.port, sent.target.protocol
    )


def attempt(bundle: Bundle, sent: Sent) -> ProbeAttempt:
    """An attempt as its record tells of it."""
    told = ProbeAttempt(
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
        return replace(told, detail="there is no other node to send from")
    record = bundle.record(node_place(sent.from_node), sent.argv)
    if record is None:
        return replace(told, detail="it was not made")
    evidence = cite.lines(record, [sent.line]) if record.ok else cite.whole(record)
    found = _probed(record, sent.line)
    if found is None:
        return replace(
            told, outcome=AttemptOutcome.ERROR, detail=record.why_not() or "its answer is no fact",
            evidence=evidence,
        )  # fmt: skip
    by_udp = sent.target.protocol == UDP
    status, body = (None, found.answer) if by_udp else _http(found.answer)
    seen = _client(body) if by_udp or status == 200 else None
    return replace(
        told,
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


def health(bundle: Bundle, sent: Sent) -> HealthCheck | None:
    """A health check's answer, None when it could not be asked: that is not the node's doing."""
    record = bundle.record(node_place(sent.from_node), sent.argv)
    found = _probed(record, sent.line) if record is not None else None
    if record is None or found is None or not AttemptOutcome(found.outcome).tells:
        return None
    evidence = cite.lines(record, [sent.line])
    told = HealthCheck(sent.node, sent.from_node, sent.port, None, evidence=evidence)
    status, body = _http(found.answer)
    if status is None:
        return replace(told, error=found.detail or f"{found.outcome}, without an HTTP answer")
    count = _LOCAL.search(body)
    return replace(told, status=status, local_endpoints=int(count[1]) if count else None)


def with_sources(bundle: Bundle, attempts: Sequence[ProbeAttempt]) -> list[ProbeAttempt]:
    """The attempts, with what the probed node's tables say of those whose backend did not."""
    world = ClusterView(bundle)
    return [_with_source(world.node(one.node), one) for one in attempts]


def _with_source(node: NodeView, one: ProbeAttempt) -> ProbeAttempt:
    if one.source is None or one.destination is None or not one.outcome.tells:
        return one
    sent = Flow(
        one.target.protocol, one.source, one.source_port, one.destination, one.destination_port
    )
    answered = one.outcome is AttemptOutcome.CONNECTED
    for said in node.nf([str(one.source), one.source.exploded]):
        if said.fact.original != sent:
            continue
        seen = said.fact.translated()
        evidence = (*one.evidence, *cite.said(said.record, said.number, said.text))
        if not answered and not said.fact.destination_nat:
            return one  # tracked, and sent to nobody
        if one.source_seen is not None or not (answered or sent.protocol == UDP):
            return replace(one, backend=seen.destination, evidence=evidence)
        return replace(
            one, source_seen=seen.source, source_seen_port=seen.source_port,
            source_from="conntrack", backend=seen.destination, evidence=evidence,
        )  # fmt: skip
    if one.source_seen is not None or not (answered or sent.protocol == UDP):
        return one
    return _by_cilium(node, one, sent)


def _by_cilium(node: NodeView, one: ProbeAttempt, sent: Flow) -> ProbeAttempt:
    """By Cilium's tables: SVC and OUT entries name the backend, NAT its SNAT."""
    needle = [str(sent.source)]
    for said in node.ct(needle):
        behind = said.fact.flow
        same = (behind.source, behind.source_port) == (sent.source, sent.source_port)
        same = same and behind.protocol == sent.protocol
        if said.fact.direction != "OUT" or not same or not said.fact.rev_nat:
            continue
        seen, evidence = behind, cite.said(said.record, said.number, said.text)
        for nat in node.nat(needle):
            if nat.fact.direction == "OUT" and nat.fact.flow == behind:
                seen = nat.fact.translated()
                evidence += cite.said(nat.record, nat.number, nat.text)
        return replace(
            one, source_seen=seen.source, source_seen_port=seen.source_port,
            source_from="cilium-ct", backend=behind.destination,
            evidence=(*one.evidence, *evidence),
        )  # fmt: skip
    why = f"the backend did not tell, and no table of {node.name} has the flow"
    return replace(one, source_missing=why)


def _probed(record: Record, line: int) -> ConnectAttempt | None:
    if not record.ok:
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
    """Status and body of an HTTP answer; (None, the text) when it is none."""
    status = _STATUS.match(answer)
    if status is None:
        return None, answer
    return int(status[1]), answer.partition("\r\n\r\n")[2]


def _client(body: str) -> tuple[Address, int | None] | None:
    """The client that a body names: `10.0.0.1:4711`, `[fd00::1]:4711`, or an address alone."""
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
