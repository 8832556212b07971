"""The answer of `trace` for a person: the verdict, the packets, what differs from the tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from kubectl_ebpfnet.model.events import Direction
from kubectl_ebpfnet.model.trace import Fate, Lost, Trace
from kubectl_ebpfnet.render.path.headline import LABEL, VERDICT
from kubectl_ebpfnet.render.text.columns import columns
from kubectl_ebpfnet.render.text.not_seen import not_seen
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import command, hanging
from kubectl_ebpfnet.render.trace.lines import flow_text, owner_text

_MOST = 50  # rows of drops
SEEN = {
    True: ("✓", "seen in this trace"),
    False: ("·", "not seen"),
    None: ("?", "nothing looks there"),
}
"""Marks of path's hops, and what they mean."""


def summary(trace: Trace, view: View) -> str:
    """Return the answer as text that ends with a newline."""
    lost = [] if trace.flow else drops(trace, view)
    sections = [_verdict(trace, view), _facts(trace, view), lost, _hops(trace, view)]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines)
    return text + "\n"


def _verdict(trace: Trace, view: View) -> list[str]:
    word = trace.verdict.value.upper()
    first, *more = hanging(f"{word:<{VERDICT}}", view.text(trace.title), view.prose)
    lines = [first.replace(word, Style(view.color).verdict_word(trace.verdict), 1), *more]
    return lines + hanging(" " * VERDICT, view.text(trace.reason), view.prose)


def _facts(trace: Trace, view: View) -> list[str]:
    lines: list[str] = []
    for label, text in facts(trace):
        lines += hanging(f"{label:<{LABEL}}", view.text(text), view.prose)
        if label == "Fix" and trace.fix is not None and trace.fix.command:
            lines += command(" " * LABEL, view.text(trace.fix.command), view.width)
    return lines


def facts(trace: Trace) -> list[tuple[str, str]]:
    """Return what is to be known beside the verdict, each with its label."""
    found = [("Sent", _sent(trace) if trace.sent else ""), ("Seen", _packets(trace))]
    found += [("Cause", trace.cause), ("Fix", trace.fix.text if trace.fix else "")]
    found.append(("Differs", trace.difference.text if trace.difference else ""))
    found += [("Cilium", text) for text in _notices(trace)]
    for each in trace.nodes:
        if each.notices:
            found.append(("Missing", f"Cilium's notices of {each.node}: {each.notices}"))
        if each.problem:
            found.append(("Missing", f"{each.node}: {each.problem}"))
        if each.lacking:
            words = not_seen(text.partition(":")[0] for text in each.lacking)
            found.append(("Missing", f"{each.node} {words}"))
    found += [("Note", note) for note in trace.notes]
    return [pair for pair in found if pair[1]]


def _notices(trace: Trace) -> list[str]:
    """Return the places of each node and direction by Cilium's names, each once."""
    places: dict[tuple[str, Direction], dict[str, None]] = {}
    for each in trace.notices:
        word = (
            f"drops it: {each.event.summary}" if each.event.kind == "drop" else each.event.summary
        )
        if each.event.kind != "policy-verdict":
            places.setdefault((each.node, each.direction), {})[word] = None
    return [
        f"{node}, {'way back' if direction is Direction.BACK else 'forth'}: {'; '.join(words)}"
        for (node, direction), words in places.items()
    ]


def _sent(trace: Trace) -> str:
    outcomes = Counter(each.outcome for each in trace.sent)
    text = f"{len(trace.sent)} sent, {outcomes['answered']} answered"
    for word in ("refused", "timeout", "error"):
        if outcomes[word]:
            text += f", {outcomes[word]} {'lost' if word == 'timeout' else word}"
    times = [each.seconds * 1000 for each in trace.sent if each.seconds is not None]
    if times:
        mean = sum(times) / len(times)
        text += f"; min/avg/max {min(times):.3f}/{mean:.3f}/{max(times):.3f} ms"
    return text


def _packets(trace: Trace) -> str:
    parts = []
    for direction, word in ((Direction.FORTH, "forth"), (Direction.BACK, "back")):
        fates = Counter(p.fate for p in trace.packets if p.direction is direction)
        if fates:
            each = ", ".join(f"{count} {fate}" for fate, count in sorted(fates.items()))
            parts.append(f"{sum(fates.values())} packets {word} ({each})")
    others = Counter(p.fate for p in trace.packets if p.direction is Direction.NONE)
    if others:
        parts.append(f"{others[Fate.DROPPED]} packets dropped")
    return "; ".join(parts)


def _hops(trace: Trace, view: View) -> list[str]:
    if trace.path is None or not trace.hops:
        return []
    marks = {(each.hop, each.back): each.seen for each in trace.hops}
    answers = {each.hop: each.answers for each in trace.hops if not each.back}
    lines, place = [], ""
    for hop in trace.path.hops:
        where = hop.where if hop.where == hop.node or not hop.node else f"{hop.where} on {hop.node}"
        if where != place:
            place = where
            lines.append(view.text(where))
        mark, _ = SEEN[marks.get((hop.number, False))]
        text = f"{hop.kind.short:<11} {hop.short or hop.summary}"
        if answers.get(hop.number):
            text += f": {', '.join(answers[hop.number])}"
        lines += hanging(f" {view.text(mark)} ", view.text(text), view.prose)
    answer = [each.seen for each in trace.hops if each.back]
    if any(seen is not None for seen in answer):
        seen = sum(each is True for each in answer)
        lines.append(f"way back: seen at {seen} of {len(answer)} hops")
    lines += ["", view.text("  ".join(f"{sign} {words}" for sign, words in SEEN.values()))]
    return lines


DROPS = ("COUNT", "FIRST", "LAST", "LOST", "NODE", "OWNER", "DEVICE", "REASON", "PACKET")
"""Columns of the table of drops; times are seconds since the trace began."""


def drops(trace: Trace, view: View) -> list[str]:
    """Return a table of drops: how many, when, whether each is a loss, where, and why."""
    found, more = drop_rows(trace)
    if not found:
        return []
    rows = [[view.text(cell) for cell in row] for row in found]
    lines = columns(DROPS, rows)
    if more:
        lines.append(f"… and {more} more")
    return [view.text(line) if view.ascii else line for line in lines]


def drop_rows(trace: Trace) -> tuple[list[tuple[str, ...]], int]:
    """Return the rows of that table, the most frequent first, and how many more there are.

    Packets that differ in the sender's port alone, as attempts do, are of one row.
    """
    found: dict[tuple[str, ...], list[float]] = {}
    for packet in trace.packets:
        for sighting in packet.sightings:
            event = sighting.event
            if sighting.lost is Lost.NO:
                continue
            to = packet.what
            if event.flow is not None:
                to = flow_text(replace(event.flow, source_port=None))
            row = (
                "yes" if sighting.lost is Lost.YES else "maybe", sighting.node,
                owner_text(sighting.owner), event.device,
                event.reason or event.verdict or event.where, to,
            )  # fmt: skip
            found.setdefault(row, []).append(sighting.seconds)
    ordered = sorted(found.items(), key=lambda each: -len(each[1]))
    rows = [
        (str(len(times)), f"{min(times):.3f}", f"{max(times):.3f}", *row)
        for row, times in ordered[:_MOST]
    ]
    return rows, len(found) - len(rows)
