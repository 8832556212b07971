"""Entries as ctnetlink sends them, those that no traffic here makes: offloaded, padded, broken."""

from __future__ import annotations

import struct

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.netlink import conntrack_message


def attribute(type: int, payload: bytes, *, nested: bool = False) -> bytes:
    """A netlink attribute with its padding."""
    head = struct.pack("=HH", 4 + len(payload), type | (0x8000 if nested else 0))
    return head + payload + bytes(-len(payload) % 4)


def message(*more: bytes) -> bytes:
    """An entry's message: TCP 10.0.0.1:1 → 10.0.0.2:2."""

    def tuple_(kind: int, source: bytes, destination: bytes, ports: tuple[int, int]) -> bytes:
        ip = attribute(1, source) + attribute(2, destination)
        proto = attribute(1, b"\x06")
        for type, port in zip((2, 3), ports, strict=True):
            proto += attribute(type, struct.pack(">H", port))
        inner = attribute(1, ip, nested=True) + attribute(2, proto, nested=True)
        return attribute(kind, inner, nested=True)

    one, two = b"\x0a\0\0\x01", b"\x0a\0\0\x02"
    tuples = tuple_(1, one, two, (1, 2)) + tuple_(2, two, one, (2, 1))
    return b"\x02\0\0\0" + tuples + b"".join(more)


def status(bits: int) -> bytes:
    return attribute(3, struct.pack(">I", bits))


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, {"UNREPLIED"}),
        (0b1110, {"ASSURED"}),
        (0b1010, set()),
        (1 << 14 | 0b1110, {"OFFLOAD"}),
        (1 << 15 | 1 << 14 | 0b1110, {"HW_OFFLOAD"}),
        (1 << 14 | 0b100, {"UNREPLIED", "OFFLOAD"}),
    ],
)
def test_status_words_are_those_that_the_kernel_prints(bits: int, words: set[str]) -> None:
    data = message(status(bits))
    entry = conntrack_message.entry(data, 0, len(data))
    assert entry.status == words
    assert (entry.timeout, entry.state, entry.mark, entry.packets) == (None, "", None, None)


def test_padding_and_unknown_attributes_are_passed_over() -> None:
    pad = attribute(5, b"")  # CTA_COUNTERS_PAD, where 64 bits must be aligned
    counters = b"".join(
        attribute(
            kind,
            pad + attribute(1, struct.pack(">Q", packets)) + pad
            + attribute(2, struct.pack(">Q", octets)),
            nested=True,
        )
        for kind, packets, octets in ((9, 2, 200), (10, 1, 1 << 40))
    )  # fmt: skip
    data = message(attribute(1000, b"new"), counters, attribute(8, b"\0\0\1\0"))
    entry = conntrack_message.entry(data, 0, len(data))
    assert (entry.packets, entry.bytes, entry.mark) == (3, 200 + (1 << 40), 256)
    assert str(entry.original) == "TCP 10.0.0.1:1 → 10.0.0.2:2"


def test_a_message_without_tuples_is_an_error() -> None:
    data = message()[:4] + status(0)
    with pytest.raises(KernelError, match="tuple"):
        conntrack_message.entry(data, 0, len(data))
