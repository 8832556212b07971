"""What was seen, held against what the tables say: which hops of `path` a packet was seen at, and
the first place where reality left the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubectl_ebpfnet.explain.trace.fate import place_name
from kubectl_ebpfnet.model.events import Direction
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.path import Hop, HopPlace, Path, Verdict
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
        found += (SeenHop(h.number, back, _seen(h, sightings, watched, back=back)) for h in hops)
    return tuple(found)


def _seen(hop: Hop, sightings: Sequence[Sighting], watched: set[str], *, back: bool) -> bool | None:
    if hop.place not in (HopPlace.POD, HopPlace.NODE, HopPlace.CILIUM) or hop.node not in watched:
        return None
    if hop.drops:
        return any(_is_at(hop, s) and s.lost is Lost.YES for s in sightings)
    return any(
        _is_at(hop, s) and _same(hop.packet.flow, s.event.flow, back=back) for s in sightings
    )


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


def difference(path: Path, packets: Sequence[TracedPacket], verdict: Verdict) -> Difference | None:
    """Return where reality left the tables; None where it did not, or nothing tells."""
    forth = [each for each in packets if each.direction is Direction.FORTH]
    if path.verdict is Verdict.DROPPED and path.drop is not None:
        return _passed_a_drop(path, packets, verdict)
    for packet in (*forth, *(p for p in packets if p.direction is Direction.BACK)):
        lost = next((s for s in packet.sightings if s.lost is Lost.YES), None)
        dropped = packet.fate is Fate.DROPPED and verdict is Verdict.DROPPED
        if dropped and lost is not None and path.verdict.let_through:
            hop = next((h.number for h in path.hops if _is_at(h, lost)), 0)
            return Difference(
                f"the tables let it through ({path.verdict}), and it was dropped: {packet.reason}",
                hop, lost,
            )  # fmt: skip
    return _other_source(path, forth)


def _passed_a_drop(
    path: Path, packets: Sequence[TracedPacket], verdict: Verdict
) -> Difference | None:
    if path.drop is None or verdict not in (Verdict.DELIVERED, Verdict.REACHABLE, Verdict.LEAVES):
        return None
    last = max((p.sightings[-1] for p in packets), key=lambda s: s.seconds, default=None)
    text = f"the tables drop it ({path.drop.by}), and it passed"
    return Difference(f"{text}: {place_name(last)}" if last else text, path.drop.hop, last)


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
