"""Cilium's notices: which are of the packets that are followed, of which packet, and what they say.

The lines are those that real agents printed (tests/lab/cluster/agent/recorded: Cilium 1.18, 1.9),
with the packets of a recorded trace in place of theirs, as the lab's agent replays them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.trace.answer import Told, trace_of
from kubectl_ebpfnet.explain.trace.notices import MOST_NOTICES, Notices
from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.events import Direction, Place, TraceLine
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter
from kubectl_ebpfnet.model.trace import Trace
from kubectl_ebpfnet.parse.cilium.monitor import event
from tests.explain.trace.replay import FLOW, NODE, lines_of, names
from tests.lab.cluster.agent.monitor import Monitor
from tests.lab.cluster.config import NODES

_FILTER = PacketFilter(FLOW.source, FLOW.destination)
_POD = {"device": "c0", "id": 7, "identity": 1234}


def numbered(identity: int, label: str) -> str:
    return label or f"id{identity}"


def notices_of(lines: list[TraceLine]) -> list[MonitorEvent]:
    """What the agent of the router says of recorded packets: c0 is the pod's device there."""
    monitor = Monitor(NODES[0], lambda: [_POD])
    found = []
    for line in lines:
        packet = line.packet
        if packet is None or packet.place not in (Place.QUEUE, Place.RECEIVE):
            continue
        monitor._netns = packet.netns
        told = monitor._told(packet) if packet.device in ("c0", "s0") else None
        parsed = event(json.dumps(told).encode(), 1) if told else None
        found += [parsed] if parsed else []
    return found


def answer(
    lines: list[TraceLine], events: list[MonitorEvent], unread: str = "", node: str = NODE
) -> Trace:
    told = Told.nothing(names, Notices({NODE: (_FILTER,)}, numbered))
    told.unread[NODE] = unread
    for number, line in enumerate(lines, 1):
        told.feed(NODE, line, number)
    for number, each in enumerate(events, 1):
        told.notices.feed(node, each, 0.1, number, told.follower.tuples)
    return trace_of(told, "client → server", FLOW, [NODE])


def test_each_notice_finds_its_packet_by_its_numbers() -> None:
    lines = lines_of("masquerade_tcp")
    trace = answer(lines, notices_of(lines))
    assert trace.verdict is Verdict.DELIVERED
    assert len(trace.notices) > 4
    whats = {packet.number: packet for packet in trace.packets}
    for notice in trace.notices:
        packet = whats[notice.packet]
        assert packet.direction is notice.direction
        assert packet.sightings[0].event.seq == notice.event.seq


def test_what_looks_the_same_is_undecided() -> None:
    lines = lines_of("masquerade_tcp")
    first, *_ = notices_of(lines)
    twice = answer(lines, [first, first])
    assert [notice.packet for notice in twice.notices] == [0, 0]
    assert twice.notices[0].note == "of one of 1 packets with this tuple"


def test_of_another_flow_nothing_is_taken() -> None:
    other = Flow(TCP, ip_address("10.9.9.9"), 1, ip_address("10.8.8.8"), 2)
    events = [MonitorEvent("trace", "-> stack", flow) for flow in (other, None)]
    trace = answer(lines_of("masquerade_tcp"), events)
    assert trace.notices == ()


@pytest.mark.parametrize("name", ["plain_tcp", "masquerade_tcp"])
def test_by_notices_alone_an_answer_is_a_delivery(name: str) -> None:
    trace = answer([], notices_of(lines_of(name)))
    assert trace.verdict is Verdict.DELIVERED
    assert "by Cilium" in trace.reason


def test_by_notices_alone_silence_is_not_known() -> None:
    assert answer([], []).verdict is Verdict.UNKNOWN
    assert "aggregation" in answer([], []).reason
    forth = [n for n in notices_of(lines_of("plain_tcp")) if n.summary == "-> stack"]
    trace = answer([], forth)
    assert trace.verdict is Verdict.UNKNOWN
    assert "“-> stack” on router" in trace.reason


def test_by_notices_alone_a_drop_is_a_drop_and_with_answers_not_known() -> None:
    events = notices_of(lines_of("plain_tcp"))
    drop = replace(events[0], kind="drop", summary="Policy denied", code="bpf_lxc.c:1")
    assert answer([], [drop]).verdict is Verdict.DROPPED
    assert "Policy denied" in answer([], [drop]).reason
    assert answer([], [drop, *events]).verdict is Verdict.UNKNOWN
    assert answer([], [drop], "it ended before the trace did").verdict is Verdict.UNKNOWN


def test_cilium_says_why_the_kernel_dropped_it() -> None:
    lines = lines_of("tc_egress")
    dropped = answer(lines, [])
    lost = [packet for packet in dropped.packets if packet.fate == "dropped"][-1]
    flow = lost.sightings[0].event.flow
    told = MonitorEvent("drop", "Policy denied", flow, source_identity=5, destination_identity=2)
    trace = answer(lines, [told])
    assert trace.verdict is Verdict.DROPPED
    assert trace.reason.startswith(dropped.reason)
    assert trace.reason.endswith("Cilium says: Policy denied")
    assert trace.cause == "Cilium on router drops it: Policy denied (id5 → id2)"


def test_a_drop_of_another_packet_turns_no_delivery() -> None:
    lines = lines_of("masquerade_tcp")
    first, *rest = notices_of(lines)
    drop = replace(first, kind="drop", summary="Policy denied", seq=1)
    assert answer(lines, [drop, *rest]).verdict is Verdict.DELIVERED


def test_they_are_bounded() -> None:
    told = Notices({NODE: (_FILTER,)}, numbered)
    first, *_ = notices_of(lines_of("plain_tcp"))
    for number in range(MOST_NOTICES + 5):
        told.feed(NODE, first, 0.0, number, {})
    assert (len(told.found), told.not_kept) == (MOST_NOTICES, 5)


def test_an_answer_is_known_by_the_filter_turned_round() -> None:
    told = Notices({NODE: (_FILTER,)}, numbered)
    back = MonitorEvent("trace", "-> endpoint 7", replace(FLOW, source_port=9).reversed())
    notice = told.feed(NODE, back, 0.0, 1, {})
    assert notice is not None
    assert notice.direction is Direction.BACK
