"""What Cilium's datapath was seen to do with the packets of a walk: drops, and the places passed.

An observation point proves a hop: `to-endpoint` the policy and the delivery at that node,
`to-overlay` the tunnel, `to-network` the device's egress program, `to-stack` that the packet went
through the node's netfilter. Only a packet that was let through is reported there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kubectl_ebpfnet.explain.path.endings import Dropped
from kubectl_ebpfnet.explain.path.sightings import Sighting, newest_first, seconds, sightings
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import (
    NOW,
    Direction,
    Drop,
    Finding,
    Fix,
    Hop,
    HopKind,
    HopPlace,
    Outcome,
    Severity,
    State,
)

_MOST = 3
"""Drops that contradict the walk and are told."""
FIB_ERRORS = {
    "1": "a blackhole route",
    "2": "an unreachable route, or none",
    "3": "a prohibit route",
    "4": "the packet is not forwarded by this route",
    "5": "forwarding is off",
    "6": "an encapsulating route",
    "7": "no neighbour entry of the next hop",
    "8": "the packet is larger than the MTU",
    "9": "no source address",
}
"""BPF_FIB_LKUP_RET_… (linux/bpf.h), which monitor prints behind “FIB lookup failed”."""


@dataclass(frozen=True, slots=True)
class SeenDrop:
    """Drops of the walk's flow at one node for one reason.

    Attributes:
        reason: Cilium's words: `Policy denied`.
        count: how many were seen.
        newest: the last of them.
        hop: index of the hop where it happened, of the answer's walk for an answer; None where that
            walk has none there.
    """

    reason: str
    count: int
    newest: Sighting
    hop: int | None

    @property
    def text(self) -> str:
        """`3 drops “Policy denied” (hubble, node2), the newest 8s before the record`."""
        times = "1 drop" if self.count == 1 else f"{self.count} drops"
        way = " of answers" if self.newest.reply else ""
        age = self.newest.age
        when = (
            ", when is not said"
            if age is None
            else f", the newest {seconds(age)} before {self.newest.source} was asked"
        )
        return f"{times}{way} “{self.reason}” ({self.newest.source}, {self.newest.node}){when}"


def apply(walk: PathBuilder) -> None:
    """Weigh a walk that has ended against what was seen: hops that were seen become OBSERVED, and a
    recent drop that is newer than the newest answer ends the walk where it happened.

    Any other drop is a contradiction.
    """
    if not walk.hops:  # it did not begin
        return
    found = sightings(walk)
    marks(walk, found)
    drops = drops_seen(walk, found)
    deciding = next((drop for drop in drops if _decides(walk, drop)), None)
    if deciding is not None:
        _end_at(walk, deciding)
        return
    for drop in drops[:_MOST]:
        walk.contradicts(drop.text, drop.newest.evidence)


def _decides(walk: PathBuilder, drop: SeenDrop) -> bool:
    """Tell whether a drop outweighs the tables: it is of now, and no newer answer is known. One
    that the tables show too only has to be there."""
    end = _way(walk, drop).end
    if isinstance(end, Dropped) and drop.hop == end.drop.hop - 1:
        return True
    age, attempt = drop.newest.age, walk.attempt
    if age is not None and age > NOW:
        return False
    if attempt is None or attempt.outcome is not Outcome.ANSWERED:
        return True
    flags = drop.newest.event.tcp_flags
    if "SYN" not in flags and {"RST", "FIN"} & set(flags):
        return False  # the last packets of a connection that is closed already
    return age is not None and attempt.age is not None and age < attempt.age


def _way(walk: PathBuilder, drop: SeenDrop) -> PathBuilder:
    """Return the walk that a drop ends: the answer's for an answer that has a hop there."""
    of_answer = drop.newest.reply and drop.hop is not None
    return walk.back if of_answer and walk.back is not None else walk


def _end_at(walk: PathBuilder, drop: SeenDrop) -> None:
    """End the packet's or the answer's walk where a drop was seen; the hops behind it did not
    happen."""
    newest, way = drop.newest, _way(walk, drop)
    there = [i for i, hop in enumerate(way.hops) if hop.node == newest.node]
    index = drop.hop if drop.hop is not None else next(reversed(there), len(way.hops) - 1)
    hop = way.hops[index]
    by = f"{drop.reason}{_meaning(drop.reason)}"
    end = way.end
    confirmed = isinstance(end, Dropped) and end.drop.hop == hop.number
    short = f"{by}, as {newest.source} shows"
    if isinstance(end, Dropped) and confirmed:
        summary, cause, fix = hop.summary, end.cause, end.fix
        by, what, short = end.drop.by, end.drop.object, end.drop.short
    else:
        direction = "an answer is dropped here" if newest.reply else "dropped here"
        summary, cause, what = f"{direction}: {by}; the tables say: {hop.summary}", "", ""
        hop = replace(hop, short=f"{direction}: {by}; the tables say: {hop.short or hop.summary}")
        fix = Fix(
            f"Watch the drops on {newest.node} as they happen.",
            walk.cluster.node(newest.node).in_agent("monitor -t drop"),
        )
    way.hops[index] = replace(
        hop, summary=summary, state=State.OBSERVED, reason="", drops=True,
        evidence=hop.evidence + newest.evidence,
    )  # fmt: skip
    del way.hops[index + 1 :]
    title = f"{newest.node} drops the packet: {by}"
    found = Finding(Severity.ERROR, title, drop.text, newest.evidence, decides=True)
    walk.seen.append(drop.text)
    if isinstance(end, Dropped) and confirmed:
        found = end.finding
    else:
        walk.findings.append(found)
    way.end = Dropped(
        Drop("seen", hop.number, newest.node, by, what, short=short),
        f"dropped at hop {hop.number}: {by}; {drop.text}",
        cause or drop.text,
        fix,
        (),
        found,
    )


def _meaning(reason: str) -> str:
    """Return what the number behind “FIB lookup failed” says."""
    begin, _, number = reason.rpartition(", ")
    known = begin == "FIB lookup failed" and number in FIB_ERRORS
    return f" ({FIB_ERRORS[number]})" if known else ""


def drops_seen(walk: PathBuilder, found: Sequence[Sighting]) -> tuple[SeenDrop, ...]:
    """Return the drops of the walk's flow that were seen, the newest first."""
    groups: dict[tuple[str, str, str, bool], list[Sighting]] = {}
    for sighting in found:
        if sighting.event.kind == "drop":
            key = (sighting.node, sighting.source, sighting.event.summary, sighting.reply)
            groups.setdefault(key, []).append(sighting)
    drops = []
    for (_, _, reason, _), each in groups.items():
        newest = min(each, key=newest_first)
        once = {(s.event.flow, s.event.tcp_flags, s.event.time or s.evidence) for s in each}
        back = walk.back.hops if walk.back is not None else []
        hops = back if newest.reply else walk.hops
        drops.append(SeenDrop(reason, len(once), newest, _hop_of_drop(hops, newest)))
    return tuple(sorted(drops, key=lambda drop: newest_first(drop.newest)))


def marks(walk: PathBuilder, found: Sequence[Sighting]) -> None:
    """Make the hops OBSERVED that were seen, and contradict the walk where a packet, or its answer,
    was seen to pass a hop that drops it."""
    newest = sorted(found, key=newest_first)
    passed = [each for each in newest if each.event.kind != "drop"]
    ways = [(Direction.PACKET, walk.hops, [each for each in passed if not each.reply])]
    if walk.back is not None:
        answers = [each for each in passed if each.reply]
        ways.append((Direction.ANSWER, walk.back.hops, answers))
    for direction, hops, seen in ways:
        was_unknown = {hop.number for hop in hops if hop.state is State.UNKNOWN}
        for sighting in seen:
            _mark(walk, hops, sighting)
        proven = {hop.number for hop in hops if hop.state is State.OBSERVED}
        for each in [u for u in walk.undecided if u.direction is direction]:
            if each.hop in was_unknown & proven:
                walk.undecided.remove(each)


def _mark(walk: PathBuilder, hops: list[Hop], sighting: Sighting) -> None:
    """Make the hops of a way OBSERVED that a sighting proves."""
    for index in _hops_of(hops, sighting):
        hop = hops[index]
        if hop.drops:
            if not any(sighting.evidence[0] in c.evidence for c in walk.contradictions):
                walk.contradicts(_passed(sighting), sighting.evidence)
        elif hop.state is not State.OBSERVED:
            hops[index] = _marked(hop, sighting)


_KINDS = {
    "Policy denied": HopKind.POLICY,
    "FIB lookup failed": HopKind.ROUTE,
    "Service backend not found": HopKind.LOAD_BALANCING,
    "No mapping for NAT masquerade": HopKind.NAT,
    "CT:": HopKind.CONNTRACK,
    "No egress gateway found": HopKind.ROUTE,
    "No Egress IP configured": HopKind.NAT,
}
"""The hop that a drop reason belongs to, by how the reason begins."""
_PROGRAMS = {"bpf_lxc": "lxc", "bpf_overlay": "cilium_", "bpf_host": ""}
"""How the devices begin whose program is made of a file of Cilium's."""


def _hop_of_drop(hops: list[Hop], drop: Sighting) -> int | None:
    """Return the index of the hop where a drop happened: by its reason, else by its program."""
    there = [i for i, hop in enumerate(hops) if hop.node == drop.node and hop.place != HopPlace.POD]
    reason = drop.event.summary
    kind = next((k for begin, k in _KINDS.items() if reason.startswith(begin)), None)
    by_reason = [i for i in there if hops[i].kind is kind]
    if by_reason:
        # Of the verdicts of a node's endpoints, the one that the tables do not let through.
        doubtful = [i for i in by_reason if hops[i].drops or hops[i].state is State.UNKNOWN]
        return (doubtful or by_reason)[0]
    begins = _PROGRAMS.get(drop.event.code.partition(".")[0])
    programs = [i for i in there if hops[i].kind is HopKind.PROGRAM]
    by_program = [i for i in programs if begins and hops[i].where.startswith(begins)]
    return next(iter(by_program or programs or there), None)


_PROVEN: dict[str, tuple[HopKind, ...]] = {
    "to-endpoint": (HopKind.POLICY, HopKind.DELIVERY),
    "to-overlay": (HopKind.POLICY, HopKind.TUNNEL),
    "to-network": (HopKind.POLICY, HopKind.PROGRAM),
    "to-stack": (HopKind.POLICY,),
    "to-host": (HopKind.POLICY, HopKind.DELIVERY),
    "to-proxy": (HopKind.POLICY,),
    "from-endpoint": (HopKind.PROGRAM,),
    "from-overlay": (HopKind.PROGRAM,),
    "from-network": (HopKind.PROGRAM,),
}
"""The kinds of hop on the node that a report at an observation point proves."""


def _hops_of(hops: list[Hop], sighting: Sighting) -> Iterator[int]:
    """Yield the indexes of the hops that a trace or a verdict proves."""
    event = sighting.event
    kinds = _PROVEN.get(event.point, ())
    if event.kind == "policy-verdict" and event.summary != "deny":
        kinds = (HopKind.POLICY,)
    for index, hop in enumerate(hops):
        if hop.node != sighting.node or hop.kind not in kinds:
            continue
        if hop.kind is HopKind.POLICY and not _is_policy_of(hop, event):
            continue
        if hop.kind is HopKind.PROGRAM and not _is_device_of(hop, event):
            continue
        yield index


def _is_policy_of(hop: Hop, event: MonitorEvent) -> bool:
    """Tell whether the verdict of a hop came before the event: egress before a packet leaves the
    node, ingress before it enters the endpoint."""
    egress = hop.summary.startswith("egress")
    if event.kind == "policy-verdict":
        return event.direction in ("", "egress" if egress else "ingress")
    if event.point == "to-endpoint":
        return True  # on one node both verdicts came before
    return egress


def _is_device_of(hop: Hop, event: MonitorEvent) -> bool:
    egress = "/egress" in hop.summary or "/primary" in hop.summary
    if event.device and event.device != hop.where:
        return False
    return egress == event.point.startswith("to-") and hop.place is HopPlace.CILIUM


def _marked(hop: Hop, sighting: Sighting) -> Hop:
    """Return a hop as OBSERVED; what is unknown stays so where the event may be old."""
    if hop.state is State.UNKNOWN and (sighting.age is None or sighting.age > NOW):
        return hop
    said = sighting.event.point or f"policy verdict: {sighting.event.summary}"
    suffix = f" ({sighting.source}: {said})" if hop.state is State.UNKNOWN else ""
    return replace(
        hop,
        state=State.OBSERVED,
        summary=hop.summary + suffix,
        reason="",
        evidence=hop.evidence + sighting.evidence,
    )


def _passed(sighting: Sighting) -> str:
    said = sighting.event.point or f"a policy verdict “{sighting.event.summary}”"
    when = (
        ""
        if sighting.age is None
        else f", {seconds(sighting.age)} before {sighting.source} was asked"
    )
    return f"{sighting.source} on {sighting.node} shows {said} of this flow{when}"
