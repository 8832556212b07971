"""Rows of some addresses out of real maps (load-balancing, ipcache), against all their rows."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.model.cilium import (
    EgressGatewayPolicy,
    Frontend,
    IpcacheEntry,
    PolicyEntry,
)
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, LeftOut, NodeRequest, node_argv
from kubectl_ebpfnet.node.cilium import lb, policy, tables
from kubectl_ebpfnet.node.cilium import pins as cilium_pins
from tests.lab.cluster.datapath.syscall_bpf import HASH, LPM_TRIE
from tests.node.cilium.cilium_bpffs import (
    Pins,
    bpffs,
    endpoint_key,
    ipcache_key,
    lpm_address,
    packed,
    service_key,
    service_value,
    why_not,
)

pytestmark = pytest.mark.kernel


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pins]:
    if reason := why_not():
        pytest.skip(reason)
    with bpffs() as folder:
        monkeypatch.setattr(cilium_pins, "root", lambda: folder)
        yield Pins(folder)


def request(*rows: str, port: int | None = 80) -> NodeRequest:
    flows = (FlowFilter(peer_port=port),)
    return NodeRequest(1, node_argv("x"), flows=flows, rows=tuple(map(ip_address, rows)))


def answers(said: Iterator[object]) -> tuple[list[object], int]:
    """The facts, and how many rows were left out."""
    found = list(said)
    left_out = sum(one.older for one in found if isinstance(one, LeftOut))
    return [one for one in found if not isinstance(one, LeftOut)], left_out


def test_frontends_of_some_addresses(pins: Pins) -> None:
    services, backends = {}, {}
    fronts = [f"10.96.{n >> 8}.{n & 255}:80" for n in range(300)]
    fronts += [f"0.0.0.0:{port}" for port in range(30000, 30100)] + ["0.0.0.0:80", "10.96.0.7:53"]
    for n, front in enumerate(fronts, start=1):
        services[service_key(front, 0, 6)] = service_value(0, n, 0x40, 2)
        for slot in (1, 2):
            services[service_key(front, slot, 6)] = service_value(2 * n + slot, n)
            if n % 50:  # the backends of some are missing
                backends[(2 * n + slot).to_bytes(4, "little")] = (
                    packed(f"10.244.{n >> 8}.{n & 255}") + bytes((0x1F, 0x90, 6, 0)) + bytes(4)
                )
    pins.make("cilium_lb4_services_v2", 12, 12, services, HASH, 4096)
    pins.make("cilium_lb4_backends_v3", 4, 12, backends, HASH, 4096)
    everything, none = answers(lb.frontends(NodeRequest(1, node_argv("lb"))))
    assert (len(everything), none) == (len(fronts), 0)
    wanted = ("10.96.0.7", "10.96.0.49", "10.96.1.4", "0.0.0.0", "::", "fd00::1", "10.9.9.9")
    for port, most in ((80, 5), (None, 105)):
        asked = request(*wanted, port=port)
        some, left_out = answers(lb.frontends(asked))
        assert len(some) + left_out == len(fronts)
        assert all(one in everything for one in some)  # whole, those of the sample too
        expected = [
            one
            for one in everything
            if isinstance(one, Frontend)
            and str(one.address) in wanted
            and (port is None or str(one.address) != "0.0.0.0" or one.port == port)
        ]
        assert len(expected) == most
        assert all(one in some for one in expected)
        assert len(some) <= len(expected) + lb.SAMPLE


def test_a_map_without_the_frontend_still_shows_its_form(pins: Pins) -> None:
    pins.make("cilium_lb4_services_v2", 12, 12, {
        service_key("10.96.0.1:80", 0, 6): service_value(0, 1, 0x40, 1),
        service_key("10.96.0.1:80", 1, 6): service_value(1, 1),
    })  # fmt: skip
    pins.make("cilium_lb4_backends_v3", 4, 12, {})
    (one,), left_out = answers(lb.frontends(request("10.9.9.9")))
    assert isinstance(one, Frontend)
    assert (str(one.address), one.unresolved, left_out) == ("10.96.0.1", 1, 0)


def test_policy_maps_of_the_endpoints_with_some_addresses(pins: Pins) -> None:
    pins.make("cilium_lxc", 20, 48, {
        endpoint_key(address): struct.pack("=IHHI36x", 5, 0, number, 0)
        for address, number in (("10.0.0.1", 11), ("fd00::1", 11), ("10.0.0.2", 22))
    })  # fmt: skip
    for number in (11, 22, 33):  # the last is the node's own: it has no address there
        entries = {struct.pack("=IIBB", 64, 7, 0, 6) + bytes((0, number)): bytes(12)}
        pins.make(f"cilium_policy_v2_{number:05d}", 12, 12, entries, LPM_TRIE)

    def of(*rows: str) -> tuple[list[int], int]:
        found, left_out = answers(policy.entries(request(*rows)))
        return [one.endpoint_id for one in found if isinstance(one, PolicyEntry)], left_out

    assert of() == ([11, 22, 33], 0)
    assert of("fd00::1", "10.9.9.9") == ([11, 33], 1)
    assert of("10.0.0.2", "10.0.0.1") == ([11, 22, 33], 0)
    assert of("10.9.9.9") == ([33], 2)


def test_policy_entries_of_the_identities_of_some_addresses(pins: Pins) -> None:
    pins.make(
        "cilium_lxc", 20, 48, {endpoint_key("10.0.0.1"): struct.pack("=IHHI36x", 5, 0, 11, 0)}
    )
    identities = (0, 1, 2, 255, 256, 777, 778, 70_000, (1 << 24) + 5)
    key = "=IIBB"
    entries = {struct.pack(key, 64, n, 0, 6) + b"\0\x50": bytes(12) for n in identities}
    pins.make("cilium_policy_v2_00011", 12, 12, entries, LPM_TRIE)
    only = {struct.pack(key, 64, 778, 0, 6) + b"\0\x50": bytes(12)}
    pins.make("cilium_policy_v2_00033", 12, 12, only, LPM_TRIE)  # of the node itself

    def of(*rows: str) -> tuple[set[tuple[int, int]], int]:
        found, left_out = answers(policy.entries(request(*rows)))
        some = {(e.endpoint_id, e.identity) for e in found if isinstance(e, PolicyEntry)}
        return some, left_out

    every = {(11, n) for n in identities} | {(33, 778)}
    assert of("10.0.0.1") == (every, 0)  # no ipcache
    value = "=IIHBB"
    prefixes = {"10.0.0.1/32": 778, "10.0.0.9/32": 70_000, "1.0.0.0/8": (1 << 24) + 5}
    table = {ipcache_key(p): struct.pack(value, n, 0, 0, 0, 0) for p, n in prefixes.items()}
    pins.make("cilium_ipcache", 24, 12, table, LPM_TRIE)
    reserved = {(11, 0), (11, 1), (11, 2), (11, 255), (33, 778)}
    assert of("10.0.0.1") == (reserved | {(11, 778)}, 4)
    assert of("10.0.0.1", "10.0.0.9", "1.1.1.1") == (
        reserved | {(11, 778), (11, 70_000), (11, (1 << 24) + 5)}, 2)  # fmt: skip
    # Of a map that has none of them one comes: it is not empty.
    assert of("10.0.0.9")[0] >= {(33, 778)}


@pytest.mark.parametrize("seed", range(3))
def test_prefixes_that_hold_some_addresses(pins: Pins, seed: int) -> None:
    draw = random.Random(seed)
    prefixes = {"0.0.0.0/0", "::/0", "fd00::/32", "10.0.0.0/8"}
    while len(prefixes) < 900:
        base = ip_address(draw.getrandbits(4) << 24 | draw.getrandbits(12) << 8 | 10)
        if draw.random() < 0.3:
            base = ip_address((0xFD00 << 112) + draw.getrandbits(16))
        bits = draw.choice((8, 16, 24, 29, 31, 32, base.max_prefixlen, base.max_prefixlen))
        prefixes.add(str(ip_network((base, bits), strict=False)))
    value = bytes((5, 0, 0, 0)) + bytes(20)
    entries = {ipcache_key(prefix): value for prefix in prefixes}
    pins.make("cilium_ipcache_v2", 24, 24, entries, LPM_TRIE, 4096)
    everything, none = answers(tables.ipcache(NodeRequest(1, node_argv("ipcache"))))
    assert (len(everything), none) == (len(prefixes), 0)
    wanted = [ip_network(prefix)[0] for prefix in draw.sample(sorted(prefixes), 9)]
    wanted += [ip_address("10.1.2.3"), ip_address("fd00::1")]
    some, left_out = answers(tables.ipcache(request(*map(str, wanted))))
    expected = [
        one
        for one in everything
        if isinstance(one, IpcacheEntry) and any(row in one.prefix for row in wanted)
    ]
    assert sorted(map(str, some)) == sorted(map(str, expected))
    assert len(expected) > 11
    assert left_out == len(prefixes) - len(expected)


def test_egress_gateways_of_some_pods(pins: Pins) -> None:
    value = packed("172.18.0.9") + packed("172.18.0.3")
    keys = {lpm_address("1.2.0.0/16", 32, packed(f"10.0.0.{n}")): value for n in range(100)}
    pins.make("cilium_egress_gw_policy_v4", 12, 8, keys, LPM_TRIE, 4096)
    everything, none = answers(tables.egress(NodeRequest(1, node_argv("egress"))))
    assert (len(everything), none) == (100, 0)
    some, left_out = answers(tables.egress(request("10.0.0.7", "10.0.0.200", "fd00::1")))
    assert left_out == 99
    assert [str(one.source) for one in some if isinstance(one, EgressGatewayPolicy)] == ["10.0.0.7"]
