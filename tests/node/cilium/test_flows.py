"""Conntrack and SNAT entries out of real maps, against bpftool's dump of the same maps."""

from __future__ import annotations

import errno
import random
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.protocol.questions import (
    FlowFilter,
    LeftOut,
    NodeRequest,
    node_argv,
)
from kubectl_ebpfnet.node.bpf import maps
from kubectl_ebpfnet.node.cilium import ct as cilium_ct
from kubectl_ebpfnet.node.cilium import layout_tuple as node_layouts
from kubectl_ebpfnet.node.cilium import nat as cilium_nat
from kubectl_ebpfnet.node.cilium import pins as cilium_pins
from kubectl_ebpfnet.node.cilium import reading
from kubectl_ebpfnet.node.host import mounts
from kubectl_ebpfnet.node.server import answer as answering
from kubectl_ebpfnet.parse import node_side as answers
from kubectl_ebpfnet.parse.cilium import ct as printed_ct
from tests.lab.cluster.agent.text import ct_line
from tests.lab.cluster.datapath.syscall_bpf import HASH, LRU_HASH
from tests.node.cilium.cilium_bpffs import (
    Entries,
    Pins,
    bpffs,
    ct_key,
    ct_value,
    nat_key,
    nat_value,
    why_not,
)
from tests.parse import whole_list

pytestmark = pytest.mark.kernel

CT4, CT_ANY4, CT6, CT_ANY6 = cilium_ct.MAPS
NAT4, NAT6 = cilium_nat.MAPS
CLIENT, SERVER = "10.244.1.53:38510", "10.244.0.251:8080"
NODE = "172.18.0.2:40000"
# Addresses that are part of each other's bytes, on purpose.
ADDRESSES = ("10.10.10.10", "10.10.10.11", "11.10.10.10", "0.0.0.0", "10.10.0.0", "80.0.80.0")
ADDRESSES6 = ("fd00::1", "fd00::", "::1", "fd00:fd00::", "::fd00:0:0")
PORTS = (0, 80, 20480, 2570, 10, 443, 65535)


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pins]:
    if reason := why_not():
        pytest.skip(reason)
    with bpffs() as folder:
        monkeypatch.setattr(cilium_pins, "root", lambda: folder)
        yield Pins(folder)


def ct(*flows: FlowFilter) -> list[CtEntry]:
    return list(cilium_ct.entries(NodeRequest(1, node_argv("ct"), flows=flows)))


def nat(*flows: FlowFilter) -> list[NatEntry]:
    return list(cilium_nat.entries(NodeRequest(1, node_argv("nat"), flows=flows)))


def bag(entries: Iterable[CtEntry | NatEntry]) -> Counter[CtEntry | NatEntry]:
    """How often each entry is there, whatever the clock says."""
    return Counter(
        replace(one, remaining=None) if isinstance(one, CtEntry) else replace(one, age=None)
        for one in entries
    )


def exact(source: str, destination: str, protocol: int = 6) -> FlowFilter:
    (ip, _, port), (peer, _, peer_port) = source.rpartition(":"), destination.rpartition(":")
    ends = (ip_address(ip.strip("[]")), int(port), ip_address(peer.strip("[]")), int(peer_port))
    return FlowFilter(*ends, protocol)


def at(version: int, draw: random.Random) -> str:
    some = ADDRESSES if version == 4 else ADDRESSES6
    host = draw.choice(some)
    return f"{host if version == 4 else f'[{host}]'}:{draw.choice(PORTS)}"


def many(version: int, tcp: bool, count: int, seed: int) -> Entries:
    """Random conntrack entries whose fields look like each other."""
    draw = random.Random(seed)
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    found: Entries = {}
    while len(found) < count:
        protocol = 6 if tcp else draw.choice((17, 1, 58, 132, 50))
        related = not tcp and draw.random() < 0.1
        ends = [at(version, draw), at(version, draw)]
        if related:
            protocol = 1 if version == 4 else 58
            ends = [f"{end.rpartition(':')[0]}:0" for end in ends]
        ways = ("OUT", "IN") if related else ("OUT", "IN", "SVC")
        key = ct_key(protocol, draw.choice(ways), *ends, related=related)
        packets = draw.randrange(3)
        found[key] = ct_value(
            packets=packets, size=packets * draw.randrange(40, 1500), expires=now + 60,
            second=draw.randrange(9), rev_nat=draw.randrange(1 << 16),
            flags=draw.randrange(1 << 7),
        )  # fmt: skip
    return found


@pytest.fixture
def full(pins: Pins) -> Pins:
    """All four conntrack maps; those of IPv4 are larger than a batch."""
    pins.make("cilium_ipcache_v2", 24, 24, {}, HASH)  # says that this is no Cilium of 1.16
    pins.make(CT4, 14, 56, many(4, True, 4800, 1), HASH, 8192)
    pins.make(CT_ANY4, 14, 56, many(4, False, 4800, 2), HASH, 8192)
    pins.make(CT6, 38, 56, many(6, True, 900, 3), HASH)
    pins.make(CT_ANY6, 38, 56, many(6, False, 900, 4), HASH)
    return pins


def test_all_entries_are_bpftool_s(full: Pins) -> None:
    if not shutil.which("bpftool"):
        pytest.skip("no bpftool")
    expected = []
    for name in (CT4, CT_ANY4):
        rows = full.dumped(name)
        text = "".join(ct_line(key, value, None) for key, value in rows)
        # The replay's words are those of Cilium 1.20, which names a backend in every entry.
        expected += [
            replace(entry, backend_id=entry.backend_id if entry.direction == "SVC" else 0)
            for entry in whole_list.entries(printed_ct.entry, text.encode())
        ]
    found = [entry for entry in ct() if entry.flow.source.version == 4]
    assert len(found) == 9600
    assert bag(found) == bag(expected)
    assert len(ct()) == 9600 + sum(len(full.dumped(name)) for name in (CT6, CT_ANY6)) == 11400


def filters() -> list[FlowFilter]:
    """Every mixture of what can be said of a flow, some of it true of some entries."""
    draw = random.Random(5)
    found = [FlowFilter(), FlowFilter(protocol=17), FlowFilter(protocol=6), FlowFilter(port=2570)]
    for _ in range(60):
        version = draw.choice((4, 4, 6))
        values = ADDRESSES if version == 4 else ADDRESSES6
        address, peer = ip_address(draw.choice(values)), ip_address(draw.choice(values))
        said = (address, draw.choice(PORTS), peer, draw.choice(PORTS), draw.choice((6, 17, 1)))
        found.append(FlowFilter(*(one if draw.random() < 0.5 else None for one in said)))
    return found


def is_wanted(entry: CtEntry, flow: FlowFilter) -> bool:
    """Whether an entry fits a filter, or is for ICMP errors between the filter's ends."""
    ends = {entry.flow.source, entry.flow.destination}
    return flow.fits(entry.flow) or (entry.related and {flow.address, flow.peer} == ends)


def test_a_filtered_scan_is_a_filtered_dump(full: Pins) -> None:
    everything = ct()
    hits = 0
    for flow in filters():
        expected = bag(entry for entry in everything if is_wanted(entry, flow))
        assert bag(ct(flow)) == expected, flow
        hits += bool(expected)
    assert hits > 30
    two = FlowFilter(ip_address("10.10.10.10"), port=80), FlowFilter(ip_address("fd00::1"))
    assert bag(ct(*two)) == bag(e for e in everything if any(is_wanted(e, f) for f in two))


def test_a_kernel_without_batches_gives_the_same(
    full: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = FlowFilter(ip_address("10.10.10.10"), port=80)
    expected = bag(ct(flow))

    def none(*_: object) -> Iterator[tuple[int, memoryview, memoryview]]:
        raise Unsupported("no batches", 524)
        yield

    monkeypatch.setattr(maps.Map, "batches", none)
    assert bag(ct(flow)) == expected
    assert expected


def test_only_what_can_match_is_unpacked(full: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = []
    real = node_layouts.ct_entry

    def counting(*args: object, **named: object) -> CtEntry | None:
        unpacked.append(args)
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(node_layouts, "ct_entry", counting)
    flow = FlowFilter(ip_address("10.10.10.10"), peer=ip_address("11.10.10.10"), protocol=6)
    found = ct(flow)
    # Some echoes have the ports of an entry for ICMP errors: none.
    assert 0 < len(found) <= len(unpacked) < len(found) + 20


def test_one_flow_by_its_key(pins: Pins) -> None:
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    v6 = "[fd00::5]:4000", "[fd00::6]:53"
    pins.make(CT4, 14, 56, {
        ct_key(6, way, CLIENT, SERVER): ct_value(expires=now + 100, rev_nat=n)
        for n, way in enumerate(("OUT", "IN", "SVC"))
    } | {ct_key(6, "OUT", SERVER, CLIENT): ct_value(rev_nat=9),
         ct_key(6, "OUT", CLIENT, "10.244.0.251:8081"): ct_value(rev_nat=10)},
        LRU_HASH, 4096)  # fmt: skip
    pins.make(CT_ANY4, 14, 56, {ct_key(17, "OUT", CLIENT, SERVER): ct_value()}, LRU_HASH, 4096)
    pins.make(CT_ANY6, 38, 56, {ct_key(17, "OUT", *v6): ct_value()}, LRU_HASH, 4096)
    for one, other in ((CLIENT, SERVER), (SERVER, CLIENT)):
        found = ct(exact(one, other))
        assert {(entry.direction, entry.rev_nat) for entry in found} == {
            ("OUT", 0), ("IN", 1), ("SVC", 2), ("OUT", 9),
        }  # fmt: skip
        assert {entry.remaining for entry in found if entry.rev_nat < 3} <= {99, 100}
    assert [entry.flow.protocol for entry in ct(exact(CLIENT, SERVER, 17))] == [17]
    assert len(ct(exact(*v6, 17))) == 1
    assert ct(exact(*v6, 6)) == []
    assert ct(exact(CLIENT, "10.244.0.251:8082")) == []
    both = ct(exact(CLIENT, SERVER, 17), exact(*v6, 17))
    assert len(both) == 2


def test_icmp_errors_between_the_ends_come_with_a_flow(pins: Pins) -> None:
    client, server = (f"{end.rpartition(':')[0]}:0" for end in (CLIENT, SERVER))
    pins.make(CT4, 14, 56, {ct_key(6, "OUT", CLIENT, SERVER): ct_value()}, LRU_HASH, 4096)
    pins.make(CT_ANY4, 14, 56, {
        ct_key(1, "OUT", client, server, related=True): ct_value(reports=(5, 6)),
        ct_key(1, "OUT", client, "10.9.9.9:0", related=True): ct_value(),
        ct_key(17, "OUT", CLIENT, SERVER): ct_value(),
    }, LRU_HASH, 4096)  # fmt: skip
    wanted = exact(CLIENT, SERVER)
    for flow in (wanted, replace(wanted, port=None)):
        tcp, errors = sorted(ct(flow), key=lambda entry: entry.related)
        assert (tcp.flow.protocol, tcp.related) == (6, False)
        assert (errors.related, errors.last_reply) == (True, 6)


def test_a_flow_that_is_wholly_known_is_not_searched_for(
    full: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scanned(*_: object) -> Iterator[tuple[int, memoryview, memoryview]]:
        raise AssertionError("the whole map was read")
        yield

    wanted = exact("10.10.10.10:80", "11.10.10.10:443")
    expected = bag(entry for entry in ct() if is_wanted(entry, wanted))
    assert expected
    monkeypatch.setattr(maps.Map, "batches", scanned)
    monkeypatch.setattr(maps.Map, "items", scanned)
    assert bag(ct(wanted)) == expected


def newest(
    function: Callable[[NodeRequest], Iterator[object]],
    flows: tuple[FlowFilter, ...],
    beside: tuple[FlowFilter, ...],
    most: int,
) -> tuple[list[object], LeftOut]:
    """The facts of an answer that is cut, and what was left out."""
    said = list(function(NodeRequest(1, ("ebpfnet-node", "x"), None, flows, beside, most)))
    left_out = [one for one in said if isinstance(one, LeftOut)]
    facts = [one for one in said if not isinstance(one, LeftOut)]
    return facts, left_out[0] if left_out else LeftOut()


@pytest.mark.parametrize(("version", "sizes"), [(4, (14, 56)), (6, (38, 56))])
def test_of_many_entries_the_newest_come_and_the_others_are_counted(
    pins: Pins, monkeypatch: pytest.MonkeyPatch, version: int, sizes: tuple[int, int]
) -> None:
    pod, peer, other = (
        ("10.0.0.1", "192.0.2.1", "192.0.2.2")
        if version == 4
        else ("fd00::1", "fd01::1", "fd01::2")
    )
    draw = random.Random(version)
    ends = [(peer, 80), (peer, 443), (other, 80)]
    entries = {}
    for number in range(9000):
        host, port = ends[number % 3]
        to = f"{host}:{port}" if version == 4 else f"[{host}]:{port}"
        by = f"{pod}:{2000 + number}" if version == 4 else f"[{pod}]:{2000 + number}"
        way = "IN" if number % 7 == 0 else "OUT"
        reports = (draw.randrange(1, 1 << 31), draw.randrange(1, 1 << 31))
        one, two = (to, by) if way == "IN" else (by, to)
        entries[ct_key(6, way, one, two)] = ct_value(reports=reports)
    pins.make(CT4 if version == 4 else CT6, *sizes, entries, HASH, 16384)
    everything = ct()
    assert len(everything) == 9000
    own = FlowFilter(ip_address(pod), None, ip_address(peer), 80, 6)
    beside = FlowFilter(ip_address(pod), protocol=6)

    def latest(entry: CtEntry) -> int:
        return max(entry.last_rx_report or 0, entry.last_tx_report or 0)

    for batches in (True, False):
        if not batches:
            monkeypatch.setattr(maps.Map, "batches", _no_batches)
        found, left_out = newest(cilium_ct.entries, (own,), (beside,), 50)
        mine = [e for e in everything if own.fits(e.flow)]
        others = [e for e in everything if not own.fits(e.flow)]
        expected = sorted(mine, key=latest)[-50:] + sorted(others, key=latest)[-50:]
        assert bag(found) == bag(expected)  # type: ignore[arg-type]
        assert left_out == LeftOut(3000 - 50, 6000 - 50)
    found, left_out = newest(cilium_ct.entries, (own,), (), 5000)
    assert (len(found), left_out) == (3000, LeftOut())


@contextmanager
def read_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How many entries of each map are read, by the first letters of its name."""
    read: Counter[str] = Counter()
    real = maps.Map.batches

    def counting(
        table: maps.Map, size: int = 4096, bucket: int = 0
    ) -> Iterator[tuple[int, memoryview, memoryview]]:
        for count, keys, values in real(table, size, bucket):
            read[table.info.name[:13]] += count
            yield count, keys, values

    with monkeypatch.context() as patch:
        patch.setattr(maps.Map, "batches", counting)
        yield read


def _no_batches(*_: object) -> Iterator[tuple[int, memoryview, memoryview]]:
    raise Unsupported("no batches", 524)
    yield


def test_of_many_translations_the_newest_come(pins: Pins) -> None:
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    entries = {}
    for number in range(3000):
        client, server, node = (
            f"10.0.0.1:{2000 + number}",
            "1.1.1.1:443",
            f"172.18.0.2:{9000 + number}",
        )
        created = max(1, now - number)  # this machine may have booted just now
        entries[nat_key(6, "OUT", client, server)] = nat_value(node, created)
        entries[nat_key(6, "IN", server, node)] = nat_value(client, created)
    entries[nat_key(6, "OUT", "10.0.0.9:1", "1.1.1.1:443")] = nat_value("172.18.0.3:1", now)
    pins.make(NAT4, 14, 40, entries, HASH, 8192)
    own = FlowFilter(ip_address("10.0.0.1"), None, ip_address("1.1.1.1"), 443, 6)
    found, left_out = newest(cilium_nat.entries, (own,), (), 20)
    assert left_out == LeftOut(6000 - 20)
    ports = {e.flow.source_port or 0 for e in found if isinstance(e, NatEntry)} - {443}
    assert ports == set(range(2000, 2010))
    used, others = cilium_nat.sources_to((6, ip_address("1.1.1.1"), 443))
    assert {str(source): flows for source, flows in used.items()} == {
        "172.18.0.2": 3000, "172.18.0.3": 1,
    }  # fmt: skip
    assert others == 0


@pytest.mark.parametrize(("version", "sizes"), [(4, (14, 40)), (6, (38, 56))])
def test_of_a_large_map_the_translations_of_shown_connections_are_looked_up(
    pins: Pins, monkeypatch: pytest.MonkeyPatch, version: int, sizes: tuple[int, int]
) -> None:
    monkeypatch.setattr(cilium_ct, "_shown", {})
    monkeypatch.setattr(cilium_nat, "_WHOLE", 5000)
    monkeypatch.setattr(reading, "ENOUGH", 3000)
    pod, peer, node, rare = (
        ("10.0.0.1", "192.0.2.9", "172.18.0.2", "172.18.0.3")
        if version == 4
        else ("[fd00::1]", "[fd01::9]", "[fd02::2]", "[fd02::3]")
    )
    tracked, translated = {}, {}
    for number in range(4000):
        client, server, new = f"{pod}:{2000 + number}", f"{peer}:443", f"{node}:{9000 + number}"
        if number < 300:  # conntrack has lost the others
            tracked[ct_key(6, "OUT", client, server)] = ct_value(reports=(number, 0))
        if number != 299:  # an evicted one
            translated[nat_key(6, "OUT", client, server)] = nat_value(new, 1)
        translated[nat_key(6, "IN", server, new)] = nat_value(client, 1)
    translated[nat_key(6, "OUT", f"{pod}:1", f"{peer}:443")] = nat_value(f"{rare}:1", 1)
    pins.make(CT4 if version == 4 else CT6, 14 if version == 4 else 38, 56, tracked, HASH, 8192)
    pins.make(NAT4 if version == 4 else NAT6, *sizes, translated, HASH, 16384)
    address, end = ip_address(pod.strip("[]")), ip_address(peer.strip("[]"))
    own, quiet = FlowFilter(address, None, end, 443, 6), FlowFilter(address, None, end, 80, 6)

    def both(*flows: FlowFilter) -> tuple[set[int | None], int, LeftOut]:
        newest(cilium_ct.entries, flows, (), 20)
        found, left_out = newest(cilium_nat.entries, flows, (), 20)
        clients = {e.flow.source_port for e in found if isinstance(e, NatEntry)} - {443}
        return clients, len(found), left_out

    found, left_out = newest(cilium_nat.entries, (own,), (), 20)
    assert (len(found), left_out) == (20, LeftOut(8000 - 20))  # conntrack was not asked
    with read_of(monkeypatch) as read:
        clients, number, left_out = both(own)
    assert read["cilium_snat_v"] <= 4096  # half of it, at most
    assert (clients, number) == (set(range(2280, 2299)), 38)
    assert left_out.about
    assert abs(left_out.older - (8000 - 38)) < 800
    assert both(quiet) == (set(), 0, LeftOut())  # conntrack shows none: it is read whole
    assert cilium_nat.sources_to((6, end, 443)) == (Counter(), 24_576)
    with monkeypatch.context() as patch, read_of(monkeypatch) as read:
        patch.setattr(reading, "_BATCH", 64)
        patch.setattr(reading, "ENOUGH", 60)  # some 30 flows: there may be 8,600 in all
        patch.setattr(cilium_nat, "_FEW", 5000)
        assert cilium_nat.sources_to((6, end, 443)) == (Counter(), 5000)
    assert 100 < read["cilium_snat_v"] < 4100  # half of it, at most: 4,500 in all
    monkeypatch.setattr(cilium_nat, "_FEW", 4000)  # a part does not exclude more: it is read whole
    used, others = cilium_nat.sources_to((6, end, 443))
    assert {str(source): flows for source, flows in used.items()} == {
        node.strip("[]"): 3999, rare.strip("[]"): 1,
    }  # fmt: skip
    assert others == 0


def test_the_answer_is_what_a_record_holds(pins: Pins) -> None:
    pins.make(CT4, 14, 56, {ct_key(6, "OUT", CLIENT, SERVER): ct_value(expires=7)}, LRU_HASH, 4096)
    request = NodeRequest(1, node_argv("ct"), flows=(exact(CLIENT, SERVER),))
    answer = answering.whole_answer(request)
    assert (answer.exit_code, answer.error) == (0, "")
    assert answers.facts(answer.stdout, node_argv("ct")) == tuple(ct())


def test_entries_that_go_while_they_are_read(full: Pins) -> None:
    everything = bag(ct())
    reading = cilium_ct.entries(NodeRequest(1, node_argv("ct")))
    first = next(reading)
    for name in (CT4, CT_ANY6):
        for key, _ in list(full.dumped(name))[::2]:
            full.remove(name, key, 56)
    (full.folder / CT6).unlink()
    seen = bag([first, *reading])
    assert seen < everything
    assert seen.total() >= 4800


def test_a_map_that_goes_before_it_is_opened(full: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    (full.folder / CT4).unlink()
    monkeypatch.setattr(cilium_pins, "present", lambda *_: (CT4, CT_ANY4))
    assert len(ct()) == 4800


@pytest.mark.parametrize(("pinned", "count"), [((CT4, CT_ANY4), 2), ((CT6,), 1)])
def test_families_that_are_off_are_left_out(
    pins: Pins, pinned: tuple[str, ...], count: int
) -> None:
    for name in pinned:
        ends = (CLIENT, SERVER) if "4" in name else ("[fd00::5]:4000", "[fd00::6]:80")
        key = ct_key(6 if "any" not in name else 17, "OUT", *ends)
        pins.make(name, len(key), 56, {key: ct_value()}, LRU_HASH, 4096)
    assert len(ct()) == count


def test_maps_that_are_not_there(pins: Pins) -> None:
    for ask_it, names in ((ct, (CT4, CT_ANY4, CT6, CT_ANY6)), (nat, (NAT4, NAT6))):
        with pytest.raises(KernelError) as caught:
            ask_it()
        assert caught.value.errno == errno.ENOENT
        assert caught.value.message == (
            f"no map {' or '.join(names)} is pinned under {pins.folder}"
        )


def test_sizes_that_are_not_known(pins: Pins) -> None:
    pins.make(CT4, 16, 56, {}, LRU_HASH, 4096)
    pins.make(NAT4, 14, 48, {}, LRU_HASH, 4096)
    with pytest.raises(KernelError, match=f"{CT4} has keys of 16 bytes and values of 56 bytes"):
        ct()
    with pytest.raises(KernelError, match="values of 48 bytes; known are 14 and 40, 38 and 56"):
        nat()


def test_counters_of_old_and_new_entries(pins: Pins) -> None:
    value = ct_value(first=5, second=500, packets=7, size=700)
    pins.make(CT4, 14, 56, {ct_key(6, "OUT", CLIENT, SERVER): value}, LRU_HASH, 4096)
    pins.make("cilium_policy_00448", 12, 24, {})
    (entry,) = ct()
    assert (entry.packets, entry.bytes) == (12, 1200)  # Cilium ≤ 1.16
    pins.make("cilium_policy_v2_00448", 12, 24, {})
    (entry,) = ct()
    assert (entry.packets, entry.bytes) == (7, 700)


def many_nat(version: int, count: int, seed: int) -> Entries:
    """Random SNAT entries whose fields look like each other."""
    draw = random.Random(seed)
    found: Entries = {}
    while len(found) < count:
        key = nat_key(draw.choice((6, 17, 1)), draw.choice(("OUT", "IN")), at(version, draw),
                      at(version, draw))  # fmt: skip
        found[key] = nat_value(at(version, draw), 1, draw.randrange(2))
    return found


def test_a_filtered_scan_of_nat_is_a_filtered_dump(pins: Pins) -> None:
    pins.make(NAT4, 14, 40, many_nat(4, 4700, 6), HASH, 8192)
    pins.make(NAT6, 38, 56, many_nat(6, 900, 7), HASH)
    everything = nat()
    assert len(everything) == 5600
    if shutil.which("bpftool"):
        raw = {struct.pack("=14s40s", key, value) for key, value in pins.dumped(NAT4)}
        assert len(raw) == 4700
    hits = 0
    for flow in filters():
        if flow.exact is not None:
            continue
        expected = bag(one for one in everything if flow.fits(one.flow, one.translated()))
        assert bag(nat(flow)) == expected, flow
        hits += bool(expected)
    assert hits > 30


@pytest.mark.parametrize(
    ("client", "server", "node", "name", "sizes"),
    [
        (CLIENT, "1.1.1.1:443", NODE, NAT4, (14, 40)),
        ("[fd00::5]:4000", "[2001:db8::1]:443", "[fd01::2]:40000", NAT6, (38, 56)),
    ],
    ids=["ipv4", "ipv6"],
)
def test_both_halves_of_a_translation_by_key(
    pins: Pins, client: str, server: str, node: str, name: str, sizes: tuple[int, int]
) -> None:
    other = "10.0.0.1:1" if name == NAT4 else "[fd00::9]:1"
    pins.make(name, *sizes, {
        nat_key(6, "OUT", client, server): nat_value(node, 1),
        nat_key(6, "IN", server, node): nat_value(client, 1),
        nat_key(6, "OUT", other, server): nat_value(node, 1),
        nat_key(17, "OUT", client, server): nat_value(node, 1),
    }, LRU_HASH, 4096)  # fmt: skip
    for one, two in ((client, server), (server, client), (node, server), (server, node)):
        found = nat(exact(one, two))
        assert {entry.direction for entry in found} == {"OUT", "IN"}
        assert len(found) == 2
        scanned = nat(exact(one, two), FlowFilter(ip_address("192.0.2.99")))
        assert bag(found) <= bag(scanned)
    assert nat(exact(client, client)) == []


def test_a_half_that_another_flow_has_taken_over(pins: Pins) -> None:
    """The port on the node was given to another pod; the old flow's own half is still there."""
    other = "10.244.1.99:1234"
    pins.make(NAT4, 14, 40, {
        nat_key(6, "OUT", CLIENT, SERVER): nat_value(NODE, 1),
        nat_key(6, "IN", SERVER, NODE): nat_value(other, 1),
        nat_key(6, "OUT", other, SERVER): nat_value(NODE, 1),
    }, LRU_HASH, 4096)  # fmt: skip
    for client, count in ((CLIENT, 1), (other, 2)):
        flow = exact(client, SERVER)
        assert len(nat(flow)) == count
        assert bag(nat(flow)) == bag(e for e in nat() if flow.fits(e.flow, e.translated()))
    assert len(nat(exact(NODE, SERVER))) == 2  # the old half is under its own addresses only


def test_where_the_pins_are(pins: Pins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    top = pins.folder.parent.parent
    seen = [
        mounts.Mount("0:1", "/", tmp_path),
        mounts.Mount("0:2", "/ip", tmp_path),
        mounts.Mount("0:3", "/", top),
    ]
    monkeypatch.setattr(mounts, "own", lambda kind: seen if kind == "bpf" else [])
    monkeypatch.setattr(mounts, "of_first_process", lambda _: [])
    assert cilium_pins.root() == pins.folder  # empty, but the only one
    (tmp_path / "tc/globals").mkdir(parents=True)
    (tmp_path / "tc/globals/other").touch()
    pins.make(CT4, 14, 56, {}, LRU_HASH, 4096)
    assert cilium_pins.root() == pins.folder
    seen[2] = mounts.Mount("0:3", "/tc", top / "tc")
    assert cilium_pins.root() == pins.folder
    seen.clear()
    with pytest.raises(KernelError, match="no bpffs") as caught:
        cilium_pins.root()
    assert caught.value.errno == errno.ENOENT
    monkeypatch.undo()  # the kernel's own list of mounts
    assert any(one.opened == top for one in mounts.own("bpf"))
