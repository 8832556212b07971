"""Tracked flows: a line each; in wide every entry of Cilium's conntrack, Cilium's NAT and
nf_conntrack, below each other, so that the translations of a flow stay together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kubectl_ebpfnet.model.net import endpoint_text
from kubectl_ebpfnet.model.path import Outcome, Path, TrackedFlow
from kubectl_ebpfnet.render.path import phrases
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
    for node in dict.fromkeys(flow.node for flow in flows):
        lines += hanging("", view.text(f"flows tracked on {node}"), view.prose)
        shown = [_in_short(flow) for flow in flows if flow.node == node]
        shown += [f"{left_out[node]} more (-o wide)"] if node in left_out else []
        lines += [line for text in shown for line in hanging("   ", view.text(text), view.prose)]
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
    """Return `10.0.0.1:4000 → 1.1.1.1:80 as 192.0.2.7:4000, answered 8s ago`."""
    before, after = flow.flow, flow.translated
    first = phrases.ends(before)
    if (before.source, before.source_port) != (after.source, after.source_port):
        first += f" as {endpoint_text(after.source, after.source_port)}"
    if (before.destination, before.destination_port) != (after.destination, after.destination_port):
        first += f" to {endpoint_text(after.destination, after.destination_port)}"
    words = [first]
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
