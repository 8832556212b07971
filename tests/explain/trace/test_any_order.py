"""Lines that come late, twice or not at all, and clocks that are wrong, make no false verdict."""

from __future__ import annotations

import random

import pytest

from kubectl_ebpfnet.model.events import Direction, Losses, Place, TraceLine
from kubectl_ebpfnet.model.path import Verdict
from tests.explain.trace.replay import answer, answer_of, apart, lines_of
from tests.explain.trace.test_recorded import DELIVERED, DROPPED

_ROUNDS = 30


def _disturbed(lines: list[TraceLine], seed: int, *, sockets: bool) -> list[TraceLine]:
    """Some lines of packets are away, some come twice, and they are in another order."""
    chance = random.Random(seed)
    kept = [each for each in lines if each.packet and chance.random() < chance.choice((0.3, 0.9))]
    kept += [each for each in kept if chance.random() < 0.2]
    if seed % 3:
        chance.shuffle(kept)
    else:  # a little late, as between nodes
        kept.sort(key=lambda e: (e.packet.time_ns if e.packet else 0) + chance.randrange(10**6))
    told = [each for each in lines if not each.packet and (sockets or not each.sent)]
    return told[:-2] + kept + told[-2:]


@pytest.mark.parametrize("name", [each for each in DELIVERED if each != "tcp_syn_lost_once"])
def test_what_was_delivered_is_never_dropped(name: str) -> None:
    lines = lines_of(name)
    for seed in range(_ROUNDS):
        trace = answer(_disturbed(lines, seed, sockets=bool(seed % 2)))
        assert trace.verdict is not Verdict.DROPPED, (seed, trace.reason)


@pytest.mark.parametrize("name", [each for each in DROPPED if each != "netfilter_half"])
def test_what_was_dropped_is_never_delivered(name: str) -> None:
    lines = lines_of(name)
    for seed in range(_ROUNDS):
        trace = answer(_disturbed(lines, seed, sockets=bool(seed % 2)))
        assert trace.verdict is not Verdict.DELIVERED, (seed, trace.reason)


@pytest.mark.parametrize("ahead", [0.0, 3.0, -3.0, 3600.0, -3600.0])
@pytest.mark.parametrize("name", [*DELIVERED, *DROPPED])
def test_a_second_node_and_its_clock_change_no_verdict(name: str, ahead: float) -> None:
    lines = apart(lines_of(name), ahead)
    trace, alone = answer_of(lines), answer(lines_of(name))
    assert trace.verdict is alone.verdict, trace.reason
    fates = [(p.direction, p.what, p.fate) for p in alone.packets]
    assert [(p.direction, p.what, p.fate) for p in trace.packets] == fates
    ends = (Place.CONSUME, Place.DELIVER)  # as late as a tap likes
    for packet in trace.packets:
        nodes = [each.node for each in packet.sightings if each.event.place not in ends]
        first = "router" if packet.direction is Direction.FORTH else nodes[0]
        assert nodes == sorted(nodes, key=lambda node: node != first), (packet.what, nodes)


def test_lost_events_are_no_certainty() -> None:
    """Nothing is said of silence where the kernel counts events that it could not tell."""
    lines = [each for each in lines_of("netfilter") if not each.losses and not each.sent]
    trace = answer([*lines, TraceLine(losses=Losses(ring_full=3))])
    assert trace.verdict is Verdict.UNKNOWN
    assert trace.reason.startswith("3 events are missing; seen: it is dropped")
