"""Reads Cilium's conntrack and NAT as `-o json` prints them, to compare the text form with.

Addresses are lists of bytes; ports and RevNAT are network order read as little endian
(cilium-facts 2 and 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address

from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, Address, Flow

FLAGS = {
    0x01: "RxClosing", 0x02: "TxClosing", 0x04: "Nat64", 0x08: "LBLoopback", 0x10: "SeenNonSyn",
    0x20: "NodePort", 0x40: "ProxyRedirect", 0x80: "DSRInternal", 0x100: "FromL7LB",
    0x400: "FromTunnel",
}  # fmt: skip


def ct(data: bytes) -> Iterator[CtEntry]:
    """Every entry of `bpf ct list global -o json` of a new version, without its times."""
    for item in json.loads(data):
        key, value = item["Key"], item["Value"]
        source, destination = _address(key["SourceAddr"]), _address(key["DestAddr"])
        sport, dport = _swapped(key["SourcePort"]), _swapped(key["DestPort"])
        related, service = bool(key["Flags"] & 2), bool(key["Flags"] & 4)
        one, other = (destination, sport), (source, dport)
        if service:
            one, other = (source, dport), (destination, sport)
        counted = bool(value["Packets"] or value["Bytes"])
        yield CtEntry(
            flow=_flow(key["NextHeader"], one, other, related),
            direction="SVC" if service else "IN" if key["Flags"] & 1 else "OUT",
            related=related,
            flags=frozenset(name for bit, name in FLAGS.items() if value["Flags"] & bit),
            packets=value["Packets"] if counted else None,
            bytes=value["Bytes"] if counted else None,
            rev_nat=_swapped(value["RevNAT"]),
            source_identity=value["SourceSecurityID"],
            backend_id=value["Union0"][1] if service else 0,
            last_tx_report=value["LastTxReport"],
            last_rx_report=value["LastRxReport"],
        )


def nat(data: bytes) -> Iterator[NatEntry]:
    """Every entry of `bpf nat list -o json`, without its age."""
    for item in json.loads(data):
        key, value = item["Key"], item["Value"]
        direction = "IN" if key["Flags"] & 1 else "OUT"
        one = (_address(key["SourceAddr"]), _swapped(key["SourcePort"]))
        other = (_address(key["DestAddr"]), _swapped(key["DestPort"]))
        if key["NextHeader"] in (ICMP, ICMPV6) and direction == "IN":
            flow = Flow(key["NextHeader"], one[0], None, other[0], other[1] or None)
        else:
            flow = _flow(key["NextHeader"], one, other, False)
        yield NatEntry(
            flow=flow,
            direction=direction,
            address=_address(value["Addr"]),
            port=_swapped(value["Port"]),
            needs_ct=1 in (value.get("NeedsCT"), value.get("HostLocal")),
        )


def _flow(
    protocol: int, one: tuple[Address, int], other: tuple[Address, int], related: bool
) -> Flow:
    if related:
        return Flow(protocol, one[0], None, other[0], None)
    if protocol in (ICMP, ICMPV6):
        return Flow(protocol, one[0], one[1] or other[1] or None, other[0], None)
    return Flow(protocol, *one, *other)


def _address(value: list[int]) -> Address:
    return ip_address(bytes(value))


def _swapped(value: int) -> int:
    return int.from_bytes(value.to_bytes(2, "little"), "big")
