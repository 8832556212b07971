"""`doctor`: the bottom line, then how the cluster was asked, rights, Cilium, nodes and commands."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from kubectl_ebpfnet.model.doctor import (
    SCHEMA,
    Checkup,
    Level,
)
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.tiers import held
from kubectl_ebpfnet.render.doctor.rights import pairs, rights, tier_document
from kubectl_ebpfnet.render.doctor.tables import (
    JUDGED,
    LACK_COLUMNS,
    NODE_COLUMNS,
    TRACE_COLUMNS,
    lack_rows,
    names_of,
    node_rows,
    reach_columns,
    reach_rows,
    trace_rows,
)
from kubectl_ebpfnet.render.lists import listing
from kubectl_ebpfnet.render.lists.listing import Column, Listing
from kubectl_ebpfnet.render.output.formats import document_text, output_format
from kubectl_ebpfnet.render.text.captured import captured
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging

_FINDINGS = 10
"""Findings that are shown."""


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
        table("Nodes", NODE_COLUMNS, node_rows(report.nodes)) if report.nodes else "",
        table("What each command will show", reach_columns(room), reach_rows(report)),
        table("", LACK_COLUMNS, lack_rows(report)) if lack_rows(report) else "",
        table("trace", TRACE_COLUMNS, trace_rows(report.nodes)) if trace_rows(report.nodes) else "",
        _notes(report, bundle, room),
    ]
    return "\n".join(part for part in parts if part)


def _headline(report: Checkup, view: View) -> list[str]:
    style = Style(view.color)
    blind = [n.name for n in report.nodes if n.reach("path").level is Level.BLIND]
    poor = [n.name for n in report.nodes if n.reach("path").level is Level.PARTIAL]
    word = style.judgement(JUDGED[report.verdict], report.verdict.value.upper())
    if not report.nodes:
        text = "path would show nothing: no node can be looked at"
    elif blind:
        text = f"path would be blind on {names_of(blind, len(report.nodes))}"
    elif poor:
        text = f"path would not show everything on {names_of(poor, len(report.nodes))}"
    else:
        text = f"path would show everything on {names_of([n.name for n in report.nodes], 0)}"
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
