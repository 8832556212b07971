"""What encapsulation adds to a packet."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.kernel.mtu import added_by
from kubectl_ebpfnet.model.net import TCP, UDP, Flow
from kubectl_ebpfnet.model.path import Packet

V4 = Flow(TCP, ip_address("10.0.0.1"), 1000, ip_address("10.0.1.1"), 80)
V6 = Flow(TCP, ip_address("fd00::1"), 1000, ip_address("fd00:1::1"), 80)
OUTER4 = Flow(UDP, ip_address("192.0.2.1"), None, ip_address("192.0.2.2"), 8472)
OUTER6 = Flow(UDP, ip_address("2001:db8::1"), None, ip_address("2001:db8::2"), 8472)


@pytest.mark.parametrize(
    ("packet", "encrypted", "bytes_"),
    [
        (Packet(V4), "", 0),
        (Packet(V6), "", 0),
        (Packet(V4, outer=OUTER4), "", 50),
        (Packet(V6, outer=OUTER4), "", 50),
        (Packet(V4, outer=OUTER6), "", 70),
        (Packet(V6, outer=OUTER6), "", 70),
        (Packet(V4), "WireGuard, UDP port 51871", 60),
        (Packet(V6), "WireGuard, UDP port 51871", 80),
        (Packet(V4, outer=OUTER4), "WireGuard, UDP port 51871", 110),
        (Packet(V4), "IPsec, ESP (IP protocol 50)", 77),
    ],
)
def test_what_encapsulation_adds(packet: Packet, encrypted: str, bytes_: int) -> None:
    assert added_by(packet, encrypted) == bytes_
