"""Every fact's span is the place that the fact was read from, for every parser and every sample.

Parsers are found, not listed: each public function of `parse` that makes facts of bytes is tried
with everything that was ever recorded, be it its own command's output or another's. Take away the
places of all other facts, and this fact is still there; take away its own, and it is gone.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache, partial
from typing import Any

import pytest

from kubectl_ebpfnet import parse
from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.kube import KubeObjects
from kubectl_ebpfnet.model.untrusted import json_value
from tests.parse import recorded
from tests.parse.parse_samples import SAMPLES

Parser = Callable[[bytes], Any]

ARGUMENTS = {"filters": {"device": "eth0", "direction": "ingress"}}
"""What parsers are given beside the output."""
WITH_A_QUESTION = {"node_side.facts"}
"""They need the question too: tests/model/protocol/test_questions.py."""
PLAIN = {
    "cilium.maps.ip_masq",
    "cilium.maps.ip_masq_json",
    "cilium.policy.endpoints",
    "lookup.addresses",
    "lookup.nslookup",
    "tools.found",
}
"""Their facts are prefixes, numbers, addresses and words, without room for a place; nothing cites
them by one."""
FEW = 25
"""Facts of one output that are looked at: each costs two more parses."""
LONGEST = 60_000


def parsers() -> dict[str, Parser]:
    """Each parser of a whole output, by module and name."""
    found: dict[str, Parser] = {}
    for info in pkgutil.walk_packages(parse.__path__, "kubectl_ebpfnet.parse."):
        module = info.name.removeprefix("kubectl_ebpfnet.parse.")
        if module.rpartition(".")[2].startswith("_"):
            continue
        for name, function in inspect.getmembers(importlib.import_module(info.name)):
            if name.startswith("_") or getattr(function, "__module__", "") != info.name:
                continue
            if not inspect.isfunction(function) or f"{module}.{name}" in WITH_A_QUESTION | PLAIN:
                continue
            signature = inspect.signature(function)
            first = next(iter(signature.parameters.values()), None)
            made = str(signature.return_annotation)
            if first is None or (first.name, first.annotation) != ("data", "bytes"):
                continue
            if made.startswith("tuple[") or made in ("Ruleset", "KubeObjects"):
                found[f"{module}.{name}"] = partial(function, **ARGUMENTS.get(name, {}))
    return found


PARSERS = parsers()


@cache
def samples() -> tuple[bytes, ...]:
    """Everything that was recorded, each once."""
    found = {path.read_bytes() for path in SAMPLES.rglob("*") if path.is_file()}
    found |= {record.stdout.read() for _, record in recorded.records() if record.ok}
    return tuple(sorted(data for data in found if 0 < len(data) < LONGEST))


def facts_of(parser: Parser, data: bytes) -> list[Any]:
    """The facts of an output that have a place, () where it is no output of this parser's."""
    try:
        made = parser(data)
    except ParseError:
        return []
    if isinstance(made, tuple):
        return [*made]
    if isinstance(made, KubeObjects):  # no answer quotes the other kinds
        return [*made.pods, *made.services, *made.endpoints]
    return [*made.chains, *made.rules]


def inner(fact: Any) -> Iterator[Any]:
    """The facts in a fact that have a place of their own."""
    for name in (f.name for f in fields(fact)):
        members = getattr(fact, name)
        for member in members if isinstance(members, tuple) else ():
            if is_dataclass(member) and hasattr(member, "span"):
                yield member


def places(fact: Any) -> list[Span]:
    """The places of a fact and of the facts in it."""
    return [fact.span, *(member.span for member in inner(fact))]


def bare(fact: Any) -> Any:
    """A fact without its position among others."""
    for name in ("priority", "number"):
        fact = replace(fact, **{name: 0}) if hasattr(fact, name) else fact
    return fact


def items(spans: Iterable[Span]) -> set[Span]:
    """The places, each object widened to the innermost list's item that it is in."""
    found = set()
    for span in spans:
        path = list(span.path)
        while path and not isinstance(path[-1], int):
            path.pop()
        found.add(Span(span.line, span.last, tuple(path)))
    return found


def without(data: bytes, spans: set[Span]) -> bytes:
    """An output without some lines, or some objects of its JSON."""
    lines: list[bytes] = data.split(b"\n")
    documents: dict[tuple[int, int], list[Any]] = {}
    gone = {number for span in spans if not span.path for number in span.lines}
    for span in spans:
        if span.path:
            documents.setdefault((span.line, span.last), []).append(span.path)
    for (first, last), paths in sorted(documents.items(), reverse=True):
        value = json_value(b"\n".join(lines[max(0, first - 1) : last or None]), "sample")
        for path in sorted(paths, reverse=True):
            at = value
            for step in path[:-1]:
                at = at[step]
            del at[path[-1]]
        lines[max(0, first - 1) : last or None] = [json.dumps(value).encode()]
    return b"\n".join(text for number, text in enumerate(lines, 1) if number not in gone)


def check(parser: Parser, data: bytes, facts: list[Any]) -> None:
    """See that each fact, of some spread over the output, stands at its place and nowhere else."""
    everywhere = [items(places(fact)) for fact in facts]
    for index in range(0, len(facts), max(1, len(facts) // FEW)):
        fact, own = bare(facts[index]), everywhere[index]
        assert facts[index].span != NOWHERE
        others = {span for spans in everywhere if spans.isdisjoint(own) for span in spans}
        alone = [bare(one) for one in facts_of(parser, without(data, others))]
        assert fact in alone, (fact, without(data, others))
        rest = [bare(one) for one in facts_of(parser, without(data, own))]
        assert rest.count(fact) < [bare(one) for one in facts].count(fact), (fact, own)
        for member in inner(facts[index]):
            left = facts_of(parser, without(data, items([member.span])))
            counts = [
                [m for one in found for m in inner(one)].count(member) for found in (left, facts)
            ]
            assert counts[0] < counts[1], member


@pytest.mark.parametrize("name", PARSERS)
def test_a_fact_stands_where_its_span_says(name: str) -> None:
    parser, made = PARSERS[name], 0
    for data in samples():
        facts = facts_of(parser, data)
        made += len(facts)
        check(parser, data, facts)
    assert made, f"{name} has no sample"


def test_the_parsers_are_found() -> None:
    assert {"iproute.link.links", "cilium.policy.entries", "kube.objects"} <= PARSERS.keys()
    assert len(PARSERS) > 25
