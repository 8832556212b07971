"""`nft -j list ruleset`: tables, chains, rules and sets of nftables.

A rule keeps every statement as it was printed; what it means is decided by explain/kernel/nft.py.

Sources: libnftables-json(5), nftables' src/json.c (chain_print_json, rule_print_json,
set_print_json). Verified with nftables 1.0.6 and 1.1.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as members
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.nft import NftChain, NftRule, NftRuleset, NftSet
from kubectl_ebpfnet.parse._text import json_integer, json_objects, json_text, json_value, quoted

_SOURCE = "nft"
_Table = tuple[str, str]


def ruleset(data: bytes) -> NftRuleset:
    """Return all tables of the output. Raises ParseError."""
    document = json_value(data, _SOURCE)
    listed = members.dig(document, "nftables")
    if not isinstance(listed, list):
        raise ParseError(_SOURCE, 0, 'no list "nftables"')
    objects = json_objects(listed, _SOURCE, NOWHERE.member("nftables"))
    chains = tuple(_chain(span, body) for span, body in _of(objects, "chain"))
    rules = [(span, body, _statements(body)) for span, body in _of(objects, "rule")]
    changed = {name for _, body, statements in rules for name in _changed(body, statements)}
    sets: dict[_Table, dict[str, NftSet]] = {}
    for kind in ("set", "map"):
        for _, body in _of(objects, kind):
            made = _set(body, changed, is_map=kind == "map")
            sets.setdefault(_table(body), {})[made.name] = made
    lengths: dict[tuple[str, str, str], int] = {}
    read = []
    for span, body, statements in rules:
        family, table = _table(body)
        chain = _name(body, "chain")
        number = lengths[family, table, chain] = lengths.get((family, table, chain), 0) + 1
        counters = (members.number(each, "counter", "packets") for each in statements)
        read.append(
            NftRule(
                family,
                table,
                chain,
                number,
                json_integer(body, "handle", _SOURCE) or 0,
                json_text(body, "comment", _SOURCE),
                statements,
                sets.get((family, table), {}),
                next((count for count in counters if count is not None), None),
                span,
            )
        )
    return NftRuleset(chains, tuple(read))


def _of(
    objects: list[tuple[Span, dict[str, Any]]], kind: str
) -> Iterator[tuple[Span, dict[str, Any]]]:
    for span, each in objects:
        body = each.get(kind)
        if isinstance(body, dict):
            yield span.member(kind), body


def _name(body: dict[str, Any], member: str) -> str:
    name = json_text(body, member, _SOURCE)
    if not name:
        raise ParseError(_SOURCE, 0, f"without a {member}: {quoted(body)}")
    return name


def _table(body: dict[str, Any]) -> _Table:
    return _name(body, "family"), _name(body, "table")


def _chain(span: Span, body: dict[str, Any]) -> NftChain:
    family, table = _table(body)
    device = body.get("dev")  # one name, or a list of several
    return NftChain(
        family,
        table,
        _name(body, "name"),
        json_text(body, "hook", _SOURCE),
        json_text(body, "type", _SOURCE),
        json_integer(body, "prio", _SOURCE, least=None) or 0,
        json_text(body, "policy", _SOURCE, "accept"),
        (device,) if isinstance(device, str) else members.texts(device),
        span=span,
    )


def _statements(body: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the statements of a rule. Raises ParseError where one is no object of one member."""
    found = members.items(body, "expr")
    if not all(isinstance(each, dict) and len(each) == 1 for each in found):
        raise ParseError(_SOURCE, 0, f"a rule of {quoted(body.get('chain'))} cannot be read")
    return tuple(found)


def _changed(
    body: dict[str, Any], statements: tuple[dict[str, Any], ...]
) -> Iterator[tuple[str, str, str]]:
    """Yield the sets that a rule changes as packets pass, with their tables."""
    for each in statements:
        for kind in ("set", "map", "meter"):
            name = members.text(each, kind, "map" if kind == "map" else "set")
            if name:
                yield (*_table(body), name.removeprefix("@"))


def _set(body: dict[str, Any], changed: set[tuple[str, str, str]], *, is_map: bool) -> NftSet:
    name = _name(body, "name")
    elements = tuple(members.items(body, "elem"))
    if is_map and not all(isinstance(each, list) and len(each) == 2 for each in elements):
        raise ParseError(_SOURCE, 0, f"map {quoted(name)} has an element that is no pair")
    return NftSet(name, elements, is_map, (*_table(body), name) in changed)
