"""What a node tells is bounded, whatever it tells: packets, places, owners, and when it began."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.explain.trace import follow
from kubectl_ebpfnet.model.events import Layers, NamespaceOwner, PacketEvent, Place, TraceLine
from kubectl_ebpfnet.model.path import Verdict
from tests.explain.trace.replay import NODE, OTHER, answer, answer_of, lines_of

_LINES = [line for line in lines_of("netfilter") if not line.sent]
_PACKETS = [line.packet for line in _LINES if line.packet]


def _told(event: PacketEvent, **changes: object) -> TraceLine:
    return TraceLine(packet=replace(event, **changes))  # type: ignore[arg-type]


def test_more_packets_than_are_kept_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "MOST_PACKETS", 100)
    trace = answer([*_LINES, *(_told(_PACKETS[0], fingerprint=each) for each in range(500))])
    assert len(trace.packets) == 100
    assert trace.notes == ("402 events of further packets are not joined",)
    assert trace.verdict is Verdict.UNKNOWN  # what came later may be what the first ones lacked
    assert "402 events were not told, or not joined; seen: it is dropped" in trace.reason


def test_one_packet_at_too_many_places() -> None:
    drop = next(each for each in _PACKETS if each.place is Place.DROP)
    trace = answer([*_LINES, *(_told(drop) for _ in range(2_000))])
    assert max(len(packet.sightings) for packet in trace.packets) == follow.MOST_SIGHTINGS
    assert trace.verdict is Verdict.UNKNOWN


def test_too_many_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "MOST_PACKETS", 100)
    owners = [TraceLine(namespace=NamespaceOwner(each)) for each in range(500)]
    assert answer([*_LINES, *owners]).notes == ("402 events of further packets are not joined",)


def test_huge_numbers_are_shown_and_not_computed_with() -> None:
    trace = answer([*_LINES, _told(_PACKETS[0], time_ns=10**40, netns=2**70, ifindex=-1)])
    assert trace.verdict is Verdict.DROPPED


def test_a_node_that_comes_later_moves_no_time_of_others() -> None:
    """Its clock is an hour off, or it was started anew."""
    (first, *rest) = _LINES
    assert first.layers is not None
    half = len(rest) // 2
    off = Layers(first.layers.attached, (), 5, first.layers.wall_ns + 3600 * 10**9)
    again = replace(first.layers, time_ns=first.layers.time_ns + 10**9)
    mixed = [
        *((NODE, line) for line in (first, *rest[:half])),
        (OTHER, TraceLine(layers=off)),
        (NODE, TraceLine(layers=again)),
        *((NODE, line) for line in rest[half:]),
    ]
    times = [[s.seconds for s in p.sightings] for p in answer_of(mixed).packets]
    assert times == [[s.seconds for s in p.sightings] for p in answer(_LINES).packets]
    assert all(0 <= each < 1 for packet in times for each in packet)
