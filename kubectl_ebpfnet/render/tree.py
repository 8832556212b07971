"""`-o tree`: places as branches, hops as leaves, in the packet's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Hop, Path
from kubectl_ebpfnet.render import phrases
from kubectl_ebpfnet.render.opening import opening
from kubectl_ebpfnet.render.proof import proof
from kubectl_ebpfnet.render.style import Style, escape
from kubectl_ebpfnet.render.view import View
from kubectl_ebpfnet.render.wrap import hanging


def branches(hops: Sequence[Hop]) -> Iterator[tuple[str, list[Hop]]]:
    """The hops by place: a place that the packet comes back to is a branch of its own.

    Yields:
        (the place's title, not escaped, and its hops), in the packet's order.
    """
    for title, group in groupby(hops, key=phrases.place_title):
        yield title, list(group)


def tree(path: Path, bundle: Bundle, view: View) -> str:
    """The answer as a tree; findings follow it."""
    said = opening(path, bundle, view)
    places = list(branches(path.hops))
    for at, (title, hops) in enumerate(places):
        last_place = at == len(places) - 1
        said.append(f"{'└── ' if last_place else '├── '}{escape(title)}")
        bar = "    " if last_place else "│   "
        for hop in hops:
            said += _leaf(hop, bundle, view, bar, hop is hops[-1])
    style = Style(view.color)
    for finding in path.findings:
        label = style.severity(finding.severity) + "  "
        text = escape(f"{finding.title}: {finding.detail}" if finding.detail else finding.title)
        said += hanging(label, text, view.width, len(finding.severity.value) + 2)
    return "\n".join(said) + "\n"


def _leaf(hop: Hop, bundle: Bundle, view: View, bar: str, last: bool) -> list[str]:
    text = escape(f"{hop.number} {hop.kind}: {phrases.does(hop)} ({hop.state})")
    lines = hanging("", text, max(view.width - 8, 24) if view.width else 0)
    below = bar + ("    " if last else "│   ")
    said = [bar + ("└── " if last else "├── ") + lines[0], *(below + line for line in lines[1:])]
    if view.evidence:
        said += proof(hop.evidence, bundle, below + "  ")
    return said
