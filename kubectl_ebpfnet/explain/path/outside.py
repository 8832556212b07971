"""The packet of a client outside: a path by each node that it may enter by, and one verdict of all.

What customers get is what each of these nodes does: which of them takes a packet in, a network
decides that no record shows. So only what holds for every node is the verdict of all; where they
differ, the verdict is unknown and says which node does what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from kubectl_ebpfnet.errors import tier_of_words
from kubectl_ebpfnet.explain.path import node_state
from kubectl_ebpfnet.explain.path.announced import unread
from kubectl_ebpfnet.explain.path.destinations import far_address
from kubectl_ebpfnet.explain.path.entrance import WaysIn, ways_in
from kubectl_ebpfnet.explain.path.sender import as_target, sender_of
from kubectl_ebpfnet.explain.path.stages import reply_nat
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import (
    Attempt,
    Entrance,
    Entry,
    Finding,
    Fix,
    HopKind,
    HopPlace,
    Outcome,
    Packet,
    Path,
    PathRequest,
    Severity,
    State,
    Target,
    Verdict,
)

T = TypeVar("T")
_NAMED = 3
"""Nodes that a sentence names."""
_WORST_FIRST = (
    Verdict.DROPPED, Verdict.UNKNOWN, Verdict.DELIVERED, Verdict.REACHABLE, Verdict.LEAVES,
)  # fmt: skip


def explain(cluster: ClusterView, request: PathRequest, by: Callable[[str], Path]) -> Path:
    """Explain the paths of a client's packet, and what they come to.

    Args:
        cluster: the bundle's indexes.
        request: the packet's ends.
        by: explains the path by a node.

    Raises:
        NotFound: the bundle does not know the node of --via, or the destination object.
        UsageError: the client has an address of the cluster, or the Service lacks the port.
    """
    sender_of(cluster, request)  # refuses what is no client outside
    ways = ways_in(cluster, request)
    if not ways.nodes:
        return _by_nobody(cluster, request, ways)
    entries = tuple(Entry(node, by(node)) for node in ways.nodes)
    return _together(entries, ways)


def start(walk: PathBuilder, packet: Packet) -> PacketState:
    """Add the hop outside; return the packet at the node where it enters.

    Args:
        walk: of this entry.
        packet: as the client sends it.
    """
    client, entry = packet.flow.source, walk.ends.entry
    node_state.warn(walk, entry)
    walk.hop(
        HopPlace.WORLD, str(client), "", HopKind.LINK,
        f"client {client}, outside of the cluster, sends it; it enters by {entry}",
        State.DERIVED, packet, short=f"the client sends it, and it enters by {entry}",
    )  # fmt: skip
    if walk.cluster.pod_with(packet.flow.destination) is not None:
        target = packet.flow.destination
        walk.presumed.add(f"that the network outside leads {target}, a pod's address, to {entry}")
    _presume_announced(walk, packet)
    return PacketState(Stage.ARRIVAL, packet, entry)


def _presume_announced(walk: PathBuilder, packet: Packet) -> None:
    """Note what leads a Service's address to the node, where no record shows it."""
    target, service = packet.flow.destination, walk.ends.service
    owner = service.owner if service is not None else None
    if walk.ends.via or owner is None or target not in owner.outside_addresses:
        return
    how = "" if walk.cluster.node_of(target) else unread(walk.cluster, owner)
    if how:
        title = f"svc {owner.namespace}/{owner.name}"
        walk.presumed.add(f"that clients outside are led to {target} of {title} ({how})")


def weigh_attempt(walk: PathBuilder) -> None:
    """Weigh an attempt whose answer passes by the node that the client enters by (DSR): that node
    has the entry of load-balancing alone, where an ACK shows that the client was answered, and
    nothing shows what came back over UDP (bpf/lib/nodeport.h, nodeport_lb4: replies from DSR are
    never seen there again).
    """
    attempt = walk.attempt
    if not walk.from_outside or attempt is None or not reply_nat.answers_by_itself(walk):
        return
    flow = attempt.flow
    alone = flow.cilium_ct is None and flow.service_ct is not None and flow.netfilter is None
    if not alone or attempt.outcome not in (Outcome.UNANSWERED, Outcome.UNKNOWN):
        return
    by = f"with DSR its answer passes {flow.node} by"
    tcp = flow.flow.protocol == TCP
    outcome = attempt.outcome if tcp else Outcome.UNKNOWN
    what = "its client sent no ACK after the SYN" if tcp else "what came back is not tracked"
    # The entry to the backend that is not there proves no loss.
    shown = replace(flow, service_ct=None)
    when = f", {attempt.age:.0f} s before the table was read" if attempt.age is not None else ""
    text = f"{flow.flow} was load-balanced by {flow.node}{when}, and {what}; {by}"
    walk.ends = replace(walk.ends, attempt=Attempt(shown, outcome, attempt.age, text))


def _by_nobody(cluster: ClusterView, request: PathRequest, ways: WaysIn) -> Path:
    """Return the answer where no node is known that the packet enters by."""
    sender = sender_of(cluster, request)
    far = far_address(cluster, request, sender)
    target = Target(
        request.destination, request.destination_kind, request.destination_namespace,
        request.destination_name, far.address, far.port,
    )  # fmt: skip
    problem = ways.problem or far.note or "no node is known by which it enters the cluster"
    return Path(
        source=as_target(sender, request, request.source_address),
        destination=target,
        protocol=request.protocol,
        verdict=Verdict.UNKNOWN,
        reason=problem,
        hops=(),
        findings=(),
        cause=problem,
        fix=ways.fix or far.fix,
    )


def _together(entries: Sequence[Entry], ways: WaysIn) -> Path:
    """Return the verdict of all entries, with the hops of the one that decides it."""
    first = _deciding(entries)
    verdict, reason = _verdict(entries, ways)
    path = first.path
    cause, fix = path.cause, path.fix
    doubted = ways.doubt and verdict.let_through and verdict is not Verdict.DELIVERED
    if doubted:  # an answer of now shows that it is announced
        reason = f"unknown: {ways.doubt}; by {first.node}: {_bare(path)}"
        verdict, cause, fix = Verdict.UNKNOWN, ways.doubt, ways.fix
    if verdict is Verdict.UNKNOWN and fix is None and ways.left_out:
        fix = Fix("Ask for each node by itself: --via node/NAME.")
    dropping = any(entry.path.verdict is Verdict.DROPPED for entry in entries)
    if verdict is Verdict.UNKNOWN and dropping and ways.unchecked:  # those may not be entered
        cause = f"which nodes the health checks close was not read ({ways.unchecked})"
        tier = tier_of_words(ways.unchecked)
        fix = Fix(f"Grant the permission that is missing: {ways.unchecked} ({tier}).")
    return replace(
        path,
        verdict=verdict,
        reason=reason,
        because=(ways.doubt,) if doubted else _because(entries, ways, verdict),
        cause=cause if verdict is not Verdict.UNKNOWN or cause else reason,
        fix=fix,
        drop=path.drop if verdict is Verdict.DROPPED else None,
        findings=_findings(entries, verdict, ways),
        flows=_once(flow for entry in entries for flow in entry.path.flows),
        tracking=_once(note for entry in entries for note in entry.path.tracking),
        outside=Entrance(
            ways.why, first.node, tuple(entries), ways.closed, ways.left_out, ways.more_closed
        ),
    )


def _deciding(entries: Sequence[Entry]) -> Entry:
    """Return the entry whose hops are shown: the worst, or of those that let it through the one
    that was seen."""
    return min(entries, key=lambda entry: _WORST_FIRST.index(entry.path.verdict))


def _verdict(entries: Sequence[Entry], ways: WaysIn) -> tuple[Verdict, str]:
    """Return what customers get, and why."""
    first = _deciding(entries)
    path, verdicts = first.path, {entry.path.verdict for entry in entries}
    if len(entries) == 1 and not ways.left_out:
        return path.verdict, path.reason
    more = f"; {ways.left_out} more nodes were not asked" if ways.left_out else ""
    others = [entry for entry in entries if entry is not first]
    asked = " that were asked" if ways.left_out else ""
    if all(verdict.let_through for verdict in verdicts):
        if ways.left_out:
            each = f"nothing stops it by any of the {len(entries)} nodes{asked}"
            return Verdict.UNKNOWN, f"unknown: {each}; by {first.node}: {_bare(path)}{more}"
        also = f"; by {_nodes(others)} nothing stops it either" if others else ""
        return path.verdict, f"by {first.node}: {_bare(path)}{also}"
    if verdicts == {Verdict.DROPPED}:
        reason = f"by each of the {len(entries)} nodes{asked}; by {first.node} {path.reason}{more}"
        if not ways.left_out:
            return Verdict.DROPPED, f"dropped {reason}"
        return Verdict.UNKNOWN, f"unknown: dropped {reason}"
    if verdicts == {Verdict.UNKNOWN}:
        each = f"by each of the {len(entries)} nodes; " if others else ""
        return Verdict.UNKNOWN, f"unknown {each}by {first.node}: {_bare(path)}{more}"
    return Verdict.UNKNOWN, f"it depends on the node that it enters by: {_of_each(entries)}{more}"


def _because(entries: Sequence[Entry], ways: WaysIn, verdict: Verdict) -> tuple[str, ...]:
    """Return the reason for a screen, where each node's own stands below."""
    first = _deciding(entries)
    alike = len({entry.path.verdict for entry in entries}) == 1 or verdict.let_through
    more = (f"{ways.left_out} more nodes were not asked",) if ways.left_out else ()
    if len(entries) == 1:
        return (*first.path.because, *more)
    if not alike:
        return ("it depends on the node that it enters by", *more)
    of = (
        f"by each of the {len(entries)} nodes{' that were asked' if more else ''}; by {first.node}:"
    )
    return (of, *first.path.because, *more)


def _bare(path: Path) -> str:
    """Return the reason without the word of its verdict."""
    return path.reason.removeprefix(path.verdict.value).lstrip(":, ")


def _of_each(entries: Sequence[Entry]) -> str:
    """Return what each verdict is of which nodes, the worst first, with the reason of one."""
    words = []
    for verdict in _WORST_FIRST:
        same = [entry for entry in entries if entry.path.verdict is verdict]
        if not same:
            continue
        path = same[0].path
        why = path.drop.by if path.drop is not None else path.cause
        why = f" ({why})" if why and not verdict.let_through else ""
        words.append(f"{verdict.value} by {_nodes(same)}{why}")
    return ", ".join(words)


def _nodes(entries: Sequence[Entry]) -> str:
    return few(entries, _NAMED, lambda entry: entry.node)


def _findings(entries: Sequence[Entry], verdict: Verdict, ways: WaysIn) -> tuple[Finding, ...]:
    """Return the findings of every entry, the gravest first, each once; and that they differ."""
    found = [finding for entry in entries for finding in entry.path.findings]
    drops = [entry for entry in entries if entry.path.verdict is Verdict.DROPPED]
    if verdict is Verdict.UNKNOWN and drops and any(e.path.verdict.let_through for e in entries):
        title = f"{_nodes(drops)} drops what others let through"
        detail = "Clients fail or not as the network leads them."
        proof = tuple(e for d in drops for hop in d.path.hops[-1:] for e in hop.evidence)
        severity = Severity.ERROR
        if ways.unchecked:
            severity = Severity.INFO
            detail = (
                "As it should be where load-balancers leave out whom they find without a local "
                f"endpoint (externalTrafficPolicy Local): which they are was not read "
                f"({ways.unchecked})."
            )
        found.insert(0, Finding(severity, title, detail, proof))
    found.sort(key=lambda finding: list(Severity).index(finding.severity))
    return tuple({(f.severity, f.title, f.detail): f for f in reversed(found)}.values())[::-1]


def _once(found: Iterable[T]) -> tuple[T, ...]:
    """Return things without those that are equal to an earlier one."""
    return tuple(dict.fromkeys(found))
