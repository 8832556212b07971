"""Contradictions between what a Service asks of a node and what a probe met there.

Each finding names its likely cause (causes.py) with the lines that prove it. Findings of nodes that
load-balancers leave out are of severity INFO.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_ebpfnet.explain.lb import causes as probe_causes
from kubectl_ebpfnet.explain.lb import causes_unexpected, verdict
from kubectl_ebpfnet.explain.lb.cause import Cause, Mismatch
from kubectl_ebpfnet.explain.lb.evidence import joined
from kubectl_ebpfnet.explain.lb.situation import NodeContext, usable
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.path import Evidence, Finding, Severity
from kubectl_ebpfnet.model.probe import (
    Answers,
    AttemptOutcome,
    How,
    NodeRow,
    ProbeAttempt,
    SourceFate,
    TargetKind,
)

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)
_MOST_CAUSES = 3
_LOWER_CASE = ("kube-proxy", "rp_filter")
"""Names that stay in lower case at the start of a sentence."""
WORDS = {
    AttemptOutcome.CONNECTED: "answered",
    AttemptOutcome.REFUSED: "refused",
    AttemptOutcome.TIMEOUT: "timeout",
    AttemptOutcome.UNREACHABLE: "unreachable",
    AttemptOutcome.ICMP: "ICMP error",
    AttemptOutcome.ERROR: "error",
    AttemptOutcome.NOT_TRIED: "not tried",
}
"""Outcomes as a reader calls them."""


def of(cluster: ClusterView, rows: Sequence[tuple[NodeRow, NodeContext]]) -> list[Finding]:
    """Return every contradiction, worst first.

    Args:
        cluster: the bundle's indexes.
        rows: each with the context of its expectation.
    """
    found: list[Finding] = []
    for row, context in rows:
        found += _answer(cluster, row, context)
        found += _source(cluster, row, context)
    found += _health([row for row, _ in rows])
    found += _network([row for row, context in rows if context.silence_counts])
    found += _ranges([row for row, _ in rows], rows[0][1] if rows else None)
    return sorted(dict.fromkeys(found), key=lambda finding: _ORDER.index(finding.severity))


def _answer(cluster: ClusterView, row: NodeRow, context: NodeContext) -> Iterator[Finding]:
    """Report a node that should answer and does not, or answers and should not."""
    mismatch = _mismatch(cluster, row, context)
    if not row.told or mismatch is None:
        return
    wanted = row.expected
    if wanted.answers is Answers.YES and row.connected < row.told:
        if row.silent and not context.silence_counts:
            return
        bad = next(a for a in row.attempts if a.outcome not in (AttemptOutcome.CONNECTED,))
        what = WORDS[bad.outcome] + (f": {bad.detail}" if bad.detail else "")
        if bad.outcome is AttemptOutcome.TIMEOUT and bad.detail:
            what = bad.detail  # "silence for 5 s"
        count = f"answers {row.connected} of {row.told} attempts"
        count = count if row.connected else "does not answer"
        yield _finding(
            row,
            f"{row.node} {count} at {row.target.title} ({what}) although {wanted.why}",
            probe_causes.of_silence(mismatch),
        )
    if wanted.answers is Answers.NO and verdict.serves(row):
        does = (
            "answers"
            if row.connected
            else f"sends on to {', '.join(map(str, row.sent_on))} what comes"
        )
        yield _finding(
            row,
            f"{row.node} {does} at {row.target.title} although {wanted.why}",
            causes_unexpected.of_answer(mismatch),
        )


def loss_is_shown(cluster: ClusterView, row: NodeRow, context: NodeContext) -> bool:
    """Tell whether a record proves that a row's packets were lost.

    Args:
        cluster: the bundle's indexes.
        row: one node and one target.
        context: of its expectation.
    """
    mismatch = _mismatch(cluster, row, context)
    if mismatch is None or row.expected.answers is not Answers.YES:
        return False
    return any(cause.sure and cause.evidence for cause in probe_causes.of_silence(mismatch))


def _finding(
    row: NodeRow, title: str, causes: Sequence[Cause], severity: Severity = Severity.ERROR
) -> Finding:
    shown = causes[:_MOST_CAUSES]
    detail = ". ".join(_sentence(cause.text) for cause in shown) + "."
    proof = joined(*(cause.evidence for cause in shown), *(a.evidence for a in row.attempts))
    if row.expected.excluded:
        return Finding(Severity.INFO, title, f"{detail} Load-balancers send nothing here.", proof)
    return Finding(severity, title, detail, proof)


def _sentence(text: str) -> str:
    return text if text.startswith(_LOWER_CASE) else text[:1].upper() + text[1:]


def _mismatch(cluster: ClusterView, row: NodeRow, context: NodeContext) -> Mismatch | None:
    """Return the row's packets and the backends that they may go to; None when none were sent."""
    sent = next((a for a in row.attempts if a.outcome.conclusive), None)
    if sent is None:
        return None
    flow = flow_of(context, sent)
    if flow is None:
        return None
    return Mismatch(cluster, context.service, row, flow, usable(context), context.balancer)


def flow_of(context: NodeContext, sent: ProbeAttempt) -> Flow | None:
    """Return the flow of an attempt's packets; members that the attempt lacks are the nodes'."""
    version = context.target.version
    sender = next((n for n in context.from_nodes if n.name == sent.from_node), None)
    source = sent.source or (sender.address(version) if sender is not None else None)
    destination = sent.destination or context.target.address or context.node.address(version)
    if source is None or destination is None:
        return None
    # A node port is another port than the target's where it stands in for its address.
    port = context.target.node_port if sent.how is How.NODE_PORT else context.target.port
    return Flow(
        context.target.protocol,
        source,
        sent.source_port,
        destination,
        sent.destination_port or port,
    )


def _source(cluster: ClusterView, row: NodeRow, context: NodeContext) -> Iterator[Finding]:
    """Report a client's address that does not reach the backend as expected."""
    wanted, seen = row.expected.source, row.source
    if SourceFate.UNKNOWN in (wanted, seen) or seen is wanted:
        return
    shown = ", ".join(map(str, row.source_seen))
    where = f"{row.node} at {row.target.title}"
    if wanted is SourceFate.PRESERVED:
        mismatch = _mismatch(cluster, row, context)
        causes = causes_unexpected.of_lost_source(mismatch) if mismatch is not None else []
        yield _finding(
            row,
            f"{where}: the client's address is lost, backends see {shown}, although "
            f"{row.expected.source_why}",
            causes,
        )
    elif seen is SourceFate.OTHER:
        yield _finding(
            row,
            f"{where}: backends see {shown}, neither the client's address nor the node's",
            [Cause("something between the node and the backend rewrites the source")],
            Severity.WARNING,
        )
    elif wanted is SourceFate.NODE:
        some = "" if seen is SourceFate.PRESERVED else " for some attempts and not for others"
        does = "did not" if seen is SourceFate.PRESERVED else "did not always"
        yield _finding(
            row,
            f"{where}: the client's address is preserved{some}, which was not to be expected",
            [Cause(f"{row.expected.source_why}, but this node {does}")],
            Severity.INFO,
        )


def _health(rows: Sequence[NodeRow]) -> Iterator[Finding]:
    """Report a health check that contradicts the endpoints, once a node."""
    checked_nodes: set[str] = set()
    for row in rows:
        health, wanted = row.health, row.expected.health_status
        if health is None or wanted is None or row.node in checked_nodes:
            continue
        checked_nodes.add(row.node)
        count = row.expected.health_count or 0
        proof: tuple[Evidence, ...] = joined(health.evidence, row.expected.evidence)
        ends = f"{count} ready local endpoint{'' if count == 1 else 's'}"
        name = f"{row.node}: the health check on port {health.port}"
        severity = Severity.INFO if row.expected.excluded else Severity.ERROR
        got = f"says {health.status}" if health.status is not None else "does not answer"
        if (503 if health.status is None else health.status) != wanted:
            yield Finding(
                severity, f"{name} {got}, with {ends} {wanted} is due", _health_detail(row), proof
            )
        elif health.status is None:
            yield Finding(
                Severity.INFO, f"{name} does not answer: {health.error}",
                "For load-balancers that is as good as the 503 that is due.", proof,
            )  # fmt: skip
        elif health.local_endpoints not in (None, count):
            yield Finding(
                Severity.INFO, f"{name} counts {health.local_endpoints}, there are {ends}",
                "The status is right all the same: the count is behind, or counts otherwise.",
                proof,
            )  # fmt: skip


def _health_detail(row: NodeRow) -> str:
    health = row.health
    if health is None or health.status is None:
        why = f" ({health.error})" if health is not None and health.error else ""
        if health is not None and health.refused:
            return (
                f"Nothing serves the port{why}: the service proxy does not run there, or listens "
                "on other addresses (--nodeport-addresses). Load-balancers take the node out "
                "although it has endpoints."
            )
        return (
            f"No answer came{why}: a rule or the host firewall loses what comes to the port, or "
            "the service proxy hangs. Load-balancers that get none either take the node out "
            "although it has endpoints."
        )
    if health.status == 200:
        return (
            "Load-balancers send clients to a node that has nobody to answer: the service proxy "
            "is behind the EndpointSlices, or another program answers on the port."
        )
    return (
        f"It counts {health.local_endpoints if health.local_endpoints is not None else 'no'} "
        "local endpoints: the service proxy is behind the EndpointSlices, or calls itself "
        "unhealthy. Load-balancers take the node out although it has endpoints."
    )


def _network(rows: Sequence[NodeRow]) -> Iterator[Finding]:
    """Report where no node answers that should: the network between the nodes may be the cause."""
    for version in dict.fromkeys(row.target.version for row in rows):
        yield from _network_of([row for row in rows if row.target.version == version])


def _network_of(rows: Sequence[NodeRow]) -> Iterator[Finding]:
    """Apply `_network` to one IP version: each has its own routes between the nodes."""
    due = [
        row
        for row in rows
        if row.expected.answers is Answers.YES
        and row.told
        and row.how is How.NEXT_HOP
        and not row.expected.excluded
    ]
    if len(due) < 2 or any(
        row.connected or row.outcome is not AttemptOutcome.TIMEOUT for row in due
    ):
        return
    ports = [r for r in rows if r.how is How.NODE_PORT and r.connected]
    also = "; the node ports do answer" if ports else ""
    over = f" over IPv{due[0].target.version}" if due[0].target.version == 6 else ""
    yield Finding(
        Severity.WARNING,
        f"none of the {len({row.node for row in due})} nodes that should answer does{over}{also}",
        "The network between the nodes may drop frames for an address that is no node's, as "
        "clouds do (source/destination checks, anti-spoofing). --node-port takes the way by the "
        "nodes' own addresses.",
        joined(*(a.evidence for row in due[:2] for a in row.attempts[:1])),
    )


def _ranges(rows: Sequence[NodeRow], context: NodeContext | None) -> Iterator[Finding]:
    """Report that loadBalancerSourceRanges leave the probe out: clients' traffic was not probed."""
    shut = [
        row
        for row in rows
        if row.expected.why.startswith("loadBalancerSourceRanges")
        and row.target.kind is TargetKind.INGRESS
    ]
    if shut and context is not None:
        yield Finding(
            Severity.INFO,
            "loadBalancerSourceRanges leaves the probe's address out",
            "What was seen is what a client meets that is not let in. --node-port probes past "
            "the ranges, which hold for the load-balancer's addresses alone.",
            shut[0].expected.evidence[:1],
        )
