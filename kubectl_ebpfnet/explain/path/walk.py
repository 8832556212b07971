"""The walk: the stage of the packet's place decides what happens to it there.

A stage adds hops and returns the next place. The walk ends where a stage returns None: the packet
is delivered or dropped, or a fact that decides is missing. A missing fact is a hop of its own with
state UNKNOWN, never a guess.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from kubectl_ebpfnet.explain.flows.notes import notes
from kubectl_ebpfnet.explain.path import (
    agent_behind,
    endpoints,
    findings,
    mtu,
    nameserver,
    node_objects,
    one_sided,
    other_backends,
    outside,
    owners,
    passed_over,
    reply,
    room,
    seen,
)
from kubectl_ebpfnet.explain.path.endings import Arrived, Dropped
from kubectl_ebpfnet.explain.path.sender import from_its_pod
from kubectl_ebpfnet.explain.path.stages import STAGES
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.path.verdict import Decision, settle
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.path import (
    Decides,
    Finding,
    HopKind,
    Outcome,
    Packet,
    Path,
    PathRequest,
    Severity,
    State,
    TrackingNote,
    Verdict,
)
from kubectl_ebpfnet.model.request import Further

LONGEST = 64
"""Stages that a walk may take; a packet that needs more is in a routing loop."""


class Explained(NamedTuple):
    """A path, and what its walk needs besides the records."""

    path: Path
    further: Further


def explain(request: PathRequest, bundle: Bundle) -> Path:
    """Return the path of `explained`."""
    return explained(request, bundle).path


def explained(request: PathRequest, bundle: Bundle) -> Explained:
    """Explain a packet's path through the cluster.

    Args:
        request: the packet's ends.
        bundle: all records.

    Returns:
        The path; facts that are missing are hops, or a verdict, of state UNKNOWN. Of a client
        outside, the paths by every node that it may enter by. And what nobody was asked, and the
        walk came to.

    Raises:
        NotFound: the bundle knows neither the source nor the destination object.
        UsageError: a client outside has an address of the cluster, or a Service lacks the port.
    """
    cluster = ClusterView(bundle)
    request = from_its_pod(cluster, request)
    if not request.from_outside:
        return _explained(cluster, request)
    further: list[Further] = []

    def by(entry: str) -> Path:
        found = _explained(cluster, request, entry)
        further.append(found.further)
        return found.path

    path = outside.explain(cluster, request, by)
    return Explained(path, _further(
        [node for each in further for node in each.nodes],
        [table for each in further for table in each.tables],
        [fact for each in further for fact in each.facts],
    ))  # fmt: skip


def _explained(cluster: ClusterView, request: PathRequest, entry: str = "") -> Explained:
    """Explain a packet's path; that of a client outside from the node where it enters."""
    ends = endpoints.resolve(cluster, request, entry)
    walk = PathBuilder(cluster, ends, size=request.size)
    walk.flows.extend(ends.flows)
    packet = Packet(ends.flow)
    if ends.problem:
        walk.unknown(ends.problem, ends.fix)
    elif ends.refused:
        _refuse(walk, packet)
    else:
        start = outside.start(walk, packet) if entry else _start(ends, packet)
        _there_and_back(walk, start)
        passed_over.name_cause(walk)
        agent_behind.name_cause(walk)
        other_backends.compare(walk, partial(_there_and_back, start=start))
        owners.report(walk)
        node_objects.report(walk)
    if ends.doubt and isinstance(walk.end, Arrived):
        walk.doubt(ends.doubt)
    _doubt_unasked(walk)
    outside.weigh_attempt(walk)
    seen.apply(walk)
    room.apply(walk)
    decision = settle(walk)
    answer = reply.way_back(walk)
    query = nameserver.query_to(request, ends)
    if query is not None:
        path_of_query, further_of_query = _explained(cluster, query)
        walk.unread += further_of_query.nodes
        walk.wanted += further_of_query.facts
        if nameserver.is_cause(ends, path_of_query):
            decision = nameserver.decided(decision, ends, path_of_query, cluster)
            walk.findings.extend(nameserver.findings_of(path_of_query))
        if decision.verdict is Verdict.DROPPED:
            walk.hops.extend(path_of_query.hops)
            answer = path_of_query.answer
    if isinstance(walk.end, Arrived):
        walk.findings.extend(mtu.findings(walk))
    path = Path(
        source=ends.source,
        destination=ends.destination,
        protocol=ends.flow.protocol,
        verdict=decision.verdict,
        reason=decision.reason,
        hops=tuple(walk.hops),
        findings=_all_findings(walk, decision),
        flows=tuple(walk.flows),
        tracking=_tracking(walk),
        cause=decision.cause,
        fix=decision.fix,
        contradictions=decision.contradictions,
        drop=decision.drop,
        attempt=walk.attempt,
        answer=answer,
        mtu=mtu.of_path(walk),
        presumed=tuple(walk.presumed),
        because=decision.because,
        seen=(*walk.seen, *_agreeing(walk, decision)),
    )
    tables = [(node, fact) for node, fact, _ in cluster.unasked]
    return Explained(path, _further(walk.unread, tables, walk.wanted))


def _doubt_unasked(walk: PathBuilder) -> None:
    """Say of which rows that were looked up nobody read whether they are there: what lets the
    packet pass, or drops it, may be another way with them."""
    for node, fact, address in walk.cluster.unasked:
        walk.doubt(f"{fact} of {node} was not asked for {address}", Decides.WAY)
        if isinstance(walk.end, Dropped):
            walk.end = replace(walk.end, after=(*walk.end.after, walk.undecided[-1]))


def _agreeing(walk: PathBuilder, decision: Decision) -> tuple[str, ...]:
    """Return that the newest attempt, without an answer, agrees with a drop."""
    attempt = walk.attempt
    if decision.verdict is not Verdict.DROPPED or attempt is None:
        return ()
    silent = attempt.outcome is Outcome.UNANSWERED and (attempt.age is None or attempt.now)
    return (attempt.short,) if silent and attempt.text not in decision.reason else ()


def _further(
    nodes: list[str], tables: list[tuple[str, str]], facts: list[tuple[str, Fact[Any]]]
) -> Further:
    return Further(
        tuple(dict.fromkeys(nodes)),
        tuple(dict.fromkeys(tables)),
        facts=tuple(dict.fromkeys(facts)),
    )


def _start(ends: endpoints.PathEnds, packet: Packet) -> PacketState:
    return PacketState(Stage.SOCKET, packet, ends.source.node, identity=ends.identity)


def _refuse(walk: PathBuilder, packet: Packet) -> None:
    """Drop a packet that the sender's kernel does not send."""
    why = walk.ends.refused
    where = walk.in_source_pod(HopKind.SOCKET)
    detail = "Send to the address of one host."
    walk.drop(*where, why, State.DERIVED, packet, (), title=why, detail=detail)


def _there_and_back(walk: PathBuilder, start: PacketState) -> None:
    """Walk the packet, and, where it arrives, its answer, and what follows that."""
    _run(walk, start)
    reply.walk_back(walk, _run)
    one_sided.follow(walk, start, _run)


def _run(walk: PathBuilder, start: PacketState) -> None:
    here = start
    for _ in range(LONGEST):
        walk.last = here
        step = STAGES[here.stage](walk, here)
        if step is None:
            return
        here = step
    reason = f"the packet passed {LONGEST} stages without arriving: a routing loop"
    walk.unknown(reason)
    walk.finding(Severity.ERROR, "routing loop", reason)


def _all_findings(walk: PathBuilder, decision: Decision) -> tuple[Finding, ...]:
    """Return what was found on the way, of its ends and across it, the gravest first, each once."""
    dropped = decision.verdict is Verdict.DROPPED
    whole = findings.WholePath(
        walk.cluster, walk.ends, walk.flows, decision.reason, dropped,
        let_through=decision.verdict.let_through,
    )  # fmt: skip
    across = findings.across(whole)
    found = sorted(
        (*walk.findings, *walk.ends.findings, *across),
        key=lambda finding: list(Severity).index(finding.severity),
    )
    return tuple({(f.severity, f.title, f.detail): f for f in found}.values())


def _tracking(walk: PathBuilder) -> tuple[TrackingNote, ...]:
    """Return what the tables of the nodes on the way tell besides the flows."""
    names = () if walk.ends.problem else walk.nodes
    return tuple(note for name in names for note in notes(walk.cluster.node(name), walk.flows))
