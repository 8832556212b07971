"""Flows joined out of three tables: one line through every translation."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.explain.flows import listing
from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.flows import state_of
from kubectl_ebpfnet.model.net import TCP, UDP, Flow
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from kubectl_ebpfnet.render.lists.flows import listing as flows_listing
from kubectl_ebpfnet.render.lists.flows import tables, translated
from kubectl_ebpfnet.render.lists.listing import remarks, render
from kubectl_ebpfnet.render.text.view import View
from tests.explain.flows import tables as t
from tests.explain.path.node_pod_bundle import NODE, answer, bundle, pod_object, refused

RECORDED = "tests/scenarios/vxlan-kpr"
POD, NODE_IP, WORLD = (ip_address(a) for a in ("10.0.1.7", "192.0.2.1", "1.1.1.1"))
VIP, BACKEND = ip_address("10.96.0.9"), ip_address("10.0.2.5")
OUT = Flow(TCP, POD, 4001, WORLD, 80)
TO_VIP = Flow(TCP, POD, 4002, VIP, 80)
TO_BACKEND = Flow(TCP, POD, 4002, BACKEND, 8080)
DNS = Flow(UDP, POD, 4003, WORLD, 53)
MASQUERADED = Flow(TCP, WORLD, 80, NODE_IP, 61001)

EVERYTHING = (
    answer(
        NODE,
        "ct",
        CtEntry(TO_BACKEND, "OUT", rev_nat=3, remaining=50, flags=frozenset({"SeenNonSyn"})),
        CtEntry(TO_BACKEND, "IN", remaining=40),
        CtEntry(TO_VIP, "SVC", rev_nat=3, remaining=60),
        CtEntry(OUT, "OUT", remaining=-5, flags=frozenset({"RxClosing", "TxClosing"})),
        CtEntry(replace(OUT, source_port=None, destination_port=None), "OUT", related=True),
    ),
    answer(
        NODE,
        "nat",
        NatEntry(OUT, "OUT", NODE_IP, 61001, age=12),
        NatEntry(MASQUERADED, "IN", POD, 4001),
    ),
    answer(
        NODE,
        "conntrack",
        ConntrackEntry(
            DNS, DNS.reversed(), 29, status=frozenset({"UNREPLIED"}), packets=2, bytes=120
        ),
    ),
)  # fmt: skip


def test_lines_that_were_left_out_are_counted() -> None:
    short = replace(EVERYTHING[0], left_out=59_500)
    found = listing.of_node("n1", bundle(short, *EVERYTHING[1:]))
    assert found.missing == (
        "Cilium's conntrack of node n1: the newest 5 entries were read, and 59,500 more are there"
        " (--all reads them)",
        "where a table was not read whole, a flow may have entries that are not shown with it",
    )
    assert found.known


def test_the_newest_flows_are_shown_and_the_others_counted() -> None:
    everything = listing.of_node("n1", bundle(*EVERYTHING))
    found = listing.of_node("n1", bundle(*EVERYTHING), most=2)
    assert (found.flows, found.more) == (everything.flows[:2], 1)
    assert everything.more == 0
    said = remarks(flows_listing(found), bundle(*EVERYTHING))
    assert "1 older connection is not shown: --all" in said
    assert len(render(flows_listing(found), bundle(*EVERYTHING), "name", View()).split()) == 2
    document = json.loads(render(flows_listing(found), bundle(*EVERYTHING), "json", View()))
    assert (len(document["items"]), document["more"]) == (2, 1)


def test_entries_of_one_flow_are_one_line() -> None:
    found = listing.of_node("n1", bundle(*EVERYTHING))
    lines = [(str(f.flow), translated(f), tables(f), state_of(f)) for f in found.flows]
    assert lines == [
        ("TCP 10.0.1.7:4002 → 10.96.0.9:80", "to 10.0.2.5:8080", "svc,ct-out", "ESTABLISHED"),
        ("UDP 10.0.1.7:4003 → 1.1.1.1:53", "", "nf", "UNREPLIED"),
        ("TCP 10.0.1.7:4001 → 1.1.1.1:80", "from 192.0.2.1:61001", "ct-out,nat", "CLOSED"),
    ]
    assert found.missing == ()
    assert [f.time_to_live for f in found.flows] == [50, 29, -5]


def test_the_other_end_may_be_the_service_or_its_backend() -> None:
    everything = bundle(pod_object(), *EVERYTHING)
    for end in (FlowFilter(peer=VIP, peer_port=80), FlowFilter(peer=BACKEND)):
        found = listing.of_pod("shop", "cart", everything, (end,))
        assert [str(f.flow) for f in found.flows] == ["TCP 10.0.1.7:4002 → 10.96.0.9:80"]
    udp = listing.of_pod("shop", "cart", everything, (FlowFilter(protocol=UDP),))
    assert [f.flow for f in udp.flows] == [DNS]
    assert (
        listing.of_pod("shop", "cart", everything, (FlowFilter(peer=VIP, peer_port=81),)).flows
        == ()
    )


def test_netfilters_own_translation_is_joined() -> None:
    """kube-proxy's DNAT: Cilium saw the packet after it, at the server's device."""
    nf = ConntrackEntry(TO_VIP, TO_BACKEND.reversed(), 100, "open")
    found = listing.of_node(
        "n1", bundle(answer(NODE, "ct", CtEntry(TO_BACKEND, "IN", remaining=9)),
                     answer(NODE, "nat"), answer(NODE, "conntrack", nf))
    )  # fmt: skip
    (one,) = found.flows
    assert (one.flow, one.translated) == (TO_VIP, TO_BACKEND)
    assert (tables(one), state_of(one)) == ("ct-in,nf", "ESTABLISHED")


def test_tables_that_cannot_be_read_are_named() -> None:
    ct = refused(NODE, "ct", "no map cilium_ct4_global is pinned under /sys/fs/bpf/tc/globals")
    nat = refused(NODE, "nat", "no map cilium_snat_v4_external is pinned")
    found = listing.of_node("n1", bundle(ct, nat, EVERYTHING[2]))
    assert [f.flow for f in found.flows] == [DNS]
    (said,) = found.missing  # a node without a SNAT map has nothing to say about it
    assert "Cilium's conntrack of node n1" in said
    assert "no map cilium_ct4_global" in said


def test_out_of_what_an_agent_said() -> None:
    found = listing.of_pod("default", "client", open_bundle(RECORDED))
    assert found.node == "node2"
    outside = [f for f in found.flows if f.flow.destination == WORLD]
    assert outside
    assert all(translated(f).startswith("from 172.30.0.12:") for f in outside)
    assert all(f.evidence for f in found.flows)


SYN_SENT = (
    "ipv4 2 tcp 6 100 SYN_SENT src=10.0.1.7 dst=1.1.1.1 sport=4001 dport=80 [UNREPLIED] "
    "src=1.1.1.1 dst=10.0.1.7 sport=80 dport=4001 mark=0 zone=0 use=2"
)
WORDS = "TCP OUT 10.0.1.7:4001 -> 1.1.1.1:80"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (t.closed(WORDS, 3), "CLOSED"),  # versions 2: netfilter saw the requests alone
        (t.ct(WORDS, 3, 3, flags=(0x1A, 0x12), marks="SeenNonSyn"), "ESTABLISHED"),
        (t.ct(WORDS, 3, 3, flags=(0x1B, 0x1A), marks="TxClosing SeenNonSyn"), "CLOSING"),
        (t.ct(WORDS, 3, 3, flags=(0x02, 0x14), marks="RxClosing TxClosing"), "REFUSED"),
        (t.ct(WORDS, 3, 3, flags=(0x02, 0x12)), "SYN_RECV"),
        (t.syn(WORDS, 3), "SYN_SENT"),
        ("UDP OUT 10.0.1.7:1 -> 1.1.1.1:53 expires=9050 LastTxReport=8990", "UNREPLIED"),
        ("UDP OUT 10.0.1.7:1 -> 1.1.1.1:53 LastRxReport=8990 LastTxReport=8990", "REPLIED"),
        ("ICMP OUT 10.0.1.7:1 -> 1.1.1.1:0 LastRxReport=0 LastTxReport=8990", "UNREPLIED"),
    ],
)
def test_states_are_those_that_cilium_saw(line: str, words: str) -> None:
    found = listing.of_node(
        "n1", t.bundle(t.record("n1", t.CT, line), t.record("n1", t.NF, SYN_SENT))
    )
    by_cilium = [flow for flow in found.flows if flow.cilium_ct is not None]
    assert [state_of(flow) for flow in by_cilium] == [words]


def test_the_flow_that_was_seen_last_stands_first() -> None:
    lines = [t.syn(WORDS, 20), t.closed(WORDS.replace("4001", "4002"), 3)]
    found = listing.of_node("n1", t.bundle(t.record("n1", t.CT, *lines)))
    assert [flow.flow.source_port for flow in found.flows] == [4002, 4001]
    assert [flow.last_seen.any for flow in found.flows] == [3, 20]
    assert [flow.time_to_live for flow in found.flows] == [7, 40]


def test_a_service_flow_lives_as_long_as_its_own_entry() -> None:
    """Versions 8: up to 1.14 the entry of load-balancing lives for hours."""
    lines = [
        t.ct("TCP SVC 10.0.1.7:1 -> 10.96.0.9:80", 3, flags=(0x1B, 0), lifetime=21600, rev_nat=5),
        t.closed("TCP OUT 10.0.1.7:1 -> 10.0.2.5:8080", 3, rev_nat=5),
    ]
    [flow] = listing.of_node("n1", t.bundle(t.record("n1", t.CT, *lines))).flows
    assert flow.service_ct is not None
    assert flow.time_to_live == 7


def test_nothing_that_could_be_read_is_not_nothing() -> None:
    unread = listing.of_node("n1", t.bundle(t.record("n1", ("ip", "addr"), "")))
    assert (unread.known, unread.flows) == (False, ())
    assert len(unread.missing) == 3
    read = listing.of_node("n1", t.bundle(t.record("n1", t.CT), t.record("n1", t.NF)))
    assert read.known
