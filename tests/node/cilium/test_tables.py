"""Cilium's services and smaller maps out of real maps, in the forms of its versions.

What is expected is what `cilium-dbg` prints of the same entries (cilium-facts 2.3 to 2.7), read by
the parsers.
"""

from __future__ import annotations

import errno
import shutil
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium import EgressGatewayPolicy
from kubectl_ebpfnet.model.cilium_events import MetricRow
from kubectl_ebpfnet.model.node_facts import NODE_FACTS
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.cilium import lb
from kubectl_ebpfnet.node.cilium import pins as cilium_pins
from kubectl_ebpfnet.node.server import registry
from kubectl_ebpfnet.parse.cilium import egress, maps, policy
from kubectl_ebpfnet.parse.cilium import lb as printed_lb
from tests.lab.cluster.datapath.syscall_bpf import HASH, LPM_TRIE, PERCPU_HASH
from tests.node.cilium.cilium_bpffs import (
    Pins,
    bpffs,
    end,
    endpoint_key,
    ipcache_key,
    lpm_address,
    packed,
    possible_cpus,
    service_key,
    service_value,
    why_not,
)

pytestmark = pytest.mark.kernel

LRU_PERCPU_HASH = 10
VIP, VIP6 = "10.96.0.1:443", "[fd00:96::1]:443"
NODE_PORT = 0x40 | 0x02 | 0x04 | 0x2000


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pins]:
    if reason := why_not():
        pytest.skip(reason)
    with bpffs() as folder:
        monkeypatch.setattr(cilium_pins, "root", lambda: folder)
        yield Pins(folder)


def facts(name: str, *words: str) -> list[Any]:
    """The answer to a question, each of the class that it must be of."""
    found: Iterable[Any] = registry.function(name)(NodeRequest(1, node_argv(name, *words)))
    found = list(found)
    assert all(isinstance(one, NODE_FACTS[name]) for one in found)
    return found


def backend(address: str, *, state: int | None = None, protocol: int = 6) -> bytes:
    """A backend: of 8 or 20 bytes without, of 12 or 24 with a state."""
    ip, port = end(address)
    if state is None:
        return ip + port + bytes((protocol, 0))
    return ip + port + struct.pack("=BBHBB", protocol, state, 0, 0, 0)


def without(frontend: Any) -> Any:
    """A frontend as text has it, which does not tell a backend's id and state."""
    plain = (replace(one, id=0, state="") for one in frontend.backends)
    return replace(frontend, backends=tuple(plain))


def printed(text: str) -> list[Any]:
    """Frontends of `bpf lb list`, in the order of address and port."""
    found = printed_lb.frontends(f"SERVICE ADDRESS   BACKEND ADDRESS\n{text}".encode())
    return sorted((without(one) for one in found), key=lambda one: (one.port, one.internal))


@pytest.mark.parametrize(
    ("name", "key", "size", "state"),
    [
        ("cilium_lb4_backends", "=H", 8, None),
        ("cilium_lb4_backends_v2", "=I", 8, None),
        ("cilium_lb4_backends_v3", "=I", 12, 0),
    ],
    ids=["1.9", "1.10", "1.14"],
)
def test_services_of_every_form(
    pins: Pins, name: str, key: str, size: int, state: int | None
) -> None:
    pins.make("cilium_lb4_services_v2", 12, 12, {
        service_key(VIP, 0): service_value(0, 5, 0, 2),
        service_key(VIP, 2): service_value(12, 5),
        service_key(VIP, 1): service_value(11, 5),
        service_key(VIP, 3): service_value(13, 5),  # a backend that is not there
        service_key("10.96.0.1:444", 0, scope=0): service_value(0, 6, NODE_PORT),
        service_key("10.96.0.1:444", 0, scope=1): service_value(0, 6, NODE_PORT),
        service_key("10.96.0.1:444", 1, scope=1): service_value(11, 6),
        service_key("10.96.0.1:0", 0): bytes(12),
    })  # fmt: skip
    pins.make(name, struct.calcsize(key), size, {
        struct.pack(key, 11): backend("10.0.0.2:8443", state=state, protocol=0),
        struct.pack(key, 12): backend("10.0.0.3:8443", state=state, protocol=0),
    })  # fmt: skip
    expected = printed(
        "10.96.0.1:0 (0)     0.0.0.0:0 (0) (0) [ClusterIP, non-routable]\n"
        f"{VIP} (0)     0.0.0.0:0 (5) (0) [ClusterIP, non-routable]\n"
        f"{VIP} (3)     backend 13 not found\n"
        f"{VIP} (2)     10.0.0.3:8443 (5) (2)\n"
        f"{VIP} (1)     10.0.0.2:8443 (5) (1)\n"
        "10.96.0.1:444 (0)     0.0.0.0:0 (6) (0) [NodePort, Local, two-scopes]\n"
        "10.96.0.1:444/i (0)     0.0.0.0:0 (6) (0) [NodePort, Local, two-scopes]\n"
        "10.96.0.1:444/i (1)     10.0.0.2:8443 (6) (1)\n"
    )
    found = facts("lb")
    assert [without(one) for one in found] == expected
    assert [(b.id, b.state) for b in found[1].backends] == [
        (11, "" if state is None else "active"), (12, "" if state is None else "active"),
    ]  # fmt: skip


def test_services_with_protocols_states_and_ipv6(pins: Pins) -> None:
    for version, front, one, size in (
        (4, VIP, "10.0.0.2:8443", 12),
        (6, VIP6, "[fd00::2]:8443", 24),
    ):
        pins.make(f"cilium_lb{version}_services_v2", size, 12, {
            service_key(front, 0, 6): service_value(0, 5, 0x40 | 0x20 | 0x1000),
            service_key(front, 1, 6): service_value(1, 5),
            service_key(front, 2, 6): service_value(2, 5),
            service_key(front, 3, 17): service_value(3, 5),
        })  # fmt: skip
        pins.make(f"cilium_lb{version}_backends_v3", 4, size, {
            struct.pack("=I", n): backend(one, state=n, protocol=6) for n in (1, 2, 3)
        })  # fmt: skip
        # An upgrade leaves the old map behind; it is not what the datapath reads.
        pins.make(f"cilium_lb{version}_backends_v2", 4, size - 4, {
            struct.pack("=I", 1): backend("10.9.9.9:1" if version == 4 else "[fd99::]:1"),
        })  # fmt: skip
    flags = "LoadBalancer, InternalLocal"
    expected = [
        one
        for front, zero, to in ((VIP, "0.0.0.0", "10.0.0.2"), (VIP6, "[::]", "[fd00::2]"))
        for one in printed(
            f"{front}/TCP (0)     {zero}:0 (5) (0) [{flags}]\n"
            f"{front}/TCP (1)     {to}:8443/TCP (5) (1)\n"
            f"{front}/TCP (2)     {to}:8443/TCP (5) (2)\n"
            f"{front}/UDP (3)     {to}:8443/TCP (5) (3)\n"
        )
    ]
    found = facts("lb")
    assert [without(one) for one in found] == expected
    assert [b.state for one in found[:2] for b in one.backends] == [
        "terminating", "quarantined", "maintenance",
    ]  # fmt: skip
    assert ("InternalLocal" in found[0].flags, found[1].type) == (True, "")


def test_services_without_their_backends_are_not_guessed(pins: Pins) -> None:
    pins.make("cilium_lb4_services_v2", 12, 12, {})
    with pytest.raises(KernelError, match="no map cilium_lb4_backends_v3 or ") as caught:
        facts("lb")
    assert caught.value.errno == errno.ENOENT


def test_ipcache_of_1_9_and_of_1_14(pins: Pins) -> None:
    value = struct.pack("=I", 42837) + packed("172.18.0.3")
    pins.make("cilium_ipcache", 24, 12, {
        ipcache_key("10.244.0.0/24"): value + b"\x03\0\0\0",
        ipcache_key("0.0.0.0/0"): struct.pack("=I8x", 2),
        ipcache_key("fd00::5/128"): value + b"\0\0\x04\0",
    }, LPM_TRIE)  # fmt: skip
    text = (
        "10.244.0.0/24   42837 3 172.18.0.3\n0.0.0.0/0   2 0 0.0.0.0\nfd00::5/128   42837 4 "
        "172.18.0.3\n"
    )
    assert set(facts("ipcache")) == set(maps.ipcache(text.encode()))
    pins.make("cilium_node_map", 20, 2, {})
    by_prefix = {one.prefix: one.encrypt_key for one in facts("ipcache")}
    assert by_prefix[ip_network("10.244.0.0/24")] == 0  # what is there now is a node's id
    assert by_prefix[ip_network("fd00::5/128")] == 4


def test_ipcache_of_1_18_is_preferred(pins: Pins) -> None:
    value = struct.pack("=I16sHBB", 42837, packed("fd01::3"), 0, 7, 7)
    pins.make("cilium_ipcache", 24, 12, {}, LPM_TRIE)
    pins.make("cilium_ipcache_v2", 24, 24, {ipcache_key("10.244.1.0/24"): value}, LPM_TRIE)
    text = (
        "10.244.1.0/24   identity=42837 encryptkey=7 tunnelendpoint=fd01::3"
        " flags=skiptunnel,hastunnel,ipv6tunnel\n"
    )
    assert facts("ipcache") == list(maps.ipcache(text.encode()))


def test_endpoints(pins: Pins) -> None:
    macs = bytes.fromhex("0a0b0c0d0e0f0000 3a3b3c3d3e3f0000")
    pod = struct.pack("=IHHII", 13, 0, 1174, 0, 0) + macs + struct.pack("=I12x", 60735)
    pins.make("cilium_lxc", 20, 48, {
        endpoint_key("10.244.0.213"): pod,
        endpoint_key("172.18.0.2"): struct.pack("=IHHI36x", 0, 0, 0, 1),
    })  # fmt: skip
    text = (
        "10.244.0.213:0   id=1174  sec_id=60735 flags=0x0000 ifindex=13  mac=0A:0B:0C:0D:0E:0F"
        " nodemac=3A:3B:3C:3D:3E:3F parent_ifindex=0  \n172.18.0.2:0   (localhost)\n"
    )
    assert set(facts("endpoints")) == set(maps.endpoint_map(text.encode()))


ALLOW_WEB = struct.pack("=IIBB", 64, 42837, 1, 6) + b"\0\x50"
ALLOW_ALL = struct.pack("=IIBBH", 40, 0, 0, 0, 0)
WEB_ROW, ALL_ROW = "Allow  Egress  42837  80/TCP  NONE", "Allow  Ingress  0  ANY  NONE"
COLUMNS = ("POLICY", "DIRECTION", "IDENTITY", "PORT/PROTO", "PROXY PORT", "BYTES", "PACKETS")


def policy_text(endpoint: int, *rows: str) -> set[Any]:
    """Entries of `bpf policy get -n`."""
    table = [COLUMNS, *(row.split() for row in rows)]
    body = "\n".join("".join(cell.ljust(16) for cell in row) for row in table)
    text = f"Endpoint ID: {endpoint}\nPath: /x/cilium_policy_{endpoint:05d}\n\n{body}\n"
    return set(policy.entries(text.encode()))


@pytest.mark.parametrize(
    ("name", "kind", "entries"),
    [
        (
            "cilium_policy_{:05d}",
            HASH,
            {
                struct.pack("=I2sBB", 42837, b"\0\x50", 6, 1): struct.pack("=8xQQ", 4, 300),
                bytes(8): struct.pack("=8xQQ", 0, 0),
            },
        ),
        (
            "cilium_policy_{:05d}",
            LPM_TRIE,
            {
                ALLOW_WEB: struct.pack("=8xQQ", 4, 300),
                ALLOW_ALL: struct.pack("=8xQQ", 0, 0),
            },
        ),
        (
            "cilium_policy_v2_{:05d}",
            LPM_TRIE,
            {
                ALLOW_WEB: struct.pack("=HBBB3xQQ", 0, 0xC0, 0, 1, 4, 300),
                ALLOW_ALL: struct.pack("=8xQQ", 0, 0),
            },
        ),
    ],
    ids=["1.9", "1.14", "1.17"],
)
def test_policy_with_counters(
    pins: Pins, name: str, kind: int, entries: dict[bytes, bytes]
) -> None:
    (key_size,) = {len(key) for key in entries}
    for endpoint in (448, 7):
        pins.make(name.format(endpoint), key_size, 24, entries, kind)
    pins.make("cilium_policystats", 12, 16, {}, LRU_PERCPU_HASH)
    rows = f"{WEB_ROW} 300 4", f"{ALL_ROW} 0 0"
    assert set(facts("policy")) == policy_text(448, *rows) | policy_text(7, *rows)
    assert set(facts("policy", "7")) == policy_text(7, *rows)
    assert set(facts("policy", "00448", "7", "99")) == set(facts("policy"))


@pytest.mark.parametrize("value", ["=HBBI", "=HBBII"], ids=["1.18", "1.19"])
def test_policy_whose_counters_are_elsewhere(pins: Pins, value: str) -> None:
    rest = (0,) if value == "=HBBI" else (0xFFFFFF00, 0)
    web, everything = struct.pack(value, 0, 0xC0, 0, *rest), struct.pack(value, 0, 0, 0, *rest)
    pins.make("cilium_policy_v2_00448", 12, len(web), {ALLOW_WEB: web, ALLOW_ALL: everything},
              LPM_TRIE)  # fmt: skip
    # Cilium 1.17 named its maps like this too, and left one behind.
    pins.make("cilium_policy_00448", 12, 24, {ALLOW_ALL: bytes(24)}, LPM_TRIE)
    precedence = None if value == "=HBBI" else 0xFFFFFF00

    def wanted(*rows: str) -> set[Any]:
        return {replace(one, precedence=precedence) for one in policy_text(448, *rows)}

    assert set(facts("policy")) == wanted(f"{WEB_ROW} - -", f"{ALL_ROW} - -")
    cpus = possible_cpus()
    each = b"".join(struct.pack("=QQ", 2 + n, 100) for n in range(cpus))
    key = struct.pack("=HBBIBB", 448, 0, 24, 42837, 1, 6) + b"\0\x50"
    pins.make("cilium_policystats", 12, 16, {key: each}, LRU_PERCPU_HASH)
    packets = sum(2 + n for n in range(cpus))
    assert set(facts("policy")) == wanted(f"{WEB_ROW} {100 * cpus} {packets}", f"{ALL_ROW} - -")


def test_policy_map_of_an_endpoint_that_has_gone(
    pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins.make("cilium_policy_v2_00007", 12, 12, {ALLOW_ALL: bytes(12)}, LPM_TRIE)
    with pytest.raises(KernelError) as caught:
        facts("policy", "448")
    assert caught.value.message == (f"no map cilium_policy_v2_00448 is pinned under {pins.folder}")
    with pytest.raises(KernelError, match="endpoint ids are numbers"):
        facts("policy", "../x")
    names = ("cilium_policy_v2_00007", "cilium_policy_v2_00448")
    monkeypatch.setattr(cilium_pins, "names", lambda _: names)
    assert [one.endpoint_id for one in facts("policy")] == [7]
    monkeypatch.setattr(cilium_pins, "names", lambda _: ("cilium_policystats",))
    with pytest.raises(KernelError, match="no map cilium_policy_… is pinned"):
        facts("policy")


def test_metrics_are_summed_over_the_cpus(pins: Pins) -> None:
    cpus = possible_cpus()
    each = b"".join(struct.pack("=QQ", 3 + n, 100 * n) for n in range(cpus))
    packets, size = sum(3 + n for n in range(cpus)), sum(100 * n for n in range(cpus))
    pins.make("cilium_metrics", 8, 16, {
        struct.pack("=BBHB3x", 133, 2, 1397, 2): each,
        struct.pack("=BBHB3x", 0, 1, 0, 0): each,
        struct.pack("=BBHB3x", 254, 0xFF, 7, 99): each,
    }, PERCPU_HASH)  # fmt: skip
    text = (
        "REASON   DIRECTION   PACKETS   BYTES   LINE   FILE\n"
        f"Policy denied   EGRESS   {packets}   {size}   1397   bpf_lxc.c\n"
        f"254, 0   SERVICE   {packets}   {size}   7   unknown(99)\n"
    )
    old = f"REASON   DIRECTION   PACKETS   BYTES\nSuccess   INGRESS   {packets}   {size}\n"
    expected = {*maps.metrics(text.encode()), *maps.metrics(old.encode())}
    assert set(facts("metrics")) == expected
    assert MetricRow("Success", "ingress", packets, size) in expected


def test_egress_gateways_of_both_families(pins: Pins) -> None:
    old, new = "cilium_egress_gw_policy_v4", "cilium_egress_gw_policy_v4_v2"
    key = lpm_address("1.2.0.0/16", 32, packed("10.0.0.5"))
    value = packed("172.18.0.9") + packed("172.18.0.3")
    pins.make(old, 12, 8, {key: value}, LPM_TRIE)
    four = EgressGatewayPolicy(
        ip_address("10.0.0.5"), ip_network("1.2.0.0/16"), ip_address("172.18.0.9"),
        ip_address("172.18.0.3"),
    )  # fmt: skip
    text = (
        "Source IP   Destination CIDR   Egress IP   Gateway IP\n"
        "10.0.0.5   1.2.0.0/16   172.18.0.9   172.18.0.3\n"
    )
    assert facts("egress") == [four] == list(egress.policies(text.encode()))
    key6 = lpm_address("2001:db8::/32", 128, packed("fd00::5"))
    value6 = packed("fd01::9") + packed("0.0.0.1") + bytes(20)
    pins.make("cilium_egress_gw_policy_v6", 36, 40, {key6: value6}, LPM_TRIE)
    pins.make(new, 12, 28, {key: value + bytes(20)}, LPM_TRIE)
    (pins.folder / old).unlink()
    six = EgressGatewayPolicy(
        ip_address("fd00::5"), ip_network("2001:db8::/32"), ip_address("fd01::9"), None,
        excluded=True,
    )  # fmt: skip
    assert facts("egress") == [four, six]
    (pins.folder / new).unlink()
    assert facts("egress") == [six]


def test_prefixes_that_are_not_masqueraded(pins: Pins) -> None:
    pins.make("cilium_ipmasq_v6", 20, 1, {lpm_address("fd00::/8", 0): b"\0"}, LPM_TRIE)
    assert facts("ipmasq") == [ip_network("fd00::/8")]
    pins.make("cilium_ipmasq_v4", 8, 1, {
        lpm_address("10.0.0.0/8", 0): b"\0", lpm_address("0.0.0.0/0", 0): b"\0",
    }, LPM_TRIE)  # fmt: skip
    text = b"IP PREFIX/ADDRESS\n10.0.0.0/8\n0.0.0.0/0\nfd00::/8\n"
    assert set(facts("ipmasq")) == set(maps.ip_masq(text))


def test_source_ranges_of_both_versions(pins: Pins) -> None:
    four = struct.pack("=I", 32 + 24) + bytes((0, 21, 0, 0)) + packed("192.0.2.0")
    six = struct.pack("=I", 32 + 32) + bytes((1, 2, 0, 0)) + packed("fd00:7::")
    pins.make("cilium_lb4_source_range", 12, 1, {four: b"\0"}, LPM_TRIE)
    pins.make("cilium_lb6_source_range", 24, 1, {six: b"\0"}, LPM_TRIE)
    text = b"SOURCE RANGE (REVNAT_ID)   \n192.0.2.0/24 (21)   \nfd00:7::/32 (258)   \n"
    assert facts("source-ranges") == list(printed_lb.source_ranges(text))


TABLES = {
    "lb": ("cilium_lb4_services_v2", HASH),
    "ipcache": ("cilium_ipcache", LPM_TRIE),
    "endpoints": ("cilium_lxc", HASH),
    "policy": ("cilium_policy_v2_00448", HASH),
    "egress": ("cilium_egress_gw_policy_v4", LPM_TRIE),
    "ipmasq": ("cilium_ipmasq_v4", LPM_TRIE),
    "source-ranges": ("cilium_lb4_source_range", LPM_TRIE),
    "metrics": ("cilium_metrics", HASH),
}


@pytest.mark.parametrize("name", TABLES)
def test_maps_that_are_not_there_or_not_known(pins: Pins, name: str) -> None:
    with pytest.raises(KernelError, match=r"no map .* is pinned under") as caught:
        facts(name)
    assert caught.value.errno == errno.ENOENT
    pin, kind = TABLES[name]
    pins.make(pin, 28, 52, {}, kind)
    if name == "lb":
        pins.make("cilium_lb4_backends_v3", 4, 12, {})
    with pytest.raises(KernelError) as caught:
        facts(name)
    assert caught.value.message.startswith(
        f"map {pin} has keys of 28 bytes and values of 52 bytes; known are "
    )


@pytest.mark.parametrize("name", ["cilium_ipcache_v2", "cilium_lb4_services_v2"])
def test_a_big_table_is_bpftool_s(pins: Pins, name: str) -> None:
    """More entries than one batch, of a trie and of a hash."""
    if not shutil.which("bpftool"):
        pytest.skip("no bpftool")
    if name == "cilium_ipcache_v2":
        value = struct.pack("=I16sHBB", 42837, packed("172.18.0.3").ljust(16, b"\0"), 0, 0, 2)
        prefixes = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(5000)]
        pins.make(name, 24, 24, dict.fromkeys(map(ipcache_key, prefixes), value), LPM_TRIE, 8192)
        found = {one.prefix.network_address.packed for one in facts("ipcache")}
        raw = {key[8:12] for key, _ in pins.dumped(name)}
    else:
        keys = [service_key(f"10.96.{n >> 8}.{n & 255}:443", 0, 6) for n in range(5000)]
        pins.make(name, 12, 12, dict.fromkeys(keys, service_value(0, 1)), HASH, 8192)
        pins.make("cilium_lb4_backends_v3", 4, 12, {})
        found = {one.address.packed for one in lb.frontends(NodeRequest(1, node_argv("lb")))}
        raw = {key[:4] for key, _ in pins.dumped(name)}
    assert found == raw
    assert len(found) == 5000
