"""Qdiscs, and the counters of devices and of nf_conntrack, on the packet's way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import InMemory, Place, Record, agent_place, pod_place
from kubectl_ebpfnet.model.kernel import Counter, Qdisc
from kubectl_ebpfnet.model.path import Finding
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import NATIVE, VXLAN, ask, changed, dropped_at, swap
from tests.explain.path.variants import json_edit

WORLD = "1.1.1.1:80"
LINKS = "ip -j -d link"


@pytest.fixture(autouse=True)
def nothing_of_now() -> Iterator[None]:
    with attempt(600.0):
        yield


def said(place: Place, argv: tuple[str, ...], value: object) -> Record:
    return Record(0, place, argv, 0, InMemory(json.dumps(value).encode()))


def qdiscs(node: str, *rows: dict[str, Any]) -> Record:
    made = [{"root": True, "options": {}, "packets": 0, "drops": 0, "qlen": 0, **r} for r in rows]
    return said(agent_place(node), q.QDISCS.forms[0], made)


def of_node_pod(place: Place, name: str, *facts: object) -> Record:
    return Record(0, place, node_argv(name), 0, InMemory(b"".join(map(codec.line_of, facts))))


def losses(path: Answer) -> list[Finding]:
    return [one for one in path.findings if "qdisc" in one.title or "loses packets" in one.title]


@pytest.mark.parametrize(
    ("node", "device", "destination"),
    [
        ("node2", "eth0", WORLD),
        ("node2", "eth0", "pod/web:8080"),
        ("node2", "cilium_vxlan", "pod/web:8080"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("blackhole", {}), ("netem", {"limit": 1000, "loss-random": {"loss": 1, "correlation": 0}})],
)
def test_a_qdisc_that_drops_everything_drops_the_packet(
    node: str, device: str, destination: str, kind: str, options: dict[str, Any]
) -> None:
    there = qdiscs(node, {"kind": kind, "dev": device, "options": options})
    path = ask(changed(VXLAN, more=(there,)), "client", destination)
    hop = dropped_at(path)
    assert (hop.node, hop.where, hop.state) == (node, device, "observed")
    assert f"qdisc {kind} at {device} of node {node} drops everything" in hop.summary
    assert path.fix is not None
    assert path.fix.command == f"tc qdisc del dev {device} root"


def test_a_blackhole_below_another_qdisc_is_not_every_packets() -> None:
    there = qdiscs("node2", {"kind": "blackhole", "dev": "eth0", "root": False})
    assert ask(changed(VXLAN, more=(there,)), "client", WORLD).verdict == "leaves"


@pytest.mark.parametrize(
    ("row", "severity", "words"),
    [
        ({"kind": "tbf", "options": {"rate": 125000}}, "info", "lets 1 Mbit/s pass"),
        ({"kind": "tbf", "options": {"rate": 125000}, "packets": 20, "drops": 10, "qlen": 2},
         "warning", "dropped 10 of 30 packets, 2 packets wait in it"),
        ({"kind": "netem", "options": {"loss-random": {"loss": 0.25}}}, "warning",
         "drops 25.00% of its packets on purpose"),
        ({"kind": "netem", "options": {"delay": {"delay": 0.3}}}, "info", "shapes or delays"),
        ({"kind": "netem", "options": {"rate": {"rate": 1250}}}, "info", "lets 0.01 Mbit/s pass"),
        ({"kind": "fq_codel", "packets": 5000, "drops": 200}, "warning",
         "dropped 200 of 5200 packets"),
        ({"kind": "pfifo", "packets": 200, "drops": 150, "root": False}, "warning",
         "dropped 150 of 350 packets"),
    ],
)  # fmt: skip
def test_what_shapes_or_lost_some_is_said(row: dict[str, Any], severity: str, words: str) -> None:
    path = ask(changed(VXLAN, more=(qdiscs("node2", {"dev": "eth0", **row}),)), "client", WORLD)
    (found,) = losses(path)
    assert (found.severity, path.verdict) == (severity, "leaves")
    assert found.title.startswith(f"qdisc {row['kind']} at eth0 of node node2 ")
    assert words in found.title
    assert found.evidence


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "mq"},
        {"kind": "noqueue"},
        {"kind": "fq_codel", "packets": 1_000_000, "drops": 4000},  # as AQM does
        {"kind": "fq", "packets": 5, "drops": 4},
        {"kind": "clsact", "root": False, "packets": 10, "drops": 900},  # what programs dropped
    ],
)
def test_ordinary_qdiscs_are_not_mentioned(row: dict[str, Any]) -> None:
    path = ask(changed(VXLAN, more=(qdiscs("node2", {"dev": "eth0", **row}),)), "client", WORLD)
    assert losses(path) == []


@pytest.mark.parametrize("pod", [True, False])
def test_a_node_pod_tells_the_same(pod: bool) -> None:
    place = pod_place("default", "client") if pod else agent_place("node2")
    hole = of_node_pod(place, "qdiscs", Qdisc("eth0", "blackhole"))
    path = ask(changed(VXLAN, more=(hole,)), "client", WORLD)
    hop = dropped_at(path)
    assert hop.where == ("default/client" if pod else "eth0")


def test_ip_names_the_qdisc_of_a_pods_device() -> None:
    links = swap("client", "ip addr", "qdisc noqueue state UP", "qdisc blackhole state UP")
    assert dropped_at(ask(changed(VXLAN, links), "client", WORLD)).where == "default/client"


def lossy(node: str, device: str, way: str, **counters: int) -> Any:
    def edit(links: Any) -> None:
        (link,) = [one for one in links if one["ifname"] == device]
        link["stats64"] = {"rx": {"packets": 1}, "tx": {"packets": 1}, way: counters}

    return edit


def counted(node: str, device: str, way: str, **counters: int) -> Record:
    """The list of links as it is asked for today."""
    (record,) = [
        r for r in changed(VXLAN).records if r.place == agent_place(node) and r.command == LINKS
    ]
    change = json_edit(node, LINKS, lossy(node, device, way, **counters))
    edited = change(record)
    assert edited is not None
    return Record(0, record.place, q.LINKS.forms[0], 0, edited.stdout)


@pytest.mark.parametrize(
    ("node", "device", "way", "destination"),
    [
        ("node2", "lxcca1c984e26ef", "rx", WORLD),
        ("node2", "eth0", "tx", WORLD),
        ("node2", "cilium_vxlan", "tx", "pod/web:8080"),
        ("node1", "eth0", "rx", "pod/web:8080"),
        ("node1", "cilium_vxlan", "rx", "pod/web:8080"),
    ],
)
def test_a_device_that_lost_a_part_that_is_felt(
    node: str, device: str, way: str, destination: str
) -> None:
    record = counted(node, device, way, packets=9000, dropped=50, errors=60)
    path = ask(changed(VXLAN, more=(record,)), "client", destination)
    (found,) = losses(path)
    assert found.severity == "warning"
    assert f"{way}_errors 60, {way}_dropped 50, of 9000" in found.title
    assert found.evidence
    other = "tx" if way == "rx" else "rx"
    record = counted(node, device, other, packets=9000, dropped=50, errors=60)
    of_answers = losses(ask(changed(VXLAN, more=(record,)), "client", destination))
    assert all(found.title.startswith("way back: ") for found in of_answers)


@pytest.mark.parametrize("counters", [{"dropped": 99}, {"packets": 1_000_000, "dropped": 4000}])
def test_old_and_small_counters_are_not_mentioned(counters: dict[str, int]) -> None:
    record = counted("node2", "eth0", "tx", **{"packets": 100, **counters})
    assert losses(ask(changed(VXLAN, more=(record,)), "client", WORLD)) == []


def test_a_node_pods_counters_count_as_well() -> None:
    facts = (Counter("device", "tx_packets", 1000, "eth0"),
             Counter("device", "tx_dropped", 500, "eth0"))  # fmt: skip
    record = of_node_pod(agent_place("node2"), "counters", *facts)
    assert len(losses(ask(changed(VXLAN, more=(record,)), "client", WORLD))) == 1


# --- nf_conntrack ---------------------------------------------------------------------------------


def conntrack(count: int, dropped: int, evicted: int = 1) -> Record:
    names = "entries  clashres found drop early_drop"
    values = f"00000010  00000000 00000000 {dropped:08x} {evicted:08x}"
    nothing = " ".join(["00000000"] * 5)
    text = (
        f"/proc/sys/net/netfilter/nf_conntrack_count:{count}\n"
        "/proc/sys/net/netfilter/nf_conntrack_max:1000\n"
        + "".join(f"/proc/net/stat/nf_conntrack:{one}\n" for one in (names, values, nothing))
    )
    argv = q.SYSCTLS.forms[0]
    return Record(0, agent_place("node2"), argv, 0, InMemory(text.encode()))


@pytest.mark.parametrize(("count", "severity"), [(900, "warning"), (100, "info")])
def test_what_nf_conntrack_lost_is_said_where_the_packet_passes_it(
    count: int, severity: str
) -> None:
    path = ask(changed(NATIVE, more=(conntrack(count, 37),)), "client", WORLD)
    (found,) = [one for one in path.findings if "for want of room" in one.title]
    assert (found.severity, path.verdict) == (severity, "leaves")
    assert "drop 37, early_drop 1" in found.title
    assert f"holds {count} of at most 1000 now" in found.detail
    assert len(found.evidence[0].excerpt) == 3


@pytest.mark.parametrize(("count", "said"), [(100, 0), (900, 1)])
def test_drops_alone_are_for_want_of_room_only_where_there_is_little(count: int, said: int) -> None:
    path = ask(changed(NATIVE, more=(conntrack(count, 37, 0),)), "client", WORLD)
    assert len([one for one in path.findings if "for want of room" in one.title]) == said


def test_how_full_nf_conntrack_is_may_not_have_been_read() -> None:
    whole = conntrack(100, 37)
    kept = [line for line in whole.stdout.read().split(b"\n") if b"/proc/sys" not in line]
    record = replace(whole, stdout=InMemory(b"\n".join(kept)))
    path = ask(changed(NATIVE, more=(record,)), "client", WORLD)
    (found,) = [one for one in path.findings if "for want of room" in one.title]
    assert "how many it holds now was not read" in found.detail


def test_past_losses_of_nf_conntrack_are_no_news_while_answers_come() -> None:
    with attempt(5.0):
        path = ask(changed(NATIVE, more=(conntrack(100, 37),)), "client", WORLD)
    assert not [one for one in path.findings if "for want of room" in one.title]


def test_where_netfilter_is_passed_by_its_losses_are_not_the_packets() -> None:
    path = ask(changed(VXLAN, more=(conntrack(900, 37),)), "client", WORLD)
    assert not [one for one in path.findings if "for want of room" in one.title]
