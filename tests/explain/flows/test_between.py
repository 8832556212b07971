"""Between which places an attempt was lost: who has its tuple, and who has not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.flows.attempt import newest
from kubectl_ebpfnet.explain.flows.between import Lost, lost_between
from kubectl_ebpfnet.explain.flows.match import FlowQuery, tracked_flows
from kubectl_ebpfnet.model.evidence import Record, agent_place
from kubectl_ebpfnet.model.net import TCP, UDP
from tests.explain.flows import tables as t

POD, WEB, WORLD = ip_address("10.0.0.1"), ip_address("10.0.1.2"), ip_address("1.1.1.1")
PODS = (t.pod("client", "n1", "10.0.0.1"), t.pod("web", "n2", "10.0.1.2"))
OUT, IN = (f"TCP {way} 10.0.0.1:{{}} -> 10.0.1.2:80" for way in ("OUT", "IN"))
OUTSIDE = "TCP OUT 10.0.0.1:{} -> 1.1.1.1:80"
NEW = t.record("n1", t.CT, t.syn(OUT.format(7), 5), t.closed(OUT.format(6), 9))
OLD = t.closed(IN.format(6), 9)


def nf(port: int, state: str, destination: str = "10.0.1.2", unreplied: str = "") -> str:
    return (
        f"ipv4 2 tcp 6 100 {state} src=10.0.0.1 dst={destination} sport={port} dport=80 "
        f"{unreplied} src={destination} dst=10.0.0.1 sport=80 dport={port} mark=0 zone=0 use=2"
    )


def nat(port: int) -> str:
    return (
        f"TCP OUT 10.0.0.1:{port} -> 1.1.1.1:80 XLATE_SRC 192.0.2.1:{port} Created=5sec ago "
        "NeedsCT=0"
    )


def lost(*records: Record, to: str = "10.0.1.2", protocol: int = TCP) -> Lost | None:
    cluster = t.cluster(*PODS, *records)
    node = cluster.node("n1")
    ends = frozenset({(ip_address(to), None)})
    attempt = newest(tracked_flows(node, FlowQuery(protocol, POD, ends)), node)
    assert attempt is not None
    return lost_between(cluster, attempt, ["n1", "n2"])


def text_of(*records: Record, to: str = "10.0.1.2") -> str:
    found = lost(*records, to=to)
    assert found is not None
    assert found[1]
    return found[0]


def test_the_receivers_table_was_read_and_has_not_got_it() -> None:
    text = text_of(NEW, t.record("n2", t.CT, OLD))
    assert text.startswith("Cilium's conntrack of n1 has it, and Cilium's conntrack of n2 was read")


def test_both_pods_on_one_node() -> None:
    here = t.pod("web2", "n1", "10.0.0.9")
    sent = t.syn("TCP OUT 10.0.0.1:7 -> 10.0.0.9:80", 5)
    text = text_of(here, t.record("n1", t.CT, sent), to="10.0.0.9")
    assert "of n1 was read and has it not at the receiving pod" in text


def test_netfilter_says_where_it_was_last() -> None:
    sent = t.record("n1", t.NF, nf(7, "SYN_SENT", unreplied="[UNREPLIED]"))
    text = text_of(NEW, sent, t.record("n2", t.CT, OLD))
    assert text.startswith("nf_conntrack of n1 has it")
    arrived = t.record("n2", t.NF, nf(7, "SYN_SENT", unreplied="[UNREPLIED]"))
    assert text_of(NEW, sent, arrived, t.record("n2", t.CT, OLD)).startswith(
        "nf_conntrack of n2 has it, and Cilium's conntrack of n2"
    )


@pytest.mark.parametrize(
    "table",
    [
        None,  # was not read
        t.record("n2", t.CT, OLD, started="09:59:50"),  # read before the packet was sent
        Record(0, agent_place("n2"), t.CT, 1, stderr=b"no"),
    ],
)
def test_a_table_that_could_not_have_it_says_nothing(table: Record | None) -> None:
    assert lost(NEW, *([table] if table is not None else [])) is None


def test_an_attempt_that_is_forgotten_says_nothing() -> None:
    old = t.record("n1", t.CT, t.syn(OUT.format(7), 65))
    assert lost(old, t.record("n2", t.CT, OLD)) is None


def test_lines_of_another_pod_say_nothing() -> None:
    other = t.record("n2", t.CT, OLD)
    filtered = Record(
        0, other.place, t.CT, 0, other.stdout, started=other.started, line_filter=("10.0.9.9",)
    )
    assert lost(NEW, filtered) is None


def test_a_line_that_cannot_be_parsed_may_be_the_missing_one() -> None:
    odd = IN.format(7).replace("TCP IN", "TCP6 IN?")
    assert lost(NEW, t.record("n2", t.CT, OLD, odd)) is None
    other = "TCP6 IN? 10.9.9.9:1 -> 10.9.9.8:2"
    assert lost(NEW, t.record("n2", t.CT, OLD, other)) is not None


def test_a_table_of_which_only_the_newest_lines_came_home_says_nothing() -> None:
    assert lost(NEW, replace(t.record("n2", t.CT, OLD), left_out=1)) is None


def test_it_arrived_and_the_pod_was_silent() -> None:
    arrived = t.ct(IN.format(7), None, 5, flags=(0, 0x02))
    text = text_of(NEW, t.record("n2", t.CT, arrived, OLD))
    assert text.startswith("Cilium's conntrack of n2 has it and saw nothing come back from the pod")


def test_the_pod_answered_and_the_answer_was_lost() -> None:
    answered = t.ct(IN.format(7), 5, 5, flags=(0x12, 0x02))
    text = text_of(NEW, t.record("n2", t.CT, answered))
    assert "has the pod's answer, and that of n1 has not" in text


def test_an_older_connection_with_the_same_port_says_nothing() -> None:
    older = t.closed(IN.format(7), 300)
    assert lost(NEW, t.record("n2", t.CT, older)) is None


def test_the_handshake_stopped_at_the_sender() -> None:
    half = t.record("n1", t.CT, t.ct(OUT.format(7), 5, 5, flags=(0x02, 0x12)))
    assert "has the SYN+ACK and no ACK after it" in text_of(half, t.record("n2", t.CT, OLD))


def test_the_answer_came_as_far_as_the_senders_node() -> None:
    outside = t.record("n1", t.CT, t.syn(OUTSIDE.format(7), 5))
    back = t.record("n1", t.NF, nf(7, "SYN_RECV", "1.1.1.1"))
    text = text_of(outside, back, to="1.1.1.1")
    assert "lost between n1's netfilter and the sender's device" in text


def test_netfilter_has_other_flows_and_not_this_one() -> None:
    outside = t.record("n1", t.CT, t.syn(OUTSIDE.format(7), 5))
    others = t.record("n1", t.NF, nf(6, "TIME_WAIT", "1.1.1.1"))
    assert "nf_conntrack, which has other flows to 1.1.1.1" in text_of(
        outside, others, to="1.1.1.1"
    )
    none = t.record("n1", t.NF, nf(6, "TIME_WAIT", "9.9.9.9"))
    assert lost(outside, none, to="1.1.1.1") is None  # netfilter may be passed by


def test_the_nat_map_has_other_flows_and_not_this_one() -> None:
    """Fault v24b: a program before cil_to_netdev drops."""
    outside = t.record("n1", t.CT, t.syn(OUTSIDE.format(7), 5))
    assert "Cilium's NAT map, which has other flows" in text_of(
        outside, t.record("n1", t.NAT, nat(6)), to="1.1.1.1"
    )
    assert lost(outside, t.record("n1", t.NAT, nat(6), nat(7)), to="1.1.1.1") is None


def test_of_a_large_nat_map_the_senders_flows_were_looked_up_and_no_others() -> None:
    outside = t.record("n1", t.CT, t.syn(OUTSIDE.format(7), 5))
    large = replace(t.record("n1", t.NAT, nat(6)), about=True, left_out=90_000)
    assert "Cilium's NAT map, which has other flows" in text_of(outside, large, to="1.1.1.1")
    newest = replace(large, about=False)
    assert lost(outside, newest, to="1.1.1.1") is None
    there = replace(t.record("n2", t.CT, OLD), about=True)
    assert lost(NEW, there) is None


def test_an_answered_attempt_is_not_lost() -> None:
    assert lost(t.record("n1", t.CT, t.closed(OUT.format(7), 5)), t.record("n2", t.CT)) is None


def test_udp_that_did_not_arrive_is_lost_too() -> None:
    dns = t.record("n1", t.CT, t.ct("UDP OUT 10.0.0.1:7 -> 10.0.1.2:53", 5))
    found = lost(dns, t.record("n2", t.CT, OLD), protocol=UDP)
    assert found is not None
    arrived = t.record("n2", t.CT, t.ct("UDP IN 10.0.0.1:7 -> 10.0.1.2:53", None, 5))
    assert lost(dns, arrived, protocol=UDP) is None  # UDP need not be answered
