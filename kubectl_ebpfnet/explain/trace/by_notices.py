"""What Cilium's notices say of the packets as a whole: alone, where no program of ours looks, and
beside what the kernel told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kubectl_ebpfnet.explain.trace.verdict import Judged
from kubectl_ebpfnet.model.events import Direction
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.trace import Notice, TracedPacket

_BLIND = "Cilium sees no routes, netfilter and sockets: what came next is not known"
_AGGREGATED = "monitor aggregation (monitor-aggregation in cilium-config) may leave notices out"


def of_notices(notices: Sequence[Notice], missing: str, problem: str = "") -> Judged:
    """Return what became of the packets by Cilium's notices alone.

    Args:
        notices: of the packets that are followed, in the order in which they came.
        missing: why they are not all, "" where they are.
        problem: why no program of ours looked.
    """
    if missing:
        return Judged(Verdict.UNKNOWN, f"{_last(notices) or 'no notice came'}; {missing}")
    answers = [n for n in notices if n.direction is Direction.BACK and _came(n)]
    drops = [n for n in notices if n.event.kind == "drop"]
    if answers and drops:
        return Judged(Verdict.UNKNOWN, f"answers came, and {_dropped(drops[-1])}")
    if answers:
        count = f"{len(answers)} answers came" if len(answers) > 1 else "an answer came"
        return Judged(Verdict.DELIVERED, f"{count}, by Cilium: {_where(answers[-1])}")
    if drops:
        return Judged(Verdict.DROPPED, _dropped(drops[-1]))
    last = _last(notices)
    if last:
        return Judged(Verdict.UNKNOWN, f"{last}; {_BLIND}")
    why = f"no notice of this flow came; {_AGGREGATED}"
    return Judged(Verdict.UNKNOWN, f"{problem}; {why}" if problem else why)


def beside(judged: Judged, notices: Sequence[Notice]) -> Judged:
    """Return the kernel's verdict with what Cilium says of the same packets."""
    drops = [n for n in notices if n.event.kind == "drop"]
    if not drops:
        return judged
    if judged.verdict is Verdict.DROPPED and judged.lost is not None:
        same = [n for n in drops if is_of(n, judged.lost)]
        if same:
            return replace(judged, reason=f"{judged.reason}; Cilium says: {same[-1].event.summary}")
        return judged
    if judged.verdict is Verdict.UNKNOWN:
        return Judged(Verdict.DROPPED, f"{_dropped(drops[-1])} (in the kernel: {judged.reason})")
    return replace(judged, reason=f"{judged.reason}; {_dropped(drops[-1])}")


def is_of(notice: Notice, packet: TracedPacket) -> bool:
    """Tell whether a notice may be of this packet: it is its, or nobody's and has its tuple."""
    if notice.packet or notice.direction is not packet.direction:
        return notice.packet == packet.number
    return any(s.event.flow == notice.event.flow for s in packet.sightings if s.node == notice.node)


def cause_of(notices: Sequence[Notice], packet: TracedPacket) -> str:
    """Return why Cilium drops a packet, in words; "" where no notice of it says."""
    same = [n for n in notices if n.event.kind == "drop" and is_of(n, packet)]
    if not same:
        return ""
    last = same[-1]
    ends = " → ".join(filter(None, (last.source, last.destination)))
    return f"Cilium on {last.node} drops it: {last.event.summary}{f' ({ends})' if ends else ''}"


def _came(notice: Notice) -> bool:
    return notice.event.point == "to-endpoint"


def _dropped(notice: Notice) -> str:
    what = "the answer" if notice.direction is Direction.BACK else "it"
    return f"Cilium on {notice.node} drops {what}: {notice.event.summary}"


def _where(notice: Notice) -> str:
    return f"“{notice.event.summary}” on {notice.node}"


def _last(notices: Sequence[Notice]) -> str:
    forth = [n for n in notices if n.direction is Direction.FORTH]
    return f"the last notice of it is {_where(forth[-1])}" if forth else ""
