"""`-o table` and `-o wide`: the verdict, why and what to do, the way of the packet, its flows.

docs/reading-an-answer.md describes it for the reader, docs/architecture.md says why it is so.
"""

from __future__ import annotations

from kubectl_ebpfnet.model.evidence import LIVE, Bundle
from kubectl_ebpfnet.model.path import Path, Return, Severity, WayBack
from kubectl_ebpfnet.model.shell import word
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.entries import entries
from kubectl_ebpfnet.render.path.headline import (
    closing,
    paragraphs,
    presumed,
    verdict_lines,
)
from kubectl_ebpfnet.render.path.tracked import flow_lines, table_lines
from kubectl_ebpfnet.render.path.way import LEGEND, Line, Way
from kubectl_ebpfnet.render.text.evidence import Proofs
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import command, hanging

_FLOWS_OF_A_NODE = 2
"""A client that connects often has many flows that differ in their port alone."""
_SEVERITY = 9
"""Columns of a finding's word and its gap: the longest is WARNING."""
_PROOF = "(-v: the proof)"
_BACK = {Return.RETURNS: "comes back", Return.LOST: "lost", Return.UNKNOWN: "not known"}


def table(path: Path, bundle: Bundle, view: View) -> str:
    """Return the answer as a person reads it.

    Args:
        path: the answer.
        bundle: evidence is quoted from it.
        view: the terminal.
    """
    proofs = Proofs(bundle, view)
    way = Way(view, proofs, wide=False)
    usual = path.answer is not None and phrases.is_as_usual(path.answer)
    last = _way_back_line(path.answer) if path.answer is not None and usual else None
    sections = [
        verdict_lines(path, view),
        paragraphs(path, bundle, view, in_full=view.evidence),
        _findings(path, view, proofs),
        entries(path, view),
        way.lines(path.hops, last, phrases.sent(path)) if path.hops else [],
        [] if usual else _way_back(path, view, way),
        flow_lines(path, view, _FLOWS_OF_A_NODE),
        presumed(path, view) if view.evidence else [],
        _legend(path, bundle, view, in_full=view.evidence),
    ]
    return _joined(sections)


def wide(path: Path, bundle: Bundle, view: View) -> str:
    """Return the same with the number, device and records of each hop, full sentences, the way
    back in full and every table's entries.

    Args:
        path: the answer.
        bundle: evidence is quoted from it.
        view: the terminal.
    """
    proofs = Proofs(bundle, view)
    way = Way(view, proofs, wide=True)
    sections = [
        verdict_lines(path, view),
        paragraphs(path, bundle, view, in_full=True),
        _findings(path, view, proofs, in_full=True),
        entries(path, view),
        way.lines(path.hops, None, phrases.sent(path)) if path.hops else [],
        _way_back(path, view, way),
        table_lines(path, view),
        presumed(path, view),
        _legend(path, bundle, view, in_full=True),
    ]
    return _joined(sections)


def _joined(sections: list[list[str]]) -> str:
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _way_back_line(answer: WayBack) -> Line:
    return Line("~", "way back", answer.way or answer.reason)


def _way_back(path: Path, view: View, way: Way) -> list[str]:
    """Return what becomes of the answer, and its hops."""
    if path.answer is None:
        return []
    answer = path.answer
    first = ": ".join(filter(None, (f"Way back, {_BACK[answer.state]}", answer.way)))
    lines = hanging("", view.text(first), view.prose)
    lines += hanging("  ", view.text(answer.reason), view.prose) if answer.reason else []
    return [*lines, *way.lines(answer.hops)]


def _findings(path: Path, view: View, proofs: Proofs, *, in_full: bool = False) -> list[str]:
    """Return the findings, but that which the verdict is: cause and fix say the same."""
    lines: list[str] = []
    for finding in path.findings:
        if finding.decides and not in_full:
            continue
        severity = Style(view.color).severity(finding.severity)
        label = severity + " " * (_SEVERITY - len(finding.severity.value))
        lines += hanging(label, view.text(finding.title), view.prose, _SEVERITY)
        if finding.detail and (finding.severity is not Severity.INFO or in_full or view.evidence):
            lines += hanging(" " * _SEVERITY, view.text(finding.detail), view.prose)
        if view.evidence:
            lines += proofs.lines(finding.evidence, " " * _SEVERITY)
    return lines


def _legend(path: Path, bundle: Bundle, view: View, *, in_full: bool) -> list[str]:
    legend: list[str] = []
    marks = (*LEGEND, *(() if in_full else (_PROOF,))) if path.hops else ()
    for words in map(view.text, marks):
        fits = legend and (not view.width or len(legend[-1]) + 2 + len(words) <= view.width)
        legend[-1:] = [f"{legend[-1]}  {words}"] if fits else [*legend[-1:], words]
    if in_full and path.hops and bundle.source != LIVE:
        show = f"kubectl ebpfnet show-record N --from {word(bundle.source)}"
        legend += command("[N], record N: ", view.text(show), view.width)
    return [*legend, *closing(bundle, view, in_full=in_full)]
