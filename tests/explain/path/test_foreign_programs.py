"""Programs and tc filters of somebody else at every place that the packet passes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, bundle_of, pod_place
from kubectl_ebpfnet.model.path import Hop, Outcome, State
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import VXLAN, Change, ask, changed, swap
from tests.explain.path.test_variants import in_ipv6
from tests.explain.path.variants import json_edit

WORLD = "1.1.1.1:80"
NET, LINKS = "bpftool -j net show", "ip -j -d link"
U32 = """\
filter protocol {protocol} pref 7 u32 chain 0
filter protocol {protocol} pref 7 u32 chain 0 fh 800::800 order 2048 key ht 800 bkt 0 flowid :1
  match 01010101/ffffffff at 16
\taction order 1: mirred (Egress Redirect to device lo) stolen
"""


@pytest.fixture(autouse=True)
def nothing_of_now() -> Iterator[None]:
    """The recorded answers are older than what is asked about."""
    with attempt(600.0):
        yield


def foreign(path: Answer) -> list[Hop]:
    return [hop for hop in path.hops if "not one of Cilium's" in hop.summary]


def filters(device: str, direction: str, protocol: str = "ip") -> Change:
    """A u32 filter at a clsact hook of node2."""
    command = f"tc filter show dev {device} {direction}"

    def change(record: Record) -> Record:
        if record.command != command or record.place != agent_place("node2"):
            return record
        had = record.stdout.read().decode()
        return replace(record, stdout=InMemory((U32.format(protocol=protocol) + had).encode()))

    return change


def also_at(node: str, device: str, kind: str, name: str = "filter_tc", *, first: bool) -> Change:
    """A program more at a device."""

    def edit(value: Any) -> None:
        rows = value[0]["tc"]
        places = [
            n for n, row in enumerate(rows) if (row["devname"], row["kind"]) == (device, kind)
        ]
        at = places[0] if first and places else len(rows)
        rows.insert(at, {"devname": device, "ifindex": 2, "kind": kind, "name": name, "prog_id": 9})

    return json_edit(node, NET, edit)


def in_pod(pod: str, *found: Attachment) -> Record:
    argv = node_argv("attachments")
    stdout = InMemory(b"".join(map(codec.line_of, found)))
    return Record(0, pod_place("default", pod), argv, 0, stdout)


def undecided(path: Answer, words: str) -> Hop:
    """The only foreign hop; the verdict is unknown and names it."""
    (hop,) = foreign(path)
    assert (hop.state, path.verdict) == (State.UNKNOWN, "unknown")
    assert words in hop.summary
    assert words in path.reason
    assert path.fix is not None
    return hop


def test_a_tc_filter_that_is_no_program_is_shown_with_its_actions() -> None:
    path = ask(changed(VXLAN, filters("eth0", "egress")), "client", WORLD)
    # tcx runs before clsact, and Cilium's program ends the chain of both.
    (hop,) = foreign(path)
    assert "a u32 filter (clsact/egress, pref 7) at eth0" in hop.summary
    assert "not reached, cil_to_netdev before it ends the chain" in hop.summary
    assert path.verdict != "unknown"


@pytest.mark.parametrize(("protocol", "met"), [("ip", True), ("ipv6", False), ("arp", False)])
def test_a_tc_filter_where_nothing_of_ciliums_is_may_lose_the_packet(
    protocol: str, met: bool
) -> None:
    gone = json_edit("node2", NET, lambda v: v[0].update(tc=_without(v, "eth0", "tcx/egress")))
    path = ask(changed(VXLAN, gone, filters("eth0", "egress", protocol)), "client", WORLD)
    assert bool(foreign(path)) is met
    if met:
        assert "mirred (Egress Redirect" in "".join(
            line for e in foreign(path)[0].evidence for line in e.excerpt
        )
        assert path.fix is not None


def _without(value: Any, device: str, kind: str) -> list[Any]:
    return [row for row in value[0]["tc"] if (row["devname"], row["kind"]) != (device, kind)]


def test_before_ciliums_it_may_keep_the_packet_from_it() -> None:
    path = ask(changed(VXLAN, also_at("node2", "eth0", "tcx/egress", first=True)), "client", WORLD)
    hop = undecided(path, "filter_tc (tcx/egress, id 9)")
    assert "runs before cil_to_netdev and may keep the packet from it" in hop.summary
    assert path.fix is not None
    assert path.fix.command == "bpftool prog dump xlated id 9"
    with attempt(5.0):
        path = ask(
            changed(VXLAN, also_at("node2", "eth0", "tcx/egress", first=True)), "client", WORLD
        )
    assert path.verdict == "delivered"


def test_who_holds_it_and_how_often_it_ran() -> None:
    def edit(value: Any) -> None:
        value.append({"id": 9, "type": "sched_cls", "name": "filter_tc", "tag": "ab" * 8,
                      "run_time_ns": 7000, "run_cnt": 70,
                      "pids": [{"pid": 4711, "comm": "shaper"}]})  # fmt: skip

    loaded = json_edit("node2", "bpftool -j prog show", edit)
    change = also_at("node2", "eth0", "tcx/egress", first=True)
    (hop,) = foreign(ask(changed(VXLAN, loaded, change), "client", WORLD))
    assert "not one of Cilium's, held by shaper (4711), it ran 70 times" in hop.summary


@pytest.mark.parametrize(
    ("kind", "lower", "upper"),
    [
        ("bond", {"ifname": "ens1", "master": "eth0"}, {"info_kind": "bond"}),
        ("vlan", {"ifname": "ens1"}, {"info_kind": "vlan"}),
    ],
)
@pytest.mark.parametrize(
    ("destination", "direction"), [(WORLD, "egress"), ("pod/web:8080", "ingress")]
)
def test_devices_below_the_one_with_the_address_count(
    kind: str, lower: dict[str, str], upper: dict[str, str], destination: str, direction: str
) -> None:
    node = "node2" if direction == "egress" else "node1"

    def edit(value: Any) -> None:
        (eth0,) = [link for link in value if link["ifname"] == "eth0"]
        eth0["linkinfo"] = upper
        for word in ("link", "link_index", "link_netnsid", "link_netns"):
            eth0.pop(word, None)
        if kind == "vlan":
            eth0["link"] = "ens1"
        value.append({**eth0, "ifindex": 99, "linkinfo": {}, **lower})
        value[-1].pop("link", None)

    changes = json_edit(node, LINKS, edit), also_at(node, "ens1", f"tcx/{direction}", first=False)
    path = ask(changed(VXLAN, *changes), "client", destination)
    hop = undecided(path, f"filter_tc (tcx/{direction}, id 9) at ens1")
    assert (hop.where, hop.node) == ("ens1", node)


@pytest.mark.parametrize("pod", ["client", "web"])
def test_programs_in_the_pods_own_namespace(pod: str) -> None:
    hook = "tcx/egress" if pod == "client" else "tcx/ingress"
    theirs = Attachment(hook, "eth0", "filter_tc", 9, run_count=7)
    away = replace(theirs, hook="tcx/ingress" if pod == "client" else "tcx/egress")
    path = ask(changed(VXLAN, more=(in_pod(pod, theirs, away),)), "client", "pod/web:8080")
    hop = undecided(path, f"filter_tc ({hook}, id 9) at eth0")
    assert (hop.place, hop.where) == ("pod", f"default/{pod}")
    assert "not one of Cilium's, it ran 7 times" in hop.summary
    assert path.fix is not None
    assert f"in the network namespace of pod default/{pod}" in path.fix.text


def test_xdp_in_a_pod_is_seen_without_a_node_pod() -> None:
    place = pod_place("default", "web")
    link = {"ifindex": 2, "ifname": "eth0", "flags": ["UP", "LOWER_UP"],
            "xdp": {"mode": 1, "prog": {"id": 77}}}  # fmt: skip
    said = Record(0, place, ("ip", "addr"), 0, InMemory(json.dumps([link]).encode()))
    path = ask(changed(VXLAN, more=(said,)), "client", "pod/web:8080")
    undecided(path, "a program without a name (xdp, id 77) at eth0")


def test_a_program_at_the_receiving_veth_counts_where_it_is_passed() -> None:
    """bpf_redirect() sends a packet out of the veth; BPF host routing puts it into the pod."""
    web = json_edit("node1", NET, lambda v: v[0]["tc"].append(
        {"devname": "lxc890578bef1bb", "ifindex": 9, "kind": "tcx/egress", "name": "filter_tc",
         "prog_id": 9}))  # fmt: skip
    assert foreign(ask(changed(VXLAN, web), "client", "pod/web:8080")) == []
    legacy = swap(
        "node1",
        "cilium-dbg status -o json",
        '"intra-host-routing-mode": "BPF"',
        '"intra-host-routing-mode": "Legacy"',
    )
    path = ask(changed(VXLAN, web, legacy), "client", "pod/web:8080")
    undecided(path, "filter_tc (tcx/egress, id 9) at lxc890578bef1bb")


def test_what_was_not_read_in_the_pods_is_presumed_and_said() -> None:
    with attempt(5.0, Outcome.UNANSWERED):
        path = ask(changed(VXLAN), "client", "pod/web:8080")
    assert "tc and XDP inside of pod default/web" in path.presumed
    assert (
        "tc and XDP inside of pod default/client" not in path.presumed
    )  # its node has seen the packet


@pytest.mark.parametrize(("protocol", "met"), [("ipv6", True), ("ip", False), ("all", True)])
def test_ipv6_meets_the_same(protocol: str, met: bool) -> None:
    bundle = in_ipv6()
    records = [filters("eth0", "egress", protocol)(record) for record in bundle.records]
    path = ask(bundle_of([r for r in records if r is not None]), "client", "pod/web:8080")
    if met:
        undecided(path, "a u32 filter (clsact/egress, pref 7) at eth0")
    assert bool(foreign(path)) is met


def test_ipv6_is_dropped_by_the_same_qdisc() -> None:
    row = {"kind": "blackhole", "dev": "eth0", "root": True, "options": {}}
    stdout = InMemory(json.dumps([row]).encode())
    hole = Record(0, agent_place("node2"), q.QDISCS.forms[0], 0, stdout)
    path = ask(bundle_of([*in_ipv6().records, hole]), "client", "pod/web:8080")
    assert (path.verdict, path.hops[-1].where) == ("dropped", "eth0")
