"""The verdict: what the tables decide, weighed against the newest attempt that they show.

The table is docs/json.md's, "How the verdict is decided". An answer proves what happens now only
if it is recent, and a drop that follows whole from the tables stands even then: the tables were
read later than the answer came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kubectl_ebpfnet.explain.flows.between import lost_between, nat_entry_of
from kubectl_ebpfnet.explain.path import host_ports
from kubectl_ebpfnet.explain.path.endings import Arrived, Destination, Dropped, Stopped, Undecided
from kubectl_ebpfnet.explain.path.remedy import how_to_get, wants_port
from kubectl_ebpfnet.explain.path.reply import lost
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.path.wrong_port import Unmet, remedy
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import TCP, endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import (
    Attempt,
    Contradiction,
    Decides,
    Direction,
    Drop,
    Fix,
    HopKind,
    Outcome,
    Severity,
    State,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict and what stands beside it; the fields are those of `Path`."""

    verdict: Verdict
    reason: str
    cause: str = ""
    fix: Fix | None = None
    contradictions: tuple[Contradiction, ...] = ()
    drop: Drop | None = None
    because: tuple[str, ...] = ()


def settle(walk: PathBuilder) -> Decision:
    """Decide what becomes of the packet of a walk that has ended."""
    decision = _by_tables(walk)
    if decision.verdict is Verdict.UNKNOWN and (decision.fix is None or wants_port(walk)):
        decision = replace(decision, fix=how_to_get(walk))
    against = (*walk.contradictions, *decision.contradictions)
    reason, because = [decision.reason], list(decision.because or (decision.reason,))
    if walk.size is not None and decision.verdict.let_through:
        fits = f"{walk.size} bytes pass each MTU on the way"
        reason.append(fits)
        because.append(fits)
    for each in against:
        word = "" if _agrees(walk, decision, each) else "but "
        if each.text not in decision.reason:
            reason.append(f"{word}{each.text}")
        short = _in_short(walk, each)
        if not any(short in line for line in because):
            because.append(f"{word}{short}")
    return replace(
        decision, reason="; ".join(reason), contradictions=against, because=tuple(because)
    )


def _in_short(walk: PathBuilder, said: Contradiction) -> str:
    attempt = walk.attempt
    return attempt.short if attempt is not None and said.text == attempt.text else said.text


def _agrees(walk: PathBuilder, decision: Decision, said: Contradiction) -> bool:
    """Tell whether it is the newest attempt, without an answer, beside a verdict of `unknown`."""
    attempt = walk.attempt
    return (
        decision.verdict is Verdict.UNKNOWN
        and attempt is not None
        and said.text == attempt.text
        and attempt.outcome is not Outcome.ANSWERED
    )


def _by_tables(walk: PathBuilder) -> Decision:
    end = walk.end
    if isinstance(end, Dropped):
        return _dropped(walk, end, walk)
    answer = lost(walk)
    if isinstance(end, Arrived) and answer is not None and walk.back is not None:
        return _dropped(walk, _answer_dropped(walk, end, answer), walk.back)
    if walk.destination_answers():
        return _delivered(walk)
    attempt = walk.attempt
    if attempt is not None and attempt.now and attempt.outcome is Outcome.REFUSED:
        return _refused(walk, attempt)
    if isinstance(end, Arrived):
        return _arrived(walk, end)
    because = tuple(filter(None, (end.reason, end.besides)))
    reason = "; ".join(because)
    against = _against(attempt)
    return Decision(Verdict.UNKNOWN, reason, reason, end.fix, against, because=because)


def _answer_dropped(walk: PathBuilder, end: Arrived, answer: Dropped) -> Dropped:
    """Return the end of a packet that arrives, and whose answer is dropped."""
    number = f"at hop {answer.drop.hop}"
    where = answer.reason.replace(number, f"{number} of the way back", 1)
    leaves = end.destination is Destination.OUTSIDE
    does = "leaves the cluster" if leaves else "gets through"
    return replace(
        answer,
        drop=replace(answer.drop, direction=Direction.ANSWER),
        reason=f"{where}; the packet itself {does} {end.text}",
        cause=f"the answer is lost: {answer.cause}",
        after=tuple(walk.undecided),
        besides=f"the packet itself {does} {end.text}",
    )


def _dropped(walk: PathBuilder, end: Dropped, way: PathBuilder) -> Decision:
    """Decide about a drop.

    Args:
        walk: the packet's.
        end: the drop.
        way: the walk that has it: the packet's or its answer's.
    """
    elsewhere = next((u for u in end.after if u.decides is Decides.WAY), None)
    if elsewhere is not None and end.drop.how != "seen":
        _only_on_this_way(walk, end, elsewhere, way)
        if walk.answered_now():
            return _delivered(walk)
        reason = (
            f"unknown at {_hops([elsewhere])}: {elsewhere.reason}; the way that is shown is "
            f"{end.reason}"
        )
        shown = f"on the way that is shown it is lost {_lost_at(end)}"
        return Decision(
            Verdict.UNKNOWN, reason, elsewhere.reason, elsewhere.fix,
            because=(_at(walk, elsewhere), shown),
        )  # fmt: skip
    answered = walk.answered_now() and end.drop.how != "seen"
    against = _against(walk.attempt) if answered else ()
    because = tuple(filter(None, (_lost_at(end), end.besides)))
    return Decision(Verdict.DROPPED, end.reason, end.cause, end.fix, against, end.drop, because)


def _lost_at(end: Dropped) -> str:
    """Return where a packet is lost and by what: `at node2, by the egress policy of pod/client`."""
    drop = end.drop
    what = drop.short or drop.by
    whose = "the answer, " if drop.direction is Direction.ANSWER else ""
    joint = ", " if what.startswith("by ") else ": "
    return f"{whose}at {drop.node}{joint}{what}" if drop.node else f"{whose}{what}"


def _at(walk: PathBuilder, each: Undecided) -> str:
    """Return where something is not decided, and why: `node2, policy: …`."""
    back = each.direction is Direction.ANSWER and walk.back is not None
    hops = walk.back.hops if back and walk.back is not None else walk.hops
    if not 1 <= each.hop <= len(hops):
        return each.reason
    hop = hops[each.hop - 1]
    way = "way back, " if each.direction is Direction.ANSWER else ""
    return f"{way}{hop.node or hop.where}, {hop.kind.short}: {each.reason}"


def _only_on_this_way(
    walk: PathBuilder, end: Dropped, elsewhere: Undecided, way: PathBuilder
) -> None:
    """Mark the hop that drops, and its finding, as those of a way that the packet may not take."""
    last = way.hops[-1]
    reason = f"it drops what comes this way, and {_hops([elsewhere])} may lead elsewhere"
    way.hops[-1] = replace(last, state=State.UNKNOWN, reason=reason, drops=False)
    found = [one for one in walk.findings if one.title.endswith(end.finding.title)]
    for one in found:
        walk.findings[walk.findings.index(one)] = replace(
            one, severity=Severity.INFO, decides=False
        )


def _arrived(walk: PathBuilder, end: Arrived) -> Decision:
    attempt = walk.attempt
    if walk.undecided:
        return _undecided(walk)
    if attempt is not None and attempt.now and attempt.outcome is Outcome.UNANSWERED:
        return _unanswered(walk, end, attempt)
    inside = end.destination is not Destination.OUTSIDE
    listens = walk.hops[-1].kind is HopKind.SOCKET
    if attempt is not None and attempt.outcome is Outcome.REFUSED and inside and not listens:
        return _was_refused(walk, end, attempt)
    return _let_through(walk, end)


def _delivered(walk: PathBuilder) -> Decision:
    """The destination answers: what the tables leave open, they let through."""
    attempt = walk.attempt
    assert attempt is not None
    where = ""
    if isinstance(walk.end, Arrived) and walk.end.destination is Destination.OUTSIDE:
        where = f"it leaves the cluster {walk.end.text}"
    elif isinstance(walk.end, Arrived):
        where = f"delivered {walk.end.text}"
    return Decision(
        Verdict.DELIVERED,
        "; ".join(filter(None, (attempt.text, where))),
        because=tuple(filter(None, (attempt.short, where))),
    )


def _refused(walk: PathBuilder, attempt: Attempt) -> Decision:
    """A RST or an ICMP error came back: something at the destination, or in its name, refuses."""
    end = walk.end
    inside = isinstance(end, Arrived) and end.destination is not Destination.OUTSIDE
    who = "the destination" if inside else "the destination, or a device on the way in its name,"
    by = f"{who} refuses it: {attempt.text}"
    last = walk.hops[-1]
    if last.kind is HopKind.DELIVERY:  # its mark alone would contradict "it arrives"
        there = "it arrives" if inside else "it leaves"
        last = replace(
            last, summary=f"{last.summary}, and is refused", short=f"{there}, and is refused"
        )
    walk.hops[-1] = replace(
        last, state=State.OBSERVED, reason="", drops=True,
        evidence=last.evidence + attempt.evidence,
    )  # fmt: skip
    drop = Drop("seen", last.number, last.node, by, short=f"{who} refuses it")
    cause, fix, drop = _why_refused(walk, inside, drop)
    return Decision(
        Verdict.DROPPED, f"dropped at hop {last.number}: {by}", cause, fix, drop=drop,
        because=(f"{who} refuses it", attempt.short),
    )  # fmt: skip


def _why_refused(walk: PathBuilder, inside: bool, drop: Drop) -> tuple[str, Fix, Drop]:
    """Return the cause, what to do, and the drop with the object to edit."""
    last = walk.hops[-1]
    flow = last.packet.flow
    there = (
        f"{protocol_name(flow.protocol)} {endpoint_text(flow.destination, flow.destination_port)}"
    )
    fix = Fix(
        "See that a process listens at this port of the destination; a Service's targetPort names "
        "the port."
    )
    if inside and last.kind is HopKind.SOCKET:
        cause = f"a process listens at {there} now: it began after, or refuses itself"
        return "; ".join(filter(None, (cause, walk.presumed.sentence()))), fix, drop
    pod = walk.cluster.pod_with(flow.destination) if inside else None
    if pod is None:
        cause = f"nothing accepts {there}"
        cause += "" if inside else ", or a device on the way refuses in its name"
        return cause, fix, drop
    found = remedy(Unmet(flow, f"pod {pod.namespace}/{pod.name}", pod, None, walk.ends.service))
    return found.cause, found.fix, replace(drop, object=found.object)


def _was_refused(walk: PathBuilder, end: Arrived, attempt: Attempt) -> Decision:
    """The tables show no listener, and the newest attempt, which is not of now, met none."""
    reason = f"the tables let it through {end.text}, but {attempt.text}"
    cause = "whether something listens there now is not known: its newest attempt was refused"
    last = walk.hops[-1]
    other = host_ports.elsewhere(walk.cluster, last.node, last.packet.flow)
    cause += f"; {other}" if other else ""
    because = (f"the tables let it through {end.text}", f"but {attempt.short}")
    fix = Fix("Send a packet, and ask again at once.")
    return Decision(Verdict.UNKNOWN, reason, cause, fix, because=because)


def _undecided(walk: PathBuilder) -> Decision:
    all_of_them, attempt = walk.undecided, walk.attempt
    first = all_of_them[0]
    hops: dict[str, list[Undecided]] = {}
    for each in all_of_them[:_NAMED]:
        hops.setdefault(each.reason, []).append(each)
    reason = "unknown " + "; ".join(f"at {_hops(at)}: {why}" for why, at in hops.items())
    because = tuple(_at(walk, each) for each in (at[0] for at in hops.values()))
    return Decision(
        Verdict.UNKNOWN, reason, first.reason, first.fix, _against(attempt), None, because
    )


def _hops(undecided: Sequence[Undecided]) -> str:
    """Return the hops of undecided things in words: `hop 3`, `hops 3, 5 and 2 of the way back`."""
    back = {Direction.ANSWER: " of the way back"}
    named = dict.fromkeys(f"{each.hop}{back.get(each.direction, '')}" for each in undecided)
    first, *more = named
    return f"hops {', '.join([first, *more[:-1]])} and {more[-1]}" if more else f"hop {first}"


_NAMED = 3
"""Undecided hops that the verdict names."""


def _against(attempt: Attempt | None) -> tuple[Contradiction, ...]:
    """Return what the newest attempt says beside a verdict that it does not decide."""
    return (Contradiction(attempt.text, attempt.evidence),) if attempt is not None else ()


def _unanswered(walk: PathBuilder, end: Arrived, attempt: Attempt) -> Decision:
    """No answer came although the tables let the packet through: where it was last seen counts."""
    nodes = (attempt.flow.node, *walk.visited_nodes)
    outside = end.destination is Destination.OUTSIDE
    gateway = nodes[-1] if outside and nodes[-1] != nodes[0] else ""
    between = lost_between(walk.cluster, attempt, nodes, gateway)
    if between is None and outside and _left(walk, attempt, gateway):
        reason = f"leaves the cluster {end.text}; what happens beyond is not known"
        against = _against(attempt)
        return Decision(Verdict.LEAVES, reason, contradictions=against, because=(_leaves(end),))
    unread = f"; {walk.presumed.sentence()}" if walk.presumed else ""
    if walk.back is not None and isinstance(walk.back.end, Stopped):
        unread = f"; what becomes of the answer is not known: {walk.back.end.reason}{unread}"
    reason = f"the tables let it through {end.text}, but {attempt.text}"
    through, but = f"the tables let it through {end.text}", f"but {attempt.short}"
    if between is None:
        cause = "no table that was read loses it" + unread
        fix = Fix("Run the path from the other side as well: the answer may be lost on its way.")
        because = tuple(filter(None, (through, but, unread.removeprefix("; "))))
        return Decision(
            Verdict.UNKNOWN, reason + unread, cause, fix, _against(attempt), because=because
        )  # fmt: skip
    where, proof = between
    look = Fix(
        "Look between these two places: netfilter, programs and devices there, and the listener."
    )
    fix = (how_to_get(walk) if walk.presumed else None) or look
    against = (*_against(attempt), Contradiction(where, proof))
    return Decision(
        Verdict.UNKNOWN, f"{reason}; {where}{unread}", where, fix, against,
        because=tuple(filter(None, (through, but, where, unread.removeprefix("; ")))),
    )  # fmt: skip


def _left(walk: PathBuilder, attempt: Attempt, gateway: str) -> bool:
    """Tell whether a table that is filled as a packet leaves its node, or its gateway, has the
    attempt."""
    flow = attempt.flow
    if gateway:
        at_gateway = nat_entry_of(walk.cluster.node(gateway), flow.flow)
        return at_gateway is not None
    if flow.cilium_nat is not None or flow.netfilter is not None:
        return True
    masqueraded = any(hop.kind is HopKind.NAT for hop in walk.hops)
    return flow.flow.protocol != TCP and not masqueraded


def _let_through(walk: PathBuilder, end: Arrived) -> Decision:
    attempt = walk.attempt
    seen = attempt.text if attempt is not None else walk.ends.untracked
    short = attempt.short if attempt is not None else walk.ends.untracked
    if end.destination is Destination.OUTSIDE:
        reason = f"leaves the cluster {end.text}; what happens beyond is not known; {seen}"
        return Decision(Verdict.LEAVES, reason, because=(_leaves(end), short))
    listener = (walk.unread_listener,) if walk.unread_listener else ()
    through = f"the tables let it through {end.text}"
    reason = "; ".join((through, seen, *listener))
    return Decision(Verdict.REACHABLE, reason, because=(through, short, *listener))


def _leaves(end: Arrived) -> str:
    return f"it leaves the cluster {end.text}; what happens beyond is not known"
