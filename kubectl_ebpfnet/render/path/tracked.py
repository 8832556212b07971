"""The joined view: one flow in Cilium's conntrack, Cilium's NAT and nf_conntrack, side by side.

On a narrow terminal the three entries of a flow stand below each other, one flow a block, so that
the translations of a flow stay together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from kubectl_ebpfnet.model.path import Path, TrackedFlow
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap

_HEADERS = ("NODE", "FLOW", "CILIUM CT", "CILIUM NAT", "NF_CONNTRACK")
_SIDE_BY_SIDE = 120
"""Columns of a terminal from which on the three tables stand beside each other."""

Columns = Callable[[Sequence[str], Sequence[Sequence[str]]], list[str]]


def tracking_lines(
    path: Path, view: View, columns: Columns, at_most: int | None = None
) -> list[str]:
    """Return the lines of the FLOWS section, [] without flows and notes.

    Args:
        path: the answer.
        view: the terminal.
        columns: lays a table out.
        at_most: number of flows to show of each node, the newest; None for all.
    """
    lines: list[str] = []
    flows, left_out = _newest(path.flows, at_most)
    if flows:
        if view.width and view.width < _SIDE_BY_SIDE:
            lines = _stacked(flows, path, view)
        else:
            lines = _beside(flows, view, columns)
    lines += [f"{escape(node)}: {n} more: -o wide shows them" for node, n in left_out.items()]
    shown = {flow.node for flow in path.flows}
    for note in path.tracking:
        if note.node not in shown or not view.width or view.width >= _SIDE_BY_SIDE:
            text = f"{note.node}: {phrases.TABLES.get(note.table, note.table)}: {note.text}"
            lines += wrap(escape(text), view.width)
    return ["FLOWS", *lines] if lines else []


def entries_of(flow: TrackedFlow) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a flow in one line, and its entry of each table by name, "" where it has none."""
    tables = (("Cilium CT", _ct(flow)), ("Cilium NAT", _nat(flow)), ("nf_conntrack", _nf(flow)))
    return _first(flow), tables


def _newest(
    flows: Sequence[TrackedFlow], at_most: int | None
) -> tuple[list[TrackedFlow], dict[str, int]]:
    """Return the first flows of each node, and the number of a node's other flows."""
    kept: list[TrackedFlow] = []
    seen: Counter[str] = Counter()
    for flow in flows:
        seen[flow.node] += 1
        if at_most is None or seen[flow.node] <= at_most:
            kept.append(flow)
    left_out = {node: n - at_most for node, n in seen.items() if at_most and n > at_most}
    return kept, left_out


def _beside(flows: Sequence[TrackedFlow], view: View, columns: Columns) -> list[str]:
    # The four columns beside the node's name share the width without gaps.
    node = max(len(escape(flow.node)) for flow in flows)
    room = max((view.width - max(node, 4) - 8) // 4, 20) if view.width else 0
    rows = []
    for flow in flows:
        cells = [_first(flow), _ct(flow), _nat(flow), _nf(flow)]
        shown = ["\n".join(wrap(escape(cell or "no entry"), room)) for cell in cells]
        rows.append((escape(flow.node), *shown))
    return columns(_HEADERS, rows)


def _stacked(flows: Sequence[TrackedFlow], path: Path, view: View) -> list[str]:
    lines: list[str] = []
    why = {(note.node, note.table): note.text for note in path.tracking}
    for flow in flows:
        lines += hanging("", escape(f"{flow.node}: {_first(flow)}"), view.width)
        for label, table, text in (
            ("CILIUM CT", "cilium-ct", _ct(flow)),
            ("CILIUM NAT", "cilium-nat", _nat(flow)),
            ("NF_CONNTRACK", "nf_conntrack", _nf(flow)),
        ):
            shown = text or why.get((flow.node, table), "no entry")
            lines += hanging(f"  {label:<12}  ", escape(shown), view.width)
    return lines


def _first(flow: TrackedFlow) -> str:
    became = phrases.translation(flow)
    return f"{flow.flow}, {became}" if became else str(flow.flow)


def _ct(flow: TrackedFlow) -> str:
    entries = []
    if flow.service_ct is not None:
        entries.append(phrases.cilium_ct(flow.service_ct, flow.flow))
    if flow.cilium_ct is not None:
        entries.append(phrases.cilium_ct(flow.cilium_ct, flow.flow))
    return "; ".join(entries)


def _nat(flow: TrackedFlow) -> str:
    return phrases.cilium_nat(flow.cilium_nat) if flow.cilium_nat is not None else ""


def _nf(flow: TrackedFlow) -> str:
    return phrases.netfilter(flow.netfilter, flow.flow) if flow.netfilter is not None else ""
