"""Each rule by which a loss is one or none: recordings that differ in what the rule looks at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.explain.trace.follow import _SAME_SECONDS
from kubectl_ebpfnet.explain.trace.verdict import lost_for_good
from kubectl_ebpfnet.model.events import Copies, Direction, Losses, PacketEvent, Place, TraceLine
from kubectl_ebpfnet.model.net import SYN
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.trace import Fate, Lost, Sighting, Trace
from tests.explain.trace.replay import answer, lines_of

_SOME_NOT_TOLD = TraceLine(losses=Losses(not_told=3))


def unasked(name: str) -> list[TraceLine]:
    """A recording as if the packets were somebody's own: no socket of --send tells of them."""
    return [line for line in lines_of(name) if not line.sent]


def packets(lines: Iterable[TraceLine]) -> list[PacketEvent]:
    return [line.packet for line in lines if line.packet]


def with_drops(lines: Iterable[TraceLine], **more: Any) -> list[TraceLine]:
    """The same with other members of each drop."""
    return [
        replace(line, packet=replace(line.packet, **more))
        if line.packet and line.packet.place is Place.DROP
        else line
        for line in lines
    ]


def drops_of(trace: Trace) -> list[Sighting]:
    return [s for p in trace.packets for s in p.sightings if s.event.place is Place.DROP]


@pytest.mark.parametrize(
    ("copies", "lost"),
    [(Copies.NONE, Lost.YES), (Copies.LIVES, Lost.NO), (Copies.LIVED, Lost.UNDECIDED)],
)
def test_a_drop_of_a_copy_is_a_loss_only_where_silence_says_something(
    copies: Copies, lost: Lost
) -> None:
    lines = with_drops(unasked("netfilter"), copies=copies)
    assert {each.lost for each in drops_of(answer([*lines, _SOME_NOT_TOLD]))} == {lost}
    whole = answer(lines)
    assert {each.lost for each in drops_of(whole)} == {Lost.YES}
    assert whole.verdict is Verdict.DROPPED


def test_a_packet_that_is_seen_behind_a_drop_is_not_lost_there() -> None:
    lines = unasked("netfilter")
    behind = [
        replace(each, place=Place.RECEIVE, netns=7, time_ns=each.time_ns + 1000, reason="")
        for each in packets(lines)
        if each.place is Place.DROP
    ]
    trace = answer([*lines, *(TraceLine(packet=each) for each in behind)])
    assert {each.lost for each in drops_of(trace)} == {Lost.UNDECIDED}
    assert trace.verdict is Verdict.UNKNOWN


def test_a_fingerprint_that_comes_back_later_is_another_packet() -> None:
    head = [line for line in unasked("netfilter") if not line.packet]
    first, *_, last = packets(unasked("netfilter"))[:4]
    for seconds, count in ((_SAME_SECONDS / 2, 1), (_SAME_SECONDS * 2, 2)):
        later = replace(last, time_ns=first.time_ns + int(seconds * 1e9))
        trace = answer([*head, TraceLine(packet=first), TraceLine(packet=later)])
        assert len(trace.packets) == count


def test_an_echo_reply_that_a_ping_socket_does_not_take_is_not_lost() -> None:
    """A raw socket's ping, where no copy was told: who reads it was not seen."""
    lines = with_drops(unasked("plain_icmp"), copies=Copies.NONE)
    kept = [
        line for line in lines
        if not line.packet or line.packet.direction is Direction.FORTH or line.packet.device
    ]  # fmt: skip
    found = drops_of(answer(kept))
    assert {each.event.reason for each in found} == {"NO_SOCKET"}
    assert {each.lost for each in found} == {Lost.NO}


def test_a_segment_that_is_acknowledged_is_not_lost() -> None:
    """It was sent again, in a segment with other data, or where nobody saw it."""
    lines = unasked("plain_tcp")
    syn = packets(lines)[0].fingerprint
    kept: list[TraceLine] = []
    for line in lines:
        event = line.packet
        if event and event.fingerprint == syn and event.device != "eth0" and event.ttl == 64:
            kept.append(line)
            if event.place is Place.RECEIVE:
                drop = replace(event, place=Place.DROP, reason="NETFILTER_DROP",
                               where="nft_do_chain+0x1/0x2", time_ns=event.time_ns + 1)  # fmt: skip
                kept.append(TraceLine(packet=drop))
        elif not event or event.fingerprint != syn:
            kept.append(line)
    trace = answer(kept)
    [lost] = [p for p in trace.packets if p.fate is Fate.DROPPED]
    assert lost.sightings[0].event.tcp_flags == SYN
    assert trace.verdict is Verdict.DELIVERED, trace.reason


def test_a_loss_before_a_packet_that_was_taken_decides_nothing() -> None:
    """netfilter_half without its answers: each second datagram is dropped, and the last one is
    taken by its socket, which this recording's kernel does not tell."""
    lines = unasked("netfilter_half")
    [server] = {line.namespace.inode for line in lines
                if line.namespace and line.namespace.command == "server"}  # fmt: skip
    forth = [line for line in lines
             if not line.packet or line.packet.direction is Direction.FORTH]  # fmt: skip
    taken = [
        replace(each, place=Place.CONSUME, device="", where="skb_consume_udp+0x1/0x2")
        for each in packets(forth)
        if each.netns == server and each.place is Place.RECEIVE
    ]
    trace = answer([*forth, *(TraceLine(packet=each) for each in taken)])
    assert [p.fate for p in trace.packets] == [Fate.DROPPED, Fate.DELIVERED] * 2
    assert trace.verdict is Verdict.UNKNOWN
    assert "later ones were taken" in trace.reason


def test_a_segment_that_came_when_it_was_sent_again_is_not_lost() -> None:
    """tcp_syn_lost_once without its answers, so that nobody acknowledges it."""
    forth = [line for line in unasked("tcp_syn_lost_once")
             if not line.packet or line.packet.direction is Direction.FORTH]  # fmt: skip
    trace = answer(forth)
    assert [p.what for p in trace.packets if p.fate is Fate.DROPPED] == ["SYN"]
    assert lost_for_good(trace.packets) == []
