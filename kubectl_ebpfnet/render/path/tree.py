"""`-o tree`: places as branches, hops as leaves, in the packet's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Hop, Path
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.entries import entries
from kubectl_ebpfnet.render.path.headline import closing, opening, presumed
from kubectl_ebpfnet.render.text.evidence import proof
from kubectl_ebpfnet.render.text.style import Style, escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap


def branches(hops: Sequence[Hop]) -> Iterator[tuple[str, list[Hop]]]:
    """Group the hops by place; a place that the packet comes back to is a branch of its own.

    Yields:
        (the place's title, not escaped, and its hops), in the packet's order.
    """
    for title, group in groupby(hops, key=phrases.place_title):
        yield title, list(group)


def tree(path: Path, bundle: Bundle, view: View) -> str:
    """Return the answer as a tree, followed by the findings.

    Args:
        path: the answer.
        bundle: evidence is quoted from it.
        view: the terminal.
    """
    lines = [*opening(path, view), *entries(path, view)]
    lines += _places(path.hops, bundle, view)
    if path.answer is not None:
        text = f"way back ({path.answer.state.value}): {phrases.way_back(path.answer)}"
        lines += wrap(escape(text.rstrip(": ")), view.width)
        if not phrases.is_as_usual(path.answer):
            lines += _places(path.answer.hops, bundle, view)
    style = Style(view.color)
    for finding in path.findings:
        label = style.severity(finding.severity) + "  "
        text = escape(f"{finding.title}: {finding.detail}" if finding.detail else finding.title)
        lines += hanging(label, text, view.width, len(finding.severity.value) + 2)
    lines += presumed(path, view) if view.evidence else []
    lines += closing(bundle, view)
    return "\n".join(lines) + "\n"


def _places(hops: Sequence[Hop], bundle: Bundle, view: View) -> list[str]:
    lines = []
    places = list(branches(hops))
    for index, (title, there) in enumerate(places):
        last_place = index == len(places) - 1
        bar = "    " if last_place else "│   "
        lines += _branch("└── " if last_place else "├── ", bar, escape(title), view.width)
        for hop in there:
            lines += _leaf(hop, bundle, view, bar, hop is there[-1])
    return lines


def _leaf(hop: Hop, bundle: Bundle, view: View, bar: str, last: bool) -> list[str]:
    text = escape(f"{hop.number} {hop.kind}: {phrases.does(hop)} ({hop.state})")
    below = bar + ("    " if last else "│   ")
    lines = _branch(bar + ("└── " if last else "├── "), below, text, view.width)
    if view.evidence:
        lines += proof(hop.evidence, bundle, below + "  ")
    return lines


def _branch(knot: str, below: str, text: str, width: int) -> list[str]:
    """Return a line of the tree, wrapped beside its bars."""
    first, *rest = wrap(text, max(width - len(knot), 24) if width else 0)
    return [knot + first, *(below + line for line in rest)]
