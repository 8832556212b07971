"""What became of the packets as a whole: by what their sockets were told, by answers that came
home, by drops that were losses. What was not seen is not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from kubectl_ebpfnet.explain.trace import reasons, words
from kubectl_ebpfnet.explain.trace.fate import place_name
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import Direction, SentPacket
from kubectl_ebpfnet.model.net import RST, SYN, TCP
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.trace import Fate, Lost, Sighting, TracedPacket, Watched

_ACK = 0x10
_SEQUENCES = 1 << 32
_CAME = (Fate.DELIVERED, Fate.ARRIVED)


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict.

    Attributes:
        verdict, reason: as in Trace.
        lost: the packet whose loss decides; None for none.
    """

    verdict: Verdict
    reason: str
    lost: TracedPacket | None = None

    @property
    def drop(self) -> Sighting | None:
        """Where that packet is lost."""
        found = self.lost.sightings if self.lost else ()
        return next((each for each in reversed(found) if each.lost is Lost.YES), None)


def lost_for_good(packets: Iterable[TracedPacket]) -> list[TracedPacket]:
    """Return the packets that were dropped, without those of which TCP sent another that came, or
    whose data the other end acknowledges all the same (RFC 9293, 3.4)."""
    all_of_them = list(packets)
    came = {_key(p) for p in all_of_them if p.fate in _CAME and _protocol(p) == TCP}
    dropped = [p for p in all_of_them if p.fate is Fate.DROPPED and _key(p) not in came]
    return [p for p in dropped if not any(_acknowledges(each, p) for each in all_of_them)]


def _acknowledges(answer: TracedPacket, packet: TracedPacket) -> bool:
    if _protocol(packet) != TCP or answer.direction is packet.direction:
        return False
    told, asked = answer.sightings[-1].event, packet.sightings[0].event
    first = answer.sightings[0].event
    if asked.flow is None or asked.flow.reversed() not in (told.flow, first.flow):
        return False
    ahead = (told.ack - asked.seq - 1) % _SEQUENCES
    return bool(told.tcp_flags & _ACK) and not told.tcp_flags & RST and ahead < _SEQUENCES // 2


def of_flow(
    packets: Sequence[TracedPacket], sent: Sequence[SentPacket], nodes: Sequence[Watched]
) -> Judged:
    """Return what became of the packets of a flow.

    Args:
        packets: all that were seen.
        sent: of --send, with what its sockets were told.
        nodes: who was to be watched.
    """
    judged = _by_sockets(sent, packets) if sent else _by_answers(packets)
    judged = judged or _by_losses(packets) or _by_errors(packets) or _by_places(packets, nodes)
    came = [p for p in packets if p.direction is Direction.BACK and _is_good(p)]
    if sent and came and judged.verdict.let_through and judged.verdict is not Verdict.DELIVERED:
        where = place_name(came[-1].sightings[-1])
        return Judged(Verdict.UNKNOWN, f"an answer came to {where}, and no socket took it in time")
    return judged


def of_drops(packets: Sequence[TracedPacket], nodes: Sequence[Watched]) -> Judged:
    """Return what a pod or node lost, whatever the flows."""
    lost = lost_for_good(packets)
    if lost:
        why = Counter(p.reason for p in lost).most_common(3)
        told = "; ".join(f"{count} times {reason}" for reason, count in why)
        return Judged(Verdict.DROPPED, f"{len(lost)} packets were dropped: {told}", lost[-1])
    problems = [f"{each.node}: {each.problem}" for each in nodes if each.problem]
    if problems:
        return Judged(Verdict.UNKNOWN, f"not watched: {problems[0]}")
    undecided = sum(any(s.lost is Lost.UNDECIDED for s in p.sightings) for p in packets)
    if undecided:
        text = f"of {undecided} buffers that were dropped, a copy may live on"
        return Judged(Verdict.UNKNOWN, text)
    return Judged(Verdict.REACHABLE, "no loss was seen")


def _by_sockets(sent: Sequence[SentPacket], packets: Sequence[TracedPacket]) -> Judged | None:
    """The verdict by what the sockets of --send were told; None where these were told nothing."""
    answered = [each for each in sent if each.outcome == "answered"]
    refused = [each for each in sent if each.outcome == "refused"]
    count = f"{len(answered)} of {len(sent)} answered"
    if len(answered) == len(sent):
        return Judged(Verdict.DELIVERED, count)
    lost = [p for p in lost_for_good(packets) if not _is_of(p, answered)]
    if answered and lost:
        return Judged(Verdict.DROPPED, f"{count}; {lost[-1].reason}", lost[-1])
    if answered:
        return Judged(Verdict.UNKNOWN, f"{count}; what became of the others was not seen")
    if refused:
        where = f": {lost[0].reason}" if lost else _refusal(packets)
        text = f"it is refused ({refused[-1].error}){where}"
        return Judged(Verdict.DROPPED, text, lost[0] if lost else None)
    errors = [each.error for each in sent if each.outcome == "error"]
    if len(errors) == len(sent) and not packets:
        return Judged(Verdict.UNKNOWN, f"it could not be sent: {errors[-1]}")
    return None


def _is_of(packet: TracedPacket, sent: Sequence[SentPacket]) -> bool:
    """Whether it is one of these, or of their connections."""
    events = (packet.sightings[0].event, packet.sightings[-1].event)
    for event in events:
        if event.flow is None:
            continue
        ours = {event.flow, event.flow.reversed()}
        for each in sent:
            echo = event.icmp is not None and not event.icmp_error
            if each.flow in ours and (not echo or each.number == event.seq):
                return True
    return False


def _refusal(packets: Sequence[TracedPacket]) -> str:
    for packet in packets:
        first = packet.sightings[0]
        if packet.direction is Direction.BACK and not words.is_answer(first.event):
            return f": {packet.what} comes from {place_name(first)}"
    return ""


def _by_answers(packets: Sequence[TracedPacket]) -> Judged | None:
    """The verdict by answers that came home; None where none did."""
    forth = [each for each in packets if each.direction is Direction.FORTH]
    back = [each for each in packets if each.direction is Direction.BACK]
    good = [each for each in back if _is_good(each)]
    lost = [p for p in lost_for_good(packets) if p.direction is Direction.FORTH]
    stuck = [p for p in lost if _protocol(p) == TCP and _is_before_sockets(p)]
    if good and stuck:
        text = f"{len(good)} answers came back, and {len(stuck)} of {len(forth)} packets never came"
        return Judged(Verdict.DROPPED, f"{text}: {stuck[-1].reason}", stuck[-1])
    if good:
        note = f"; {len(lost)} of {len(forth)} packets were dropped" if lost else ""
        return Judged(Verdict.DELIVERED, f"{len(good)} answers came back{note}")
    resets = [p for p in back if _is_reset(p) and p.fate in _CAME]
    if resets and any(p.sightings[0].event.tcp_flags & SYN for p in forth):
        why = f" ({lost[-1].reason})" if lost else ""
        text = f"it is refused: a RST comes from {place_name(resets[0].sightings[0])}{why}"
        return Judged(Verdict.DROPPED, text, lost[-1] if lost else None)
    return None


def _by_losses(packets: Sequence[TracedPacket]) -> Judged | None:
    lost = [p for p in lost_for_good(packets) if p.direction is not Direction.NONE]
    if not lost:
        return None
    last = lost[-1]
    later = [p for p in packets if p.direction is last.direction and p.number > last.number
             and p.fate in _CAME]  # fmt: skip
    if later:
        text = f"{len(lost)} packets were dropped, and later ones were taken: {last.reason}"
        return Judged(Verdict.UNKNOWN, text, last)
    what = "the answer is dropped" if last.direction is Direction.BACK else "it is dropped"
    return Judged(Verdict.DROPPED, f"{what}: {last.reason}", last)


def _by_errors(packets: Sequence[TracedPacket]) -> Judged | None:
    """By ICMP errors that came home: who sends one has discarded the packet (RFC 1122, 3.2.2)."""
    for packet in packets:
        first = packet.sightings[0]
        error = words.icmp_error(first.event)
        if packet.direction is Direction.BACK and error and packet.fate in _CAME:
            where = place_name(first)
            if not _is_sent_here(first):
                where = f"a place that is not watched, and came by {where}"
            return Judged(Verdict.DROPPED, f"an ICMP error says so: {error}; it is from {where}")
    return None


def _is_sent_here(sighting: Sighting) -> bool:
    return sighting.event.place.value in ("queue", "xmit")


def _by_places(packets: Sequence[TracedPacket], nodes: Sequence[Watched]) -> Judged:
    unwatched = [f"{each.node}: {each.problem}" for each in nodes if each.problem]
    if not packets:
        return Judged(Verdict.UNKNOWN, "; ".join(unwatched) or "no packet of this flow was seen")
    forth = [each for each in packets if each.direction is Direction.FORTH]
    last = (forth or list(packets))[-1]
    place = place_name(last.sightings[-1])
    if unwatched:
        text = f"{last.reason or f'it came to {place}'}; not watched: {unwatched[0]}"
        return Judged(Verdict.UNKNOWN, text)
    if not forth:
        return Judged(Verdict.UNKNOWN, f"only answers were seen, the last at {place}")
    if last.fate in _CAME:
        return Judged(Verdict.REACHABLE, f"it was taken at {place}; no answer was seen")
    if last.fate is Fate.LEFT:
        return Judged(Verdict.LEAVES, f"{last.reason}; no answer was seen")
    return Judged(Verdict.UNKNOWN, last.reason)


def _is_before_sockets(packet: TracedPacket) -> bool:
    """Whether it was lost on its way; an end drops much of a connection that is over."""
    return any(each.lost is Lost.YES and reasons.of(each.event).final for each in packet.sightings)


def _is_good(packet: TracedPacket) -> bool:
    return packet.fate in _CAME and words.is_answer(packet.sightings[0].event)


def _is_reset(packet: TracedPacket) -> bool:
    return _protocol(packet) == TCP and bool(packet.sightings[0].event.tcp_flags & RST)


def _protocol(packet: TracedPacket) -> int:
    flow = packet.sightings[0].event.flow
    return flow.protocol if flow else 0


def _key(packet: TracedPacket) -> tuple[int, Direction]:
    return packet.sightings[0].event.fingerprint, packet.direction
