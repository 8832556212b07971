"""`-o html` of `trace`: the packet's real way, and beside it what the tables say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.model.events import Direction, Tunnel
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.trace import Fate, Lost, Sighting, Trace, TracedPacket
from kubectl_ebpfnet.render.html import page as html
from kubectl_ebpfnet.render.html.elements import Html, tag
from kubectl_ebpfnet.render.html.picture import edge, frame, mark, tuple_on_edge
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.page import way as way_by_tables
from kubectl_ebpfnet.render.trace.lines import (
    PLACES,
    details_of,
    flow_text,
    notice_text,
    owner_text,
)
from kubectl_ebpfnet.render.trace.summary import DROPS, SEEN, drop_rows, facts

_TONES = {Verdict.DROPPED: "bad", Verdict.UNKNOWN: "open"}
_MOST_PACKETS = 200
_MARKS = {
    Lost.NO: ("✓", "seen", "seen"),
    Lost.UNDECIDED: ("?", "may be lost", "unknown"),
    Lost.YES: ("✗", "dropped", "dropped"),
}
_LONG = ("Owner", "Reason", "Packet", "Why", "Notice", "Tuple")
"""Columns whose text may be broken into lines."""


def page(trace: Trace, bundle: Bundle) -> str:
    """Return the answer as an HTML document.

    Args:
        trace: the answer.
        bundle: what was read; evidence of path's hops is quoted from it.
    """
    return html.page(
        f"{trace.verdict.value}: {trace.title}",
        _opening(trace),
        *_ways_seen(trace),
        _by_tables(trace, bundle),
        _drops(trace),
        _notices(trace),
        _packets(trace),
        html.origin(bundle, __version__),
    )


def _opening(trace: Trace) -> Html:
    word = trace.verdict.value.upper()
    inside = [tag("p", trace.reason), html.said(*facts(trace))]
    if trace.fix is not None and trace.fix.command:
        inside.append(tag("pre", trace.fix.command))
    return html.opening(word, _TONES.get(trace.verdict, "good"), trace.title, *inside)


def _ways_seen(trace: Trace) -> Iterator[Html]:
    """Yield the way of the packet that decides, and of an answer."""
    for direction, title in (
        (Direction.FORTH, "The way that was seen"),
        (Direction.BACK, "The way back that was seen"),
        (Direction.NONE, "The way of a packet that was lost"),
    ):
        packet = _telling([each for each in trace.packets if each.direction is direction])
        if packet is not None:
            what = f"Packet {packet.number}, {packet.what}: {packet.fate}"
            told = f"{what}. {packet.reason}" if packet.reason else what
            yield html.section(title, tag("p", told), _way(packet.sightings))


def _telling(packets: Sequence[TracedPacket]) -> TracedPacket | None:
    """Return the packet that tells most: one that was dropped, else that of the longest way."""
    lost = [each for each in packets if each.fate is Fate.DROPPED]
    return max(lost or packets, key=lambda each: len(each.sightings), default=None)


def _way(sightings: Sequence[Sighting]) -> Html:
    drawn: list[Html] = []
    before: Sighting | None = None
    for title, there in groupby(sightings, key=_frame):
        boxes: list[Html] = []
        for sighting in there:
            leading = _edge(sighting, before)
            (boxes if boxes else drawn).append(leading)
            boxes.append(_box(sighting))
            before = sighting
        drawn.append(frame(title, *boxes))
    return tag("div", *drawn, class_="way")


def _frame(sighting: Sighting) -> str:
    owner = owner_text(sighting.owner)
    return owner if sighting.owner.kind == "node" else f"{owner} on {sighting.node}"


def _edge(sighting: Sighting, before: Sighting | None) -> Html:
    flow = sighting.event.flow
    if flow is None or not (sighting.changed or before is None):
        return edge()
    old = before.event.flow if before is not None else None
    return tuple_on_edge(flow, old, _outer(sighting.event.tunnel))


def _outer(tunnel: Tunnel | None) -> str:
    if tunnel is None:
        return ""
    return f"in {tunnel.kind} {tunnel.id}: {tunnel.source} → {tunnel.destination}"


def _box(sighting: Sighting) -> Html:
    event = sighting.event
    sign, words, tone = _MARKS[sighting.lost]
    place = f"{PLACES[event.place]} {event.device}".rstrip()
    text = [tag("span", place)]
    text += [tag("span", line, class_="why") for line in details_of(sighting)]
    head = (
        mark(sign, words),
        tag("span", f"{sighting.seconds:.6f}", class_="kind"),
        tag("span", *text, class_="does"),
    )
    inside = tag(
        "p",
        f"{event.place} of namespace {event.netns}, interface {event.ifindex}, TTL {event.ttl}, "
        f"{event.length} bytes; known by its {event.matched_by}; line {sighting.line} of "
        f"{sighting.node}",
    )
    return tag("details", tag("summary", *head), inside, class_=f"box {tone}")


def _by_tables(trace: Trace, bundle: Bundle) -> Html:
    path = trace.path
    if path is None or not path.hops:
        return Html()
    seen = {each.hop: each.seen for each in trace.hops if not each.back}
    signs = {number: SEEN[value] for number, value in seen.items()}
    legend = tag(
        "p",
        *(tag("span", tag("b", sign), f" {words}") for sign, words in SEEN.values()),
        class_="legend",
    )
    drawn = way_by_tables(path.hops, bundle, path.cause, phrases.sent(path), signs)
    return html.section(f"The way by the tables: {path.verdict.value}", legend, drawn)


def _drops(trace: Trace) -> Html:
    rows, more = drop_rows(trace)
    if not rows:
        return Html()
    note = [tag("p", f"and {more} more", class_="note")] if more else []
    return html.section("Drops", _table([title.capitalize() for title in DROPS], rows), *note)


def _notices(trace: Trace) -> Html:
    rows = [
        (f"{each.seconds:.6f}", each.node, each.direction.value, notice_text(each),
         flow_text(each.event.flow) if each.event.flow else "", str(each.packet or "?"))
        for each in trace.notices[:_MOST_PACKETS]
    ]  # fmt: skip
    if not rows:
        return Html()
    more = len(trace.notices) - len(rows)
    note = [tag("p", f"and {more} more", class_="note")] if more else []
    titles = ("Came", "Node", "Direction", "Notice", "Tuple", "Packet")
    return html.section("Cilium's notices", _table(titles, rows), *note)


def _packets(trace: Trace) -> Html:
    rows = [
        (str(each.number), each.direction.value, each.what, each.fate.value, each.reason)
        for each in trace.packets[:_MOST_PACKETS]
    ]
    if not rows:
        return Html()
    more = len(trace.packets) - len(rows)
    note = [tag("p", f"and {more} more", class_="note")] if more else []
    titles = ("Number", "Direction", "Packet", "Fate", "Why")
    return html.section("Packets", _table(titles, rows), *note)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    head = tag("tr", *(tag("th", title) for title in titles))
    body = (tag("tr", *map(_cell, titles, row)) for row in rows)
    return tag("table", tag("thead", head), tag("tbody", *body))


def _cell(title: str, text: str) -> Html:
    whole = {} if title in _LONG else {"class_": "whole"}
    return tag("td", text, data_label=title, **whole)
