"""Cilium's own notices of the packets that are followed: which are of them, and of which packet.

A notice has no time and no fingerprint. So its packet is known by its tuple and what else it tells
of it, in JSON its sequence numbers too; where several packets look the same, notices are theirs in
order if there are as many as packets, and else of one of them.

Source: Cilium pkg/monitor (datapath_trace.go, datapath_drop.go), parse/cilium/monitor.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.events import Direction
from kubectl_ebpfnet.model.net import FIN, ICMP, ICMPV6, RST, SYN, TCP, Address, Flow
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter
from kubectl_ebpfnet.model.trace import Notice, TracedPacket

MOST_NOTICES = 10_000
"""Of all nodes that are kept."""
IdentityName = Callable[[int, str], str]
"""(number, label as Cilium named it) → words."""
_FLAGS = {"SYN": SYN, "FIN": FIN, "RST": RST, "ACK": 0x10}
_ECHO = {"EchoRequest": {8, 128}, "EchoReply": {0, 129}}
_Key = tuple[str, Flow | None, str]


class Notices:
    """Takes the notices of all nodes; keeps those of the packets that are followed.

    Attributes:
        found: in the order in which they came.
        not_kept: those beyond MOST_NOTICES.
    """

    def __init__(
        self, filters: Mapping[str, Sequence[PacketFilter]], identity_name: IdentityName
    ) -> None:
        """`filters` say for each node what is followed there."""
        self._filters, self._name = filters, identity_name
        self.found: list[Notice] = []
        self.not_kept = 0

    def feed(
        self,
        node: str,
        event: MonitorEvent,
        seconds: float,
        number: int,
        seen: Mapping[Flow, Direction],
    ) -> Notice | None:
        """Take a notice; return it where it is of a packet that is followed.

        Args:
            node: whose agent told it.
            event: the notice.
            seconds: since the trace began.
            number: of its line.
            seen: tuples that packets were seen with, and their direction.
        """
        direction = self._direction(node, event, seen)
        if direction is None:
            return None
        if len(self.found) >= MOST_NOTICES:
            self.not_kept += 1
            return None
        notice = Notice(
            node, seconds, event, direction,
            self._identity(event.source_identity, event.source_label),
            self._identity(event.destination_identity, event.destination_label), line=number,
        )  # fmt: skip
        self.found.append(notice)
        return notice

    def _identity(self, number: int, label: str) -> str:
        return self._name(number, label) if number or label else ""

    def _direction(
        self, node: str, event: MonitorEvent, seen: Mapping[Flow, Direction]
    ) -> Direction | None:
        flow = event.flow
        if flow is None:
            return None
        if flow in seen:
            return seen[flow]
        if flow.reversed() in seen:
            return _opposite(seen[flow.reversed()])
        for each in self._filters.get(node, ()):
            if _fits(each, flow):
                return Direction.FORTH
            if _fits(each, flow.reversed()):
                return Direction.BACK
        return None


def joined(notices: Sequence[Notice], packets: Iterable[TracedPacket]) -> tuple[Notice, ...]:
    """Return the notices, each with its packet as far as that is certain."""
    by_tuple: dict[tuple[str, Flow | None], list[TracedPacket]] = {}
    for packet in packets:
        places = {(s.node, s.event.flow) for s in packet.sightings}
        for place in places:
            by_tuple.setdefault(place, []).append(packet)
    alike: dict[_Key, list[int]] = {}
    for number, notice in enumerate(notices):
        alike.setdefault(_key(notice), []).append(number)
    found = list(notices)
    for numbers in alike.values():
        first = notices[numbers[0]]
        there = by_tuple.get((first.node, first.event.flow), ())
        candidates = [packet for packet in there if _is_alike(first.event, packet)]
        if len(candidates) == len(numbers):
            for number, packet in zip(numbers, candidates, strict=True):
                found[number] = replace(notices[number], packet=packet.number)
        elif candidates:
            note = f"of one of {len(candidates)} packets with this tuple"
            for number in numbers:
                found[number] = replace(notices[number], note=note)
    return tuple(found)


def _key(notice: Notice) -> _Key:
    """Return what notices of one place and of packets that look the same have in common."""
    event = notice.event
    looks = (sorted(event.tcp_flags), event.icmp, event.seq, event.ack)
    what = f"{event.kind} {event.summary} {event.device} {looks}"
    return notice.node, event.flow, what


def _is_alike(event: MonitorEvent, packet: TracedPacket) -> bool:
    first = packet.sightings[0].event
    if first.icmp_error or event.flow is None:
        return False
    if event.seq is not None and event.seq != first.seq:
        return False
    if event.flow.protocol == TCP:
        flags = {name for name, bit in _FLAGS.items() if first.tcp_flags & bit}
        same_ack = event.ack is None or event.ack == first.ack
        return same_ack and flags == set(event.tcp_flags) & _FLAGS.keys()
    if event.flow.protocol in (ICMP, ICMPV6):
        return first.icmp is not None and first.icmp[0] in _ECHO.get(event.icmp, ())
    return True


def _fits(each: PacketFilter, flow: Flow) -> bool:
    wanted = (each.source, each.source_port, each.destination, each.destination_port)
    has: tuple[Address | int | None, ...] = (
        flow.source, flow.source_port, flow.destination, flow.destination_port,
    )  # fmt: skip
    if each.protocol and flow.protocol and each.protocol != flow.protocol:
        return False
    return all(w is None or h is None or w == h for w, h in zip(wanted, has, strict=True))


def _opposite(direction: Direction) -> Direction:
    ways = {Direction.FORTH: Direction.BACK, Direction.BACK: Direction.FORTH}
    return ways.get(direction, direction)
