"""The answer to recordings of real traffic: what becomes of it, where and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.explain.trace.fate import settled
from kubectl_ebpfnet.model.events import Copies, Direction, Place
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.trace import Fate, Lost
from tests.explain.trace.record import SCENARIOS
from tests.explain.trace.replay import DATA, NODE, answer, lines_of

DELIVERED = (
    "plain_icmp", "plain_tcp", "plain_udp", "masquerade_udp", "masquerade_tcp", "vxlan",
    "tcp_syn_lost_once", "plain_tap", "masquerade_tcp_bytes", "plain_icmp_bytes", "vxlan_bytes",
)  # fmt: skip
DROPPED = {
    "netfilter": ("a rule of netfilter", "c0 of node router"),
    "netfilter_bytes": ("a rule of netfilter", "c0 of node router"),
    "netfilter_tap": ("a rule of netfilter", "c0 of node router"),
    "netfilter_tap_sender": ("a rule of netfilter", "c0 of node router"),
    "reject_tcp": ("it is refused (Connection refused): a rule", "c0 of node router"),
    "reject_udp": ("it is refused (No route to host): a rule", "c0 of node router"),
    "reject_udp_bytes": ("it is refused (No route to host): a rule", "c0 of node router"),
    "neighbour": ("the next hop answers no ARP", "s0 of node router"),
    "netfilter_answer": ("the answer is dropped: a rule of netfilter", "s0 of node router"),
    "netfilter_answer_icmp": ("the answer is dropped: a rule of netfilter", "s0 of node router"),
    "netfilter_half": ("2 of 4 answered; a rule of netfilter", "c0 of node router"),
    "tc_ingress": ("at tc or tcx ingress drops it", "c0 of node router"),
    "tc_egress": ("at tc or tcx egress drops it", "s0 of node router"),
    "xdp": ("do_xdp_generic", "eth0 of pod default/server"),
    "closed_udp": ("nothing listens there", "eth0 of pod default/server"),
    "closed_tcp": ("nothing listens there", "eth0 of pod default/server"),
    "blackhole": ("ip_error", "c0 of node router"),
    "unreachable": ("ip_error", "c0 of node router"),
    "wrong_mac": ("meant for another one", "eth0 of pod default/server"),
    "rp_filter": ("rp_filter", "c0 of node router"),
    "mtu": ("larger than the MTU", "c0 of node router"),
}


def test_each_recording_is_asked_for() -> None:
    recorded = {path.stem for path in DATA.glob("*.jsonl")}
    assert recorded == set(SCENARIOS) == {*DELIVERED, *DROPPED, "tcp_fin_lost"}


@pytest.mark.parametrize("name", DELIVERED)
def test_what_is_answered_is_delivered(name: str) -> None:
    trace = answer(lines_of(name))
    assert trace.verdict is Verdict.DELIVERED, trace.reason
    dropped = [p.what for p in trace.packets if p.fate is Fate.DROPPED]
    assert dropped == (["SYN"] if name == "tcp_syn_lost_once" else [])


@pytest.mark.parametrize("name", DROPPED)
def test_a_loss_has_its_place_and_reason(name: str) -> None:
    trace = answer(lines_of(name))
    assert trace.verdict is Verdict.DROPPED
    for part in DROPPED[name]:
        assert part in trace.reason
    lost = [p for p in trace.packets if p.fate is Fate.DROPPED]
    assert len(lost) == min(2, SCENARIOS[name].count)
    back = "answer" in name
    assert {p.direction for p in lost} == {Direction.BACK if back else Direction.FORTH}


def test_a_connection_that_is_answered_and_then_stuck_is_dropped() -> None:
    """Nothing but the sockets' own word is away: here the FIN and its repetitions are lost."""
    trace = answer([line for line in lines_of("tcp_fin_lost") if not line.sent])
    assert trace.verdict is Verdict.DROPPED
    assert "1 answers came back, and 4 of 6 packets never came: a rule" in trace.reason


def test_a_segment_that_was_sent_again_and_came_is_not_lost() -> None:
    trace = answer([line for line in lines_of("tcp_syn_lost_once") if not line.sent])
    assert (trace.verdict, trace.reason) == (Verdict.DELIVERED, "2 answers came back")


def test_a_frame_that_a_switch_floods_to_a_node_beside_the_way_is_no_loss() -> None:
    """wrong_mac: dropped as OTHERHOST where it was to come, or on a node beside its way."""
    drop = next(
        sighting
        for packet in answer(lines_of("wrong_mac")).packets
        for sighting in packet.sightings
        if sighting.event.reason == "OTHERHOST"
    )
    [on_its_way] = settled((drop,), missing=False, nodes=frozenset({NODE}))
    [beside] = settled((drop,), missing=False, nodes=frozenset({"another"}))
    [without_tables] = settled((drop,), missing=False)
    lost = [each.lost for each in (on_its_way, beside, without_tables)]
    assert lost == [Lost.YES, Lost.UNDECIDED, Lost.YES]
    assert "a switch may have sent it to all" in beside.note


def test_an_icmpv6_error_that_the_kernel_takes_is_no_loss() -> None:
    """Linux 6.1: `client NOT_SPECIFIED icmpv6_rcv none back` behind the drop that it tells of."""
    lines = lines_of("closed_udp")
    end = next(
        line for line in reversed(lines) if line.packet and line.packet.direction is Direction.BACK
    )
    assert end.packet is not None
    taken = replace(end.packet, place=Place.DROP, reason="NOT_SPECIFIED", copies=Copies.NONE,
                    where="icmpv6_rcv+0x1f/0x6a0", time_ns=end.packet.time_ns + 1000)  # fmt: skip
    trace = answer([*lines, replace(end, packet=taken)])
    assert trace.verdict is Verdict.DROPPED
    assert "the answer" not in trace.reason
    losses = [s for p in trace.packets for s in p.sightings if s.lost is Lost.YES]
    assert all("icmpv6_rcv" not in each.event.where for each in losses)
