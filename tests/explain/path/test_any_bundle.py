"""Whatever of a recorded cluster is missing, cut off or failed, there is an answer with a verdict.

Nothing but the tool's own errors may come out of `explain`, and every way of showing an answer
must be able to show what did.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.errors import EbpfnetError, ParseError
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, PlaceKind, Record, bundle_of
from kubectl_ebpfnet.model.path import Path, State, Verdict
from kubectl_ebpfnet.render.path.formats import render
from kubectl_ebpfnet.render.text.view import View
from tests.explain.path.changed import NATIVE, POLICY, SCENARIOS, VXLAN, ask

pytestmark = pytest.mark.variants
ASKED = [
    (VXLAN, "client", "1.1.1.1:80", "tcp"),
    (VXLAN, "client", "9.9.9.9", "tcp"),
    (VXLAN, "client", "1.1.1.1", "icmp"),
    (VXLAN, "client", "pod/web:8080", "tcp"),
    (VXLAN, "web", "pod/client:9999", "udp"),
    (VXLAN, "client", "svc/web:80", "tcp"),
    (VXLAN, "client", "172.30.0.12:32479", "tcp"),
    (VXLAN, "client", "node/node1", "icmp"),
    (POLICY, "client", "1.1.1.1:443", "tcp"),
    (NATIVE, "client", "1.1.1.1:80", "tcp"),
    (NATIVE, "client", "9.9.9.9:53", "udp"),
    (NATIVE, "client", "pod/web:8080", "tcp"),
    (NATIVE, "client", "svc/web", "tcp"),
    ("tp06", "tp06", "1.0.0.1:80", "tcp"),
]
FORMS = ("table", "wide", "json", "mermaid", "html")
FAILURES = ["", "sh: ip: not found", "Error: cannot connect to the agent\nsecond line"]


@cache
def recorded(scenario: str) -> tuple[Record, ...]:
    """Records in memory, so that reading the file is not measured again and again."""
    records = open_bundle(SCENARIOS / scenario).records
    return tuple(replace(record, stdout=InMemory(record.stdout.read())) for record in records)


@cache
def in_full(scenario: str, source: str, destination: str, protocol: str) -> Verdict:
    """The verdict by everything that is recorded."""
    return ask(bundle_of(recorded(scenario), scenario), source, destination, protocol).verdict


class Noted:
    """An output that knows whether it was read."""

    def __init__(self, data: bytes) -> None:
        self._output = InMemory(data)
        self.was_read = False

    def read(self) -> bytes:
        self.was_read = True
        return self._output.read()

    def chunks(self) -> Iterator[bytes]:
        self.was_read = True
        return self._output.chunks()


@cache
def read(scenario: str, source: str, destination: str, protocol: str) -> tuple[bool, ...]:
    """Which of the recorded outputs an answer is made of; the others cannot change it."""
    outputs = [Noted(record.stdout.read()) for record in recorded(scenario)]
    pairs = zip(recorded(scenario), outputs, strict=True)
    bundle = bundle_of([replace(record, stdout=out) for record, out in pairs], scenario)
    assert answered_somehow(bundle, source, destination, protocol)
    return tuple(out.was_read for out in outputs)


def damaged(record: Record, how: str, cut: int, failure: str) -> Record:
    """A record as a broken pod, agent, connection or file leaves it."""
    data = record.stdout.read()
    if how == "truncated":
        return replace(record, stdout=InMemory(data[: cut % (len(data) + 1)]))
    if how == "garbled":
        at = cut % (len(data) + 1)
        return replace(record, stdout=InMemory(data[:at] + b"\xff\x00[{" + data[at + 3 :]))
    if how == "failed":
        return replace(record, stdout=InMemory(), stderr=failure.encode(), exit_code=127)
    return replace(
        record, stdout=InMemory(), exit_code=None, error="the connection broke", denied="create x"
    )


def answered_somehow(bundle: Bundle, source: str, destination: str, protocol: str) -> Path | None:
    """The answer, checked for what every answer must have; None where there is an own error."""
    try:
        path = ask(bundle, source, destination, protocol)
    except EbpfnetError:
        return None
    assert path.verdict in list(Verdict)
    assert path.reason
    assert [hop.number for hop in path.hops] == list(range(1, len(path.hops) + 1))
    # Behind a hop that may send it elsewhere, a hop that drops it does not decide.
    back = path.answer.hops if path.answer is not None else ()
    assert path.verdict != Verdict.DROPPED or any(hop.drops for hop in (*path.hops, *back))
    for hop in path.hops:
        assert bool(hop.reason) == (hop.state is State.UNKNOWN), hop
    for piece in [e for x in (*path.hops, *path.findings) for e in x.evidence]:
        assert bundle.numbered(piece.record) is not None
    # One form of each answer, by the number of its hops; `make fuzz` and the scenarios show all.
    some = len(path.hops) % len(FORMS)
    for form in FORMS if os.environ.get("EVERY_VARIANT") else FORMS[some : some + 1]:
        assert render(path, bundle, form, View(width=0, color=False, evidence=True))
    return path


@pytest.mark.parametrize(("scenario", "source", "destination", "protocol"), ASKED)
@given(chance=st.randoms(use_true_random=False), share=st.integers(1, 9))
def test_any_records_may_be_missing(
    scenario: str, source: str, destination: str, protocol: str, chance: Random, share: int
) -> None:
    kept = [record for record in recorded(scenario) if chance.randrange(10) >= share]
    path = answered_somehow(bundle_of(kept, scenario), source, destination, protocol)
    # What is not known is never a reason to say that a packet is dropped.
    if path is not None and path.verdict is Verdict.DROPPED:
        assert in_full(scenario, source, destination, protocol) is Verdict.DROPPED, path.reason


@pytest.mark.parametrize(("scenario", "source", "destination", "protocol"), ASKED)
@given(
    chance=st.randoms(use_true_random=False),
    how=st.sampled_from(["truncated", "garbled", "failed", "not run"]),
    share=st.sampled_from([0.02, 0.2, 0.7]),
    failure=st.sampled_from(FAILURES),
)
def test_any_records_may_be_damaged(
    scenario: str,
    source: str,
    destination: str,
    protocol: str,
    chance: Random,
    how: str,
    share: float,
    failure: str,
) -> None:
    hit = [chance.random() < share for _ in recorded(scenario)]
    cut = chance.randrange(1 << 20)
    records = [
        damaged(r, how, cut, failure) if it else r
        for r, it in zip(recorded(scenario), hit, strict=True)
    ]
    answered_somehow(bundle_of(records, scenario), source, destination, protocol)


@pytest.mark.parametrize(("scenario", "source", "destination", "protocol"), ASKED)
def test_each_place_may_say_nothing(
    scenario: str, source: str, destination: str, protocol: str
) -> None:
    places = {r.place for r in recorded(scenario) if r.place.kind is not PlaceKind.API}
    for place in places:
        if place.pod == source and scenario == "tp06":
            continue  # no Pod object is recorded there: the pod's own commands are all there is
        kept = [r for r in recorded(scenario) if r.place != place]
        assert answered_somehow(bundle_of(kept, scenario), source, destination, protocol)


@pytest.mark.parametrize(("scenario", "source", "destination", "protocol"), ASKED)
def test_each_command_may_be_missing(
    scenario: str, source: str, destination: str, protocol: str
) -> None:
    """One command at a time, everywhere: what is asked only once must not be taken for granted.
    All that are never read are missing at the same time."""
    asked = (scenario, source, destination, protocol)
    commands = {r.argv for r in recorded(scenario) if r.place.kind is not PlaceKind.API}
    used = {r.argv for r, it in zip(recorded(scenario), read(*asked), strict=True) if it}
    for missing in (commands - used, *({argv} for argv in commands & used)):
        kept = [r for r in recorded(scenario) if r.argv not in missing]
        path = answered_somehow(bundle_of(kept, scenario), source, destination, protocol)
        assert path is not None
        if path.verdict is Verdict.DROPPED or not missing & used:
            assert in_full(*asked) is path.verdict, missing


class TooLong(InMemory):
    """An output that is too long to be read whole, as one of a capture or a spool."""

    def read(self) -> bytes:
        raise ParseError("the output", 0, "too many bytes to be read whole")


@pytest.mark.parametrize(
    ("scenario", "source", "destination", "protocol"), [ASKED[0], ASKED[5], ASKED[12], ASKED[13]]
)
def test_each_output_may_be_too_long(
    scenario: str, source: str, destination: str, protocol: str
) -> None:
    """One output at a time; a record that nobody can read whole must not end the run."""
    records = recorded(scenario)
    used = read(scenario, source, destination, protocol)
    for number, record in enumerate(records):
        if record.place.kind is PlaceKind.API or not used[number]:
            continue
        long = replace(record, stdout=TooLong(record.stdout.read()))
        bundle = bundle_of([*records[:number], long, *records[number + 1 :]], scenario)
        path = answered_somehow(bundle, source, destination, protocol)
        assert path is not None
        if path.verdict is Verdict.DROPPED:
            assert in_full(scenario, source, destination, protocol) is Verdict.DROPPED, record.argv
