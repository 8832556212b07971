"""`-o html`: the answer as one page that loads and runs nothing, for the incident's channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Direction, Entry, Hop, Packet, Path, State, Verdict
from kubectl_ebpfnet.render.html import page as html
from kubectl_ebpfnet.render.html.elements import Html, joined, tag
from kubectl_ebpfnet.render.html.picture import edge, frame, mark, tuple_on_edge
from kubectl_ebpfnet.render.html.proof import findings, proofs, unfolding
from kubectl_ebpfnet.render.path import frames, phrases
from kubectl_ebpfnet.render.path.headline import because
from kubectl_ebpfnet.render.path.tracked import entries_of
from kubectl_ebpfnet.render.path.way import kind_of

_TONES = {Verdict.DROPPED: "bad", Verdict.UNKNOWN: "open"}
_STATES = {State.OBSERVED: "seen", State.DERIVED: "derived", State.UNKNOWN: "unknown"}


def page(path: Path, bundle: Bundle) -> str:
    """Return the answer as an HTML document.

    Args:
        path: the answer.
        bundle: evidence is quoted from it.
    """
    title = phrases.ends_of(path)
    return html.page(
        f"{path.verdict.value}: {title}",
        _opening(path, bundle, title),
        _entrance(path, bundle),
        html.section("The way", *_way(path, bundle)),
        _way_back(path, bundle),
        findings(path.findings, bundle),
        _flows(path, bundle),
        _size(path),
        _presumed(path),
        html.origin(bundle, __version__),
    )


def _way(path: Path, bundle: Bundle) -> list[Html]:
    if not path.hops:
        return []
    why = _why(path, Direction.PACKET)
    return [legend(), way(path.hops, bundle, why, phrases.sent(path))]


def way(
    hops: Sequence[Hop],
    bundle: Bundle,
    why: str,
    sent: Packet,
    signs: Mapping[int, tuple[str, str]] = MappingProxyType({}),
) -> Html:
    """Return the picture of a way: nodes as frames, hops as boxes, the tuple where it changes.

    Args:
        hops: in the packet's order; there is one.
        bundle: evidence is quoted from it.
        why: why the packet is dropped; stands in the box that drops it.
        sent: the packet as it came to the first hop.
        signs: mark, and what it means, of hops by their number, in place of how they are known.
    """
    edges = _edges(hops, sent)
    before = sent
    drawn = [next(edges)]
    for outer in frames.frames(hops):
        parts: list[Html] = []
        for part in outer.parts:
            # The edge that leaves a part, or a frame, stands behind it.
            boxes: list[Html] = []
            for hop in part.hops:
                sign = signs.get(hop.number) or (frames.mark(hop), frames.WORDS[frames.mark(hop)])
                boxes.append(_box(hop, before, bundle, why if hop.drops else "", sign))
                boxes.append(next(edges))
                before = hop.packet
            leaving = boxes.pop()
            parts += [frame(part.title, *boxes, inner=True)] if part.title else boxes
            parts.append(leaving)
        leaving = parts.pop()
        drawn += [frame(outer.title, *parts), leaving]
    return tag("div", *drawn, class_="way")


def legend() -> Html:
    """Return what the marks mean."""
    signs = (tag("span", tag("b", sign), f" {words}") for sign, words in frames.WORDS.items())
    return tag("p", *signs, class_="legend")


def _opening(path: Path, bundle: Bundle, title: str) -> Html:
    inside = [tag("p", line) for line in because(path)]
    inside += [tag("p", note, class_="note") for note in phrases.notes(path)]
    fix: list[str] = []
    if path.fix is not None:
        fix = [tag("span", path.fix.text)]
        fix += [tag("pre", path.fix.command)] if path.fix.command else []
        meant_for = phrases.meant_for(path.fix, bundle)
        fix += [tag("p", meant_for, class_="note")] if meant_for else []
    inside.append(
        html.said(
            ("Cause", "" if path.cause in (*because(path), path.reason) else path.cause),
            *(("Seen", line) for line in path.seen),
            ("Fix", joined(*fix)),
        )
    )
    against = [
        unfolding(tag("span", each.text), proofs(each.evidence, bundle), "against")
        for each in path.contradictions
    ]
    if against:
        inside.append(tag("div", tag("p", tag("strong", "Evidence against this")), *against))
    word = path.verdict.value.upper()
    return html.opening(word, _TONES.get(path.verdict, "good"), title, *inside)


def _why(path: Path, direction: Direction) -> str:
    """Return why the packet, or the answer, is dropped; "" where that is said elsewhere."""
    if path.drop is not None and path.drop.direction is not direction:
        return ""
    return path.cause or (path.drop.by if path.drop is not None else "")


def _box(hop: Hop, before: Packet, bundle: Bundle, why: str, sign: tuple[str, str]) -> Html:
    short = phrases.in_short(hop)
    head = [mark(*sign), tag("span", kind_of(hop, before), class_="kind")]
    text = [tag("span", short)]
    if why and why not in short:
        text.append(tag("span", why, class_="why"))
    head.append(tag("span", *text, class_="does"))
    known = f"Hop {hop.number}, {hop.kind}: {frames.WORDS[frames.MARKS[hop.state]]}."
    inside = joined(
        tag("p", phrases.does(hop)) if hop.short else "",
        tag(
            "p",
            f"{known} The packet {'as it came' if hop.drops else 'behind it'}: ",
            tag("code", phrases.packet(hop.packet)),
        ),
        proofs(hop.evidence, bundle) or tag("p", "No record of its own."),
    )
    classes = f"box {'dropped' if hop.drops else _STATES[hop.state]}"
    opened = {"open": ""} if hop.drops else {}
    return tag("details", tag("summary", *head), inside, class_=classes, **opened)


def _edges(hops: Sequence[Hop], sent: Packet) -> Iterator[Html]:
    """Yield the edge before the first hop and behind each: with the tuple where it changed."""
    yield tuple_on_edge(sent.flow, None, phrases.encapsulation(sent))
    before = sent
    for hop in hops:
        now = hop.packet
        changed = frames.changes(now, before)
        if hop.drops or (hop is hops[-1] and not changed):
            yield Html()
        elif changed:
            yield tuple_on_edge(now.flow, before.flow, phrases.encapsulation(now))
        else:
            yield edge()
        before = now


def _entrance(path: Path, bundle: Bundle) -> Html:
    """Return a line for each node that a client outside may enter by, its way in it."""
    entrance = path.outside
    if entrance is None:
        return Html()
    rows = [_entry(each, bundle, each.node == entrance.shown) for each in entrance.entries]
    closed = [tag("p", tag("b", each.node), f": {each.why}") for each in entrance.closed]
    if closed:
        more = [tag("p", f"and {entrance.more_closed} more")] if entrance.more_closed else []
        count = len(closed) + entrance.more_closed
        nodes = f"{count} node{'s' if count > 1 else ''}, not entered"
        rows.append(unfolding(tag("span", nodes), joined(*closed, *more), "closed"))
    if entrance.left_out:
        rows.append(tag("p", f"and {entrance.left_out} more, not asked: --via node/NAME asks one"))
    return html.section("Enters by", tag("p", entrance.why), *rows)


def _entry(entry: Entry, bundle: Bundle, shown: bool) -> Html:
    path = entry.path
    reason = "; ".join(because(path))
    tone = _TONES.get(path.verdict, "good")
    head = joined(
        tag("b", entry.node), " ", tag("strong", path.verdict.value, class_="word"), " ", reason
    )
    if shown:
        return tag("p", head, " (its way is shown below)", class_=f"entry {tone}")
    inside = joined(*_way(path, bundle)[1:], _way_back(path, bundle))
    return unfolding(head, inside, f"entry {tone}")


def _way_back(path: Path, bundle: Bundle) -> Html:
    answer = path.answer
    if answer is None:
        return Html()
    text = f"{answer.state.value}: {phrases.way_back(answer)}".removesuffix(": ")
    if not answer.hops:
        return html.section("The way back", tag("p", text))
    drawn = way(answer.hops, bundle, _why(path, Direction.ANSWER), answer.hops[0].packet)
    opened = {} if phrases.is_as_usual(answer) else {"open": ""}
    summary = tag("summary", text)
    return html.section("The way back", tag("details", summary, drawn, class_="back", **opened))


def _flows(path: Path, bundle: Bundle) -> Html:
    rows = []
    for flow in path.flows:
        first, tables = entries_of(flow)
        inside = joined(html.said(*tables), proofs(flow.evidence, bundle))
        rows.append(unfolding(joined(tag("b", flow.node), " ", tag("code", first)), inside, "flow"))
    empty = []
    for note in path.tracking:
        table = phrases.TABLES.get(note.table, note.table)
        head = joined(tag("b", note.node), f" {table}: {note.text}")
        empty.append(unfolding(head, proofs(note.evidence, bundle), "flow"))
    if empty:
        rows.append(unfolding(Html("Tables without an entry"), joined(*empty), "flow"))
    attempt = [tag("p", path.attempt.text)] if path.attempt is not None else []
    return html.section("Tracked connections", *attempt, *rows)


def _size(path: Path) -> Html:
    if path.mtu is None:
        return Html()
    return html.section("Packet size", tag("p", phrases.largest(path.mtu)))


def _presumed(path: Path) -> Html:
    if path.verdict in (Verdict.DELIVERED, Verdict.DROPPED) or not path.presumed:
        return Html()
    rows = tag("ul", *(tag("li", what) for what in path.presumed))
    return html.section("Not read, and presumed to be as usual", rows)
