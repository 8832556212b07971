"""`nft -j list ruleset`, as the real nft printed it."""

from __future__ import annotations

import json

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.nft import NftRuleset
from kubectl_ebpfnet.parse import nft
from tests.parse.parse_samples import sample

RULESET = nft.ruleset(sample("nftables-1.0.6/netns/nft-j-list-ruleset"))


def test_base_chains_have_their_hook_priority_and_devices() -> None:
    found = {c.title: (c.hook, c.kind, c.priority, c.policy, c.devices) for c in RULESET.chains}
    assert found["inet guard pre"] == ("prerouting", "filter", -450, "accept", ())
    assert found["inet guard more"] == ("", "", 0, "accept", ())
    # nft before 1.0.7 does not print the device of a single one.
    assert found["netdev gate in0"] == ("ingress", "filter", -500, "accept", ())
    assert found["ip address out"][:3] == ("postrouting", "nat", 100)


def test_rules_have_their_handle_their_words_and_their_counter() -> None:
    rules = RULESET.chain("inet", "guard", "pre")
    assert rules is not None
    assert rules[0].title == "nft inet guard pre rule 1 “bad ones”"
    assert (rules[0].text, rules[0].packets) == ("ip saddr @bad drop", 0)
    assert rules[0].handle > 0
    assert [rule.number for rule in rules] == list(range(1, len(rules) + 1))
    assert "limit rate over 10/second reject" in [rule.text for rule in rules]
    assert rules[1].packets is None
    assert RULESET.chain("inet", "guard", "none") is None


def test_a_rule_has_the_sets_of_its_table_and_knows_which_packets_change() -> None:
    rules = RULESET.chain("inet", "guard", "pre")
    assert rules is not None
    sets = rules[0].sets
    assert {name: (each.is_map, each.changes) for name, each in sets.items()} == {
        "bad": (False, False),
        "seen": (False, True),
        "ports": (True, False),
    }
    (gate,) = RULESET.chain("netdev", "gate", "in0") or ()
    assert gate.sets == {}


def test_a_table_of_iptables_is_there_too() -> None:
    (rule,) = RULESET.chain("ip", "filter", "FORWARD") or ()
    assert "xt match conntrack" in rule.text


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"nftables": 5},
        {"nftables": [{"chain": {"table": "t", "name": "c"}}]},
        {"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [5]}}]},
        {"nftables": [{"map": {"family": "ip", "table": "t", "name": "m", "elem": [5]}}]},
    ],
)
def test_what_is_no_ruleset_is_refused(document: object) -> None:
    with pytest.raises(ParseError):
        nft.ruleset(json.dumps(document).encode())


def test_nothing_is_an_empty_ruleset() -> None:
    assert nft.ruleset(b'{"nftables": []}') == NftRuleset((), ())
