"""`probe-lb`: the verdict, a row for each node, contradictions with their proof.

One table a target. JSON and YAML: docs/json.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import protocol_name
from kubectl_ebpfnet.model.probe import (
    POLICIES_SCHEMA,
    SCHEMA,
    Answers,
    AttemptOutcome,
    Endpoints,
    Expectation,
    Judgement,
    NodeRow,
    ProbeAttempt,
    ProbeReport,
    ProbeTarget,
    SourceFate,
    TargetKind,
)
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.render.lb import cells
from kubectl_ebpfnet.render.lists import listing
from kubectl_ebpfnet.render.lists.listing import FORMATS, REPORTS, Listing
from kubectl_ebpfnet.render.output.formats import document_text, output_format
from kubectl_ebpfnet.render.path.document import sources
from kubectl_ebpfnet.render.text import findings
from kubectl_ebpfnet.render.text.captured import captured
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap

HEADLINES = {
    Judgement.AS_ASKED: "behaves",
    Judgement.CONTRADICTED: "does not behave",
    Judgement.UNKNOWN: "unknown",
}
_NO_PROOF = (
    "a client on a node; the cluster treats it as internal: its sockets may be load-balanced, and "
    "neither externalTrafficPolicy nor source ranges hold for it, so its success proves nothing "
    "for customers"
)
_NAMED = 3
"""Nodes that a note names."""
__all__ = ["FORMATS", "document", "render", "render_all"]


def render(report: ProbeReport, bundle: Bundle, format_name: str, view: View) -> str:
    """Return the answer as text that ends with a newline.

    Args:
        report: the answer.
        bundle: what the report was made of.
        format_name: of REPORTS, with its template.
        view: for table and wide.

    Raises:
        UsageError: no such format, or a template that does not fit the document.
    """
    wanted = output_format(format_name, REPORTS)
    if wanted.of_document:
        return document_text(wanted, lambda: document(report, bundle))
    # As with kubectl, wide lines are never wrapped.
    shown = view if format_name == "table" else replace(view, width=0)
    return _text(report, bundle, format_name, shown)


def render_all(reports: Iterable[tuple[ProbeReport, Bundle]], format_name: str) -> str:
    """Return several answers in one document, in a format of DOCUMENTS. Raises as `render`."""
    values = {
        "schema": POLICIES_SCHEMA,
        "items": [document(report, bundle) for report, bundle in reports],
    }
    return document_text(output_format(format_name, REPORTS), lambda: values)


def document(report: ProbeReport, bundle: Bundle) -> dict[str, Any]:
    """Return the answer as plain values, in the order of docs/json.md."""
    request = codec.plain(report.request)
    if report.request.protocol is not None:
        request["protocol"] = protocol_name(report.request.protocol)
    return {
        "schema": SCHEMA,
        "service": {"namespace": report.request.namespace, "name": report.request.service},
        "type": report.type,
        "policy": report.policy,
        "datapath": report.datapath,
        "verdict": report.verdict.value,
        "summary": report.summary,
        "request": request,
        "items": [_row(row) for row in report.rows],
        "findings": codec.plain(report.findings),
        "missing": list(report.missing),
        "internal": [_internal(attempt) for attempt in report.internal],
        **sources([*report.rows, *report.findings, *report.internal], bundle),
    }


def _internal(attempt: ProbeAttempt) -> dict[str, Any]:
    values: dict[str, Any] = codec.plain(attempt)
    values["target"]["protocol"] = protocol_name(attempt.target.protocol)
    return values


def _row(row: NodeRow) -> dict[str, Any]:
    values: dict[str, Any] = codec.plain(row)
    values["target"]["protocol"] = protocol_name(row.target.protocol)
    for attempt in values["attempts"]:
        del attempt["target"]  # the row's
    values["evidence"] = codec.plain(row.evidence)
    return values


def _text(report: ProbeReport, bundle: Bundle, format_name: str, view: View) -> str:
    sections = [_opening(report, view)]
    for target in report.targets:
        rows = [row for row in report.rows if row.target == target]
        rows += [on_a_node(a) for a in report.internal if a.target == target]
        shown = listing.render(_listing(target, rows), bundle, format_name, view)
        sections.append(shown.rstrip("\n").split("\n"))
    sections.append(_note_lines(report, bundle, view))
    sections.append(findings.lines(report.findings, bundle, view))
    sections.append(
        [
            line
            for text in report.missing
            for line in hanging("MISSING  ", view.text(text), view.width)
        ]
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def on_a_node(attempt: ProbeAttempt) -> NodeRow:
    """Return the row of a client on a node, which is nobody's expectation."""
    seen = attempt.source_seen
    return NodeRow(
        attempt.target, f"on {attempt.node}", attempt.from_node, Endpoints(),
        Expectation(Answers.UNKNOWN, SourceFate.UNKNOWN, _NO_PROOF),
        int(attempt.outcome is AttemptOutcome.CONNECTED), int(attempt.outcome.conclusive),
        attempt.outcome, attempt.detail, attempt.how, attempt.seconds, SourceFate.UNKNOWN,
        (seen,) if seen is not None else (), None, Judgement.UNKNOWN, (), (attempt,),
    )  # fmt: skip


def _opening(report: ProbeReport, view: View) -> list[str]:
    word = HEADLINES[report.verdict]
    name = f"svc/{report.request.service}" + (": " if word == "unknown" else " ")
    head, rest = view.text(report.summary), ""
    if report.summary.startswith(name + word):
        rest = view.text(report.summary[len(name) + len(word) :])
        head = view.text(name) + Style(view.color).judgement(report.verdict, word)
    return [head + rest, *wrap(view.text(about(report)), view.width)]


def about(report: ProbeReport) -> str:
    """Return what the Service is, and what serves it."""
    by = f", served by {report.datapath}" if report.datapath else ""
    return f"{report.type}, externalTrafficPolicy {report.policy}{by}"


def title(target: ProbeTarget) -> str:
    """Return a target, and what it is called."""
    words = {TargetKind.EXTERNAL_IP: " (external IP)"}.get(target.kind, "")
    return target.title + (f" ({target.hostname})" if target.hostname else words)


def _listing(target: ProbeTarget, rows: list[NodeRow]) -> Listing[NodeRow]:
    return Listing(
        schema=SCHEMA,
        title=title(target),
        columns=cells.COLUMNS,
        rows=rows,
        evidence=lambda row: row.evidence,
        nothing="no node is known",
        notes=(),
        document={},
    )  # fmt: skip


def notes(report: ProbeReport) -> list[tuple[str, str]]:
    """Return notes on rows: the nodes of each, and its sentence."""
    nodes: dict[str, dict[str, None]] = {}
    for row in report.rows:
        for text in row.notes:
            nodes.setdefault(text, {})[row.node] = None
    if report.internal:
        nodes[_NO_PROOF] = {f"on {attempt.node}": None for attempt in report.internal}
    shown = []
    for text, found in nodes.items():
        shown.append((few(found, _NAMED), text))
    return shown


def _note_lines(report: ProbeReport, bundle: Bundle, view: View) -> list[str]:
    """Return the notes on rows, and below them those on the capture."""
    texts = [f"{label}: {text}" for label, text in notes(report)] + captured(bundle)
    return [line for text in texts for line in hanging("NOTE  ", view.text(text), view.width)]
