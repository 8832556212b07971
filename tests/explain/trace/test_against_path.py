"""What was recorded, held against what tables might say of it: hops that were seen, where both
differ, and whose cause is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.explain.trace.answer import Told, trace_of
from kubectl_ebpfnet.model.path import (
    Direction,
    Drop,
    Fix,
    Hop,
    HopKind,
    HopPlace,
    Packet,
    Path,
    Return,
    State,
    Target,
    Verdict,
    WayBack,
)
from kubectl_ebpfnet.model.trace import Trace
from tests.explain.trace.replay import FLOW, NODE, OTHER, apart, lines_of, names

_CLIENT = Target("pod/client", "pod", "default", "client", FLOW.source, None, NODE)
_SERVER = Target("pod/server", "pod", "default", "server", FLOW.destination, 5000, NODE)
_FIX = Fix("Delete the rule.")


def _hop(number: int, place: HopPlace, where: str, kind: HopKind, *, back: bool = False) -> Hop:
    flow = FLOW.reversed() if back else FLOW
    return Hop(number, place, where, NODE, kind, str(kind), State.DERIVED, Packet(flow))


_HOPS = (
    _hop(1, HopPlace.POD, "default/client", HopKind.SOCKET),
    _hop(2, HopPlace.NODE, NODE, HopKind.ROUTE),
    _hop(3, HopPlace.NODE, NODE, HopKind.RULE),
    _hop(4, HopPlace.POD, "default/server", HopKind.DELIVERY),
)
_BACK = tuple(
    _hop(number, hop.place, hop.where, hop.kind, back=True)
    for number, hop in enumerate(reversed(_HOPS), 1)
)
_WAY_BACK = WayBack(Return.RETURNS, "", False, "", _BACK)
PASSES = Path(_CLIENT, _SERVER, 17, Verdict.REACHABLE, "", _HOPS, (), answer=_WAY_BACK)


def dropped(hop: int, *, back: bool = False, node: str = NODE) -> Path:
    """A path that ends at a hop."""
    direction = Direction.ANSWER if back else Direction.PACKET
    drop = Drop("derived", hop, node, "by a rule", direction=direction)
    hops = tuple(replace(each, drops=not back and each.number == hop) for each in _HOPS)
    return replace(
        PASSES, verdict=Verdict.DROPPED, hops=hops, drop=drop, cause="a rule forbids it", fix=_FIX
    )


def answer(name: str, path: Path) -> Trace:
    told = Told.nothing(names)
    for number, line in enumerate(lines_of(name), 1):
        told.feed(NODE, line, number)
    return trace_of(told, "client → server", FLOW, [NODE], path)


def test_all_hops_of_a_delivered_packet_are_seen() -> None:
    trace = answer("plain_udp", PASSES)
    assert [(each.back, each.hop, each.seen) for each in trace.hops] == [
        *((False, number, True) for number in (1, 2, 3, 4)),
        *((True, number, True) for number in (1, 2, 3, 4)),
    ]
    assert trace.difference is None
    assert trace.cause == ""


def test_the_same_drop_has_the_cause_and_fix_of_the_tables() -> None:
    trace = answer("netfilter", dropped(3))
    assert (trace.difference, trace.cause, trace.fix) == (None, "a rule forbids it", _FIX)


@pytest.mark.parametrize("name", ["tc_ingress", "blackhole", "netfilter_answer", "closed_udp"])
def test_another_drop_has_not(name: str) -> None:
    trace = answer(name, dropped(3))
    assert trace.verdict is Verdict.DROPPED
    assert trace.difference is not None
    assert "the tables drop it elsewhere (by a rule)" in trace.difference.text
    assert trace.difference.sighting is not None
    assert trace.cause != "a rule forbids it"
    assert trace.fix != _FIX


def test_a_drop_of_the_answer_is_told_by_the_same_drop_of_it() -> None:
    assert answer("netfilter_answer", dropped(2, back=True)).cause == "a rule forbids it"
    assert answer("netfilter_answer", dropped(3)).cause != "a rule forbids it"
    assert answer("netfilter", dropped(2, back=True)).cause != "a rule forbids it"


@pytest.mark.parametrize("name", ["netfilter", "tc_egress", "xdp", "wrong_mac", "neighbour", "mtu"])
def test_a_drop_that_no_table_shows_is_the_difference(name: str) -> None:
    trace = answer(name, PASSES)
    assert trace.difference is not None
    assert trace.difference.text.startswith("the tables let it through (reachable), and it was not")
    assert trace.difference.sighting is not None
    assert trace.difference.sighting.event.place == "drop"
    assert trace.cause
    assert trace.fix is not None
    assert trace.fix.text.startswith("At ")


def test_what_passes_a_drop_of_the_tables_is_the_difference() -> None:
    trace = answer("plain_udp", dropped(3))
    assert trace.verdict is Verdict.DELIVERED
    assert trace.difference is not None
    assert trace.difference.text.startswith("the tables drop it (by a rule), and it passed")
    assert trace.difference.hop == 3


def test_another_pod_that_takes_it_is_the_difference() -> None:
    path = replace(PASSES, destination=replace(_SERVER, name="other"))
    found = answer("plain_udp", path).difference
    assert found is not None
    assert found.text == "the tables lead to pod default/other, and pod default/server takes it"


def test_nodes_that_are_not_watched_are_not_seen_and_not_unseen() -> None:
    path = replace(PASSES, hops=tuple(replace(each, node="elsewhere") for each in _HOPS))
    assert {each.seen for each in answer("plain_udp", path).hops if not each.back} == {None}


def test_what_is_lost_on_the_wire_between_nodes_does_not_leave_the_cluster() -> None:
    """The other node is watched, and no packet comes there."""
    told = Told.nothing(names)
    for node, line in apart(lines_of("plain_udp")):
        back = line.packet is not None and line.packet.direction == "back"
        if not (line.sent or back or (node == OTHER and line.packet)):
            told.feed(node, line)
    path = replace(PASSES, destination=replace(_SERVER, node=OTHER))
    trace = trace_of(told, "client → server", FLOW, [NODE, OTHER], path)
    assert trace.verdict is Verdict.UNKNOWN
    assert trace.reason == (
        "it left by s0 of node router; no answer was seen, and other, where it is to end, saw "
        "nothing of it"
    )
    assert trace.difference is not None
    assert "it is seen no more: it left by s0 of node router" in trace.difference.text
