"""-o pcapng, read by a reader of the tests' own: block by block, as the draft has them."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from kubectl_ebpfnet.model.events import Place
from kubectl_ebpfnet.model.trace import Lost, Owner
from kubectl_ebpfnet.render.trace.pcapng import HEADER, Pcapng
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
    writer = Pcapng(42)
    packet = bytes.fromhex("45" + "00" * 2 + "3c" + "00" * 36 + "616263")
    began = 1_700_000_000_000_000_000
    told = [sighting(place, data=packet.hex()) for place in (Place.QUEUE, Place.RECEIVE)]
    dropped = sighting(Place.DROP, Lost.YES, data=packet.hex(), reason="NETFILTER_DROP")
    file = HEADER + b"".join(writer.packet(each, began) for each in (*told, dropped))
    (section, head), (kind, interface), *packets = blocks(file)
    assert (section, head[:4], kind) == (0x0A0D0D0A, b"\x4d\x3c\x2b\x1a", 1)
    assert struct.unpack_from("<HHI", interface) == (101, 0, 42)
    assert options(interface[8:])[2] == b"n1/default/client/eth0"
    assert options(interface[8:])[9] == b"\x09"
    assert [kind for kind, _ in packets] == [6] * 3  # one interface: the same device
    number, high, low, caught, whole = struct.unpack_from("<IIIII", packets[0][1])
    assert (number, high << 32 | low) == (0, began + 500_000_000)
    assert (caught, whole) == (42, 60)
    assert packets[0][1][20:62] == packet[:42]
    directions = [options(body[64:]).get(2, b"\0")[0] for _, body in packets]
    assert directions == [2, 1, 0]  # outbound, inbound, not known
    assert options(packets[-1][1][64:])[1] == b"dropped: NETFILTER_DROP"


@pytest.mark.parametrize("data", ["", "no hex"])
def test_a_packet_without_bytes_is_none(data: str) -> None:
    assert Pcapng(128).packet(sighting(data=data), 0) == b""


@pytest.mark.parametrize(
    ("owner", "device", "name"),
    [
        (Owner("node", "", "n1"), "eth0", "n1/eth0"),
        (Owner("pod", "default", "client"), "", "n1/default/client/queue"),
        (Owner("process", "", "nginx", 7), "eth0", "n1/nginx[7]/eth0"),
        (Owner(), "eth0", "n1/netns:1/eth0"),
        (Owner("process", "", "\x1b[2J", 7), "e\u202eh0", r"n1/\x1b[2J[7]/e\u202eh0"),
    ],
)
def test_an_interface_is_named_by_node_namespace_and_device(
    owner: Owner, device: str, name: str
) -> None:
    seen = sighting(data="45" + "00" * 19)
    seen = replace(seen, owner=owner, event=replace(seen.event, device=device))
    (_, interface), _ = blocks(Pcapng(128).packet(seen, 0))
    assert options(interface[8:])[2].decode() == name


@pytest.mark.parametrize("seconds", [-9e9, 9e99])
def test_a_time_that_the_format_lacks_is_the_nearest(seconds: float) -> None:
    seen = replace(sighting(data="45" + "00" * 19), seconds=seconds)
    _, (_, body) = blocks(Pcapng(128).packet(seen, 0))
    high, low = struct.unpack_from("<II", body, 4)
    assert high == low == (0 if seconds < 0 else 2**32 - 1)
