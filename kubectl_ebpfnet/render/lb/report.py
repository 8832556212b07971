"""`probe-lb`: the verdict, a row for each node, contradictions with their proof.

One table a target. JSON and YAML: docs/json.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.net import protocol_name
from kubectl_ebpfnet.model.probe import (
    POLICIES_SCHEMA,
    SCHEMA,
    Answers,
    AttemptOutcome,
    Endpoints,
    Expectation,
    How,
    Judgement,
    NodeRow,
    ProbeAttempt,
    ProbeReport,
    ProbeTarget,
    SourceFate,
    TargetKind,
)
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.render.lists import listing
from kubectl_ebpfnet.render.lists.listing import FORMATS, Column, Listing
from kubectl_ebpfnet.render.path.document import safe_text, sources
from kubectl_ebpfnet.render.text import findings
from kubectl_ebpfnet.render.text.style import Style, escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap

_HEADLINES = {
    Judgement.AS_ASKED: "behaves",
    Judgement.CONTRADICTED: "does not behave",
    Judgement.UNKNOWN: "unknown",
}
_VERDICTS = {
    Judgement.AS_ASKED: "ok",
    Judgement.CONTRADICTED: "wrong",
    Judgement.UNKNOWN: "unknown",
}
_OUTCOMES = {
    AttemptOutcome.CONNECTED: "answered",
    AttemptOutcome.REFUSED: "refused",
    AttemptOutcome.TIMEOUT: "timeout",
    AttemptOutcome.UNREACHABLE: "unreachable",
    AttemptOutcome.ICMP: "ICMP",
    AttemptOutcome.ERROR: "error",
    AttemptOutcome.NOT_TRIED: "not tried",
}
_SOURCES = {
    SourceFate.PRESERVED: "preserved",
    SourceFate.NODE: "node's",
    SourceFate.EITHER: "either",
    SourceFate.OTHER: "other",
    SourceFate.UNKNOWN: "unknown",
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
        format_name: of FORMATS.
        view: for table and wide.

    Raises:
        ValueError: no such format.
    """
    if format_name not in FORMATS:
        raise ValueError(f"no format {format_name!r}; there are {', '.join(FORMATS)}")
    if format_name in ("json", "yaml"):
        return safe_text(document(report, bundle), format_name)
    # As with kubectl, wide lines are never wrapped.
    shown = view if format_name == "table" else replace(view, width=0)
    return _text(report, bundle, format_name, shown)


def render_all(reports: Iterable[tuple[ProbeReport, Bundle]], format_name: str) -> str:
    """Return several answers in one document, as JSON or YAML."""
    values = {
        "schema": POLICIES_SCHEMA,
        "items": [document(report, bundle) for report, bundle in reports],
    }
    return safe_text(values, format_name)


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
        rows += [_on_a_node(a) for a in report.internal if a.target == target]
        shown = listing.render(_listing(target, rows), replace(bundle, note=""), format_name, view)
        sections.append(shown.rstrip("\n").split("\n"))
    sections.append([*_notes(report.rows, view), *_no_proof(report, view)])
    sections.append(findings.lines(report.findings, bundle, view))
    sections.append(
        [line for text in report.missing for line in hanging("MISSING  ", escape(text), view.width)]
    )
    if bundle.note:
        sections.append(["CAPTURE", *wrap(escape(bundle.note), view.width)])
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _on_a_node(attempt: ProbeAttempt) -> NodeRow:
    """Return the row of a client on a node, which is nobody's expectation."""
    seen = attempt.source_seen
    return NodeRow(
        attempt.target, f"on {attempt.node}", attempt.from_node, Endpoints(),
        Expectation(Answers.UNKNOWN, SourceFate.UNKNOWN, _NO_PROOF),
        int(attempt.outcome is AttemptOutcome.CONNECTED), int(attempt.outcome.conclusive),
        attempt.outcome, attempt.detail, attempt.how, attempt.seconds, SourceFate.UNKNOWN,
        (seen,) if seen is not None else (), None, Judgement.UNKNOWN, (), (attempt,),
    )  # fmt: skip


def _no_proof(report: ProbeReport, view: View) -> list[str]:
    """Return what the row of a client on a node is worth."""
    if not report.internal:
        return []
    names = ", ".join(dict.fromkeys(f"on {a.node}" for a in report.internal))
    return hanging("NOTE  ", escape(f"{names}: {_NO_PROOF}"), view.width)


def _opening(report: ProbeReport, view: View) -> list[str]:
    word = _HEADLINES[report.verdict]
    name = f"svc/{report.request.service}" + (": " if word == "unknown" else " ")
    head, rest = escape(report.summary), ""
    if report.summary.startswith(name + word):
        rest = escape(report.summary[len(name) + len(word) :])
        head = escape(name) + Style(view.color).judgement(report.verdict, word)
    by = f", served by {report.datapath}" if report.datapath else ""
    about = f"{report.type}, externalTrafficPolicy {report.policy}{by}"
    return [head + rest, *wrap(escape(about), view.width)]


def _listing(target: ProbeTarget, rows: list[NodeRow]) -> Listing[NodeRow]:
    words = {TargetKind.EXTERNAL_IP: " (external IP)"}.get(target.kind, "")
    named = f" ({target.hostname})" if target.hostname else words
    return Listing(
        schema=SCHEMA,
        title=f"{target.title}{named}",
        columns=(
            Column("NODE", lambda row: row.node, elastic=True),
            Column("READY", _ready, elastic=True),
            Column("EXPECTED", _expected, elastic=True),
            Column("GOT", _got, elastic=True),
            Column("SOURCE", _source),
            Column("HEALTH", _health, elastic=True, least=8),
            Column(
                "VERDICT", _verdict,
                paint=lambda row, text: Style(True).judgement(row.judgement, text),
            ),
            Column("FROM", lambda row: row.from_node, wide=True),
            Column("HOW", lambda row: row.how.value if row.how else "", wide=True),
            Column("ATTEMPTS", _attempts, wide=True),
            Column("SEEN", lambda row: ",".join(map(str, row.source_seen)), wide=True),
            Column("HTTP", _http, wide=True),
            Column("WHY", lambda row: row.expected.why, wide=True),
        ),
        rows=rows,
        evidence=lambda row: row.evidence,
        nothing="no node is known",
        notes=(),
        document={},
    )  # fmt: skip


def _source(row: NodeRow) -> str:
    if row.how is How.OWN_STACK or not (row.connected or row.source_seen):
        return ""
    return _SOURCES[row.source]


def _ready(row: NodeRow) -> str:
    """Return ready endpoints on the node, of all ready ones, and terminating ones on the node."""
    if row.how is How.OWN_STACK:
        return ""
    ends = row.endpoints
    text = f"{ends.local}/{ends.total}"
    return f"{text} (+{ends.local_terminating} terminating)" if ends.local_terminating else text


def _expected(row: NodeRow) -> str:
    wanted: Expectation = row.expected
    if row.how is How.OWN_STACK:
        return "internal"
    if wanted.excluded:
        return "excluded"
    if wanted.answers is Answers.YES and wanted.source is not SourceFate.UNKNOWN:
        return f"yes, {_SOURCES[wanted.source]}"
    return wanted.answers.value


def _got(row: NodeRow) -> str:
    time = f" {_milliseconds(row.seconds)}" if row.seconds is not None else ""
    if row.connected and row.connected < row.told:
        return f"{row.connected} of {row.told} answered{time}"
    word = _OUTCOMES[row.outcome]
    if row.outcome is AttemptOutcome.ICMP and row.detail:
        error = row.detail.partition(", ")[0]  # who said it is in the finding and in JSON
        return error if error.startswith("ICMP") else f"{word} {error}"
    return word + time


def _milliseconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _health(row: NodeRow) -> str:
    due, health = row.expected.health_status, row.health
    if health is None:
        return f"{due} due" if due is not None and not row.attempts else ""
    count = f" ({health.local_endpoints})" if health.local_endpoints is not None else ""
    text = f"{health.status}{count}" if health.status is not None else "none"
    got = 503 if health.status is None else health.status
    return text if due in (None, got) else f"{text}, {due} due"


def _verdict(row: NodeRow) -> str:
    """Return the row's verdict, in brackets where load-balancers leave the node out."""
    word = _VERDICTS[row.judgement]
    if row.how is How.OWN_STACK:
        return "none"
    return f"({word})" if row.expected.excluded else word


def _attempts(row: NodeRow) -> str:
    return f"{row.connected}/{row.told}" if row.attempts else ""


def _http(row: NodeRow) -> str:
    found = dict.fromkeys(a.http_status for a in row.attempts if a.http_status is not None)
    return ",".join(map(str, found))


def _notes(rows: Iterable[NodeRow], view: View) -> list[str]:
    """Return the rows' notes, one line for all nodes of a note."""
    nodes: dict[str, dict[str, None]] = {}
    for row in rows:
        for text in row.notes:
            nodes.setdefault(text, {})[row.node] = None
    lines = []
    for text, found in nodes.items():
        names = list(found)
        label = ", ".join(names[:_NAMED])
        label += f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines += hanging("NOTE  ", escape(f"{label}: {text}"), view.width)
    return lines
