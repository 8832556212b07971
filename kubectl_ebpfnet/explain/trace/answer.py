"""The answer of `trace`: what nodes told of packets, and what became of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kubectl_ebpfnet.explain.trace import words
from kubectl_ebpfnet.explain.trace.against_path import difference, seen_hops
from kubectl_ebpfnet.explain.trace.fate import SENT, fate, place_name, settled
from kubectl_ebpfnet.explain.trace.follow import Follower, OwnerOf
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import (
    Direction,
    Layers,
    Losses,
    NamespaceOwner,
    SentPacket,
    TraceLine,
)
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import RST, SYN, TCP, Flow
from kubectl_ebpfnet.model.path import Fix, Path, Verdict
from kubectl_ebpfnet.model.trace import Fate, Lost, Owner, Sighting, Trace, TracedPacket, Watched


def owner_of(pods: Iterable[Pod]) -> OwnerOf:
    """Return a function that names the owner of a namespace by these pods."""
    by_uid: Mapping[str, Pod] = {pod.uid: pod for pod in pods if pod.uid}

    def named(node: str, told: NamespaceOwner) -> Owner:
        if told.node:
            return Owner("node", "", node)
        pod = by_uid.get(told.pod_uid)
        if pod is not None:
            return Owner("pod", pod.namespace, pod.name)
        if told.pid:
            return Owner("process", "", told.command, told.pid)
        return Owner()

    return named


@dataclass(slots=True)
class Told:
    """What was told until now, of all nodes.

    Attributes:
        follower: joins the packets.
        layers, losses, sent, changed, ended: of each node, or of all.
        problems: node → why it was not watched, or not to the end.
    """

    follower: Follower
    layers: dict[str, Layers]
    losses: dict[str, Losses]
    sent: list[SentPacket]
    changed: dict[str, list[str]]
    problems: dict[str, str]

    @classmethod
    def nothing(cls, names: OwnerOf) -> Told:
        """Return what is known before the first line."""
        return cls(Follower(names), {}, {}, [], {}, {})

    def feed(self, node: str, line: TraceLine, number: int = 0) -> Sighting | None:
        """Take a line; return what is seen of a packet in it."""
        if line.layers is not None:
            self.layers[node] = line.layers
        if line.losses is not None:
            self.losses[node] = line.losses
        if line.sent is not None:
            self.sent.append(line.sent)
        if line.changed:
            self.changed.setdefault(node, []).append(line.changed)
        return self.follower.feed(node, line, number)


def trace_of(
    told: Told,
    title: str,
    flow: Flow | None,
    nodes: Sequence[str],
    path: Path | None = None,
) -> Trace:
    """Return the answer.

    Args:
        told: every line of every node.
        title: what was asked, for a headline.
        flow: the same as a flow; None for drops of a pod or node.
        nodes: who was to be watched.
        path: what the tables say.
    """
    watched = tuple(_watched(told, node) for node in nodes)
    missing = any(each.losses.all or each.problem for each in watched)
    packets = tuple(_packets(told.follower, missing=missing))
    sent = tuple(sorted(told.sent, key=lambda each: each.number))
    verdict, reason = (_verdict if flow else _losses_verdict)(packets, sent, watched)
    kernel_lost = sum(each.losses.over_budget + each.losses.ring_full for each in watched)
    notes = list(_notes(told, watched))
    if kernel_lost:
        verdict, reason = Verdict.UNKNOWN, f"{kernel_lost} events are missing; seen: {reason}"
    differs = difference(path, packets, verdict) if path is not None and flow else None
    cause, fix = _cause(path, packets, verdict)
    return Trace(
        title, flow, verdict, reason, packets, watched, sent, path,
        seen_hops(path, packets, watched) if path is not None else (),
        differs, cause, fix, tuple(notes),
    )  # fmt: skip


def _watched(told: Told, node: str) -> Watched:
    layers = told.layers.get(node)
    problem = told.problems.get(node, "")
    if layers is None:
        problem = problem or "it told nothing"
    lacking = layers.lacking if layers else ()
    return Watched(
        node,
        layers.attached if layers else (),
        tuple(f"{each.name}: {each.reason}" for each in lacking),
        told.losses.get(node, Losses()),
        problem,
        changed=tuple(told.changed.get(node, ())),
    )


def _packets(follower: Follower, *, missing: bool) -> Iterable[TracedPacket]:
    ordered = [
        (each, settled(each.ordered(follower.clocks), missing=missing))
        for each in follower.packets
    ]  # fmt: skip
    senders: dict[Direction, set[Owner]] = {direction: set() for direction in Direction}
    for each, sightings in ordered:
        first = sightings[0].event
        # A RST or an ICMP error may be of a router or filter on the way.
        if first.place in SENT and not first.icmp_error and not first.tcp_flags & RST:
            senders[each.direction].add(sightings[0].owner)
    ends = {
        Direction.FORTH: frozenset(senders[Direction.BACK]),
        Direction.BACK: frozenset(senders[Direction.FORTH]),
        Direction.NONE: frozenset[Owner](),
    }
    for each, sightings in ordered:
        outcome, reason = fate(sightings, ends[each.direction], missing=missing)
        yield TracedPacket(each.number, each.direction, each.what, sightings, outcome, reason)


def _verdict(
    packets: Sequence[TracedPacket], sent: Sequence[SentPacket], nodes: Sequence[Watched]
) -> tuple[Verdict, str]:
    unwatched = [f"{each.node}: {each.problem}" for each in nodes if each.problem]
    forth = [each for each in packets if each.direction is Direction.FORTH]
    back = [each for each in packets if each.direction is Direction.BACK]
    if sent:
        counted = _by_sockets(sent, packets)
        if counted is not None:
            return counted
    elif answered := _answered(forth, back):
        return answered
    if lost := next((p for p in reversed((*forth, *back)) if p.fate is Fate.DROPPED), None):
        what = "the answer is dropped" if lost.direction is Direction.BACK else "it is dropped"
        return Verdict.DROPPED, f"{what}: {lost.reason}"
    if not packets:
        why = "; ".join(unwatched) or "no packet of this flow was seen"
        return Verdict.UNKNOWN, why
    ends = [each for each in forth if each.direction is Direction.FORTH] or list(packets)
    last = ends[-1]
    if unwatched:
        return Verdict.UNKNOWN, f"{last.reason or 'it was taken'}; not watched: {unwatched[0]}"
    if last.fate in (Fate.DELIVERED, Fate.ARRIVED):
        return (
            Verdict.REACHABLE,
            f"it was taken at {place_name(last.sightings[-1])}; no answer was seen",
        )
    if last.fate is Fate.LEFT:
        return Verdict.LEAVES, f"{last.reason}; no answer was seen"
    return Verdict.UNKNOWN, last.reason


def _losses_verdict(
    packets: Sequence[TracedPacket], _sent: Sequence[SentPacket], nodes: Sequence[Watched]
) -> tuple[Verdict, str]:
    """The verdict where all that a pod or node loses was asked for."""
    lost = sum(each.fate is Fate.DROPPED for each in packets)
    if lost:
        return Verdict.DROPPED, f"{lost} packets were dropped"
    problems = [f"{each.node}: {each.problem}" for each in nodes if each.problem]
    if problems:
        return Verdict.UNKNOWN, problems[0]
    if packets:
        return Verdict.UNKNOWN, f"of {len(packets)} buffers that were dropped, a copy may live on"
    return Verdict.REACHABLE, "no drop was seen"


def _by_sockets(
    sent: Sequence[SentPacket], packets: Sequence[TracedPacket]
) -> tuple[Verdict, str] | None:
    """The verdict by what the sockets of --send were told; None where these were told nothing."""
    answered = [each for each in sent if each.outcome == "answered"]
    refused = [each for each in sent if each.outcome == "refused"]
    count = f"{len(answered)} of {len(sent)} answered"
    if len(answered) == len(sent):
        return Verdict.DELIVERED, count
    if refused and not answered:
        lost = next((p for p in packets if p.fate is Fate.DROPPED), None)
        where = f": {lost.reason}" if lost else ""
        return Verdict.DROPPED, f"it is refused ({refused[-1].error}){where}"
    if answered and any(each.fate is Fate.DROPPED for each in packets):
        lost = next(each for each in packets if each.fate is Fate.DROPPED)
        return Verdict.DROPPED, f"{count}; {lost.reason}"
    if answered:
        return Verdict.UNKNOWN, f"{count}; what became of the others was not seen"
    errors = [each.error for each in sent if each.outcome == "error"]
    if len(errors) == len(sent) and not packets:
        return Verdict.UNKNOWN, f"it could not be sent: {errors[-1]}"
    return None


def _answered(
    forth: Sequence[TracedPacket], back: Sequence[TracedPacket]
) -> tuple[Verdict, str] | None:
    """The verdict by answers that came home; None where none did."""
    answers = [each for each in back if each.fate in (Fate.DELIVERED, Fate.ARRIVED)]
    good = [each for each in answers if words.is_answer(each.sightings[0].event)]
    if good:
        lost = sum(each.fate is Fate.DROPPED for each in forth)
        note = f"; {lost} of {len(forth)} packets were dropped" if lost else ""
        return Verdict.DELIVERED, f"{len(good)} answers came back{note}"
    resets = [p for p in back if _is_reset(p)]
    if resets and any(_is_open(p) for p in forth):
        where = place_name(resets[0].sightings[0])
        return Verdict.DROPPED, f"it is refused: a RST comes from {where}"
    return None


def _is_reset(packet: TracedPacket) -> bool:
    event = packet.sightings[0].event
    return event.flow is not None and event.flow.protocol == TCP and bool(event.tcp_flags & RST)


def _is_open(packet: TracedPacket) -> bool:
    return bool(packet.sightings[0].event.tcp_flags & SYN)


def _cause(
    path: Path | None, packets: Sequence[TracedPacket], verdict: Verdict
) -> tuple[str, Fix | None]:
    """Return cause and fix of path, where it names the place at which the packet was lost."""
    if path is None or path.drop is None or verdict is not Verdict.DROPPED:
        return "", None
    lost = [s for p in packets for s in p.sightings if s.lost is Lost.YES]
    if lost and all(each.node != path.drop.node for each in lost):
        return "", None
    return path.cause, path.fix


def _notes(told: Told, watched: Sequence[Watched]) -> Iterable[str]:
    for each in watched:
        if each.losses.not_told:
            yield f"{each.node}: {each.losses.not_told} more events were counted, and not told"
        for change in each.changed:
            yield f"{each.node}: {change} meanwhile"
    if told.follower.not_kept:
        yield f"{told.follower.not_kept} events of further packets are not joined"
