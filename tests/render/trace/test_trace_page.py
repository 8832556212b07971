"""`-o html` of `trace`, of recorded packets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.model.evidence import bundle_of
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.trace import Owner, SeenHop
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.trace.page import page
from tests.explain.trace.replay import DATA, answer, lines_of
from tests.render.html.test_elements import Read
from tests.render.path import sample_paths as sample
from tests.render.path.test_page import WITHOUT_EFFECT

RECORDINGS = sorted(path.stem for path in DATA.glob("*.jsonl"))
_TABLE = {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("name", RECORDINGS)
def test_each_recording_is_a_page_that_runs_nothing(name: str) -> None:
    trace = answer(lines_of(name))
    text = page(trace, bundle_of([], "trace.zip", ""))
    assert text.isascii()
    read = Read(text)
    assert {tag for tag, _ in read.tags} <= WITHOUT_EFFECT | _TABLE
    assert trace.verdict.value.upper() in read.text
    for packet in trace.packets[:200]:
        assert packet.what in read.text


def test_the_real_way_has_frames_places_and_translated_addresses() -> None:
    read = Read(page(answer(lines_of("masquerade_udp")), bundle_of([], "", "")))
    way = read.text.partition("The way that was seen")[2].partition("The way back")[0]
    places = ["pod default/client on router", "node router", "pod default/server on router"]
    assert sorted(places, key=way.index) == places
    assert "10.1.0.2" in way
    assert "10.2.0.1" in way


def test_a_drop_stands_at_its_place_with_its_reason() -> None:
    trace = answer(lines_of("netfilter"))
    assert trace.verdict is Verdict.DROPPED
    text = page(trace, bundle_of([], "", ""))
    box = text.partition('class="box dropped"')[2].partition("</summary>")[0]
    assert "NETFILTER_DROP" in box


def test_what_was_seen_of_paths_hops_is_marked() -> None:
    path = sample.delivered()
    seen = tuple(SeenHop(hop.number, False, hop.number % 2 == 0) for hop in path.hops)
    trace = replace(answer(lines_of("masquerade_udp")), path=path, hops=seen)
    read = Read(page(trace, sample.bundle()))
    tables = read.text.partition("The way by the tables")[2].partition("Packets")[0]
    assert tables.count("seen in this trace") == len(path.hops) // 2 + 1  # and the legend
    assert tables.count("not seen") == (len(path.hops) + 1) // 2 + 1


def test_a_hostile_name_is_there_to_be_read() -> None:
    trace = answer(lines_of("netfilter"))
    hostile = Owner("pod", "default", sample.HOSTILE)
    packets = tuple(
        replace(p, sightings=tuple(replace(s, owner=hostile) for s in p.sightings))
        for p in trace.packets
    )
    read = Read(page(replace(trace, packets=packets, title=sample.HOSTILE), bundle_of([], "", "")))
    assert read.text.count(escape(sample.HOSTILE)) > 3
    assert all(c.isprintable() or c == "\n" for c in read.text)
