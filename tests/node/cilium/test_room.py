"""How full maps are, counted in real ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.model.room import MapRoom, SnatUse, Table
from kubectl_ebpfnet.node.cilium import pins as cilium_pins
from kubectl_ebpfnet.node.cilium import room
from tests.lab.cluster.datapath.syscall_bpf import HASH, LPM_TRIE, LRU_HASH
from tests.node.cilium.cilium_bpffs import (
    Pins,
    bpffs,
    nat_key,
    nat_value,
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


def rooms() -> dict[tuple[Table, int | None, int | None], MapRoom]:
    found = room.rooms(NodeRequest(1, node_argv("map-room")))
    return {(one.table, one.version, one.endpoint_id): one for one in found}


def numbered(count: int, size: int) -> dict[bytes, bytes]:
    return {struct.pack("=I", n).ljust(size, b"\0"): b"\1" * 12 for n in range(count)}


def test_each_map_tells_its_size_its_entries_and_whether_it_evicts(pins: Pins) -> None:
    pins.make("cilium_policy_v2_00731", 12, 12, {
        struct.pack("=I", 64) + n.to_bytes(8, "big"): b"\0" * 12 for n in range(30)
    }, LPM_TRIE, 64)  # fmt: skip
    pins.make("cilium_lb4_services_v2", 12, 12, numbered(256, 12), HASH, 256)
    pins.make("cilium_ct_any6_global", 38, 56, {}, LRU_HASH, 128)
    pins.make("cilium_calls_00731", 4, 4, {}, HASH, 16)
    found = rooms()
    assert found == {
        (Table.POLICY, None, 731): MapRoom(Table.POLICY, 64, None, 731, 30, evicts=False),
        (Table.SERVICES, 4, None): MapRoom(Table.SERVICES, 256, 4, None, 256, evicts=False),
        (Table.CT_ANY, 6, None): MapRoom(Table.CT_ANY, 128, 6, None, 0, evicts=True),
    }


@pytest.mark.parametrize("entries", [8000, 30_000, 65_000])
def test_a_large_map_is_estimated_by_its_first_buckets(pins: Pins, entries: int) -> None:
    value = b"\0" * 56
    table = {
        n.to_bytes(4, "big") + b"\1\1\1\1" + struct.pack(">HH", 80, n & 0xFFFF) + b"\6\1": value
        for n in range(entries)
    }
    pins.make("cilium_ct4_global", 14, 56, table, LRU_HASH, 80_000)
    (found,) = rooms().values()
    assert found.exact == (entries < 8192)
    assert found.entries is not None
    assert abs(found.entries - entries) <= (0 if found.exact else entries * 0.05)


def test_flows_to_one_destination_are_counted_by_their_source(pins: Pins) -> None:
    def out(client: str, to: str, source: str) -> tuple[bytes, bytes]:
        return nat_key(6, "OUT", client, to), nat_value(source)

    entries = dict(
        out(f"10.0.0.{n}:5000", "1.1.1.1:80", f"172.18.0.2:{40000 + n}") for n in range(1, 21)
    )
    entries |= dict([
        out("10.0.0.1:5001", "1.1.1.1:80", "172.18.0.9:40001"),
        out("10.0.0.1:5002", "1.1.1.1:443", "172.18.0.2:40001"),
        out("10.0.0.1:80", "2.2.2.2:80", "172.18.0.2:40001"),
    ])  # fmt: skip
    back = nat_key(6, "IN", "1.1.1.1:80", "172.18.0.2:40001")
    entries[back] = nat_value("10.0.0.1:5000")
    pins.make("cilium_snat_v4_external", 14, 40, entries, LRU_HASH, 1024)
    asked = NodeRequest(1, node_argv("snat-use", "6", "1.1.1.1", "80"))
    end, two, nine = map(ip_address, ("1.1.1.1", "172.18.0.2", "172.18.0.9"))
    assert list(room.snat_uses(asked)) == [
        SnatUse(6, end, 80, two, 20),
        SnatUse(6, end, 80, nine, 1),
    ]


@pytest.mark.parametrize(
    "words", [(), ("6", "1.1.1.1"), ("tcp", "1.1.1.1", "80"), ("6", "x", "80")]
)
def test_words_that_name_no_destination_are_refused(pins: Pins, words: tuple[str, ...]) -> None:
    with pytest.raises(KernelError):
        list(room.snat_uses(NodeRequest(1, node_argv("snat-use", *words))))
