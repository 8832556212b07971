"""The programs' parts that need no kernel; what they do is seen in test_netkat_*.py."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf.assembler import Assembly
from kubectl_ebpfnet.node.netkat.redirect.flow import checksum_neutral


def checksum(data: bytes) -> int:
    """RFC 1071, written as it is there."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize(
    "text",
    [
        *("10.2.0.2", "255.255.255.255", "0.0.0.1", "198.18.0.1", "198.19.7.7", "127.0.0.1"),
        *("192.0.2.2", "57.237.0.1", "fd02::2", "2001:2::1", "2001:2:0:1::5", "fe80::1"),
        *("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "::1"),
    ],
)
def test_a_stand_in_has_the_same_checksum_and_is_another_address(text: str) -> None:
    peer = ipaddress.ip_address(text).packed
    found = checksum_neutral(peer)
    # 0 and 0xffff are both zero in one's complement
    assert checksum(found) % 0xFFFF == checksum(peer) % 0xFFFF
    assert found != peer
    network = "198.18.0.0/15" if len(peer) == 4 else "2001:2::/48"
    assert ipaddress.ip_address(found) in ipaddress.ip_network(network)


def test_jumps_are_counted_from_the_next_instruction() -> None:
    code = Assembly()
    code.set(asm.R0, 7)
    code.jump_if(asm.EQ, asm.R0, 7, "end")
    code.set(asm.R0, 1)
    code.label("end")
    code.exit()
    # instruction-set.rst, by hand: class and code, registers, offset, immediate (little-endian)
    expected = "b700000007000000 1600010007000000 b700000001000000 9500000000000000"
    assert code.program().hex(" ", 8) == expected


def test_a_label_that_is_missing_is_no_program() -> None:
    code = Assembly()
    code.jump("nowhere")
    with pytest.raises(KeyError):
        code.program()
