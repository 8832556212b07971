"""What a packet is, and why it was dropped, in words."""

from __future__ import annotations

from kubectl_ebpfnet.explain.trace import reasons
from kubectl_ebpfnet.model.events import Direction, PacketEvent, Place
from kubectl_ebpfnet.model.net import FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, protocol_name

_PSH, _ACK = 0x08, 0x10
_ECHO = {(ICMP, 8): "echo request", (ICMP, 0): "echo reply",
         (ICMPV6, 128): "echo request", (ICMPV6, 129): "echo reply"}  # fmt: skip

NO_LOSS = frozenset({"TCP_OLD_DATA", "QUEUE_PURGE", "SKB_CONSUMED", "CONSUMED"})
"""Reasons with which a buffer is freed whose data was taken, or nobody wants any more."""

ICMP_ERRORS = {
    (ICMP, 3, 0): "network unreachable", (ICMP, 3, 1): "host unreachable",
    (ICMP, 3, 2): "protocol unreachable", (ICMP, 3, 3): "port unreachable",
    (ICMP, 3, 4): "too large, and not to be fragmented", (ICMP, 3, 9): "network prohibited",
    (ICMP, 3, 10): "host prohibited", (ICMP, 3, 13): "prohibited by a filter",
    (ICMP, 11, 0): "time to live exceeded",
    (ICMPV6, 1, 0): "no route", (ICMPV6, 1, 1): "prohibited by a filter",
    (ICMPV6, 1, 3): "address unreachable", (ICMPV6, 1, 4): "port unreachable",
    (ICMPV6, 2, 0): "too large", (ICMPV6, 3, 0): "hop limit exceeded",
}  # fmt: skip
"""(protocol, type, code) of errors that say that a packet was discarded: RFC 792, 1812, 4443."""


def what(event: PacketEvent) -> str:
    """Return what a packet is: `SYN`, `echo request seq 1`, `data seq 5 length 100`."""
    if event.flow is None:
        return f"no IP packet (ethertype 0x{event.ethertype:04x})"
    protocol = event.flow.protocol
    if event.icmp_error and event.icmp is not None:
        error = icmp_error(event)
        return f"ICMP error {event.icmp[0]}/{event.icmp[1]}{f', {error}' if error else ''}"
    if event.icmp is not None:
        name = _ECHO.get((protocol, event.icmp[0]))
        return f"{name} seq {event.seq}" if name else f"ICMP {event.icmp[0]}/{event.icmp[1]}"
    if protocol == TCP:
        return _tcp(event)
    size = f", {event.segments} segments" if event.segments > 1 else ""
    kind = "datagram" if protocol == UDP else protocol_name(protocol)
    return f"{kind} of {event.size} bytes{size}"


def _tcp(event: PacketEvent) -> str:
    flags = event.tcp_flags
    names = [n for bit, n in ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST")) if flags & bit]
    if flags & _ACK and (names or not flags & _PSH):
        names.append("ACK")
    if names and names != ["ACK"]:
        return ",".join(names)
    header = 40 if event.flow and event.flow.source.version == 4 else 60
    # Without the length of options: a segment of the smallest headers and no more is an ACK.
    if names and event.size <= header + 12:
        return "ACK"
    segments = f", {event.segments} segments" if event.segments > 1 else ""
    return f"data seq {event.seq}{segments}"


def why(event: PacketEvent) -> str:
    """Return why a packet was dropped: the reason in words, its name, the function."""
    if event.place is Place.PROGRAM:
        return f"{event.program} ({event.where}) answers {event.verdict}"
    plain = reasons.of(event).text
    name = event.reason or "no reason is told by this kernel"
    where = f" in {event.where.partition('+')[0]}" if event.where else ""
    return f"{plain} ({name}{where})" if plain else f"{name}{where}"


def icmp_error(event: PacketEvent) -> str:
    """Return what an ICMP error says of the packet that it quotes: `host unreachable`, or ""."""
    if not event.icmp_error or event.icmp is None or event.flow is None:
        return ""
    protocol = ICMP if event.flow.source.version == 4 else ICMPV6
    return ICMP_ERRORS.get((protocol, *event.icmp), "")


def is_answer(event: PacketEvent) -> bool:
    """Tell whether a packet that came back answers: no RST, no ICMP error."""
    return event.direction is Direction.BACK and not event.icmp_error and not event.tcp_flags & RST
