"""nf_conntrack by ctnetlink: the same facts as /proc/net/nf_conntrack and conntrack(8) tell."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from pyroute2.netlink import NLM_F_DUMP

from kubectl_ebpfnet.errors import Unsupported
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import PROTOCOL, FlowFilter, LeftOut, NodeRequest
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netlink import conntrack, conntrack_message, transport
from kubectl_ebpfnet.parse import conntrack as parse
from tests.network_namespaces import Namespace
from tests.node.netlink.conntrack_netns import WHY_NOT, fill, world
from tests.parse import whole_list

kernel = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"nothing is tracked here: {WHY_NOT}"),
]
_DEADLINE_S = 20.0


def kernel_test(function: object) -> object:
    for mark in kernel:
        function = mark(function)
    return function


@pytest.fixture(scope="module")
def made() -> Iterator[Namespace]:
    with world() as (near, _):
        assert not near.missing
        yield near


def ask(made: Namespace, *flows: FlowFilter) -> list[ConntrackEntry]:
    with netns.inside(made.path):
        return list(conntrack.entries(NodeRequest(1, ("ebpfnet-node", "conntrack"), flows=flows)))


def in_proc(made: Namespace) -> tuple[ConntrackEntry, ...]:
    with netns.inside(made.path):
        return whole_list.entries(
            parse.entry, Path("/proc/thread-self/net/nf_conntrack").read_bytes()
        )


def timeless(entries: list[ConntrackEntry] | tuple[ConntrackEntry, ...]) -> Counter[object]:
    return Counter(replace(one, timeout=None) for one in entries)


def settled(
    made: Namespace, *flows: FlowFilter
) -> tuple[list[ConntrackEntry], list[ConntrackEntry]]:
    """What we say, and what /proc says, of a moment in which nothing changed."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        before, ours, after = in_proc(made), ask(made, *flows), in_proc(made)
        if timeless(before) == timeless(after):
            return ours, list(after)
        assert time.monotonic() < deadline, "the table does not come to rest"


def fitting(entries: list[ConntrackEntry], *flows: FlowFilter) -> list[ConntrackEntry]:
    return [one for one in entries if any(w.fits(one.original, one.reply) for w in flows)]


@kernel_test
def test_everything_is_what_proc_tells(made: Namespace) -> None:
    ours, theirs = settled(made)
    assert timeless(ours) == timeless(theirs)
    words = {(one.original.protocol, one.state) for one in ours}
    assert {(6, "SYN_SENT2"), (6, "ESTABLISHED"), (132, "COOKIE_WAIT"), (47, "")} <= words
    assert {one.zone for one in ours} >= {0, 6, 7, 8, 9, 10, 12}
    assert any(one.original.source.version == 6 and one.destination_nat for one in ours)
    assert any(one.source_nat and one.destination_nat for one in ours)
    seconds = {(one.zone, one.original): one.timeout for one in theirs}
    for one in ours:
        assert one.timeout is not None
        assert abs(one.timeout - (seconds[one.zone, one.original] or 0)) <= 2


@kernel_test
def test_everything_is_what_conntrack_lists(made: Namespace) -> None:
    def listed() -> tuple[ConntrackEntry, ...]:
        both = ("ipv4", "ipv6")
        return whole_list.entries(
            parse.entry, b"".join(made.run("conntrack", "-L", "-f", one) for one in both)
        )

    deadline = time.monotonic() + _DEADLINE_S
    while True:
        before, ours, after = listed(), ask(made), listed()
        if timeless(before) == timeless(after):
            break
        assert time.monotonic() < deadline
    assert timeless(ours) == timeless(after)


@kernel_test
def test_nothing_is_counted_where_accounting_is_off(made: Namespace) -> None:
    made.run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_acct=0")
    try:
        ends = ("-s", "10.3.0.1", "-d", "10.3.0.2", "--sport", "1", "--dport", "2")
        made.run("conntrack", "-I", "-p", "udp", *ends, "--timeout", "600")
    finally:
        made.run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_acct=1")
    ours, theirs = settled(made, FlowFilter(ip_address("10.3.0.1")))
    assert [(one.packets, one.bytes) for one in ours] == [(None, None)]
    assert timeless(ours) == timeless(fitting(theirs, FlowFilter(ip_address("10.3.0.1"))))
    made.run("conntrack", "-D", "-s", "10.3.0.1")


@kernel_test
@pytest.mark.parametrize("small", [0, 10**6])
def test_the_newest_entries_and_how_many_others(
    made: Namespace, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(conntrack, "SMALL", small)
    everything = in_proc(made)

    def newest(flow: FlowFilter, most: int) -> tuple[list[ConntrackEntry], int]:
        words = ("ebpfnet-node", "conntrack")
        with netns.inside(made.path):
            said = list(conntrack.entries(NodeRequest(1, words, None, (flow,), (), most)))
        entries = [one for one in said if isinstance(one, ConntrackEntry)]
        return entries, sum(one.older for one in said if isinstance(one, LeftOut))

    cut = 0
    for flow in some_filters(list(everything), 25):
        expected = fitting(list(everything), flow)
        found, none = newest(flow, 10**6)
        assert (timeless(found), none) == (timeless(expected), 0), flow
        few, left_out = newest(flow, 1)
        assert (len(few), left_out) == (1, len(expected) - 1)
        most = max(one.timeout or 0 for one in expected)
        assert abs((few[0].timeout or 0) - most) <= _DEADLINE_S  # it runs meanwhile
        cut += left_out > 0
    assert cut > 3


def some_filters(entries: list[ConntrackEntry], count: int) -> list[FlowFilter]:
    """Filters that are made of entries' tuples by leaving parts out, always the same."""
    dice = random.Random(20261121)
    found = []
    for _ in range(count):
        entry = dice.choice(entries)
        flow = dice.choice((entry.original, entry.reply))
        if dice.random() < 0.5:
            flow = flow.reversed()
        parts = (
            flow.source, flow.source_port, flow.destination, flow.destination_port, flow.protocol
        )  # fmt: skip
        found.append(FlowFilter(*(part if dice.random() < 0.7 else None for part in parts)))  # type: ignore[arg-type]
    return found


@kernel_test
def test_filters_show_all_that_fits_once(made: Namespace) -> None:
    _, table = settled(made)
    filters = [one for one in some_filters(table, 80) if one.exact is None]
    assert len(filters) > 50
    for wanted in filters:
        ours, theirs = settled(made, wanted)
        assert timeless(ours) == timeless(fitting(theirs, wanted)), wanted
    some = tuple(filters[:4])
    ours, theirs = settled(made, *some)
    assert timeless(ours) == timeless(fitting(theirs, *some))


@kernel_test
def test_a_filter_is_as_conntracks_own(made: Namespace) -> None:
    words = "-s 10.66.0.1 -d 10.66.0.9 -p tcp --dport 80"
    theirs = whole_list.entries(parse.entry, made.run("conntrack", "-L", *words.split()))
    ours = ask(
        made, FlowFilter(ip_address("10.66.0.1"), None, ip_address("10.66.0.9"), 80, protocol=6)
    )
    assert len(theirs) == 1
    assert timeless(ours) == timeless(theirs)


@kernel_test
def test_ipv6_addresses_are_found_though_kernels_compare_them_wrongly(made: Namespace) -> None:
    before_nat, after_nat = ip_address("fd66::9"), ip_address("fd66::2")
    (one,) = ask(made, FlowFilter(before_nat, 53, protocol=17))
    assert one.destination_nat
    assert timeless(ask(made, FlowFilter(before_nat))) == timeless([one])
    of_both = FlowFilter(after_nat, 5555, ip_address("fd66::1"), protocol=17)
    assert timeless(ask(made, of_both)) == timeless([one])


@kernel_test
def test_one_flow_is_found_from_any_of_its_ends(made: Namespace) -> None:
    (entry,) = ask(made, FlowFilter(peer=ip_address("10.66.0.9"), peer_port=80, protocol=6))
    for flow in (
        entry.original, entry.original.reversed(), entry.reply, entry.reply.reversed(),
    ):  # fmt: skip
        found = ask(made, exactly(flow))
        assert [(one.original, one.reply) for one in found] == [(entry.original, entry.reply)]


def exactly(flow: Flow) -> FlowFilter:
    return FlowFilter(
        flow.source, flow.source_port, flow.destination, flow.destination_port, flow.protocol
    )


@kernel_test
def test_a_flow_of_other_zones_is_found_where_zone_0_has_none(made: Namespace) -> None:
    wanted = exactly(Flow(6, ip_address("10.1.0.1"), 5, ip_address("10.1.0.2"), 6))
    assert {one.zone for one in ask(made, wanted)} == {8, 9, 10}


@kernel_test
def test_a_flow_that_is_not_there_is_no_entry(made: Namespace) -> None:
    assert ask(made, exactly(Flow(6, ip_address("10.5.0.1"), 5, ip_address("10.5.0.2"), 6))) == []
    assert ask(made, FlowFilter(ip_address("10.66.0.1"), peer=ip_address("fd66::2"))) == []


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[ConntrackEntry]:
    """Every entry that comes from the kernel, in time."""
    seen = []
    real = conntrack_message.entry

    def entry(data: bytes, start: int, end: int) -> ConntrackEntry:
        seen.append(real(data, start, end))
        return seen[-1]

    monkeypatch.setattr(conntrack_message, "entry", entry)
    return seen


@kernel_test
def test_what_is_not_wanted_is_not_decoded(made: Namespace, decoded: list[ConntrackEntry]) -> None:
    address = FlowFilter(ip_address("10.66.0.9"))
    found = ask(made, address)
    assert found
    assert fitting(decoded, address) == decoded
    decoded.clear()
    ask(made, exactly(found[0].original))
    assert len(decoded) == 1  # a look-up by key, no dump


@kernel_test
def test_the_kernel_filters(made: Namespace) -> None:
    address = ip_address("10.66.0.9")
    one = conntrack._TupleFilter(2, destination=address)
    with netns.inside(made.path):
        messages = [data[start:end] for data, start, end in one.messages()]
    if not all(map(one.passes, messages)):
        pytest.skip("this kernel does not filter conntrack dumps (before 5.8)")
    assert len(messages) == 1


@kernel_test
def test_a_kernel_that_does_not_filter_is_asked_once(
    made: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pyroute2 leaves out attributes that it does not know, and so asks for everything
    monkeypatch.setattr(conntrack, "_FILTER", "CTA_NOTHING")
    wanted = FlowFilter(ip_address("10.66.0.1"), protocol=6)
    ours, theirs = settled(made, wanted)
    assert timeless(ours) == timeless(fitting(theirs, wanted))
    assert len(ours) == 2
    asked = []
    real = transport.answers
    monkeypatch.setattr(transport, "answers", lambda *words: asked.append(words) or real(*words))
    ask(made, wanted)
    assert len(asked) == 1


@kernel_test
def test_a_long_table_needs_little_memory(made: Namespace) -> None:
    fill(made.name, 10000)
    request = NodeRequest(1, ("ebpfnet-node", "conntrack"))
    with netns.inside(made.path):
        assert conntrack.count() == int(made.run("conntrack", "-C"))
        tracemalloc.start()
        try:
            number = sum(1 for _ in conntrack.entries(request))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert number >= 10000
    assert peak < 4_000_000
    made.run("conntrack", "-D", "-d", "10.9.0.1")


@kernel_test
def test_over_the_protocol_facts_are_the_same(made: Namespace) -> None:
    wanted = FlowFilter(ip_address("10.66.0.9"))
    request = codec.plain(NodeRequest(5, ("ebpfnet-node", "conntrack"), flows=(wanted,))) | {
        "protocol": PROTOCOL
    }
    done = subprocess.run(
        ("ip", "netns", "exec", made.name, sys.executable, "-m", "kubectl_ebpfnet.node"),
        input=json.dumps(request).encode() + b'\n{"end": true}\n',
        capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    _, header, *lines = done.stdout.splitlines()
    assert json.loads(header)["exit_code"] == 0
    told = [codec.fact(line, ConntrackEntry) for line in lines]
    assert told
    assert timeless(told) == timeless(ask(made, wanted))


@kernel_test
def test_without_the_capability_it_is_said_which(made: Namespace) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv")
    done = subprocess.run(
        (
            "ip", "netns", "exec", made.name, "setpriv", "--bounding-set=-net_admin",
            "--inh-caps=-net_admin", sys.executable, "-m", "kubectl_ebpfnet.node", "ask",
            "conntrack",
        ),
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Operation not permitted (CAP_NET_ADMIN allows it)" in done.stderr


@kernel_test
def test_a_kernel_without_ctnetlink_is_said(
    made: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conntrack, "_GET", 0xF0 << 8 | 1)  # a subsystem that no kernel has
    with pytest.raises(Unsupported, match="CONFIG_NF_CT_NETLINK"), netns.inside(made.path):
        list(conntrack._ask(0, NLM_F_DUMP, [], conntrack._GET))


def test_what_is_not_loaded_is_said_and_not_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(conntrack, "_COUNT", tmp_path / "nf_conntrack_count")
    monkeypatch.setattr(transport, "answers", None)
    with pytest.raises(Unsupported, match="nf_conntrack is not loaded"):
        list(conntrack.entries(NodeRequest(1, ("ebpfnet-node", "conntrack"))))
