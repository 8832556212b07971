"""Events as the kernel writes them, and what is asked, in bytes: no kernel is needed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.model.events import Copies, Direction, MatchedBy, Place, Tunnel
from kubectl_ebpfnet.model.net import ICMP, TCP, UDP, Flow
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter
from kubectl_ebpfnet.node.trace import drop_reasons, packets
from kubectl_ebpfnet.node.trace.packets import Selection

_CLIENT, _SERVER = ip_address("10.1.0.2"), ip_address("fd02::2")
_MAPPED = bytes(10) + b"\xff\xff" + _CLIENT.packed


def _port(number: int) -> int:
    """As the kernel has it: network byte order, read as this machine's number."""
    return int.from_bytes(number.to_bytes(2, "big"), "little")


def _record(place: int = 6, protocol: int = TCP, ports: tuple[int, int] = (40000, 80),
            flags: int = 0, tunnel: int = 0) -> bytes:  # fmt: skip
    return packets._EVENT.pack(
        12, 0xFFFF888000000000, _MAPPED, _SERVER.packed, *map(_port, ports), protocol,
        _MAPPED, _MAPPED, 77, 1, 2, 42, 60, 0x12, 8, 0, flags, tunnel, 63, 0,
        4026531840, 3, 74, 6, 99, 2, 0x0800, place, 1, 3, 1, b"eth0", b"curl", b"tcp_v4_rcv+0x9", 0,
    )  # fmt: skip


def test_a_drop() -> None:
    event = packets.event_of(_record(), {6: "NO_SOCKET"})
    assert event.flow == Flow(TCP, _CLIENT, 40000, _SERVER, 80)
    assert (event.place, event.reason, event.where) == (Place.DROP, "NO_SOCKET", "tcp_v4_rcv+0x9")
    assert (event.direction, event.matched_by) == (Direction.FORTH, MatchedBy.LEARNED)
    assert (event.copies, event.device, event.ifindex) == (Copies.LIVES, "eth0", 3)
    assert (event.time_ns, event.netns, event.ttl, event.tcp_flags) == (12, 4026531840, 63, 0x12)
    assert (event.icmp, event.tunnel, event.fragment) == (None, None, False)
    assert (event.pid, event.command, event.segments, event.fingerprint) == (99, "curl", 2, 77)


def test_only_a_drop_has_a_reason() -> None:
    assert packets.event_of(_record(place=1), {6: "NO_SOCKET"}).reason == ""


def test_the_id_of_an_echo_is_its_source_port() -> None:
    event = packets.event_of(_record(protocol=ICMP, ports=(7, 7)), {})
    assert event.flow == Flow(ICMP, _CLIENT, 7, _SERVER, None)
    assert event.icmp == (8, 0)


def test_an_error_has_the_flow_that_it_quotes() -> None:
    event = packets.event_of(_record(protocol=UDP, flags=1), {})
    assert (event.icmp_error, event.icmp) == (True, (8, 0))


def test_what_carries_it() -> None:
    event = packets.event_of(_record(tunnel=1), {})
    assert event.tunnel == Tunnel("vxlan", 42, _CLIENT, _CLIENT)


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, ""), (6, "NO_SOCKET"), (9, "reason 9"), (3 << 16 | 5, "subsystem 3, reason 5")],
)
def test_names_of_reasons(number: int, name: str) -> None:
    assert drop_reasons.name(number, {6: "NO_SOCKET"}) == name


def test_filters_are_packed_as_the_program_reads_them() -> None:
    asked = PacketFilter(_CLIENT, _SERVER, None, 80, TCP)
    packed = packets.config_of(Selection((asked,), netns=5, events_per_second=7))
    head = packets._CONFIG.unpack_from(packed)
    assert head == (1, 5, 0, 7, 0, _port(8472), _port(4789), _port(6081), 0)
    begin = packets._CONFIG.size
    assert packed[begin : begin + 16] == _MAPPED
    source, destination, protocol, its_mask = packets._FILTER.unpack_from(packed, begin)
    assert packets._END.unpack(source)[1:] == (0xFFFFFFFF, 0, 0)  # any port
    assert destination[20:24] == b"\x00\x50\xff\xff"  # port 80, and all of it
    assert (protocol, its_mask) == (TCP, 0xFFFFFFFF)
    assert len(packed) == begin + packets.MOST_FILTERS * packets._FILTER.size


def test_more_filters_than_the_program_has_room_for() -> None:
    with pytest.raises(ValueError, match="at most 16"):
        packets.config_of(Selection((PacketFilter(),) * 17))
