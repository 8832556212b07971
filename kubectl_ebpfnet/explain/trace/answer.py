"""The answer of `trace`: what nodes told of packets, and what became of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kubectl_ebpfnet.explain.trace import by_notices, reasons, words
from kubectl_ebpfnet.explain.trace.against_path import agrees, difference, seen_hops
from kubectl_ebpfnet.explain.trace.fate import fate, place_name, program_of, senders, settled
from kubectl_ebpfnet.explain.trace.follow import Follower, OwnerOf
from kubectl_ebpfnet.explain.trace.notices import Notices, joined
from kubectl_ebpfnet.explain.trace.verdict import Judged, of_drops, of_flow
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import (
    Direction,
    Layers,
    Losses,
    NamespaceOwner,
    Place,
    SentPacket,
    TraceLine,
)
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.path import Fix, Path, Verdict
from kubectl_ebpfnet.model.trace import Notice, Owner, Sighting, Trace, TracedPacket, Watched

MOST_SENT = 100_000
_MOST_CHANGES = 100
"""Of a node; whoever replaces more says nothing new."""
_PASSED = (Place.QUEUE, Place.XMIT, Place.NETIF_RX, Place.GRO, Place.RECEIVE)
"""Where none of these is lacking, silence says that a packet went nowhere."""


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
        notices: Cilium's own.
        layers, losses, sent, changed, ended: of each node, or of all.
        problems: node → why it was not watched, or not to the end.
        unread: node → why Cilium's notices were not read there, or not to the end, "" where they
            were; nodes whose agents were asked.
    """

    follower: Follower
    notices: Notices
    layers: dict[str, Layers]
    losses: dict[str, Losses]
    sent: list[SentPacket]
    changed: dict[str, list[str]]
    problems: dict[str, str]
    unread: dict[str, str]

    @classmethod
    def nothing(cls, names: OwnerOf, notices: Notices | None = None) -> Told:
        """Return what is known before the first line."""
        return cls(Follower(names), notices or Notices({}, _number), {}, {}, [], {}, {}, {})

    def feed(self, node: str, line: TraceLine, number: int = 0) -> Sighting | None:
        """Take a line; return what is seen of a packet in it."""
        if line.layers is not None:
            self.layers[node] = line.layers
        if line.losses is not None:
            self.losses[node] = line.losses
        if line.sent is not None and len(self.sent) < MOST_SENT:
            self.sent.append(line.sent)
        if line.changed and len(self.changed.get(node, ())) < _MOST_CHANGES:
            self.changed.setdefault(node, []).append(line.changed)
        return self.follower.feed(node, line, number)


def _number(identity: int, label: str) -> str:
    return label or f"identity {identity}"


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
    not_told = told.follower.not_kept + sum(each.losses.not_told for each in watched)
    missing = missing or bool(not_told)
    blind = any(place not in each.attached for each in watched for place in _PASSED)
    packets = tuple(_packets(told.follower, path, missing=missing or blind))
    sent = tuple(sorted(told.sent, key=lambda each: each.number))
    notices = joined(told.notices.found, packets)
    asked = any(each.notices is not None for each in watched)
    if flow and asked and not any(each.attached for each in watched):
        problem = next((f"{each.node}: {each.problem}" for each in watched if each.problem), "")
        judged = by_notices.of_notices(notices, _unread(watched), problem)
    elif flow:
        judged = by_notices.beside(of_flow(packets, sent, watched), notices)
    else:
        judged = of_drops(packets, watched)
    end = _end(path) if path is not None else ""
    if judged.verdict is Verdict.LEAVES and end:
        # It left a node, and not the cluster.
        why = "saw nothing of it" if end in nodes else "is not watched"
        judged = Judged(Verdict.UNKNOWN, f"{judged.reason}, and {end}, where it is to end, {why}")
    kernel_lost = sum(each.losses.over_budget + each.losses.ring_full for each in watched)
    if kernel_lost:
        text = f"{kernel_lost} events are missing; seen: {judged.reason}"
        judged = Judged(Verdict.UNKNOWN, text)
    elif judged.verdict is Verdict.DROPPED and flow and not sent and not_told:
        text = f"{not_told} events were not told, or not joined; seen: {judged.reason}"
        judged = Judged(Verdict.UNKNOWN, text)
    cause, fix = _cause(path, judged, notices)
    return Trace(
        title, flow, judged.verdict, judged.reason, packets, watched, sent, notices, path,
        seen_hops(path, packets, watched) if path is not None else (),
        difference(path, packets, judged) if path is not None and flow else None,
        cause, fix, tuple(_notes(told, watched)),
    )  # fmt: skip


def _unread(watched: Sequence[Watched]) -> str:
    return next((f"{each.node}: {each.notices}" for each in watched if each.notices), "")


def _end(path: Path) -> str:
    """Return the node where the packet is to end by the tables; "" where that is none."""
    if path.destination.node or path.verdict is Verdict.LEAVES or not path.hops:
        return path.destination.node
    return path.hops[-1].node if path.verdict.let_through else ""


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
        told.unread.get(node),
        changed=tuple(told.changed.get(node, ())),
    )


def _packets(follower: Follower, path: Path | None, *, missing: bool) -> Iterable[TracedPacket]:
    ways = _nodes(path)
    ordered = [
        (each, settled(each.ordered(follower.clocks), missing=missing,
                       nodes=ways.get(each.direction)))
        for each in follower.packets
    ]  # fmt: skip
    forth, back = (
        senders(sightings for each, sightings in ordered if each.direction is direction)
        for direction in (Direction.FORTH, Direction.BACK)
    )
    ends = {Direction.FORTH: back, Direction.BACK: forth, Direction.NONE: frozenset[Owner]()}
    for each, sightings in ordered:
        outcome, reason = fate(sightings, ends[each.direction], missing=missing)
        yield TracedPacket(each.number, each.direction, each.what, sightings, outcome, reason)


def _nodes(path: Path | None) -> dict[Direction, frozenset[str]]:
    """Return the nodes that packets pass by the tables, for each direction; {} without tables."""
    if path is None or not path.hops:
        return {}
    forth = frozenset({path.source.node, path.destination.node, *(h.node for h in path.hops)})
    back = forth | {hop.node for hop in (path.answer.hops if path.answer else ())}
    return {Direction.FORTH: forth, Direction.BACK: back}


def _cause(path: Path | None, judged: Judged, notices: Sequence[Notice]) -> tuple[str, Fix | None]:
    """Return cause and fix: path's where it names the same place and the same sort of thing, else
    what Cilium says, else what the drop's reason says and where to look."""
    if judged.verdict is not Verdict.DROPPED:
        return "", None
    drop = judged.drop
    if path is not None and judged.lost is not None and agrees(path, judged.lost, drop):
        return path.cause, path.fix
    by_cilium = by_notices.cause_of(notices, judged.lost) if judged.lost is not None else ""
    if by_cilium:
        return by_cilium, None
    reason = reasons.of(drop.event) if drop else reasons.Reason("")
    if drop is None or not reason.text:
        return "", None
    fix = Fix(f"At {place_name(drop)} {reason.look}.") if reason.look else None
    program = program_of(drop, judged.lost.sightings) if judged.lost is not None else None
    if program is not None or drop.event.place is Place.PROGRAM:
        return f"{words.why((program or drop).event)}, at {place_name(drop)}", fix
    return f"{reason.text}, at {place_name(drop)}", fix


def _notes(told: Told, watched: Sequence[Watched]) -> Iterable[str]:
    for each in watched:
        if each.losses.not_told:
            yield f"{each.node}: {each.losses.not_told} more events were counted, and not told"
        for change in each.changed:
            yield f"{each.node}: {change} meanwhile"
    if told.notices.not_kept:
        yield f"{told.notices.not_kept} more notices of Cilium were not kept"
    if told.follower.not_kept:
        yield f"{told.follower.not_kept} events of further packets are not joined"
