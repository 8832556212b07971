"""The cells of `probe-lb`: what a node should do and did, a few words each."""

from __future__ import annotations

from kubectl_ebpfnet.model.probe import (
    Answers,
    AttemptOutcome,
    Expectation,
    How,
    Judgement,
    NodeRow,
    SourceFate,
)
from kubectl_ebpfnet.render.lists.listing import Column
from kubectl_ebpfnet.render.text.style import Style

_VERDICTS = {
    Judgement.AS_ASKED: "ok",
    Judgement.CONTRADICTED: "MISMATCH",
    Judgement.UNKNOWN: "unknown",
}
OUTCOMES = {
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


def expected(row: NodeRow) -> str:
    """Return whether the node should answer, and what should become of the client's address."""
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
    word = OUTCOMES[row.outcome]
    if row.outcome is AttemptOutcome.ICMP and row.detail:
        error = row.detail.partition(", ")[0]  # who said it is in the finding and in JSON
        return error if error.startswith("ICMP") else f"{word} {error}"
    return word + time


def _milliseconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _health(row: NodeRow) -> str:
    due, health = row.expected.health_status, row.health
    if health is None:
        return f"want {due}" if due is not None and not row.attempts else ""
    count = f" ({health.local_endpoints})" if health.local_endpoints is not None else ""
    text = f"{health.status}{count}" if health.status is not None else "none"
    got = 503 if health.status is None else health.status
    return text if due in (None, got) else f"{text}, not {due}"


def _verdict(row: NodeRow) -> str:
    """Return the row's verdict; that of an excluded node, as EXPECTED says, does not count."""
    return "none" if row.how is How.OWN_STACK else _VERDICTS[row.judgement]


def _attempts(row: NodeRow) -> str:
    return f"{row.connected}/{row.told}" if row.attempts else ""


def _http(row: NodeRow) -> str:
    found = dict.fromkeys(a.http_status for a in row.attempts if a.http_status is not None)
    return ",".join(map(str, found))


COLUMNS: tuple[Column[NodeRow], ...] = (
    Column("NODE", lambda row: row.node, elastic=True, least=10),
    Column("READY", _ready, elastic=True),
    Column("EXPECTED", expected, elastic=True),
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
)  # fmt: skip
