"""Packets as Wireshark reads them: pcapng, an interface for each place.

Source: draft-ietf-opsawg-pcapng (section header, interface description, enhanced packet blocks and
their options). The libraries for this format read it, write no options per packet, or are GPL; what
is written here are three kinds of block.
"""

from __future__ import annotations

import struct
from typing import IO

from kubectl_ebpfnet.model.events import Direction, PacketEvent, Place
from kubectl_ebpfnet.model.trace import Lost, Sighting

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_RAW_IP = 101  # LINKTYPE_RAW
_END, _COMMENT, _NAME, _RESOLUTION = 0, 1, 2, 9
_FLAGS = 2  # of a packet: bit 0 inbound, bit 1 outbound
_SENT = (Place.QUEUE, Place.XMIT)
_LONGEST_TEXT = 500


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


class Pcapng:
    """Writes packets to a stream as they come."""

    def __init__(self, file: IO[bytes], snaplen: int) -> None:
        """Write the header.

        Args:
            file: binary; each packet is flushed, so that a reader may follow.
            snaplen: most bytes of a packet.

        Raises:
            OSError: it cannot be written.
        """
        self._file, self._snaplen = file, snaplen
        self._interfaces: dict[str, int] = {}
        head = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        self._write(_block(_SECTION, head))

    def packet(self, sighting: Sighting, began_ns: int) -> None:
        """Write a packet at a place; nothing of one whose bytes were not told.

        Args:
            sighting: where and when.
            began_ns: the wall clock of second 0.

        Raises:
            OSError: it cannot be written.
        """
        event = sighting.event
        data = bytes.fromhex(event.data)
        if not data:
            return
        number = self._interface(sighting)
        at = began_ns + round(sighting.seconds * 1e9)
        options = _option(_FLAGS, struct.pack("<I", 2 if event.place in _SENT else 1))
        if comment := _comment(sighting):
            options = _option(_COMMENT, comment) + options
        head = struct.pack(
            "<IIIII", number, at >> 32 & 0xFFFFFFFF, at & 0xFFFFFFFF, len(data),
            max(len(data), min(_outer_size(event), 0xFFFFFFFF)),
        )  # fmt: skip
        padded = data + bytes(-len(data) % 4)
        self._write(_block(_PACKET, head + padded + options + _option(_END, b"")))

    def _interface(self, sighting: Sighting) -> int:
        name = f"{sighting.node}/{sighting.event.device or sighting.event.place}"
        owner = sighting.owner
        if owner.kind == "pod":
            name = f"{sighting.node}/{owner.namespace}/{owner.name}/{sighting.event.device}"
        number = self._interfaces.get(name)
        if number is None:
            number = self._interfaces[name] = len(self._interfaces)
            options = _option(_NAME, name.encode()[:_LONGEST_TEXT])
            options += _option(_RESOLUTION, b"\x09") + _option(_END, b"")  # nanoseconds
            body = struct.pack("<HHI", _RAW_IP, 0, self._snaplen) + options
            self._write(_block(_INTERFACE, body))
        return number

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()


def _comment(sighting: Sighting) -> bytes:
    event = sighting.event
    if event.place is not Place.DROP:
        back = " (answer)" if event.direction is Direction.BACK else ""
        return f"{event.place}{back}".encode()
    word = {Lost.YES: "dropped", Lost.NO: "a buffer freed"}.get(sighting.lost, "dropped, or a copy")
    return f"{word}: {event.reason} {event.where}".encode()[:_LONGEST_TEXT]


def _outer_size(event: PacketEvent) -> int:
    """Return the bytes of the packet as it is there: in a tunnel more than the inner one."""
    return event.length if event.tunnel else event.size
