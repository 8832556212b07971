"""Facts out of records: by the parser that the catalogue names, from the place that answered."""

from __future__ import annotations

import inspect
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet import model
from kubectl_ebpfnet.explain.views import records
from kubectl_ebpfnet.explain.views.netns import Netns
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import (
    InMemory,
    Place,
    Record,
    agent_place,
    bundle_of,
    node_place,
)
from kubectl_ebpfnet.model.fact import Fact, Form
from kubectl_ebpfnet.model.kernel import Route
from tests.parse import recorded, test_fuzz
from tests.parse.cilium import test_cilium_fuzz
from tests.parse.parse_samples import sample

AGENT, NODE = agent_place("n1"), node_place("n1")
ENTRY = sample("linux-6.18/netns/proc-net-nf-conntrack")
MODEL = Path(model.__file__).parent
FORMS = [(fact, form) for fact in q.FACTS for form in (*fact.asked, *fact.read)]


@pytest.mark.parametrize(("fact", "form"), FORMS, ids=lambda one: getattr(one, "argv", None))
def test_every_parser_is_there_and_takes_what_its_row_gives(fact: Fact[Any], form: Form) -> None:
    words: tuple[object, ...] = ("eth0", "ingress") if fact is q.TC_FILTERS else ()
    given = (b"", 1) if fact.by_flow else (b"", *words)
    inspect.signature(records.parser(form.parser)).bind(*given)


def bare(parser: Any) -> Any:
    """A fuzzed parser without its arguments, or without the loop over lines."""
    while isinstance(parser, partial):
        parser = parser.args[0] if parser.args else parser.func
    return parser


def test_every_parser_is_fuzzed() -> None:
    tables = (test_fuzz.PARSERS, test_cilium_fuzz.PARSERS)
    fuzzed = {bare(parser) for table in tables for parser, _ in table.values()}
    assert {form.parser for _, form in FORMS if records.parser(form.parser) not in fuzzed} == set()


def class_of(name: str) -> Any:
    """The class that a row of the table names, `Fact[Link]`, which it does not import."""
    word = q.__annotations__[name].removeprefix("Fact[").removesuffix("]")
    modules = (import_module(f"kubectl_ebpfnet.model.{path.stem}") for path in MODEL.glob("*.py"))
    simple = {"int": int, "str": str}
    return next((vars(each)[word] for each in modules if word in vars(each)), simple.get(word))


ROWS = {name: fact for name, fact in vars(q).items() if isinstance(fact, Fact)}


@pytest.mark.parametrize("name", [name for name, fact in ROWS.items() if fact.asked or fact.read])
def test_what_real_clusters_printed_is_of_the_class_of_its_row(name: str) -> None:
    fact, kind = ROWS[name], class_of(name)
    for _, found in recorded.records():
        if found.argv not in fact.answers or not found.ok:
            continue
        if fact.by_flow:
            facts = [line.fact for line in islice(records.matches(found, fact, (), {}), 50)]
        else:
            facts = list(records.parse(fact, found))
        assert all(isinstance(one, kind) for one in facts), found.command


def record(place: Place, argv: tuple[str, ...], stdout: bytes, code: int = 0) -> Record:
    return Record(0, place, argv, code, InMemory(stdout), b"no such file" if code else b"")


def netns(*parts: Record) -> Netns:
    return Netns(bundle_of(parts, "x.zip"), (AGENT, NODE))


def test_the_form_that_succeeded_is_parsed_by_its_own_parser() -> None:
    json, text, procfs = q.ROUTES.forms
    view = netns(
        record(AGENT, json, b"", 1),
        record(AGENT, text, b"", 127),
        record(AGENT, procfs, sample("linux-6.18/netns/proc-net-route")),
    )
    routes = view[q.ROUTES]
    assert routes.record is not None
    assert routes.record.argv == procfs
    assert all(isinstance(route, Route) for route in routes.facts)
    assert routes.facts
    assert view[q.ROUTES] is routes  # parsed once


def test_a_fact_that_stands_alone_is_a_table_of_one() -> None:
    view = netns(record(AGENT, q.VERSION.forms[0], b"Client: 1.16.3 x go version go1.22\n"))
    assert len(view[q.VERSION].facts) == 1


@pytest.mark.parametrize(("stdout", "code"), [(b"", 1), (b"{", 0)])
def test_the_next_place_answers_where_one_could_not(stdout: bytes, code: int) -> None:
    view = netns(
        record(AGENT, q.LINKS.forms[0], stdout, code),
        record(NODE, ("ip", "a"), sample("iproute2-6.1.0/netns/ip-addr")),
    )
    assert view[q.LINKS].record == view.bundle.records[1]


def test_a_long_table_is_read_at_the_next_place_where_one_could_not() -> None:
    view = netns(
        record(AGENT, q.CONNTRACK.forms[0], b"", 1),
        record(NODE, q.CONNTRACK.forms[0], ENTRY),
    )
    found = list(view.lines(q.CONNTRACK, ()))
    assert found
    state = view.table_state(q.CONNTRACK)
    assert state.known
    assert state.record is not None
    assert {one.record for line in found for one in line.evidence} == {state.record.number}


def test_a_table_that_was_read_nowhere_says_why() -> None:
    failed = netns(record(AGENT, q.CONNTRACK.forms[0], b"", 1))
    assert failed.table_state(q.CONNTRACK).missing == "exit code 1: no such file"
    assert list(failed.lines(q.CONNTRACK, ())) == []
    assert failed[q.RULES].missing == "the capture lacks `ip -j rule` of node n1"
    assert netns()[q.RULES].missing == "nothing is recorded of node n1"
    assert netns().table_state(q.RULES).missing == "nothing is recorded of node n1"
