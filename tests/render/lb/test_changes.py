"""`probe-lb --watch` tells what changed, and nothing that only differs from look to look."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from ipaddress import ip_address

from kubectl_ebpfnet.model.probe import (
    Answers,
    AttemptOutcome,
    Endpoints,
    Expectation,
    Judgement,
    NodeRow,
    ProbeReport,
    ProbeRequest,
    ProbeTarget,
    SourceFate,
    TargetKind,
)
from kubectl_ebpfnet.render.lb.changes import KEPT, Changes
from kubectl_ebpfnet.render.text.view import View

AT = datetime(2026, 11, 21, 10, 30, 5, tzinfo=UTC)
TARGET = ProbeTarget(TargetKind.INGRESS, ip_address("192.0.2.1"), 4, 80)


def row(node: str, outcome: AttemptOutcome, ready: int = 1, seconds: float = 0.1) -> NodeRow:
    answered = outcome is AttemptOutcome.CONNECTED
    return NodeRow(
        target=TARGET,
        node=node,
        from_node="other",
        endpoints=Endpoints(ready, 1),
        expected=Expectation(Answers.YES, SourceFate.PRESERVED, "why"),
        connected=int(answered),
        told=1,
        outcome=outcome,
        detail="",
        how=None,
        seconds=seconds,
        source=SourceFate.PRESERVED if answered else SourceFate.UNKNOWN,
        source_seen=(),
        health=None,
        judgement=Judgement.AS_ASKED,
    )


def report(*rows: NodeRow) -> ProbeReport:
    request = ProbeRequest("default", "web")
    return ProbeReport(
        request, "LoadBalancer", "Local", "", Judgement.AS_ASKED, "", (TARGET,), tuple(rows)
    )


def test_the_first_look_and_the_same_again_tell_nothing() -> None:
    changes = Changes()
    first = report(row("n1", AttemptOutcome.CONNECTED))
    slower = report(row("n1", AttemptOutcome.CONNECTED, seconds=0.9))
    assert changes.lines([first], AT) == []
    assert changes.lines([slower], AT) == []


def test_a_node_that_stops_answering_and_one_that_comes_are_told() -> None:
    changes = Changes()
    changes.lines([report(row("n1", AttemptOutcome.CONNECTED))], AT)
    later = report(row("n1", AttemptOutcome.TIMEOUT, ready=0), row("n2", AttemptOutcome.CONNECTED))
    assert changes.lines([later], AT) == [
        "CHANGED  10:30:05  n1 at 192.0.2.1:80/TCP: "
        "connected, source preserved, 1/1 ready → timeout, 0/1 ready",
        "CHANGED  10:30:05  n2 at 192.0.2.1:80/TCP: new, connected, source preserved, 1/1 ready",
    ]
    gone = changes.lines([report(row("n2", AttemptOutcome.CONNECTED))], AT)
    assert gone[-1] == "CHANGED  10:30:05  n1 at 192.0.2.1:80/TCP: no longer a node to probe"


def test_only_the_latest_stay_and_names_are_escaped() -> None:
    changes = Changes()
    node = dataclasses.replace(row("n1", AttemptOutcome.CONNECTED), node="n\x1b[2J")
    for number in range(2 * KEPT):
        outcome = AttemptOutcome.TIMEOUT if number % 2 else AttemptOutcome.CONNECTED
        said = changes.lines([report(dataclasses.replace(node, outcome=outcome))], AT)
    assert len(said) == KEPT
    assert all("\x1b" not in line for line in said)


def test_a_terminal_of_ascii_gets_no_arrow() -> None:
    changes = Changes()
    changes.lines([report(row("n1", AttemptOutcome.CONNECTED))], AT)
    (line,) = changes.lines([report(row("n1", AttemptOutcome.TIMEOUT))], AT, View(ascii=True))
    assert "1/1 ready -> timeout, 1/1 ready" in line
