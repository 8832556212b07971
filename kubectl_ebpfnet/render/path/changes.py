"""What two answers to one question differ in, for `path -w`: a line for each change.

Traffic alone is no change: a hop that is seen now and followed from tables before, another source
port, an age, a counter. A verdict, a cause, a hop that does another thing, a finding is. Where a
pod was replaced, as in a rollout, that is one change: what differs in its name, address and device
alone is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Hop, HopKind, HopPlace, Packet, Path, State, Verdict
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.headline import because
from kubectl_ebpfnet.render.path.steady import steady
from kubectl_ebpfnet.render.path.way import kind_of, places
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging

_WHAT = 16
"""Columns of what changed; a longer name shifts its first line."""
MOST = 24
"""Changes of one look that are printed; a path through other nodes differs in every hop."""
_OF_TRAFFIC = (HopKind.CONNTRACK,)
"""Hops that say what was tracked, and not what the cluster does."""


@dataclass(frozen=True, slots=True)
class Change:
    """A difference.

    Attributes:
        what: `verdict`, `cause`, `node2 policy`, …
        before, after: in words; "" for what was not there.
    """

    what: str
    before: str
    after: str


def changes(before: Path, after: Path) -> list[Change]:
    """Return what differs, what matters most first; [] where it is traffic alone."""
    renamed = _renaming(before, after)
    return [
        *_verdicts(before, after, renamed),
        *_ends(before, after),
        *_findings(before, after, renamed),
        *_ways("", (before, after), before.hops, after.hops, renamed),
        *_backs(before, after, renamed),
    ]


def lines(found: Sequence[Change], at: str, view: View) -> list[str]:
    """Return the changes as they are printed, at most MOST.

    Args:
        found: as of `changes`.
        at: the time of the look, before each line.
        view: the terminal.
    """
    shown = found[:MOST]
    if not shown:
        return []
    printed: list[str] = []
    room = min(max(len(change.what) for change in shown), _WHAT)
    for change in shown:
        head = f"{at}  {view.text(change.what):<{room}}  "
        if not change.before or not change.after:
            text = change.after or f"no more: {change.before}"
        else:
            text = f"{change.before} → {change.after}"
        below = len(at) + room + 4
        if len(head) > below:
            printed.append(head.rstrip())
            head = " " * below
        first, *more = hanging(head, view.text(text), view.prose)
        if change.what == "verdict":
            first = _coloured(first, view)
        printed += [first, *more]
    if len(found) > MOST:
        printed.append(f"{at}  {len(found) - MOST} more changes; path shows the whole way")
    return printed


def _coloured(line: str, view: View) -> str:
    for verdict in Verdict:
        line = line.replace(verdict.value.upper(), Style(view.color).verdict_word(verdict), 1)
    return line


def _differ(before: str, after: str) -> bool:
    return steady(before) != steady(after)


_Renaming = Callable[[str], str]
"""Gives a sentence of the answer before the names of the pods that stand at the ends now."""


def _renaming(before: Path, after: Path) -> _Renaming:
    names: dict[str, str] = {}
    if before.hops and after.hops:
        if _source(before) != _source(after):
            names |= _pairs(_own(before.hops, 0), _own(after.hops, 0))
        if _arrival(before) and _arrival(after):
            names |= _pairs(_own(before.hops, -1), _own(after.hops, -1))
    if not names:
        return lambda text: text
    words = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    pattern = re.compile(rf"(?<![\w.-])(?:{words})(?![\w-])")
    return lambda text: pattern.sub(lambda match: names[match[0]], text)


def _own(hops: Sequence[Hop], end: int) -> list[str]:
    """Return what the pod at an end of a way, 0 or -1, has as its own: name, address, devices."""
    hop = hops[end]
    if hop.place is not HopPlace.POD:
        return []
    flow = hop.packet.flow
    links = [phrases.in_short(each) for each in hops if each.kind is HopKind.LINK]
    address = flow.source if end == 0 else flow.destination
    return [hop.where.rpartition("/")[2], str(address), *links[end:][:1]]


def _pairs(old: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """Return the words of the one that stand for others in the other."""
    return {
        was: now
        for texts in zip(old, new, strict=False)
        for was, now in zip(*(text.split() for text in texts), strict=False)
        if was != now
    }


def _verdicts(before: Path, after: Path, renamed: _Renaming) -> Iterator[Change]:
    if before.verdict is not after.verdict:
        yield Change("verdict", before.verdict.value.upper(), _verdict(after))
    elif not after.verdict.let_through and _differ(renamed(_verdict(before)), _verdict(after)):
        yield Change("verdict", "", _verdict(after))
    if _differ(renamed(before.cause), after.cause):
        yield Change("cause", "" if after.cause else before.cause, after.cause)
        if after.cause and after.fix is not None:
            text = after.fix.text
            yield Change("fix", "", f"{text} {after.fix.command}" if after.fix.command else text)
    known = {steady(renamed(each.text)) for each in before.contradictions}
    for each in after.contradictions:
        if steady(each.text) not in known:
            yield Change("but", "", each.text)
    for node, old, new in _entries(before, after):
        yield Change(f"by {node}", old, new)


def _verdict(path: Path) -> str:
    """Return the verdict and what decides it, in one line."""
    return ": ".join(filter(None, (path.verdict.value.upper(), "; ".join(because(path)))))


def _entries(before: Path, after: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (node, verdict before, now) for nodes by which a client outside enters."""
    sides = []
    for path in (before, after):
        entries = path.outside.entries if path.outside is not None else ()
        sides.append({entry.node: entry.path.verdict.value.upper() for entry in entries})
    for node in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = (side.get(node, "") for side in sides)
        if old != new:
            yield node, old, new or "no client enters by it"


def _ends(before: Path, after: Path) -> Iterator[Change]:
    """Yield the pods that stand at the ends where they are others."""
    for what, old, new in (
        ("source", _source(before), _source(after)),
        ("arrives at", _arrival(before), _arrival(after)),
    ):
        if old != new:
            yield Change(what, old, new)


def _source(path: Path) -> str:
    target = path.source
    on = f" on {target.node}" if target.node else ""
    return f"{target.title}{on}" if target.name else ""


def _arrival(path: Path) -> str:
    """Return the pod that the packet comes to, "" where it comes to none."""
    last = next((hop for hop in reversed(path.hops) if hop.kind is HopKind.DELIVERY), None)
    return f"pod {last.where}" if last is not None and last.place is HopPlace.POD else ""


def _findings(before: Path, after: Path, renamed: _Renaming) -> Iterator[Change]:
    def of(path: Path, named: _Renaming) -> dict[tuple[str, str], str]:
        found = [each for each in path.findings if not each.decides]
        return {(each.severity.value, steady(named(each.title))): each.title for each in found}

    sides = [of(before, renamed), of(after, str)]
    for key, title in sides[1].items():
        if key not in sides[0]:
            yield Change(key[0], "", title)
    for key, title in sides[0].items():
        if key not in sides[1]:
            yield Change(key[0], title, "")


def _backs(before: Path, after: Path, renamed: _Renaming) -> Iterator[Change]:
    """Yield how the way back differs: its end, and its hops where it is not as usual."""
    old, new = before.answer, after.answer
    if old is None or new is None:
        return
    texts = [
        ": ".join(filter(None, (each.state.value, phrases.way_back(each)))) for each in (old, new)
    ]
    if _differ(renamed(texts[0]), texts[1]):
        yield Change("way back", *texts)
    if not (phrases.is_as_usual(old) and phrases.is_as_usual(new)):
        yield from _ways("back: ", (before, after), old.hops, new.hops, renamed)


def _ways(
    prefix: str,
    paths: tuple[Path, Path],
    old: Sequence[Hop],
    new: Sequence[Hop],
    renamed: _Renaming,
) -> Iterator[Change]:
    """Yield the hops that do another thing, are new, or are there no more.

    Args:
        prefix: before the names of places: "" for the packet's own way.
        paths: before and after.
        old, new: hops of a way of these.
        renamed: of the texts before.
    """
    before, after = paths
    sent = [None if prefix or not path.hops else phrases.sent(path) for path in paths]
    sides = [list(_steps(prefix, *each)) for each in zip((old, new), sent, strict=True)]
    namings: tuple[_Renaming, _Renaming] = (renamed, str)
    keys = [
        [(named(step.what), steady(named(step.text))) for step in side]
        for named, side in zip(namings, sides, strict=True)
    ]
    other_source = _source(before) != _source(after)
    for tag, i, j, k, m in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        gone, come = sides[0][i:j], sides[1][k:m]
        for step in gone:
            pair = next((each for each in come if each.what == renamed(step.what)), None)
            if pair is not None:
                come.remove(pair)
                if other_source and step.of_pod:
                    continue
                yield Change(pair.what, step.text, pair.text)
            elif m < len(sides[1]) or after.verdict.let_through:
                yield Change(step.what, step.text, "")  # else the packet comes no further now
        if j == len(sides[0]) and not before.verdict.let_through:
            continue  # the packet went no further before
        for step in come:
            yield Change(step.what, "", step.text)


@dataclass(frozen=True, slots=True)
class _Step:
    """A hop to compare: its place and kind, what it does and where the packet goes then, and
    whether it is the sender's own, which every other pod has otherwise."""

    what: str
    text: str
    of_pod: bool


def _steps(prefix: str, hops: Sequence[Hop], sent: Packet | None) -> Iterator[_Step]:
    last = sent
    for place, group in places(hops):
        for hop in group:
            kind = kind_of(hop, last)
            last, moved = hop.packet, last is None or _ends_of(hop.packet) != _ends_of(last)
            if hop.kind in _OF_TRAFFIC and not hop.drops and hop.state is not State.UNKNOWN:
                continue
            text = phrases.in_short(hop) + ("; dropped here" if hop.drops else "")
            if moved:
                text += f" ({phrases.tuple_of(hop.packet)})"
            own = hop.place is HopPlace.POD or hop.kind is HopKind.LINK
            yield _Step(f"{prefix}{place} {kind}", text, own)


def _ends_of(packet: Packet) -> tuple[object, ...]:
    """Return the packet's ends without the source port, which each connection has anew."""
    return tuple(
        (flow.source, flow.destination, flow.destination_port)
        for flow in (packet.flow, packet.outer)
        if flow is not None
    )
