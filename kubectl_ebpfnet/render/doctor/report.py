"""`doctor`: the bottom line, then how the cluster was asked, rights, Cilium, nodes and commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from kubectl_ebpfnet.model.catalogue import NF_CONNTRACK
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.doctor import (
    COMMANDS,
    SCHEMA,
    Checkup,
    Lack,
    Level,
    NodeCheck,
    Reach,
)
from kubectl_ebpfnet.model.evidence import NOBODY_ASKED, Bundle
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.probe import Judgement
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.tiers import held
from kubectl_ebpfnet.render.doctor.rights import pairs, rights, tier_document
from kubectl_ebpfnet.render.lists import listing
from kubectl_ebpfnet.render.lists.listing import Column, Listing
from kubectl_ebpfnet.render.output.formats import document_text, output_format
from kubectl_ebpfnet.render.text.captured import captured
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging

MOST_NODES = 30
"""Rows of nodes; where there are more, nodes that are the same share one."""
_NAMED = 2
_SHORT = 16
_FINDINGS = 10
"""Findings that are shown."""
_JUDGED = {
    Level.FULL: Judgement.AS_ASKED,
    Level.PARTIAL: Judgement.UNKNOWN,
    Level.BLIND: Judgement.CONTRADICTED,
}


def render(report: Checkup, bundle: Bundle, format_name: str, view: View) -> str:
    """Return the report as text that ends with a newline.

    Args:
        report: the answer.
        bundle: what the report was made of.
        format_name: of listing.REPORTS, with its template.
        view: for table and wide.

    Raises:
        UsageError: no such format, or a template that does not fit the document.
    """
    wanted = output_format(format_name, listing.REPORTS)
    if wanted.of_document:
        document = {
            "schema": SCHEMA,
            **codec.plain(report),
            "tiers": [tier_document(tier) for tier in held(report)],
            "bundle": {"source": bundle.source, "note": bundle.note},
        }
        return document_text(wanted, lambda: document)
    room = View(0, view.color, view.evidence) if format_name == "wide" else view

    def table(title: str, columns: Sequence[Column[Any]], rows: Sequence[Any]) -> str:
        made = Listing(SCHEMA, "", columns, rows, attrgetter("evidence"), "none", (), {})
        return (f"{title}\n" if title else "") + listing.render(made, bundle, format_name, room)

    parts = [
        "".join(f"{line}\n" for line in _headline(report, room)),
        _findings(report, room),
        _about(report, room),
        rights(report, room, table, everything=format_name == "wide"),
        _cilium(report, room),
        table("Nodes", _NODE_COLUMNS, _node_rows(report.nodes)) if report.nodes else "",
        table("What each command will show", _reach_columns(room), _reach_rows(report)),
        table("", _LACK_COLUMNS, _lack_rows(report)) if _lack_rows(report) else "",
        _notes(report, bundle, room),
    ]
    return "\n".join(part for part in parts if part)


# --- sentences ------------------------------------------------------------------------------------


def _headline(report: Checkup, view: View) -> list[str]:
    style = Style(view.color)
    blind = [n.name for n in report.nodes if n.reach("path").level is Level.BLIND]
    poor = [n.name for n in report.nodes if n.reach("path").level is Level.PARTIAL]
    word = style.judgement(_JUDGED[report.verdict], report.verdict.value.upper())
    if not report.nodes:
        text = "path would show nothing: no node can be looked at"
    elif blind:
        text = f"path would be blind on {_names(blind, len(report.nodes))}"
    elif poor:
        text = f"path would not show everything on {_names(poor, len(report.nodes))}"
    else:
        text = f"path would show everything on {_names([n.name for n in report.nodes], 0)}"
    label = f"{word}  "
    return hanging(label, view.text(text), view.width, len(report.verdict.value) + 2)


def _findings(report: Checkup, view: View) -> str:
    style, lines = Style(view.color), []
    for finding in report.findings[:_FINDINGS]:
        label = f"{style.severity(finding.severity)}  "
        indent = len(finding.severity) + 2
        lines += hanging(label, view.text(finding.title), view.width, indent)
        lines += hanging(" " * indent, view.text(finding.detail), view.width, indent)
    more = len(report.findings) - _FINDINGS
    if more > 0:
        lines.append(f"and {more} more: -o json has all")
    return "".join(f"{line}\n" for line in lines)


def _about(report: Checkup, view: View) -> str:
    connection = report.connection
    groups = f" ({', '.join(connection.groups)})" if connection.groups else ""
    rows = (
        ("context", connection.context),
        ("server", connection.server),
        ("Kubernetes", connection.kubernetes),
        ("user", f"{connection.user}{groups}" if connection.user else ""),
        ("namespace", connection.namespace),
    )
    return pairs("Connection", rows, view)


def _cilium(report: Checkup, view: View) -> str:
    found = report.cilium
    if not found.found:
        text = "not known" if found.found is None else "no agent runs in this cluster"
        text += f": {found.problem}" if found.problem else ""
        return pairs("Cilium", [("agents", text)], view)
    by = f", DaemonSet {found.namespace}/{found.daemonset}" if found.daemonset else ""
    by = by or (f", namespace {found.namespace}" if found.namespace else "")
    agents = f"{found.running} of {found.agents} running{by}"
    problem = [("how it is set up", f"not known: {found.problem}")] if found.problem else []
    return pairs("Cilium", [("agents", agents), *found.features, *problem], view)


def _notes(report: Checkup, bundle: Bundle, view: View) -> str:
    lines = [
        line
        for note in report.missing
        for line in hanging("MISSING  ", view.text(note), view.width)
    ]
    for text in captured(bundle):
        lines += hanging("NOTE  ", view.text(text), view.width)
    return "".join(f"{line}\n" for line in lines)


def _names(names: Sequence[str], of: int) -> str:
    """Return names of nodes in a few words; `of` is the number of all nodes, 0 to ignore it."""
    if len(names) == of and of > 1:
        return "every node"
    # A single example is enough where names are long.
    named = _NAMED if all(len(name) <= _SHORT for name in names[:_NAMED]) else 1
    return few(names, max(named, len(names) if len(names) <= named + 1 else 0))


# --- nodes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _NodeRow:
    names: tuple[str, ...]
    cells: tuple[str, ...]
    evidence: tuple[Evidence, ...] = ()


def _cell(index: int) -> Callable[[_NodeRow], str]:
    return lambda row: row.cells[index]


_NODE_COLUMNS: tuple[Column[_NodeRow], ...] = (
    Column("NODE", lambda row: _names(row.names, 0), elastic=True),
    Column("READY", _cell(0)),
    Column("AGENT", _cell(1), elastic=True),
    Column("EXEC", _cell(2)),
    Column("TOOLS", _cell(3), elastic=True),
    Column("NODE POD", _cell(4)),
    Column("KERNEL", _cell(5), spare=True),
    Column("STATISTICS", _cell(6), wide=True),
    Column("PROBLEM", _cell(7), wide=True),
)


def _node_rows(nodes: Sequence[NodeCheck]) -> list[_NodeRow]:
    return _shared([_NodeRow((node.name,), _node_cells(node), node.evidence) for node in nodes])


def _node_cells(node: NodeCheck) -> tuple[str, ...]:
    kernel = node.kernel
    stats = kernel.bpf_stats if kernel is not None else None
    problems = (node.not_ready, node.agent_problem, node.node_pod_problem)
    return (
        _yes(node.ready),
        node.agent or "none",
        _yes(node.agent_exec if node.agent else None),
        _tools(node),
        node.node_pod or ("failed" if node.node_pod_problem not in ("", NOBODY_ASKED) else ""),
        node.kernel_release,
        "" if stats is None else "on" if stats else "off",
        "; ".join(text for text in problems if text),
    )


def _tools(node: NodeCheck) -> str:
    if not node.tools and not node.missing_tools:
        return ""
    spared = set()
    for name, substitute in (("cilium", "cilium-dbg"), ("conntrack", NF_CONNTRACK)):
        # Either of the two will do.
        spared |= (
            {name} if substitute in node.tools else {substitute} if name in node.tools else set()
        )
    missing = [name for name in node.missing_tools if name not in spared]
    return f"no {', '.join(missing)}" if missing else "all"


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _shared(rows: list[_NodeRow]) -> list[_NodeRow]:
    """Join rows of equal cells, where there are too many rows to read."""
    if len(rows) <= MOST_NODES:
        return rows
    found: dict[tuple[str, ...], _NodeRow] = {}
    for row in rows:
        first = found.setdefault(row.cells, row)
        if first is not row:
            found[row.cells] = replace(first, names=(*first.names, *row.names))
    return list(found.values())


# --- commands -------------------------------------------------------------------------------------


def _reach_columns(view: View) -> tuple[Column[_NodeRow], ...]:
    style = Style(view.color)

    def paint(_: _NodeRow, word: str) -> str:
        return style.judgement(_JUDGED[Level(word)], word)

    return (
        Column("NODE", lambda row: _names(row.names, 0), elastic=True),
        Column("ANSWERED BY", _cell(0)),
        *(
            Column(command.upper(), _cell(number), paint=paint)
            for number, command in enumerate(COMMANDS, 1)
        ),
    )


def _reach_rows(report: Checkup) -> list[_NodeRow]:
    rows = [
        _NodeRow((node.name,), (node.by or "nobody", *_levels(node.commands)))
        for node in report.nodes
    ]
    if report.commands:
        rows.append(_NodeRow(("any",), ("nobody", *_levels(report.commands))))
    return _shared(rows)


def _levels(reaches: Iterable[Reach]) -> tuple[str, ...]:
    return tuple(reach.level.value for reach in reaches)


@dataclass(frozen=True, slots=True)
class _LackRow:
    commands: tuple[str, ...]
    nodes: str
    lack: Lack
    evidence: tuple[Evidence, ...] = ()


_LACK_COLUMNS: tuple[Column[_LackRow], ...] = (
    Column("COMMAND", lambda row: ", ".join(row.commands), elastic=True),
    Column("NODE", lambda row: row.nodes, elastic=True),
    Column("NOT SHOWN", lambda row: row.lack.what, elastic=True),
    Column("WHAT HELPS", lambda row: row.lack.help, elastic=True),
)


def _lack_rows(report: Checkup) -> list[_LackRow]:
    """Return each lack once, with its commands and nodes."""
    found: dict[Lack, dict[str, list[str]]] = {}
    places = [(node.name, node.commands) for node in report.nodes] or [("any", report.commands)]
    for name, commands in places:
        for reach in commands:
            for lack in reach.lacks:
                key = replace(lack, blinds=False)
                found.setdefault(key, {}).setdefault(name, []).append(reach.command)
    rows: list[_LackRow] = []
    for lack, by_node in found.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, names in by_node.items():
            alike.setdefault(tuple(names), []).append(name)
        rows += [
            _LackRow(
                ("all",) if commands == COMMANDS else commands, _names(nodes, len(places)), lack
            )
            for commands, nodes in alike.items()
        ]
    return rows
