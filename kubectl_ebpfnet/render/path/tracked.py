"""Tracked flows: a line each; in wide every entry of Cilium's conntrack, Cilium's NAT and
nf_conntrack, below each other, so that the translations of a flow stay together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kubectl_ebpfnet.model.path import Outcome, Path, TrackedFlow
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.headline import LABEL
from kubectl_ebpfnet.render.text.durations import age
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap


def flow_lines(path: Path, view: View, at_most: int) -> list[str]:
    """Return a line for each of the newest flows, [] without one.

    Args:
        path: the answer.
        view: the terminal.
        at_most: number of flows to show of each node.
    """
    lines: list[str] = []
    flows, left_out = _newest(path.flows, at_most)
    for number, flow in enumerate(flows):
        label = f"{'' if number else 'Flows':<{LABEL}}"
        lines += hanging(label, view.text(f"{flow.node}: {_in_short(flow)}"), view.prose)
    for node, count in left_out.items():
        text = f"{node}: {count} more (-o wide)"
        lines += hanging(" " * LABEL, view.text(text), view.prose)
    return lines


def table_lines(path: Path, view: View) -> list[str]:
    """Return the entries of every flow, and why a table has none; [] without either."""
    lines: list[str] = []
    why = {(note.node, note.table): note.text for note in path.tracking}
    for flow in path.flows:
        first, tables = entries_of(flow)
        lines += hanging("", view.text(f"{flow.node}: {first}"), view.width)
        for (label, text), table in zip(tables, phrases.TABLES, strict=True):
            shown = text or why.get((flow.node, table), "no entry")
            lines += hanging(f"  {label:<12}  ", view.text(shown), view.width)
    nodes = {flow.node for flow in path.flows}
    for note in path.tracking:
        if note.node not in nodes:
            text = f"{note.node}: {phrases.TABLES.get(note.table, note.table)}: {note.text}"
            lines += wrap(view.text(text), view.width)
    return ["Flows", *lines] if lines else []


def entries_of(flow: TrackedFlow) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a flow in one line, and its entry of each table by name, "" where it has none."""
    tables = (("Cilium CT", _ct(flow)), ("Cilium NAT", _nat(flow)), ("nf_conntrack", _nf(flow)))
    became = phrases.translation(flow)
    return f"{flow.flow}, {became}" if became else str(flow.flow), tables


def _newest(flows: Sequence[TrackedFlow], at_most: int) -> tuple[list[TrackedFlow], dict[str, int]]:
    """Return the first flows of each node, and the number of a node's other flows."""
    kept: list[TrackedFlow] = []
    seen: Counter[str] = Counter()
    for flow in flows:
        seen[flow.node] += 1
        if seen[flow.node] <= at_most:
            kept.append(flow)
    return kept, {node: n - at_most for node, n in seen.items() if n > at_most}


def _in_short(flow: TrackedFlow) -> str:
    """Return `10.0.0.1:4000 → 1.1.1.1:80, leaves as …, answered 8s ago`."""
    words = [phrases.ends(flow.flow), phrases.translation(flow)]
    told = "" if flow.outcome is Outcome.UNKNOWN else flow.outcome.value
    last = flow.last_seen.any
    when = f"{age(last)} ago" if last is not None else ""
    words.append(" ".join(filter(None, (told, when))))
    return ", ".join(filter(None, words))


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
