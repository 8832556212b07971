"""Packets as Wireshark reads them: pcapng, an interface for each place.

Source: draft-ietf-opsawg-pcapng (section header, interface description, enhanced packet blocks and
their options). The libraries for this format read it, write no options per packet, or are GPL; what
is written here are three kinds of block.
"""

from __future__ import annotations

import struct

from kubectl_ebpfnet.model.events import Direction, PacketEvent, Place
from kubectl_ebpfnet.model.trace import Lost, Owner, Sighting
from kubectl_ebpfnet.render.text.style import escape

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_RAW_IP = 101  # LINKTYPE_RAW
_END, _COMMENT, _NAME, _RESOLUTION = 0, 1, 2, 9
_FLAGS, _INBOUND, _OUTBOUND = 2, 1, 2
_DIRECTIONS = {
    Place.QUEUE: _OUTBOUND,
    Place.XMIT: _OUTBOUND,
    Place.NETIF_RX: _INBOUND,
    Place.GRO: _INBOUND,
    Place.RECEIVE: _INBOUND,
}
"""Of a packet at its device; elsewhere the place does not tell."""
_LONGEST_TEXT = 500
_MOST_TIME = 2**64 - 1


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


HEADER = _block(_SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
"""What the file begins with."""


class Pcapng:
    """Turns sightings into blocks, which follow HEADER in their order."""

    def __init__(self, snaplen: int) -> None:
        """Write at most `snaplen` bytes of a packet."""
        self._snaplen = snaplen
        self._interfaces: dict[str, int] = {}

    def packet(self, sighting: Sighting, began_ns: int) -> bytes:
        """Return a packet at a place, behind the place's interface where that is new.

        Args:
            sighting: where and when.
            began_ns: the wall clock of second 0.

        Returns:
            The blocks; b"" for a packet whose bytes were not told.
        """
        event = sighting.event
        whole = _bytes(event)
        data = whole[: self._snaplen]
        if not data:
            return b""
        number, interface = self._interface(sighting)
        at = min(max(began_ns + round(sighting.seconds * 1e9), 0), _MOST_TIME)
        options = _option(_COMMENT, _text(_comment(sighting)))
        if direction := _DIRECTIONS.get(event.place):
            options += _option(_FLAGS, struct.pack("<I", direction))
        size = max(len(whole), _size(whole, event))
        head = struct.pack("<IIIII", number, at >> 32, at & 0xFFFFFFFF, len(data), size)
        padded = data + bytes(-len(data) % 4)
        return interface + _block(_PACKET, head + padded + options + _option(_END, b""))

    def _interface(self, sighting: Sighting) -> tuple[int, bytes]:
        """Return the number of a place, and its block where it is new."""
        name = _place(sighting)
        known = self._interfaces.get(name)
        if known is not None:
            return known, b""
        number = self._interfaces[name] = len(self._interfaces)
        options = _option(_NAME, _text(name))
        options += _option(_RESOLUTION, b"\x09") + _option(_END, b"")  # nanoseconds
        body = struct.pack("<HHI", _RAW_IP, 0, self._snaplen) + options
        return number, _block(_INTERFACE, body)


def _bytes(event: PacketEvent) -> bytes:
    try:
        return bytes.fromhex(event.data)
    except ValueError:  # no node side writes that
        return b""


def _size(data: bytes, event: PacketEvent) -> int:
    """Return the bytes of the packet by its own header: of a tunnel's, more than the inner one."""
    version = data[0] >> 4
    if version == 4 and len(data) >= 4 and any(data[2:4]):
        return int.from_bytes(data[2:4])
    if version == 6 and len(data) >= 6 and any(data[4:6]):
        return 40 + int.from_bytes(data[4:6])
    return min(max(event.length, 0), 0xFFFFFFFF)  # larger than a header can tell


def _place(sighting: Sighting) -> str:
    """Return `node/device`, between them who has the network namespace if not the node."""
    event, owner = sighting.event, sighting.owner
    whose = _whose(owner, event.netns)
    return "/".join(filter(None, (sighting.node, whose, event.device or event.place)))


def _whose(owner: Owner, netns: int) -> str:
    if owner.kind == "node":
        return ""
    if owner.kind == "pod":
        return f"{owner.namespace}/{owner.name}"
    if owner.kind == "process":
        return f"{owner.name}[{owner.pid}]"
    return f"netns:{netns}" if netns else ""


def _comment(sighting: Sighting) -> str:
    event = sighting.event
    if event.place is Place.DROP:
        words = {Lost.YES: "dropped", Lost.NO: "a buffer freed"}
        word = words.get(sighting.lost, "dropped, or a copy")
        return f"{word}: {event.reason} {event.where}".rstrip(" :")
    more = f" {event.program} {event.verdict}" if event.place is Place.PROGRAM else ""
    if event.place is Place.KERNEL:
        more = f" {event.where}"
    back = " (answer)" if event.direction is Direction.BACK else ""
    return f"{event.place}{more}{back}"


def _text(text: str) -> bytes:
    return escape(text)[:_LONGEST_TEXT].encode()
