"""What was seen, held against what the tables say: which hops of `path` a packet was seen at, and
the first place where reality left the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubectl_ebpfnet.explain.trace import reasons
from kubectl_ebpfnet.explain.trace.fate import place_name
from kubectl_ebpfnet.explain.trace.verdict import Judged
from kubectl_ebpfnet.model.events import Direction, Place
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.path import Direction as Way
from kubectl_ebpfnet.model.path import Hop, HopKind, HopPlace, Path, Verdict
from kubectl_ebpfnet.model.trace import (
    Difference,
    Fate,
    Lost,
    Owner,
    SeenHop,
    Sighting,
    TracedPacket,
    Watched,
)


def seen_hops(
    path: Path, packets: Sequence[TracedPacket], nodes: Iterable[Watched]
) -> tuple[SeenHop, ...]:
    """Return for each hop whether a packet was seen there as it leaves that hop."""
    watched = {each.node for each in nodes if each.attached}
    found: list[SeenHop] = []
    for back, hops in ((False, path.hops), (True, path.answer.hops if path.answer else ())):
        wanted = Direction.BACK if back else Direction.FORTH
        sightings = [s for p in packets if p.direction is wanted for s in p.sightings]
        found += (
            SeenHop(h.number, back, _seen(h, sightings, watched, back=back), _answers(h, sightings))
            for h in hops
        )
    return tuple(found)


def _seen(hop: Hop, sightings: Sequence[Sighting], watched: set[str], *, back: bool) -> bool | None:
    if hop.place not in (HopPlace.POD, HopPlace.NODE, HopPlace.CILIUM) or hop.node not in watched:
        return None
    if hop.drops:
        return any(_is_at(hop, s) and s.lost is Lost.YES for s in sightings)
    return any(
        _is_at(hop, s) and _same(hop.packet.flow, s.event.flow, back=back) for s in sightings
    )


def _answers(hop: Hop, sightings: Sequence[Sighting]) -> tuple[str, ...]:
    """Return what the program of a hop answered, each answer once."""
    if hop.kind is not HopKind.PROGRAM:
        return ()
    said = hop.summary.replace(",", " ").split()
    return tuple(sorted({
        s.event.verdict for s in sightings
        if s.event.place is Place.PROGRAM and s.node == hop.node
        and s.event.device in said and s.event.program.partition(" ")[0] in said
    }))  # fmt: skip


def _is_at(hop: Hop, sighting: Sighting) -> bool:
    if hop.node != sighting.node:
        return False
    return (hop.place is HopPlace.POD) == (_pod_name(sighting.owner) == hop.where)


def _pod_name(owner: Owner) -> str:
    return f"{owner.namespace}/{owner.name}" if owner.kind == "pod" else ""


def _same(said: Flow, seen: Flow | None, *, back: bool) -> bool:
    """Whether a flow is the one that is said, whatever port the client takes: the walk may have
    that of an earlier connection."""
    if seen is None or said.protocol != seen.protocol:
        return False
    if (said.source, said.destination) != (seen.source, seen.destination):
        return False
    one, other = (said.source_port, seen.source_port) if back else (
        said.destination_port, seen.destination_port)  # fmt: skip
    return one is None or other is None or one == other


def agrees(path: Path, packet: TracedPacket, drop: Sighting | None) -> bool:
    """Tell whether path names the place where a packet was lost, and the same sort of thing."""
    said = path.drop
    if said is None or drop is None or said.node != drop.node:
        return False
    back = packet.direction is Direction.BACK
    if back != (said.direction is Way.ANSWER):
        return False
    hops = (path.answer.hops if path.answer else ()) if back else path.hops
    hop = next((each for each in hops if each.number == said.hop), None)
    return hop is not None and _is_at(hop, drop) and hop.kind in reasons.of(drop.event).hops


def difference(path: Path, packets: Sequence[TracedPacket], judged: Judged) -> Difference | None:
    """Return where reality left the tables; None where it did not, or nothing tells.

    Args:
        path: what the tables say.
        packets: what was seen.
        judged: the verdict on that.
    """
    if judged.verdict is Verdict.DROPPED:
        return _dropped_elsewhere(path, judged)
    if path.verdict is Verdict.DROPPED:
        return _passed_a_drop(path, packets, judged.verdict)
    if not path.verdict.let_through:
        return None
    forth = [each for each in packets if each.direction is Direction.FORTH]
    if judged.verdict is Verdict.UNKNOWN and forth:
        last = forth[-1]
        if all(each.fate in (Fate.LAST_SEEN, Fate.LEFT) for each in forth):
            text = f"the tables let it through ({path.verdict}), and it is seen no more: "
            return Difference(text + last.reason, _hop_at(path, last.sightings[-1]),
                              last.sightings[-1])  # fmt: skip
    return _other_pod(path, forth) or _other_source(path, forth)


def _dropped_elsewhere(path: Path, judged: Judged) -> Difference | None:
    packet, drop = judged.lost, judged.drop
    if path.verdict.let_through:
        if drop is None:  # refused by who is not watched: the tables do not tell of it
            return None
        text = f"the tables let it through ({path.verdict}), and it was not: {judged.reason}"
        return Difference(text, _hop_at(path, drop), drop)
    said = path.drop
    if said is None or packet is None or drop is None or agrees(path, packet, drop):
        return None
    # Another sort of drop on the same node may be the same thing in other words.
    if said.node == drop.node and not reasons.of(drop.event).hops:
        return None
    return Difference(f"the tables drop it elsewhere ({said.by}), and it was dropped here: "
                      f"{packet.reason}", _hop_at(path, drop), drop)  # fmt: skip


def _hop_at(path: Path, sighting: Sighting) -> int:
    return next((hop.number for hop in path.hops if _is_at(hop, sighting)), 0)


def _passed_a_drop(
    path: Path, packets: Sequence[TracedPacket], verdict: Verdict
) -> Difference | None:
    said = path.drop
    if said is None:
        return None
    passes = {Verdict.DELIVERED}
    if said.direction is Way.PACKET and said.node:
        passes |= {Verdict.REACHABLE, Verdict.LEAVES}
    if verdict not in passes:
        return None
    last = max((p.sightings[-1] for p in packets), key=lambda s: s.seconds, default=None)
    text = f"the tables drop it ({said.by}), and it passed"
    return Difference(f"{text}: {place_name(last)}" if last else text, said.hop, last)


def _other_pod(path: Path, forth: Sequence[TracedPacket]) -> Difference | None:
    """A pod that was asked for by its name or address is not who takes the packet."""
    end = path.destination
    if end.kind != "pod":
        return None
    for packet in forth:
        taker = packet.sightings[-1]
        name = _pod_name(taker.owner)
        came = packet.fate in (Fate.DELIVERED, Fate.ARRIVED)
        if came and name and name != f"{end.namespace}/{end.name}":
            return Difference(
                f"the tables lead to pod {end.namespace}/{end.name}, and pod {name} takes it",
                path.hops[-1].number if path.hops else 0, taker,
            )  # fmt: skip
    return None


def _other_source(path: Path, forth: Sequence[TracedPacket]) -> Difference | None:
    if path.verdict is not Verdict.LEAVES or not path.hops:
        return None
    said = path.hops[-1].packet.flow
    for packet in forth:
        last = packet.sightings[-1]
        flow = last.event.flow
        if packet.fate is Fate.LEFT and flow is not None and flow.source != said.source:
            return Difference(
                f"the tables say that it leaves as {said.source}, and it left as {flow.source}",
                path.hops[-1].number, last,
            )  # fmt: skip
    return None
