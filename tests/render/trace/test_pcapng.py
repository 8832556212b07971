"""-o pcapng, read by a reader of the tests' own: block by block, as the draft has them."""

from __future__ import annotations

import io
import struct

from kubectl_ebpfnet.model.events import Place
from kubectl_ebpfnet.model.trace import Lost
from kubectl_ebpfnet.render.trace.pcapng import Pcapng
from tests.render.trace.test_trace_text import sighting


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Kind and body of each block."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        found.append((kind, data[at + 8 : at + length - 4]))
        at += length
    return found


def options(body: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(body):
        code, length = struct.unpack_from("<HH", body, at)
        found[code] = body[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
    return found


def test_a_place_is_an_interface_and_a_packet_is_as_it_was_there() -> None:
    file = io.BytesIO()
    writer = Pcapng(file, 128)
    packet = bytes.fromhex("45" + "00" * 39 + "616263")
    for place in (Place.QUEUE, Place.XMIT, Place.RECEIVE):
        writer.packet(sighting(place, data=packet.hex(), size=60), 1_700_000_000_000_000_000)
    dropped = sighting(Place.DROP, Lost.YES, data=packet.hex(), size=60, reason="NETFILTER_DROP")
    writer.packet(dropped, 0)
    writer.packet(sighting(Place.QUEUE), 0)  # without bytes
    (section, head), (kind, interface), *packets = blocks(file.getvalue())
    assert (section, head[:4], kind) == (0x0A0D0D0A, b"\x4d\x3c\x2b\x1a", 1)
    assert struct.unpack_from("<HHI", interface) == (101, 0, 128)
    assert options(interface[8:])[2] == b"n1/default/client/eth0"
    assert options(interface[8:])[9] == b"\x09"
    assert [kind for kind, _ in packets] == [6] * 4  # one interface: the same device
    number, high, low, caught, whole = struct.unpack_from("<IIIII", packets[0][1])
    assert (number, high << 32 | low) == (0, 1_700_000_000_500_000_000)
    assert (caught, whole) == (43, 60)
    assert packets[0][1][20:63] == packet
    assert [options(body[64:])[2][0] for _, body in packets] == [2, 2, 1, 1]
    assert options(packets[-1][1][64:])[1].startswith(b"dropped: NETFILTER_DROP")
