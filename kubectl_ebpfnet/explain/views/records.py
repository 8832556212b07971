"""Reads a fact of places: chooses the record that holds it, and parses that.

A missing answer carries the reason, in words that a hop can show.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer, FactLine
from kubectl_ebpfnet.model.catalogue import best_record
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import LIVE, Bundle, Place, Record
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.matching import matching_lines
from kubectl_ebpfnet.model.protocol.questions import PROGRAM
from kubectl_ebpfnet.parse import node_side

T = TypeVar("T")

_PARSERS = "kubectl_ebpfnet.parse"


_OF_AN_EVENT = (
    "time", "verdict", "drop_reason_desc", "traffic_direction", "IP", "l4", "node_name",
)  # fmt: skip
"""Members of hubble's flow that are quoted (api/v1/flow/flow.proto)."""
_LONGEST_UNREAD = 1000
"""Bytes of a line that cannot be parsed which are kept."""


@dataclass(frozen=True, slots=True)
class UnreadLine:
    """A line of a table that could not be parsed: its text, and why."""

    text: str
    problem: str


@cache
def parser(name: str) -> Callable[..., Any]:
    """Return the parser that a row of the catalogue names, such as `iproute.links`."""
    module, _, function = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"{_PARSERS}.{module}"), function)
    return found


def parse(fact: Fact[T], record: Record) -> tuple[T, ...]:
    """Return the facts of a record. Raises ParseError when its output is malformed."""
    if node_side.is_node_question(record.argv):
        return node_side.facts(record.stdout.read(), record.argv)
    found = parser(fact.parser(record.argv))(record.stdout.read(), *fact.words)
    return found if isinstance(found, tuple) else (found,)  # a ruleset, a version: one fact


def answer(bundle: Bundle, places: Sequence[Place], fact: Fact[T]) -> Answer[T]:
    """Return the parsed answer of the first place that has one.

    Args:
        bundle: all records.
        places: in order of preference.
        fact: of the catalogue.
    """
    missing = ""
    failed = None
    for record in _records(bundle, places, fact):
        if not record.ok:
            missing = missing or record.why_not()
            failed = failed or record
            continue
        try:
            return Answer(parse(fact, record), record)
        except ParseError as error:
            missing, failed = str(error), record
    return Answer((), failed, missing or _never_asked(bundle, places, fact))


def state(bundle: Bundle, places: Sequence[Place], fact: Fact[Any]) -> Answer[None]:
    """Return an answer without facts: which record holds a table, read or not, and why not.

    Args:
        bundle: all records.
        places: in order of preference.
        fact: of the catalogue.
    """
    records = list(_records(bundle, places, fact))
    if not records:
        return Answer((), None, _never_asked(bundle, places, fact))
    record = next((record for record in records if record.ok), records[0])
    return Answer((), record, record.why_not())


def matches(
    record: Record, fact: Fact[T], needles: Sequence[str], unread: dict[int, UnreadLine]
) -> Iterator[FactLine[T]]:
    """Yield the facts of a table that grows with traffic.

    Args:
        record: holds the table.
        fact: of the catalogue, with `by_flow`.
        needles: a line has any of these strings; every line does when empty.
        unread: takes each line that cannot be parsed, by its number.
    """
    of_node = node_side.is_node_question(record.argv)
    read = None if of_node else parser(fact.parser(record.argv))
    for number, line in matching_lines(record.stdout, [needle.encode() for needle in needles]):
        try:
            entry = read(line, number) if read else node_side.fact(line, number, record.argv)
        except ParseError as error:
            text = line[:_LONGEST_UNREAD].decode("utf-8", "replace")
            unread[number] = UnreadLine(text, error.problem)
            continue
        if entry is not None:
            keep = _OF_AN_EVENT if record.argv[0] == "hubble" else ()
            text = line.decode("utf-8", "replace")
            yield FactLine(entry, cite.line(record, number, text, keep))


def _records(bundle: Bundle, places: Sequence[Place], fact: Fact[Any]) -> Iterator[Record]:
    for place in places:
        record = best_record(bundle, place, fact)
        if record is not None:
            yield record


def _never_asked(bundle: Bundle, places: Sequence[Place], fact: Fact[Any]) -> str:
    for place in places:
        for record in bundle.at(place):
            if not record.ran and record.error:
                return record.error
    if not any(bundle.at(place) for place in places):
        return f"nothing is recorded of {places[-1] if places else 'any place'}"
    argv, live = (fact.forms or fact.answers)[0], bundle.source == LIVE
    if argv[0] == PROGRAM:  # the node side's own words, which nobody can type
        what = f"the {' '.join(argv[1:])} of {places[-1]}"
        if live:
            return f"nobody was asked for {what}, which a node pod alone reads"
        return f"the capture lacks {what}: `capture --node-access pod` records them"
    command = f"`{' '.join(argv)}` of {places[-1]}"
    return f"{command} was not asked for" if live else f"the capture lacks {command}"
