"""Whatever rule of a recorded ruleset is not understood, an outcome only becomes less certain.

Exhaustive: one rule after the other, of every ruleset that is recorded here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.explain.kernel.chain_ends import MAY_BE_ANYTHING, TRANSLATING, ChainOutcome
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import Mark
from kubectl_ebpfnet.explain.kernel.netfilter import traverse
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.netfilter import NetfilterRule, RuleMatch, Ruleset
from kubectl_ebpfnet.parse.netfilter import ruleset

TESTS = Path(__file__).parents[2]
HOOKS = [
    ("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("nat", "PREROUTING"), ("raw", "OUTPUT"),
    ("mangle", "FORWARD"), ("filter", "FORWARD"), ("filter", "INPUT"), ("nat", "OUTPUT"),
    ("filter", "OUTPUT"), ("mangle", "POSTROUTING"), ("nat", "POSTROUTING"),
]  # fmt: skip


@cache
def recorded() -> dict[str, Ruleset]:
    """Every ruleset that the scenarios and samples of these tests hold."""
    found = {}
    for path in sorted(TESTS.glob("explain/lb/samples/*.rules")):
        found[path.name] = path.read_bytes()
    for path in sorted(TESTS.glob("parse/samples/iptables-*/*/*save*")):
        found["/".join(path.parts[-2:])] = path.read_bytes()
    for scenario in ("native-iptables", "vxlan-kpr"):
        for record in open_bundle(TESTS / "scenarios" / scenario).records:
            if record.argv[0] in ("iptables-save", "ip6tables-save"):
                found[f"{scenario} {record.place} {record.command}"] = record.stdout.read()
    return {name: ruleset(data) for name, data in found.items()}


def packets(rules: Ruleset) -> list[Context]:
    """Packets of a pod, of the node, and from outside; to what the rules name, and elsewhere."""
    named = [r.destination for r in rules.rules if r.destination and r.destination.prefixlen == 32]
    to = [network.network_address for network in dict.fromkeys(named)][:3]
    to += [ip_address("1.1.1.1"), ip_address("10.244.0.251")]
    node = ip_address("172.30.0.12")
    found = []
    for destination in to:
        for source, device, mark in (
            ("10.244.1.53", "lxc00f235fb673a", Mark(0x8D4C0F00)),
            ("172.30.0.12", "", Mark(0)),
            ("192.0.2.1", "eth0", Mark(0)),
        ):
            flow = Flow(TCP, ip_address(source), None, destination, 80)
            context = Context(flow, device, "eth0", mark, local=frozenset({node}), bridged=False)
            found.append(context)
    return found


def without_one(rules: Ruleset, number: int, how: str) -> Ruleset:
    """The rules with one of them made undecidable."""
    changed = list(rules.rules)
    rule = changed[number]
    if how == "an unknown match":
        changed[number] = replace(rule, matches=(*rule.matches, RuleMatch("frob")))
    elif how == "only an unknown match":
        bare = NetfilterRule(rule.table, rule.chain, rule.number, rule.text, rule.jump, rule.goto)
        changed[number] = replace(
            bare, target_options=rule.target_options, matches=(RuleMatch("frob"),)
        )
    else:
        changed[number] = NetfilterRule(
            rule.table, rule.chain, rule.number, rule.text, problem="cannot be read"
        )
    return replace(rules, rules=tuple(changed))


def effects(outcome: ChainOutcome) -> set[tuple[str, str]]:
    """What may become of the packet: lost, translated to what, or let through."""
    return {
        (end.target, end.rule.to_address if end.rule and end.target in TRANSLATING else "")
        for end in outcome.ends
    }


@pytest.mark.parametrize(
    "how", ["an unknown match", "only an unknown match", "a line that cannot be read"]
)
@pytest.mark.parametrize("name", sorted(recorded()))
def test_an_undecided_rule_only_takes_certainty_away(name: str, how: str) -> None:
    rules = recorded()[name]
    contexts = packets(rules)
    tables = {chain.table for chain in rules.chains}
    hooks = [hook for hook in HOOKS if hook[0] in tables]
    for number, changed in enumerate(rules.rules):
        doubtful = without_one(rules, number, how)
        for context in contexts[number % 5 :: 5]:
            for table, chain in hooks:
                if table != changed.table:
                    continue
                whole = traverse(rules, table, chain, context)
                less = traverse(doubtful, table, chain, context)
                assert less.is_lost in (whole.is_lost, None), changed.text
                anything = (MAY_BE_ANYTHING, "") in effects(less)
                assert anything or effects(whole) <= effects(less), changed.text
                if whole.passed is not None:
                    assert less.passed is not None
                    before, after = whole.passed.mark, less.passed.mark
                    assert after.known & ~before.known == 0
                    assert (before.value ^ after.value) & after.known == 0, changed.text
