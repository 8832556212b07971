"""Recorded clusters with one thing changed: what a fault would have made the commands print."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Place, Record, bundle_of
from kubectl_ebpfnet.model.path import Finding, Hop, Severity
from kubectl_ebpfnet.model.path import Path as Answer

SCENARIOS = Path(__file__).parents[2] / "scenarios"
VXLAN, NATIVE, POLICY = "vxlan-kpr", "native-iptables", "vxlan-kpr-egress-policy"

Change = Callable[[Record], Record | None]

opened = cache(open_bundle)
"""A capture, kept open: one that a collected walk held last is closed in no order, which warns."""


def swap(at: str, command: str, old: str, new: str) -> Change:
    """Replace text in what a command printed at a place; the text must be there.

    Args:
        at: `pod`, or the node whose agent was asked; "" for the API.
        command: the argv as one line.
    """

    def change(record: Record) -> Record:
        if not _is(record, at, command):
            return record
        said = record.stdout.read().decode()
        assert old in said, f"{command} at {at} does not say {old!r}"
        return replace(record, stdout=InMemory(said.replace(old, new).encode()))

    return change


def say(at: str, command: str, stdout: str) -> Change:
    """A command printed something else altogether."""

    def change(record: Record) -> Record:
        return (
            replace(record, stdout=InMemory(stdout.encode()))
            if _is(record, at, command)
            else record
        )

    return change


def fail(at: str, command: str, stderr: str = "", exit_code: int = 1) -> Change:
    """A command printed nothing and failed; "" for every command of the place."""

    def change(record: Record) -> Record:
        if not _is(record, at, command):
            return record
        return replace(record, stdout=InMemory(), stderr=stderr.encode(), exit_code=exit_code)

    return change


def without(at: str, command: str = "") -> Change:
    """A command, or with "" a place, was never asked."""

    def change(record: Record) -> Record | None:
        return None if _is(record, at, command) else record

    return change


def _is(record: Record, at: str, command: str) -> bool:
    place = record.place
    here = place.pod or place.node if at else str(place.kind)
    return here == (at or "api") and command in ("", record.command)


def changed(scenario: str, *changes: Change, more: tuple[Record, ...] = ()) -> Bundle:
    """A recorded cluster with the changes, each of which must change something."""
    records = list(opened(SCENARIOS / scenario).records)
    for change in changes:
        after = [change(record) for record in records]
        assert any(one is not two for one, two in zip(records, after, strict=True))
        records = [record for record in after if record is not None]
    return bundle_of([*records, *more], scenario)


def could_not(place: Place, error: str, denied: str = "") -> Record:
    """The record of a place that could not be asked, as collect writes it."""
    return Record(0, place, ("exec",), None, error=error, denied=denied)


def ask(bundle: Bundle, source: str, destination: str, protocol: str = "tcp") -> Answer:
    """The answer to a command line."""
    there = arguments.destination(destination)
    number = arguments.protocol(protocol, there)
    path = explain(
        arguments.request(arguments.source(source), there, number, "default", ""), bundle
    )
    agree(path.verdict, [one.title for one in path.findings if one.severity is Severity.ERROR])
    return path


_BESIDE = {
    # What is missing there, or has no room, is an error for packets that need it; this one's own
    # entry is there, or its way needs no such program.
    r"no program of Cilium's is attached at ": "the packet does not need it",
    r"cil_xdp_entry is not attached at ": "cil_from_netdev balances in its place",
    r"^nodes \S+ and \S+ give pods addresses of ": "it may be given twice; none is yet",
    r"Cilium's .* is full: ": "the map has the packet's own entry, and may lack others",
}
"""Titles of errors that may stand beside a verdict that lets the packet through, and why."""


def agree(verdict: str, errors: list[str]) -> None:
    """Hold that no error contradicts a verdict: an error breaks the path, so a path that is shown
    as open has none on it."""
    if verdict in ("reachable", "leaves"):
        others = [
            title for title in errors if not any(re.search(known, title) for known in _BESIDE)
        ]
        assert not others, f"{verdict} beside {others}"


def dropped_at(path: Answer) -> Hop:
    """The hop at which the packet ends."""
    assert path.verdict == "dropped", path.reason
    (hop,) = [hop for hop in path.hops if hop.drops]
    assert hop is path.hops[-1]
    assert path.reason.startswith(f"dropped at hop {hop.number}")
    return hop


def finding(path: Answer, words_: str) -> Finding:
    """The finding whose title has these words."""
    hits = [one for one in path.findings if words_ in one.title]
    assert hits, [one.title for one in path.findings]
    return hits[0]
