"""Packed entries of Cilium's maps against what its own tools print of the same entries.

Lines are those of cilium-facts 2, of each version; bytes are built from cilium-facts 3 by
cilium_bpffs.py. No kernel is needed.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium import EgressGatewayPolicy
from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.node.cilium import drop_reasons, layout_lb, layout_tables, layout_tuple
from kubectl_ebpfnet.node.cilium.layout_tuple import DatapathClock
from kubectl_ebpfnet.parse.cilium import ct as cilium_ct
from kubectl_ebpfnet.parse.cilium import maps, nat, policy
from tests.node.cilium.cilium_bpffs import (
    ct_key,
    ct_value,
    endpoint_key,
    ipcache_key,
    lpm_address,
    nat_key,
    nat_value,
    packed,
)

POD, WORLD, VIP = "10.244.0.213", "1.0.0.1", "10.96.0.10"
BITS = 0x13  # RxClosing, TxClosing, SeenNonSyn
WORDS = "RxClosing TxClosing SeenNonSyn"
NOW = 17755032
LEFT = "expires=17755044 (remaining: 12 sec(s))"
ZERO = "Packets=0 Bytes=0"
SEEN = "RxFlagsSeen=0x1b LastRxReport=0 TxFlagsSeen=0x00 LastTxReport=0 Flags=0x0013"
TAIL = f"{SEEN} [ {WORDS} ] RevNAT=7 SourceSecurityID=42837"
COMMON = {"expires": 17755044, "flags": BITS, "rev_nat": 7, "seen": (0, 0x1B), "identity": 42837}
APART = "RxPackets=5 RxBytes=500 {rx} TxPackets=7 TxBytes=700 {tx} Flags=0x0013 [ {words} ]"
OLD = APART.format(
    rx="RxFlagsSeen=0x1b LastRxReport=0", tx="TxFlagsSeen=0x00 LastTxReport=0", words=WORDS
)


def ct(key: bytes, value: bytes, *, apart: bool = False, now: int = NOW) -> CtEntry | None:
    layout = layout_tuple.of_sizes("cilium_ct4_global", (len(key), len(value)), layout_tuple.CT)
    return layout_tuple.ct_entry(key, value, layout, DatapathClock(now), apart=apart)


@pytest.mark.parametrize(
    ("key", "value", "apart", "line"),
    [
        (
            ct_key(6, "OUT", f"{POD}:46486", f"{WORLD}:80"),
            ct_value(**COMMON),
            False,
            f"TCP OUT {POD}:46486 -> {WORLD}:80 {LEFT} {ZERO} {TAIL} BackendID=0 NatPort=0 ",
        ),
        (
            ct_key(6, "IN", f"{WORLD}:5555", f"{POD}:80"),
            ct_value(packets=3, size=180, **COMMON),
            False,
            f"TCP IN {WORLD}:5555 -> {POD}:80 {LEFT} Packets=3 Bytes=180 {TAIL} BackendID=0 ",
        ),
        (
            ct_key(6, "SVC", f"{POD}:43210", f"{VIP}:53"),
            ct_value(second=12, **COMMON),
            False,
            f"TCP SVC {POD}:43210 -> {VIP}:53 {LEFT} {ZERO} {TAIL} BackendID=12 NatPort=0 ",
        ),
        (
            ct_key(1, "OUT", f"{POD}:0", f"{WORLD}:0", related=True),
            ct_value(**COMMON),
            False,
            f"ICMP OUT {POD}:0 -> {WORLD}:0 related {LEFT} {ZERO} {TAIL} BackendID=0 ",
        ),
        (
            ct_key(1, "OUT", f"{POD}:4711", f"{WORLD}:0"),
            ct_value(**COMMON),
            False,
            f"ICMP OUT {POD}:4711 -> {WORLD}:0 {LEFT} {ZERO} {TAIL} BackendID=0 NatPort=0 ",
        ),
        (
            ct_key(17, "OUT", "[fd00::]:4000", "[fe00::]:80"),
            ct_value(**COMMON),
            False,
            f"UDP OUT fd00:::4000 -> fe00:::80 {LEFT} {ZERO} {TAIL} BackendID=0 NatPort=0 ",
        ),
        (  # 1.19: the address and port of an egress gateway are where the counters were
            ct_key(6, "OUT", f"{POD}:46486", f"{WORLD}:80"),
            ct_value(first=1 << 60, second=99, packets=1, size=60, at_40=b"\xb5\x96", **COMMON),
            False,
            f"TCP OUT {POD}:46486 -> {WORLD}:80 {LEFT} Packets=1 Bytes=60 {TAIL} BackendID=0"
            " NatPort=46486 ",
        ),
        (  # 1.16, of which the size alone does not tell that it is not 1.15
            ct_key(6, "SVC", f"{POD}:43210", f"{VIP}:53"),
            ct_value(second=12, packets=2, size=120, **COMMON),
            True,
            f"TCP SVC {POD}:43210 -> {VIP}:53 {LEFT} Packets=2 Bytes=120 {TAIL} IfIndex=0"
            " BackendID=12 ",
        ),
        (  # 1.15
            ct_key(6, "OUT", f"{POD}:46486", f"{WORLD}:80"),
            ct_value(first=5, second=500, packets=7, size=700, at_40=b"\x0c\0", **COMMON),
            True,
            f"TCP OUT {POD}:46486 -> {WORLD}:80 {LEFT} {OLD} RevNAT=7 SourceSecurityID=42837"
            " IfIndex=12 ",
        ),
        (
            ct_key(17, "OUT", f"{POD}:43210", f"{VIP}:53"),
            ct_value(first=5, second=500, packets=7, size=700, **COMMON),
            True,
            f"UDP OUT {POD}:43210 -> {VIP}:53 {LEFT} {OLD} RevNAT=7 SourceSecurityID=42837 ",
        ),
    ],
    ids=[
        "out", "in", "service", "related", "echo", "ipv6", "nat hint", "1.16 service", "1.15",
        "1.15 udp",
    ],
)  # fmt: skip
def test_conntrack_is_what_cilium_prints(key: bytes, value: bytes, apart: bool, line: str) -> None:
    assert ct(key, value, apart=apart) == cilium_ct.entry(line.encode(), 1)


def test_old_service_keeps_its_backend_where_received_bytes_are() -> None:
    line = f"TCP OUT {VIP}:53 -> {POD}:43210 service {LEFT} {OLD} RevNAT=7 SourceSecurityID=42837 "
    said = cilium_ct.entry(line.encode(), 1)
    value = ct_value(first=5, second=500, packets=7, size=700, **COMMON)
    got = ct(ct_key(6, "SVC", f"{POD}:43210", f"{VIP}:53"), value, apart=True)
    assert said is not None
    assert got == replace(said, backend_id=500)  # which 1.14 does not print


def test_every_flag_has_cilium_s_name() -> None:
    names = {
        0x01: "RxClosing", 0x02: "TxClosing", 0x04: "Nat64", 0x08: "LBLoopback", 0x10: "SeenNonSyn",
        0x20: "NodePort", 0x40: "ProxyRedirect", 0x80: "DSRInternal", 0x100: "FromL7LB",
        0x400: "FromTunnel",
    }  # fmt: skip
    for bits in [1 << n for n in range(16)] + [0xFFFF]:
        got = ct(ct_key(6, "OUT", "1.0.0.1:1", "2.0.0.1:2"), ct_value(flags=bits))
        assert got is not None
        assert got.flags == {name for bit, name in names.items() if bits & bit}


@pytest.mark.parametrize(
    ("expires", "now", "remaining"),
    [
        (8000, 1000, 7000),
        (8000, 8001, -1),
        (17755044, 14946, None),  # jiffies >> 8
        (0, 10_000_000, None),
    ],
)
def test_lifetimes_in_another_clock_are_not_told(
    expires: int, now: int, remaining: int | None
) -> None:
    key = ct_key(6, "OUT", f"{POD}:1", f"{WORLD}:80")
    got = ct(key, ct_value(expires=expires), now=now)
    assert got is not None
    assert (got.expires, got.remaining) == (expires, remaining)


def test_times_in_jiffies_become_seconds_where_the_kernel_tells_its_jiffies() -> None:
    key = ct_key(6, "OUT", f"{POD}:1", f"{WORLD}:80")
    layout = layout_tuple.IPV4_TUPLE
    # 10,000 s after the boot at 250 Hz: 2^32 - 75,000 + 2,500,000 (cilium 1.9.8 of captures/raw).
    clock = DatapathClock(10_000, (1 << 32) + 2_425_000)
    now = clock.jiffies // 256 if clock.jiffies else 0
    value = ct_value(expires=now + 59, reports=(now - 10, 0))
    got = layout_tuple.ct_entry(key, value, layout, clock)
    assert got is not None
    assert (clock.hertz, got.remaining) == (250, 60)
    assert (got.last_tx_report, got.last_rx_report) == (9989, 0)
    unknown = layout_tuple.ct_entry(key, value, layout, DatapathClock(10_000))
    assert unknown is not None
    assert (unknown.remaining, unknown.last_tx_report) == (None, now - 10)


def test_an_entry_that_nobody_removed_for_days_is_not_in_jiffies() -> None:
    clock = DatapathClock(200_000, (1 << 32) + 49_925_000)
    key, value = ct_key(6, "OUT", f"{POD}:1", f"{WORLD}:80"), ct_value(expires=50, reports=(40, 0))
    got = layout_tuple.ct_entry(key, value, layout_tuple.IPV4_TUPLE, clock)
    assert got is not None
    assert (got.last_tx_report, got.remaining) == (40, None)


def test_keys_without_protocol_are_passed_over() -> None:
    assert ct(ct_key(0, "OUT", f"{POD}:1", f"{WORLD}:80"), ct_value()) is None
    key, value = nat_key(0, "OUT", f"{POD}:1", f"{WORLD}:80"), nat_value(f"{VIP}:1")
    assert layout_tuple.nat_entry(key, value, layout_tuple.IPV4_TUPLE, NOW) is None


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            nat_key(6, "OUT", f"{POD}:46486", f"{WORLD}:80"),
            nat_value("172.18.0.2:40000", NOW - 12),
            f"TCP OUT {POD}:46486 -> {WORLD}:80 XLATE_SRC 172.18.0.2:40000 Created=12sec ago"
            " NeedsCT=0 ",
        ),
        (
            nat_key(6, "IN", f"{WORLD}:80", "172.18.0.2:40000"),
            nat_value(f"{POD}:46486", NOW - 12, 1),
            f"TCP IN {WORLD}:80 -> 172.18.0.2:40000 XLATE_DST {POD}:46486 Created=12sec ago"
            " NeedsCT=1 ",
        ),
        (
            nat_key(17, "OUT", "[fd00::5]:46486", "[2001:db8::1]:53"),
            nat_value("[fd01::2]:40000", NOW),
            "UDP OUT [fd00::5]:46486 -> [2001:db8::1]:53 XLATE_SRC [fd01::2]:40000 Created=0sec ago"
            " HostLocal=0 ",
        ),
        (
            nat_key(1, "OUT", f"{POD}:4711", f"{WORLD}:0"),
            nat_value("172.18.0.2:4712", NOW - 1),
            f"ICMP OUT {POD}:4711 -> {WORLD}:0 XLATE_SRC 172.18.0.2:4712 Created=1sec ago"
            " NeedsCT=0 ",
        ),
        (
            nat_key(1, "IN", f"{WORLD}:0", "172.18.0.2:4712"),
            nat_value(f"{POD}:4711", NOW - 1),
            f"ICMP IN {WORLD}:0 -> 172.18.0.2:4712 XLATE_DST {POD}:4711 Created=1sec ago NeedsCT=0",
        ),
        (  # another clock
            nat_key(6, "OUT", f"{POD}:46486", f"{WORLD}:80"),
            nat_value("172.18.0.2:46486", NOW + 100),
            f"TCP OUT {POD}:46486 -> {WORLD}:80 XLATE_SRC 172.18.0.2:46486 Created=? (raw 1)"
            " NeedsCT=0 ",
        ),
    ],
    ids=["out", "in", "ipv6", "echo", "echo reply", "no clock"],
)
def test_nat_is_what_cilium_prints(key: bytes, value: bytes, line: str) -> None:
    layout = layout_tuple.of_sizes("cilium_snat", (len(key), len(value)), layout_tuple.NAT)
    assert layout_tuple.nat_entry(key, value, layout, NOW) == nat.entry(line.encode(), 1)


def test_keys_of_a_flow_are_those_of_its_entries() -> None:
    flow = Flow(6, ip_address(POD), 46486, ip_address(WORLD), 80)
    client, server = f"{POD}:46486", f"{WORLD}:80"
    stored = {
        ct_key(6, way, one, other)
        for way in ("OUT", "IN", "SVC")
        for one, other in ((client, server), (server, client))
    } | {
        ct_key(1, way, f"{one}:0", f"{other}:0", related=True)  # for ICMP errors
        for way in ("OUT", "IN")
        for one, other in ((POD, WORLD), (WORLD, POD))
    }
    assert set(layout_tuple.ct_keys(flow)) == set(layout_tuple.ct_keys(flow.reversed())) == stored
    stored = {
        nat_key(6, way, one, other)
        for way in ("OUT", "IN")
        for one, other in ((client, server), (server, client))
    }
    assert set(layout_tuple.nat_keys(flow)) == set(layout_tuple.nat_keys(flow.reversed())) == stored


def test_each_nat_entry_names_the_other() -> None:
    out = nat_key(6, "OUT", f"{POD}:46486", f"{WORLD}:80"), nat_value("172.18.0.2:40000")
    back = nat_key(6, "IN", f"{WORLD}:80", "172.18.0.2:40000"), nat_value(f"{POD}:46486")
    for (key, value), (other, _) in ((out, back), (back, out)):
        entry = layout_tuple.nat_entry(key, value, layout_tuple.IPV4_TUPLE, NOW)
        assert entry is not None
        assert layout_tuple.nat_twin(entry) == other


def test_unknown_sizes_are_named() -> None:
    with pytest.raises(KernelError) as caught:
        layout_tuple.of_sizes("cilium_ct4_global", (14, 64), layout_tuple.CT)
    assert caught.value.message == (
        "map cilium_ct4_global has keys of 14 bytes and values of 64 bytes;"
        " known are 14 and 56, 38 and 56"
    )


def policy_key(bits: int, identity: int, egress: int, protocol: int, port: int) -> bytes:
    return struct.pack("=IIBB", bits, identity, egress, protocol) + port.to_bytes(2, "big")


@pytest.mark.parametrize(
    ("key", "value", "row", "precedence"),
    [
        (  # 1.9
            struct.pack("=IHBB", 42837, 0x5000, 6, 1),
            struct.pack("=HBBIQQ", 0, 0, 0, 0, 4, 300),
            "Allow Egress 42837 80/TCP NONE 300 4",
            None,
        ),
        (
            struct.pack("=IHBB", 0, 0, 0, 0),
            struct.pack("=HBBIQQ", 0, 0, 0, 0, 0, 0),
            "Allow Ingress 0 ANY NONE 0 0",
            None,
        ),
        (  # 1.14, a proxy, and a range
            policy_key(60, 7, 0, 6, 8080),
            struct.pack("=HBBIQQ", 0x1127, 0, 1, 0, 4, 300),
            "Allow Ingress 7 0x1f90/12/TCP 10001 300 4",
            None,
        ),
        (  # 1.17
            policy_key(60, 7, 0, 6, 8080),
            struct.pack("=HBBIQQ", 0, 0xA0, 0, 9, 4, 300),
            "Allow Ingress 7 8080-8095/TCP NONE 300 4",
            None,
        ),
        (  # 1.18
            policy_key(48, 2, 1, 17, 0),
            struct.pack("=HBBI", 0, 0x41, 0, 9),
            "Deny Egress 2 UDP NONE - -",
            None,
        ),
        (  # 1.19
            policy_key(64, 5, 1, 6, 80),
            struct.pack("=HBBII", 0, 0xC0, 0, 4294967040, 1),
            "Allow Egress 5 80/TCP NONE - -",
            4294967040,
        ),
    ],
    ids=["1.9", "1.9 any", "1.14", "1.17", "1.18", "1.19"],
)
def test_policy_is_what_cilium_prints(
    key: bytes, value: bytes, row: str, precedence: int | None
) -> None:
    names = ("POLICY", "DIRECTION", "IDENTITY", "PORT/PROTO", "PROXY PORT", "BYTES", "PACKETS")
    table = "\n".join("".join(cell.ljust(16) for cell in line) for line in (names, row.split()))
    text = f"Endpoint ID: 448\nPath: /x/cilium_policy_00448\n\n{table}\n"
    (said,) = policy.entries(text.encode())
    layout = layout_tuple.of_sizes("cilium_policy", (len(key), len(value)), layout_tables.POLICY)
    got = layout_tables.policy_entry(448, key, value, layout)
    assert got == replace(said, precedence=precedence)


def test_counters_of_a_policy_have_its_key_but_for_the_first_word() -> None:
    key = policy_key(64, 5, 1, 6, 80)
    assert layout_tables.policy_stats_key(448, key) == (
        struct.pack("=HBBIBB", 448, 0, 24, 5, 1, 6) + b"\0\x50"
    )


def ipcache_value(identity: int, tunnel: str, rest: bytes) -> bytes:
    return struct.pack("=I", identity) + packed(tunnel) + rest


@pytest.mark.parametrize(
    ("value", "with_ids", "said"),
    [
        (ipcache_value(42837, "172.18.0.3", b"\x03\0\0\0"), False, "42837 3 172.18.0.3"),
        (
            ipcache_value(42837, "172.18.0.3", b"\x2a\x1a\x04\0"),
            True,
            "identity=42837 encryptkey=4 tunnelendpoint=172.18.0.3 nodeid=0x1a2a",
        ),
        (
            ipcache_value(42837, "0.0.0.0", b"\0\0\x05\0"),
            True,
            "identity=42837 encryptkey=5 tunnelendpoint=0.0.0.0",
        ),
        (
            ipcache_value(42837, "172.18.0.3", b"\0\0\0\x01"),
            True,
            "identity=42837 encryptkey=0 tunnelendpoint=172.18.0.3, flags=skiptunnel",
        ),
        (
            ipcache_value(42837, "172.18.0.3", bytes(14) + b"\xff\x02"),
            True,
            "identity=42837 encryptkey=255 tunnelendpoint=172.18.0.3 flags=hastunnel",
        ),
        (
            ipcache_value(42837, "fd01::3", b"\0\0\x00\x06"),
            True,
            "identity=42837 encryptkey=0 tunnelendpoint=fd01::3 flags=hastunnel,ipv6tunnel",
        ),
        (
            ipcache_value(2, "0.0.0.0", bytes(14) + b"\0\0"),
            True,
            "identity=2 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>",
        ),
    ],
    ids=["1.9", "1.14", "1.15", "1.16", "1.18", "1.18 ipv6", "none"],
)
@pytest.mark.parametrize("prefix", ["10.244.0.0/16", "0.0.0.0/0", "fd00::5/128"])
def test_ipcache_is_what_cilium_prints(
    prefix: str, value: bytes, with_ids: bool, said: str
) -> None:
    key = ipcache_key(prefix)
    layout = layout_tuple.of_sizes("cilium_ipcache", (len(key), len(value)), layout_tables.IPCACHE)
    where = layout_tables.KEY_OFFSET if with_ids else layout_tables.KEY_OFFSET_OLD
    assert (layout(key, value, where),) == maps.ipcache(f"{prefix}   {said}\n".encode())


def endpoint_value(ifindex: int, number: int, flags: int, identity: int) -> bytes:
    macs = bytes.fromhex("0a0b0c0d0e0f0000 3a3b3c3d3e3f0000")
    return struct.pack("=IHHII", ifindex, 0, number, flags, 0) + macs + struct.pack(
        "=I12x", identity
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            endpoint_key(POD),
            endpoint_value(13, 1174, 0, 60735),
            f"{POD}:0   id=1174  sec_id=60735 flags=0x0000 ifindex=13  mac=0A:0B:0C:0D:0E:0F"
            " nodemac=3A:3B:3C:3D:3E:3F parent_ifindex=0  ",
        ),
        (
            endpoint_key("fd00::5"),
            endpoint_value(13, 1174, 0, 0),
            "[fd00::5]:0   id=1174  flags=0x0000 ifindex=13  mac=0A:0B:0C:0D:0E:0F"
            " nodemac=3A:3B:3C:3D:3E:3F",
        ),
        (endpoint_key("172.18.0.2"), endpoint_value(0, 0, 1, 0), "172.18.0.2:0   (localhost)"),
    ],
    ids=["1.17", "1.9 ipv6", "host"],
)
def test_endpoints_are_what_cilium_prints(key: bytes, value: bytes, line: str) -> None:
    layout = layout_tuple.of_sizes("cilium_lxc", (len(key), len(value)), layout_tables.ENDPOINTS)
    assert (layout(key, value),) == maps.endpoint_map(f"IP ADDRESS   INFO\n{line}\n".encode())


def test_address_family_that_is_not_known() -> None:
    key = endpoint_key(POD)[:16] + b"\x07\0\0\0"
    with pytest.raises(KernelError, match="family 7"):
        layout_tables.ENDPOINTS[20, 48](key, bytes(48))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (0, "ClusterIP, non-routable"),
        (0x40 | 0x20 | 0x04 | 0x2000, "LoadBalancer, Local, two-scopes"),
        (0x42 | 0x1000, "NodePort, InternalLocal"),
        (0x01 | 0x10, "ExternalIPs, sessionAffinity, non-routable"),
        (0x08 | 0x800 | 0x40, "HostPort, loopback"),
        (0x40 | 0x20 | 0x800, "LoadBalancer, delegate-if-local"),
        (0x40 | 0x20 | 0x80 | 0x4000, "LoadBalancer, check source-range, deny"),
        (0x40 | 0x100 | 0x4000, "LocalRedirect, quarantined"),
        (0x40 | 0x20 | 0x200 | 0x400 | 0x8000, "LoadBalancer, 46x64, l7-load-balancer, dsr"),
    ],
)
def test_words_of_service_flags(flags: int, said: str) -> None:
    kind, *others = said.split(", ")
    assert layout_lb.flag_words(flags) == (kind, frozenset(others))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            lpm_address("1.2.0.0/16", 32, packed(POD)),
            packed("172.18.0.9") + packed("172.18.0.3"),
            EgressGatewayPolicy(
                ip_address(POD), ip_network("1.2.0.0/16"), ip_address("172.18.0.9"),
                ip_address("172.18.0.3"),
            ),
        ),
        (
            lpm_address("0.0.0.0/0", 32, packed(POD)),
            packed("0.0.0.0") + packed("0.0.0.0"),
            EgressGatewayPolicy(ip_address(POD), ip_network("0.0.0.0/0"), None, None),
        ),
        (
            lpm_address("10.0.0.0/8", 32, packed(POD)),
            packed("0.0.0.0") + packed("0.0.0.1") + bytes(20),
            EgressGatewayPolicy(
                ip_address(POD), ip_network("10.0.0.0/8"), None, None, excluded=True
            ),
        ),
        (
            lpm_address("2001:db8::/32", 128, packed("fd00::5")),
            packed("fd01::9") + packed("172.18.0.3") + bytes(12) + struct.pack("=I", 7) + bytes(4),
            EgressGatewayPolicy(
                ip_address("fd00::5"), ip_network("2001:db8::/32"), ip_address("fd01::9"),
                ip_address("172.18.0.3"), device=7,
            ),
        ),
    ],
    ids=["gateway", "not found", "excluded", "ipv6"],
)  # fmt: skip
def test_egress_gateway(key: bytes, value: bytes, expected: EgressGatewayPolicy) -> None:
    known = {**layout_tables.EGRESS4, **layout_tables.EGRESS6}
    assert layout_tuple.of_sizes("egress", (len(key), len(value)), known)(key, value) == expected


def test_a_prefix_that_cannot_be() -> None:
    key = struct.pack("=I", 99) + packed("10.0.0.0")
    with pytest.raises(KernelError, match="99 bits"):
        layout_tables.MASQ4[8, 1](key, b"\0")


def test_small_tables() -> None:
    masq = layout_tables.MASQ6[20, 1](lpm_address("fd00::/8", 0), b"\0")
    assert masq == ip_network("fd00::/8")


def test_names_of_what_is_counted() -> None:
    assert drop_reasons.reason(133) == "Policy denied"
    assert drop_reasons.reason(255) == "255, 0"
    assert drop_reasons.file(2) == "bpf_lxc.c"
    assert drop_reasons.file(42) == "unknown(42)"
