"""-d's lines: frames made by hand, byte for byte, and the lines that the original prints."""

from __future__ import annotations

import random

import pytest

from kubectl_ebpfnet.node.netkat.packet_dump import line

MACS = "020000000002 020000000001"
V4 = f"{MACS} 0800"
V6 = f"{MACS} 86dd"
ENDS4 = "0a010002 0a020002"
ENDS6 = "fd010000000000000000000000000002 fd020000000000000000000000000002"


@pytest.mark.parametrize(
    ("frame", "sent", "expected"),
    [
        (  # a SYN, in the shape of the original's own example
            f"{V4} 4500003c a5ee4000 40060000 7f000001 7f000001 ae640050 4ec6d33a 00000000"
            " a002ffdf fe300000 0204ffd7 0402080a a1c5bb86 00000000 01030307",
            False,
            "recv tcp 127.0.0.1:44644 -> 127.0.0.1:80 len:0 id:a5ee flags: S seqnum: 1321653050"
            " ack: 0 win: 65503 xsum:0xfe30 options: {MSS:65495 WS:7 TS:true TSVal:2714090374"
            " TSEcr:0 SACKPermitted:true}",
        ),
        (
            f"{V4} 45000030 00014000 40060000 {ENDS4} 04d20050 00000001 00000002 50180100 abcd0000"
            " 68656c6c 6f000000",
            True,
            "send tcp 10.1.0.2:1234 -> 10.2.0.2:80 len:8 id:0001 flags: PA seqnum: 1 ack: 2"
            " win: 256 xsum:0xabcd options: {TS:false TSVal:0 TSEcr:0 SACKBlocks:[]}",
        ),
        (
            f"{V4} 45000038 00014000 40060000 {ENDS4} 04d20050 00000001 00000002 80100100 abcd0000"
            " 0101050a 00000005 00000009",
            True,
            "send tcp 10.1.0.2:1234 -> 10.2.0.2:80 len:4 id:0001 flags: A seqnum: 1 ack: 2"
            " win: 256 xsum:0xabcd options: {TS:false TSVal:0 TSEcr:0 SACKBlocks:[{5 9}]}",
        ),
        (
            f"{V4} 4500001f 00ff0000 40110000 {ENDS4} 04d20035 000b1234 616263",
            True,
            "send udp 10.1.0.2:1234 -> 10.2.0.2:53 len:3 id:00ff xsum: 0x1234",
        ),
        (
            f"{V4} 45000020 00ff00b9 40110000 {ENDS4} 61626364 61626364 61626364",
            False,
            "recv udp 10.1.0.2 -> 10.2.0.2 len:12 id:00ff fragment:1480",
        ),
        (
            f"{V4} 45000024 00010000 40010000 {ENDS4} 03031234 00000000 45000000 00000000",
            False,
            "recv icmp 10.1.0.2 -> 10.2.0.2 destination unreachable len:16 id:0001 code:3",
        ),
        (
            f"{V6} 60000000 000b1140 {ENDS6} 04d20035 000b1234 616263",
            True,
            "send udp [fd01::2]:1234 -> [fd02::2]:53 len:3 id:0000 xsum: 0x1234",
        ),
        (
            f"{V6} 60000000 00103a40 {ENDS6} 02001234 00000578 60000000 00000000",
            False,
            "recv icmp [fd01::2] -> [fd02::2] packet too big len:16 id:0000 code:0",
        ),
        (
            "ffffffffffff 020000000001 0806 0001080006040001 020000000001 0a010002"
            " 000000000000 0a010001",
            True,
            "send arp 10.1.0.2 (02:00:00:00:00:01) -> 10.1.0.1 (00:00:00:00:00:00) valid:true",
        ),
        (f"{MACS} 88cc 0000", False, "recv unknown network protocol 0x88cc len:2"),
        (f"{V4} 4500", False, "recv malformed packet len:16"),
    ],
)
def test_lines(frame: str, sent: bool, expected: str) -> None:
    assert line(bytes.fromhex(frame), sent) == expected


def test_no_frame_is_an_exception() -> None:
    dice = random.Random(1)
    heads = [bytes.fromhex(head) for head in (V4, V6, f"{MACS} 0806")]
    for _ in range(20_000):
        body = dice.randbytes(dice.randrange(90))
        said = line(dice.choice(heads) + body, sent=True)
        assert said.startswith("send ")
        assert "\n" not in said
