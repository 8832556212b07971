"""`-o table` and `-o wide`: the headline, the hops, the tracked flows, the findings.

The look is kubectl's: upper-case headers, no borders. tabulate lays the columns out; this module
wraps the cells, since it knows which columns may shrink.
"""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Hop, Path
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.entries import entries
from kubectl_ebpfnet.render.path.headline import closing, opening, presumed
from kubectl_ebpfnet.render.path.tracked import tracking_lines
from kubectl_ebpfnet.render.text import findings
from kubectl_ebpfnet.render.text.evidence import proof, under_rows
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap

_HEADERS = ("#", "WHERE", "WHAT", "DOES", "STATE")
_WIDE_HEADERS = ("NODE", "PACKET", "EVIDENCE")
_DOES = _HEADERS.index("DOES")
_GAP = 2
_FLOWS_OF_A_NODE = 2
"""A client that connects often has many flows that differ in their port alone."""
_LEAST_DOES = 26
"""Columns that DOES needs for a table to be readable; with fewer each hop is a paragraph."""


def table(path: Path, bundle: Bundle, view: View) -> str:
    """Return the answer as the default table.

    Args:
        path: the answer.
        bundle: evidence is quoted from it.
        view: the terminal.
    """
    answer = path.answer
    in_full = answer is not None and not phrases.is_as_usual(answer)
    back = _hops(answer.hops, bundle, view) if answer is not None and in_full else []
    hops = _hops(path.hops, bundle, view)
    return _document(path, bundle, view, hops, back, _FLOWS_OF_A_NODE)


def wide(path: Path, bundle: Bundle, view: View) -> str:
    """Return the table with node, packet and record numbers of each hop, never wrapped.

    Args:
        path: the answer.
        bundle: evidence is quoted from it.
        view: the terminal, but for its width.
    """
    unwrapped = View(0, view.color, view.evidence)
    hops = _wide_hops(path.hops, bundle, unwrapped)
    back = _wide_hops(path.answer.hops, bundle, unwrapped) if path.answer is not None else []
    return _document(path, bundle, unwrapped, hops, back, in_full=True)


def _wide_hops(hops: Sequence[Hop], bundle: Bundle, view: View) -> list[str]:
    rows = [(*_row(hop), *_wide_cells(hop)) for hop in hops]
    return _laid_out(hops, bundle, view, (*_HEADERS, *_WIDE_HEADERS), rows)


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; a cell with newlines makes its row higher."""
    # The headers are a row: as headers, tabulate would make every column two wider.
    text = tabulate([headers, *rows], tablefmt="plain", disable_numparse=True)
    return [line.rstrip() for line in text.split("\n")]


def _document(
    path: Path,
    bundle: Bundle,
    view: View,
    hops: list[str],
    back: list[str],
    flows_of_a_node: int | None = None,
    *,
    in_full: bool = False,
) -> str:
    sections = [
        opening(path, view, mtu=in_full),
        entries(path, view),
        hops,
        _way_back(path, view, back),
        tracking_lines(path, view, columns, flows_of_a_node),
        findings.lines(path.findings, bundle, view),
        presumed(path, view) if in_full or view.evidence else [],
        closing(bundle, view),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _way_back(path: Path, view: View, hops: list[str]) -> list[str]:
    """Return what becomes of the answer: a line, and its hops where they are told."""
    if path.answer is None:
        return []
    label = f"WAY BACK ({path.answer.state.value})  "
    text = phrases.way_back(path.answer) if hops or not path.answer.way else path.answer.way
    return [*hanging(label, escape(text), view.width), *hops]


def _row(hop: Hop) -> tuple[str, ...]:
    does = escape(phrases.does(hop))
    return str(hop.number), escape(hop.where), hop.kind.value, does, hop.state.value


def _wide_cells(hop: Hop) -> tuple[str, ...]:
    records = dict.fromkeys(str(item.record) for item in hop.evidence)
    return escape(hop.node), escape(phrases.packet(hop.packet)), ",".join(records)


def _hops(hops: Sequence[Hop], bundle: Bundle, view: View) -> list[str]:
    if not hops:
        return []
    rows: list[tuple[str, ...]] = [_row(hop) for hop in hops]
    if view.width:
        widths = _widths(rows, view.width)
        if widths[_DOES] < _LEAST_DOES:
            return _paragraphs(hops, bundle, view)
        rows = [
            tuple("\n".join(wrap(cell, w)) for cell, w in zip(row, widths, strict=True))
            for row in rows
        ]
    return _laid_out(hops, bundle, view, _HEADERS, rows)


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the width of each column: WHERE and WHAT shrink a little, DOES takes the rest."""
    natural = [
        max(len(header), *(len(row[i]) for row in rows)) for i, header in enumerate(_HEADERS)
    ]
    if sum(natural) + _GAP * (len(natural) - 1) > width:
        natural[1] = min(natural[1], max(width // 5, 8))
        natural[2] = min(natural[2], max(width // 8, 9))
    others = sum(natural) - natural[_DOES] + _GAP * (len(natural) - 1)
    natural[_DOES] = min(natural[_DOES], width - others)
    return natural


def _laid_out(
    hops: Sequence[Hop],
    bundle: Bundle,
    view: View,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> list[str]:
    if not rows:
        return []
    lines = columns(headers, rows)
    if not view.evidence:
        return lines
    return under_rows(lines, rows, (hop.evidence for hop in hops), bundle)


def _paragraphs(hops: Sequence[Hop], bundle: Bundle, view: View) -> list[str]:
    lines = []
    for hop in hops:
        title = f"{escape(hop.where)}, {hop.kind} ({hop.state})"
        lines += hanging(f"{hop.number}  ", title, view.width)
        lines += hanging("   ", escape(phrases.does(hop)), view.width)
        if view.evidence:
            lines += proof(hop.evidence, bundle, "    ")
    return lines
