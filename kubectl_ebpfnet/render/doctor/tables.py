"""`doctor`: the tables of nodes, of what each command will show, and of what it will not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from kubectl_ebpfnet.model.catalogue import NF_CONNTRACK
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.doctor import Checkup, Lack, Level, NodeCheck, Reach, TraceSight
from kubectl_ebpfnet.model.evidence import NOBODY_ASKED
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.probe import Judgement
from kubectl_ebpfnet.model.rights import COMMANDS
from kubectl_ebpfnet.render.lists.listing import Column
from kubectl_ebpfnet.render.text.not_seen import not_seen
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View

MOST_NODES = 30
"""Rows of nodes; where there are more, nodes that are the same share one."""
_NAMED = 2
_SHORT = 16
JUDGED = {  # level → the judgement of the same colour
    Level.FULL: Judgement.AS_ASKED,
    Level.PARTIAL: Judgement.UNKNOWN,
    Level.BLIND: Judgement.CONTRADICTED,
}


def names_of(names: Sequence[str], of: int) -> str:
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


NODE_COLUMNS: tuple[Column[_NodeRow], ...] = (
    Column("NODE", lambda row: names_of(row.names, 0), elastic=True),
    Column("READY", _cell(0)),
    Column("AGENT", _cell(1), elastic=True),
    Column("EXEC", _cell(2)),
    Column("TOOLS", _cell(3), elastic=True),
    Column("NODE POD", _cell(4)),
    Column("KERNEL", _cell(5), spare=True),
    Column("STATISTICS", _cell(6), wide=True),
    Column("PROBLEM", _cell(7), wide=True),
)


def node_rows(nodes: Sequence[NodeCheck]) -> list[_NodeRow]:
    """Return a row for each node; of many, those that are the same share one."""
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


def reach_columns(view: View) -> tuple[Column[_NodeRow], ...]:
    """Return the columns of what each command will show, in the colours of the terminal."""
    style = Style(view.color)

    def paint(_: _NodeRow, word: str) -> str:
        return style.judgement(JUDGED[Level(word)], word)

    return (
        Column("NODE", lambda row: names_of(row.names, 0), elastic=True),
        Column("ANSWERED BY", _cell(0)),
        *(
            Column(command.upper(), _cell(number), paint=paint)
            for number, command in enumerate(COMMANDS, 1)
        ),
    )


def reach_rows(report: Checkup) -> list[_NodeRow]:
    """Return a row for each node, or one for any where no node is known."""
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


LACK_COLUMNS: tuple[Column[_LackRow], ...] = (
    Column("COMMAND", lambda row: ", ".join(row.commands), elastic=True),
    Column("NODE", lambda row: row.nodes, elastic=True),
    Column("NOT SHOWN", lambda row: row.lack.what, elastic=True),
    Column("WHAT HELPS", lambda row: row.lack.help, elastic=True),
)


def lack_rows(report: Checkup) -> list[_LackRow]:
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
                ("all",) if commands == COMMANDS else commands, names_of(nodes, len(places)), lack
            )
            for commands, nodes in alike.items()
        ]
    return rows


# --- trace ----------------------------------------------------------------------------------------


TRACE_COLUMNS: tuple[Column[_NodeRow], ...] = (
    Column("NODE", lambda row: names_of(row.names, 0), elastic=True),
    Column("PROGRAMS", _cell(0)),
    Column("TRACE WILL SEE", _cell(1), elastic=True),
    Column("WHAT HELPS", _cell(2), elastic=True),
)


def trace_rows(nodes: Sequence[NodeCheck]) -> list[_NodeRow]:
    """Return a row for each node and layer; nodes that are the same share one."""
    by_cells: dict[tuple[str, ...], list[str]] = {}
    for node in nodes:
        for cells in _trace_cells(node.trace):
            by_cells.setdefault(cells, []).append(node.name)
    return [_NodeRow(tuple(names), cells) for cells, names in by_cells.items()]


def _trace_cells(trace: TraceSight) -> list[tuple[str, ...]]:
    if trace.unknown:
        return [("", f"not known: {trace.unknown}", trace.help)]
    cells: list[tuple[str, ...]] = []
    for layer in trace.layers:
        lacking = [each.name for each in layer.lacking]
        if not layer.attached:
            reasons = dict.fromkeys(each.reason for each in layer.lacking)
            words = f"nothing: {'; '.join(reasons)}"
        elif lacking:
            words = not_seen(lacking)
        else:
            words = "all of its places"
        cells.append((layer.name, words, ""))
    return cells
