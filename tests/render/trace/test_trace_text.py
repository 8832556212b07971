"""The lines and the summary of `trace`, of packets that are made here."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.events import Direction, Losses, PacketEvent, Place, SentPacket
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.trace import (
    Fate,
    Lost,
    Notice,
    Owner,
    Sighting,
    Trace,
    TracedPacket,
    Watched,
)
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.trace.lines import Lines
from kubectl_ebpfnet.render.trace.summary import summary

_FLOW = Flow(TCP, ip_address("10.0.0.1"), 40000, ip_address("1.1.1.1"), 80)
_POD = Owner("pod", "default", "client")


def sighting(place: Place = Place.QUEUE, lost: Lost = Lost.NO, **more: object) -> Sighting:
    event = PacketEvent(1, place, 1, 2, "eth0", _FLOW, Direction.FORTH, **more)  # type: ignore[arg-type]
    return Sighting("n1", 0.5, event, _POD, changed=True, lost=lost)


def trace(*packets: TracedPacket, **more: object) -> Trace:
    nodes = (Watched("n1", (Place.QUEUE, Place.DROP)),)
    return Trace(
        "pod/client → 1.1.1.1:80/TCP", _FLOW, Verdict.DROPPED, "why", packets, nodes, **more
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [80, 120, 0])
def test_a_line_keeps_within_the_terminal_and_has_owner_place_and_addresses(width: int) -> None:
    lines = Lines(View(width), wide=False).of(sighting(), 1, "SYN")
    assert not width or max(map(len, lines)) <= width
    text = " ".join(lines)
    for word in ("0.500000 →", "pod default/client on n1", "sent by eth0", "SYN",
                 "10.0.0.1:40000 → 1.1.1.1:80"):  # fmt: skip
        assert word in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_names_and_ids_keep_within_the_terminal(width: int) -> None:
    long = replace(
        sighting(Place.DROP, Lost.YES, reason="NETFILTER_DROP", where="nft_do_chain+0x1/" * 9),
        owner=Owner("pod", "n" * 63, "p" * 253), note="word " * 40,
    )  # fmt: skip
    lines = Lines(View(width), wide=True).of(long, 1, "data " * 40)
    assert max(map(len, lines)) <= width
    notice = Notice(
        "n" * 63, 1.0, MonitorEvent("drop", "Policy denied\x1b[2J", _FLOW), Direction.FORTH
    )
    told = Lines(View(width), wide=True).of_notice(notice)
    assert max(map(len, told)) <= width
    assert "Cilium: drops it: Policy denied" in " ".join(" ".join(told).split())
    lines += told
    assert "\x1b" not in "\n".join(lines)


def test_a_loss_is_marked_and_says_why() -> None:
    lost = sighting(Place.DROP, Lost.YES, reason="NETFILTER_DROP", where="nft_do_chain+0x1/0x2")
    first, *more = Lines(View(120), wide=False).of(lost, 1, "SYN")
    assert "✗ pod default/client" in first
    assert "NETFILTER_DROP, nft_do_chain+0x1/0x2" in " ".join(more)


def test_what_a_node_says_cannot_forge_a_line() -> None:
    hostile = sighting(Place.DELIVER, command="a\x1b[2J\nDELIVERED", pid=1)
    text = "\n".join(Lines(View(80), wide=True).of(hostile, 1, "SYN\r\x07"))
    assert "\x1b" not in text
    assert "\r" not in text
    assert not any(line.startswith("DELIVERED") for line in text.splitlines())


def test_ascii_terminals_get_ascii() -> None:
    lines = Lines(View(80, ascii=True), wide=False).of(sighting(), 1, "SYN")
    assert all(line.isascii() for line in lines)


def test_of_many_packets_the_later_ones_are_shown_where_they_are_lost() -> None:
    lines = Lines(View(120), wide=False)
    shown = [lines.of(sighting(), number, "SYN") for number in range(1, 20)]
    assert [bool(each) for each in shown[:5]] == [True] * 5
    assert sum(bool(each) for each in shown[5:]) == 1  # that later ones are not
    assert lines.of(sighting(Place.DROP, Lost.YES), 20, "SYN")
    wide = Lines(View(120), wide=True)
    assert all(wide.of(sighting(), number, "SYN") for number in range(1, 20))


@pytest.mark.parametrize("fate", Fate)
def test_the_summary_counts_packets_by_their_fate(fate: Fate) -> None:
    packet = TracedPacket(1, Direction.FORTH, "SYN", (sighting(),), fate, "")
    text = summary(trace(packet), View(80))
    assert text.startswith("DROPPED    pod/client → 1.1.1.1:80/TCP\n           why\n")
    assert f"Seen    1 packets forth (1 {fate})" in text


def test_the_summary_of_what_was_sent_is_pings() -> None:
    sent = tuple(
        SentPacket(n, 0, _FLOW, outcome, seconds)
        for n, outcome, seconds in (
            (1, "answered", 0.001),
            (2, "answered", 0.003),
            (3, "timeout", None),
        )
    )
    text = summary(trace(sent=sent), View(100))
    assert "Sent    3 sent, 2 answered, 1 lost; min/avg/max 1.000/2.000/3.000 ms" in text


def test_what_was_not_watched_is_said() -> None:
    nodes = (
        Watched("n1", problem="no libbpf"),
        Watched("n2", (Place.DROP,), ("xmit: EPERM",), Losses(1)),
    )
    shown = Trace("t", _FLOW, Verdict.UNKNOWN, "1 events are missing", (), nodes)
    text = summary(shown, View(80))
    assert "Missing n1: no libbpf" in text
    assert "Missing n2 does not see xmit" in text


def test_arrows_of_answers_and_of_no_direction_are_ascii_too() -> None:
    for direction, arrow in ((Direction.BACK, "<-"), (Direction.NONE, ".")):
        seen = sighting()
        seen = replace(seen, event=replace(seen.event, direction=direction))
        line, *_ = Lines(View(120, ascii=True), wide=False).of(seen, 1, "SYN")
        assert line.startswith(f"  0.500000 {arrow} ")


def test_drops_are_a_table_that_says_which_are_losses() -> None:
    lost = sighting(Place.DROP, Lost.YES, reason="NETFILTER_DROP")
    maybe = sighting(Place.DROP, Lost.UNDECIDED, reason="NO_SOCKET")
    packets = tuple(
        TracedPacket(n, Direction.NONE, "SYN", (each,), Fate.DROPPED, "")
        for n, each in enumerate((lost, lost, maybe), 1)
    )
    shown = Trace("drops of pod/client", None, Verdict.DROPPED, "2", packets, ())
    rows = [line.split()[:4] for line in summary(shown, View(120)).splitlines()]
    assert ["COUNT", "FIRST", "LAST", "LOST"] in rows
    assert ["2", "0.500", "0.500", "yes"] in rows
    assert ["1", "0.500", "0.500", "maybe"] in rows
