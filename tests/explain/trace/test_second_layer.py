"""What programs answered, beside what the kernel tells: one loss, with the program as its cause.

The answers are put by hand into recordings of this machine, whose kernel has no trampolines, as
Debian's 6.12 told them (tests/kernels/test_second_layer.py): behind `receive`, or before `queue`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.model.events import Place, TraceLine
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.trace import Fate, Lost
from tests.explain.trace.replay import answer, lines_of

_SHOT = {
    "tc_ingress": ("tcx/ingress", "TC_ACT_SHOT"),
    "tc_egress": ("clsact/egress", "TC_ACT_SHOT"),
    "xdp": ("xdp", "XDP_DROP"),
}


def _with_answers(name: str, hook: str, verdict: str, place: Place) -> list[TraceLine]:
    """A recording with an answer before each line of a place in front of a packet's end."""
    lines: list[TraceLine] = []
    for line in lines_of(name):
        event = line.packet
        if event is not None and event.place is place:
            told = replace(
                event, place=Place.PROGRAM, time_ns=event.time_ns - 1, program="theirs (id 7)",
                where=hook, verdict=verdict, reason="",
            )  # fmt: skip
            lines.append(TraceLine(packet=told))
        lines.append(line)
    return lines


@pytest.mark.parametrize("name", _SHOT)
def test_a_program_and_the_kernels_drop_behind_it_are_one_loss(name: str) -> None:
    hook, verdict = _SHOT[name]
    trace = answer(_with_answers(name, hook, verdict, Place.DROP))
    before = answer(lines_of(name))
    assert trace.verdict is before.verdict is Verdict.DROPPED
    assert f"theirs (id 7) ({hook}) answers {verdict}" in trace.reason
    assert trace.cause.startswith(f"theirs (id 7) ({hook}) answers {verdict}, at ")
    fates = [p.fate for p in trace.packets]
    assert fates == [p.fate for p in before.packets]
    for packet in trace.packets:
        losses = [s for s in packet.sightings if s.lost is Lost.YES]
        assert len(losses) == (packet.fate is Fate.DROPPED)


def test_an_xdp_drop_that_the_kernel_does_not_tell_is_a_loss() -> None:
    lines = _with_answers("xdp", "xdp", "XDP_DROP", Place.DROP)
    silent = [line for line in lines if not line.packet or line.packet.place is not Place.DROP]
    trace = answer(silent)
    assert trace.verdict is Verdict.DROPPED
    assert "theirs (id 7) (xdp) answers XDP_DROP, at eth0 of pod default/server" in trace.reason


def test_a_tc_drop_without_the_kernels_is_undecided() -> None:
    lines = _with_answers("tc_ingress", "tcx/ingress", "TC_ACT_SHOT", Place.DROP)
    silent = [line for line in lines if not line.packet or line.packet.place is not Place.DROP]
    trace = answer(silent)
    assert trace.verdict is Verdict.UNKNOWN
    assert "the kernel told no drop behind it" in trace.packets[0].reason


def test_a_drop_for_another_reason_is_not_the_programs() -> None:
    trace = answer(_with_answers("netfilter", "tcx/ingress", "TC_ACT_SHOT", Place.DROP))
    assert "theirs" not in trace.cause
    assert "a rule of netfilter" in trace.reason


@pytest.mark.parametrize("name", ["plain_udp", "plain_tcp", "plain_icmp", "masquerade_udp"])
@pytest.mark.parametrize("place", [Place.QUEUE, Place.RECEIVE])
def test_programs_that_let_pass_change_no_verdict(name: str, place: Place) -> None:
    before = answer(lines_of(name))
    trace = answer(_with_answers(name, "tcx/egress", "TC_ACT_OK", place))
    assert (trace.verdict, trace.reason) == (before.verdict, before.reason)
    assert [p.fate for p in trace.packets] == [p.fate for p in before.packets]
