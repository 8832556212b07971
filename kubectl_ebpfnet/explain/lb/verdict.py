"""From rows to a verdict: observation against expectation, and the summary line."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kube import Service
from kubectl_ebpfnet.model.net import UDP
from kubectl_ebpfnet.model.probe import Answers, Judgement, NodeRow, SourceFate

_NAMED = 3
"""Nodes that the summary names."""


def of_row(row: NodeRow, silence_counts: bool = True) -> Judgement:
    """Judge a row as a whole: any contradiction, else whether the node answered as it should."""
    parts = (answer_judgement(row, silence_counts), source_judgement(row), health_judgement(row))
    if Judgement.CONTRADICTED in parts:
        return Judgement.CONTRADICTED
    return parts[0]


def answer_judgement(row: NodeRow, silence_counts: bool = True) -> Judgement:
    """Judge whether the node answered as it should.

    Args:
        row: one node and one target.
        silence_counts: NodeContext.silence_counts of the row.
    """
    wanted = row.expected.answers
    if not row.told or wanted is Answers.UNKNOWN:
        return Judgement.UNKNOWN
    if wanted is Answers.NO and serves(row):
        return Judgement.CONTRADICTED
    if row.silent and not silence_counts:
        return Judgement.UNKNOWN
    if wanted is Answers.NO:
        return Judgement.AS_ASKED
    return Judgement.AS_ASKED if row.connected == row.told else Judgement.CONTRADICTED


def serves(row: NodeRow) -> bool:
    """Tell whether the node was seen to serve: it answers, or forwards UDP to an endpoint."""
    return bool(row.connected or (row.target.protocol == UDP and row.sent_on))


def source_judgement(row: NodeRow) -> Judgement:
    """Judge whether the client's address reached the backend as expected.

    An address that is preserved where it need not be is better than expected. Preserved for some
    attempts and not for others, where a single rule should hold for all, is undecided.
    """
    wanted, seen = row.expected.source, row.source
    if SourceFate.UNKNOWN in (wanted, seen):
        return Judgement.UNKNOWN
    if wanted is SourceFate.NODE and seen is SourceFate.EITHER:
        return Judgement.UNKNOWN
    if seen in (wanted, SourceFate.PRESERVED):
        return Judgement.AS_ASKED
    if wanted is SourceFate.EITHER and seen is SourceFate.NODE:
        return Judgement.AS_ASKED
    return Judgement.CONTRADICTED


def health_judgement(row: NodeRow) -> Judgement:
    """Judge whether the health check's status is as expected; no answer counts as 503, since it
    keeps load-balancers away as well."""
    if row.health is None or row.expected.health_status is None:
        return Judgement.UNKNOWN
    got = 503 if row.health.status is None else row.health.status
    return Judgement.AS_ASKED if got == row.expected.health_status else Judgement.CONTRADICTED


def of_rows(rows: Sequence[NodeRow]) -> Judgement:
    """Judge all rows of nodes that load-balancers use."""
    judgements = {row.judgement for row in rows if not row.expected.excluded}
    if Judgement.CONTRADICTED in judgements:
        return Judgement.CONTRADICTED
    return Judgement.AS_ASKED if judgements == {Judgement.AS_ASKED} else Judgement.UNKNOWN


def summary(
    service: Service, rows: Sequence[NodeRow], verdict: Judgement, *, dry_run: bool = False
) -> str:
    """Return the verdict in words, one line: the Service's name, then the words that render
    colours.

    Args:
        service: the Service.
        rows: of all targets and nodes.
        verdict: of all rows.
        dry_run: the rows are a plan, nothing was sent.
    """
    policy = f"externalTrafficPolicy {service.external_traffic_policy or 'Cluster'}"
    used = [row for row in rows if not row.expected.excluded]
    total = len({row.node for row in used})
    # A node counts for the worst of its rows.
    bad = list(dict.fromkeys(row.node for row in used if row.judgement is verdict))
    out = {row.node for row in rows if row.expected.excluded}
    rest = f" ({len(out)} more excluded from load-balancers)" if out else ""
    match verdict:
        case Judgement.AS_ASKED:
            text = f"behaves as {policy} asks on {total} of {total} nodes"
        case Judgement.CONTRADICTED:
            text = f"does not behave as {policy} asks on {len(bad)} of {total} nodes"
            text += f": {few(bad, _NAMED)}"
        case _:
            if dry_run:
                # The policy stands in the line below.
                return f"svc/{service.name}: dry run: expected results for {total} nodes{rest}"
            text = f"unknown whether it behaves as {policy} asks"
            if any(row.told for row in used):
                text += f" on {len(bad)} of {total} nodes: {few(bad, _NAMED)}"
            else:
                text += f": nothing was seen of {total} nodes"
            return f"svc/{service.name}: {text}{rest}"
    return f"svc/{service.name} {text}{rest}"
