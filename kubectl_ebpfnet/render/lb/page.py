"""`-o html` of `probe-lb`: what each node did beside what it should, and who asked whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.net import Address, endpoint_text
from kubectl_ebpfnet.model.probe import (
    AttemptOutcome,
    Judgement,
    NodeRow,
    ProbeAttempt,
    ProbeReport,
)
from kubectl_ebpfnet.render.html import page as html
from kubectl_ebpfnet.render.html.elements import Html, joined, tag
from kubectl_ebpfnet.render.html.picture import mark
from kubectl_ebpfnet.render.html.proof import findings, proofs
from kubectl_ebpfnet.render.lb import cells
from kubectl_ebpfnet.render.lb import report as text

_TONES = {
    Judgement.AS_ASKED: "good",
    Judgement.CONTRADICTED: "bad",
    Judgement.UNKNOWN: "open",
}
_MARKS = {
    Judgement.AS_ASKED: ("✓", "as asked"),
    Judgement.CONTRADICTED: ("✗", "not as asked"),
    Judgement.UNKNOWN: ("?", "not known"),
}


def page(reports: Sequence[tuple[ProbeReport, Bundle]]) -> str:
    """Return answers of one run as an HTML document.

    Args:
        reports: each with the bundle that proves it.
    """
    first = reports[0][0]
    title = f"{text.HEADLINES[first.verdict]}: svc/{first.request.service}"
    return html.page(title, *(_report(report, bundle) for report, bundle in reports))


def _report(report: ProbeReport, bundle: Bundle) -> Html:
    sections = [_opening(report)]
    for target in report.targets:
        rows = [row for row in report.rows if row.target == target]
        rows += [text.on_a_node(a) for a in report.internal if a.target == target]
        sections.append(
            html.section(
                text.title(target),
                _matrix(rows),
                tag("h3", "Who asked whom"),
                *(_asked(row, bundle) for row in rows),
            )
        )
    notes = [tag("li", tag("b", label), f": {note}") for label, note in text.notes(report)]
    sections += [
        html.section("Notes", tag("ul", *notes)) if notes else Html(),
        findings(report.findings, bundle),
        _missing(report),
        html.origin(bundle, __version__),
    ]
    return joined(*sections)


def _opening(report: ProbeReport) -> Html:
    named = f"svc/{report.request.service} in {report.request.namespace}"
    about = tag("p", text.about(report), class_="note")
    word = text.HEADLINES[report.verdict].upper()
    return html.opening(word, _TONES[report.verdict], named, tag("p", report.summary), about)


def _missing(report: ProbeReport) -> Html:
    rows = [tag("li", each) for each in report.missing]
    return html.section("Not looked at", tag("ul", *rows)) if rows else Html()


def _matrix(rows: Sequence[NodeRow]) -> Html:
    """Return the table of `-o table`; on a phone each row is a card."""
    columns = [column for column in cells.COLUMNS if not column.wide]
    head = tag("tr", *(tag("th", column.header, scope="col") for column in columns))
    body = []
    for row in rows:
        inside = [tag("th", row.node, scope="row")]
        for column in columns[1:]:
            shown = tag("span", column.cell(row) or "-")
            inside.append(tag("td", shown, data_label=column.header))
        body.append(tag("tr", *inside, class_=_TONES[row.judgement]))
    if not body:
        return tag("p", "No node is known.")
    return tag("table", tag("thead", head), tag("tbody", *body))


def _asked(row: NodeRow, bundle: Bundle) -> Html:
    """Return who sent to the node, and whom it sent to; opened, why, and the proof."""
    sign, words = _MARKS[row.judgement]
    chains = list(_chains(row))
    summary = tag("summary", mark(sign, words), tag("span", *chains, class_="chains"))
    why = [row.expected.why, row.expected.source_why, row.expected.excluded]
    inside = [
        html.said(
            ("Expected", "; ".join(part for part in why if part)),
            ("Node", row.detail),
            ("Health check", row.health.error if row.health is not None else ""),
            ("Cautions", "; ".join(row.expected.cautions)),
        ),
        _answers(row),
        proofs(row.evidence, bundle) or tag("p", "No record of its own."),
    ]
    return tag("details", summary, *inside, class_=f"box ask {_look(row.judgement)}")


def _look(judgement: Judgement) -> str:
    looks = {Judgement.AS_ASKED: "seen", Judgement.CONTRADICTED: "dropped"}
    return looks.get(judgement, "unknown")


def _answers(row: NodeRow) -> Html:
    """Return what answers said, each once."""
    bodies = dict.fromkeys(attempt.body for attempt in row.attempts if attempt.body)
    return html.said(*(("Answer", tag("code", body)) for body in bodies))


def _chains(row: NodeRow) -> Iterator[Html]:
    """Yield sender → node → backend for each way that attempts went."""
    alike = Counter(map(_shape, row.attempts))
    for attempt in row.attempts:
        times = alike.pop(_shape(attempt), 0)
        if times:
            yield _chain(attempt, times)
    if not row.attempts:
        yield _line(
            _end("a client outside"), _arrow("not sent"), _end(row.node), _arrow("expected"),
            _end(cells.expected(row)),
        )  # fmt: skip


def _shape(attempt: ProbeAttempt) -> tuple[object, ...]:
    return (
        attempt.from_node, attempt.outcome, attempt.backend, attempt.source_seen,
        attempt.destination, attempt.how,
    )  # fmt: skip


def _chain(attempt: ProbeAttempt, times: int) -> Html:
    sent = f"{_ended(attempt.source, attempt.source_port)} → " + _ended(
        attempt.destination, attempt.destination_port
    )
    parts = [_end(f"{attempt.from_node or 'nobody'}"), _arrow(sent), _end(attempt.node)]
    if attempt.backend is not None or attempt.source_seen is not None:
        seen = _ended(attempt.source_seen, attempt.source_seen_port)
        parts += [_arrow(f"from {seen}"), _end(f"backend {attempt.backend or 'not known'}")]
    result = cells.OUTCOMES[attempt.outcome]
    if attempt.outcome is AttemptOutcome.ICMP and attempt.detail:
        result = attempt.detail
    parts.append(tag("b", f"{result}{f' × {times}' if times > 1 else ''}", class_="result"))
    return _line(*parts)


def _ended(address: Address | None, port: int | None) -> str:
    return endpoint_text(address, port) if address is not None else "not known"


def _line(*parts: Html) -> Html:
    return tag("span", *parts, class_="chain")


def _end(name: str) -> Html:
    return tag("span", name, class_="end")


def _arrow(label: str) -> Html:
    return tag("span", tag("code", label), class_="arrow")
