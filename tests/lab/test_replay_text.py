"""The replay agent prints as Cilium 1.20-dev printed: recorded values in, recorded lines out."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest

from tests.lab.cluster.agent.text import ct_line, table

CLIENT, WEB, WORLD = "10.244.1.53", "10.244.0.251", "1.1.1.1"
FIN_SYN = 3


def entry(
    daddr: str, saddr: str, dport: int, sport: int, protocol: int, flags: int, **value: int
) -> tuple[bytes, bytes]:
    """A stored key and value, from the fields that `-o json` shows (cilium-facts 3.1, 3.3)."""
    key = IPv4Address(daddr).packed + IPv4Address(saddr).packed
    key += dport.to_bytes(2, "big") + sport.to_bytes(2, "big") + bytes([protocol, flags])
    body = struct.pack(
        "=QQQQIH2s2sBBIII",
        0,
        value.get("backend", 0),
        0,
        0,
        value["lifetime"],
        value.get("ct_flags", 0),
        value.get("revnat", 0).to_bytes(2, "big"),
        bytes(2),
        value.get("tx", 0),
        value.get("rx", 0),
        value.get("identity", 0),
        value.get("last_tx", 0),
        value.get("last_rx", 0),
    )
    assert (len(key), len(body)) == (14, 56)
    return key, body


CLOSED = {"lifetime": 5773, "ct_flags": 19, "tx": FIN_SYN, "last_tx": 5763}
BOTH = {**CLOSED, "rx": FIN_SYN, "last_rx": 5763}


@pytest.mark.parametrize(
    ("stored", "line"),
    [
        (
            entry(CLIENT, WEB, 8080, 38510, 6, 1, identity=36172, **BOTH),
            "TCP IN 10.244.1.53:38510 -> 10.244.0.251:8080 expires=5773 Packets=0 Bytes=0 "
            "RxFlagsSeen=0x03 LastRxReport=5763 TxFlagsSeen=0x03 LastTxReport=5763 Flags=0x0013 "
            "[ RxClosing TxClosing SeenNonSyn ] RevNAT=0 SourceSecurityID=36172 BackendID=0 "
            "NatPort=0 \n",
        ),
        (
            entry(CLIENT, WORLD, 80, 54498, 6, 0, identity=36172, **BOTH),
            "TCP OUT 10.244.1.53:54498 -> 1.1.1.1:80 expires=5773 Packets=0 Bytes=0 "
            "RxFlagsSeen=0x03 LastRxReport=5763 TxFlagsSeen=0x03 LastTxReport=5763 Flags=0x0013 "
            "[ RxClosing TxClosing SeenNonSyn ] RevNAT=0 SourceSecurityID=36172 BackendID=0 "
            "NatPort=0 \n",
        ),
        (
            entry("10.96.71.229", CLIENT, 38510, 80, 6, 4, backend=2, revnat=2, **CLOSED),
            "TCP SVC 10.244.1.53:38510 -> 10.96.71.229:80 expires=5773 Packets=0 Bytes=0 "
            "RxFlagsSeen=0x00 LastRxReport=0 TxFlagsSeen=0x03 LastTxReport=5763 Flags=0x0013 "
            "[ RxClosing TxClosing SeenNonSyn ] RevNAT=2 SourceSecurityID=0 BackendID=2 "
            "NatPort=0 \n",
        ),
        (
            entry(
                CLIENT, WEB, 0, 0, 1, 3, lifetime=5823, rx=2, last_rx=5763, identity=36172
            ),
            "ICMP IN 10.244.1.53:0 -> 10.244.0.251:0 related expires=5823 Packets=0 Bytes=0 "
            "RxFlagsSeen=0x02 LastRxReport=5763 TxFlagsSeen=0x00 LastTxReport=0 Flags=0x0000 "
            "[ ] RevNAT=0 SourceSecurityID=36172 BackendID=0 NatPort=0 \n",
        ),
    ],
    ids=["in", "out", "service", "related"],
)  # fmt: skip
def test_conntrack_lines(stored: tuple[bytes, bytes], line: str) -> None:
    assert ct_line(*stored, None) == line


def test_time_that_remains() -> None:
    stored = entry(CLIENT, WEB, 8080, 38510, 6, 1, identity=36172, **BOTH)
    assert " expires=5773 (remaining: 1 sec(s)) Packets=0 " in ct_line(*stored, 5772)


def test_table_that_ends_open() -> None:
    rows = [
        ["REASON", "DIRECTION", "PACKETS", "BYTES", "LINE", "FILE"],
        ["Interface", "INGRESS", "2", "84", "1139", "bpf_host.c"],
        ["Unsupported L3 protocol", "EGRESS", "3", "230", "1713", "bpf_lxc.c"],
    ]
    assert table(rows, open_end=True) == (
        "REASON                    DIRECTION   PACKETS   BYTES   LINE   FILE\n"
        "Interface                 INGRESS     2         84      1139   bpf_host.c\n"
        "Unsupported L3 protocol   EGRESS      3         230     1713   bpf_lxc.c\n"
    )


def test_table_whose_rows_end_with_a_tab() -> None:
    rows = [
        ["ID", "BACKEND ADDRESS (REVNAT_ID) (SLOT)"],
        ["2", "TCP://10.244.0.251"],
        ["1", "TCP://172.30.0.1"],
    ]
    assert table(rows) == (
        "ID   BACKEND ADDRESS (REVNAT_ID) (SLOT)\n"
        "2    TCP://10.244.0.251   \n"
        "1    TCP://172.30.0.1     \n"
    )
