"""WireGuard's messages, which no kernel here sends: their secrets, and peers in several of them.

What kernels really send is read in virtual machines (tests/kernels).
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.model.encryption import WireGuardDevice, WireGuardPeer
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink import generic, wireguard
from kubectl_ebpfnet.node.netlink.generic import attribute

PRIVATE, PRESHARED, OWN, PEER = (bytes([n]) * 32 for n in (1, 2, 3, 4))
NESTED = 0x8000


def allowed(prefix: str) -> bytes:
    network = ip_network(prefix)
    family = struct.pack("=H", 2 if network.version == 4 else 10)
    parts = attribute(1, family) + attribute(2, network.network_address.packed)
    return attribute(NESTED, parts + attribute(3, bytes([network.prefixlen])))


def peer(*prefixes: str, rest: bytes = b"") -> bytes:
    listed = attribute(9 | NESTED, b"".join(map(allowed, prefixes)))
    one = attribute(NESTED, attribute(1, PEER) + rest + listed)
    return attribute(8 | NESTED, one)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose peer's allowed addresses go on in a second message."""
    end = struct.pack("=H", 10) + struct.pack("!H", 51871) + bytes(4)
    end += ip_address("fd00::2").packed + bytes(4)
    rest = attribute(2, PRESHARED) + attribute(4, end) + attribute(5, struct.pack("=H", 25))
    rest += attribute(6, struct.pack("=qq", 0, 0)) + attribute(8, struct.pack("=Q", 148))
    own = attribute(2, b"cilium_wg0\0") + attribute(3, PRIVATE) + attribute(4, OWN)
    own += attribute(6, struct.pack("=H", 51871)) + attribute(7, struct.pack("=I", 0xE00))
    messages = (own + peer("10.0.2.0/24", rest=rest), own + peer("fd00:2::/64"))

    def dump(number: int, body: bytes, what: str) -> Iterator[bytes]:
        yield from messages

    monkeypatch.setattr(wireguard, "_is_there", lambda: True)
    monkeypatch.setattr(generic, "family", lambda name: 30)
    monkeypatch.setattr(generic, "dump", dump)


@pytest.mark.usefixtures("answered")
def test_a_device_and_a_peer_of_two_messages() -> None:
    request = NodeRequest(1, ())
    (device,), (found,) = wireguard.devices(request), wireguard.peers(request)
    assert device == WireGuardDevice("cilium_wg0", b64encode(OWN).decode(), 51871, 0xE00, 1)
    assert found == WireGuardPeer(
        "cilium_wg0",
        b64encode(PEER).decode(),
        ip_address("fd00::2"),
        51871,
        (ip_network("10.0.2.0/24"), ip_network("fd00:2::/64")),
        sent=148,
    )
    said = codec.line_of(device) + codec.line_of(found)
    assert not [key for key in (PRIVATE, PRESHARED) if b64encode(key) in said or key in said]
