"""nftables' rules against a packet: what the kernel tests (tests/node/netlink/test_nft_kernel.py)
do not reach: IPv6, TCP, answers, nat, and what stays undecided."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.explain.kernel.chain_ends import ChainOutcome
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import NOT_KNOWN, Mark
from kubectl_ebpfnet.explain.kernel.nft import traverse
from kubectl_ebpfnet.model.net import ICMPV6, TCP, UDP, Flow
from kubectl_ebpfnet.model.nft import NftChain
from kubectl_ebpfnet.parse.nft import ruleset
from tests.parse.parse_samples import sample

SIX = Flow(TCP, ip_address("fd00::7"), 40000, ip_address("2001:db8::1"), 443)
FOUR = Flow(TCP, ip_address("10.44.0.7"), 40000, ip_address("198.51.100.1"), 443)
OWN = frozenset({ip_address("fd00::1"), ip_address("10.44.0.1")})


def packet(flow: Flow = SIX, **changes: Any) -> Context:
    """A first packet as it is forwarded."""
    here = Context(flow, "lxc1", "eth0", local=OWN, bridged=False, back_device="lxc1")
    return replace(here, **changes)


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def through(
    *rules: list[dict[str, Any]], here: Context, sets: tuple[Any, ...] = ()
) -> ChainOutcome:
    """Pass a chain of these rules, whose policy is accept."""
    base = {"family": "inet", "table": "t", "name": "base", "hook": "forward", "prio": 0}
    objects: list[Any] = [{"chain": {**base, "type": "filter", "policy": "accept"}}]
    for made in sets:
        kind = "map" if "map" in made else "set"
        objects.append({kind: {"family": "inet", "table": "t", **made}})
    for handle, statements in enumerate(rules, 1):
        rule = {"family": "inet", "table": "t", "chain": "base", "handle": handle}
        objects.append({"rule": {**rule, "expr": statements}})
    read = ruleset(json.dumps({"nftables": objects}).encode())
    return traverse(read, read.chains[0], here)


def dropped(*statements: dict[str, Any], here: Context, sets: tuple[Any, ...] = ()) -> bool | None:
    """Whether a rule with these statements before its `drop` drops the packet."""
    return through([*statements, {"drop": None}], here=here, sets=sets).is_lost


NET = {"prefix": {"addr": "fd00::", "len": 8}}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (match(payload("ip6", "saddr"), NET), True),
        (match(payload("ip6", "saddr"), NET, "!="), False),
        (match(payload("ip", "saddr"), "10.0.0.1", "!="), False),
        (match(payload("ip6", "daddr"), {"range": ["2001:db8::", "2001:db8::9"]}), True),
        (match(payload("ip6", "nexthdr"), "tcp"), True),
        (match({"meta": {"key": "nfproto"}}, "ipv6"), True),
        (match({"meta": {"key": "l4proto"}}, "ipv6-icmp"), False),
        (match(payload("tcp", "dport"), {"set": [80, {"range": [400, 500]}]}), True),
        (match({"exthdr": {"name": "frag"}}, True), False),
        (match({"exthdr": {"name": "rt", "field": "type"}}, 0), False),
        (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), False),
        (match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False), False),
        (match({"fib": {"result": "check", "flags": ["saddr", "iif"]}}, True), True),
        (match({"ct": {"key": "ip6 saddr", "dir": "original"}}, "fd00::7"), True),
        # Not understood, or not known: never a drop, never a pass.
        (match({"fib": {"result": "type", "flags": ["daddr"]}}, "broadcast"), None),
        (match(payload("ip6", "hoplimit"), 5), None),
        (match({"payload": {"base": "nh", "offset": 0, "len": 4}}, 6), None),
        (match({"meta": {"key": "hour"}}, "12:00"), None),
        (match({"osf": {"key": "name"}}, "Linux"), None),
        (match(payload("tcp", "dport"), "@elsewhere"), None),
        ({"limit": {"rate": 5, "per": "second"}}, None),
        ({"quota": {"val": 5, "val_unit": "bytes"}}, None),
        ({"xt": {"type": "match", "name": "conntrack"}}, None),
        ({"xt": {"type": "match", "name": "comment"}}, True),
        ({"set": {"op": "add", "elem": payload("ip6", "saddr"), "set": "@seen"}}, True),
    ],
)
def test_an_ipv6_packet(statement: dict[str, Any], expected: bool | None) -> None:
    assert dropped(statement, here=packet()) is expected


@pytest.mark.parametrize(
    ("right", "op", "first", "answer"),
    [
        ("syn", "in", True, True),
        (["syn", "ack"], "in", True, True),
        ("ack", "in", False, True),
        ("syn", "!", False, False),
        ("rst", "in", False, False),
        (18, "==", None, None),  # ECN's two bits may be set
        ("ecn", "in", None, None),
    ],
)
def test_flags_of_a_first_packet_and_of_an_answer(
    right: Any, op: str, first: bool | None, answer: bool | None
) -> None:
    statement = match(payload("tcp", "flags"), right, op)
    expected = {True: first, False: answer}
    if right == 18:
        expected = {True: False, False: None}
    assert dropped(statement, here=packet()) is expected[True]
    assert dropped(statement, here=packet(state="ESTABLISHED")) is expected[False]


def test_masked_flags_are_those_that_the_mask_keeps() -> None:
    masked = {"&": [payload("tcp", "flags"), ["fin", "syn", "rst", "ack"]]}
    assert dropped(match(masked, "syn"), here=packet()) is True
    assert dropped(match(masked, "syn"), here=packet(state="ESTABLISHED")) is False
    assert dropped(match(masked, "syn", "!="), here=packet(state="ESTABLISHED")) is True


def test_an_echo_request_and_its_answer() -> None:
    flow = Flow(ICMPV6, SIX.source, 7, SIX.destination, None)
    request = match(payload("icmpv6", "type"), {"set": ["echo-request", "nd-neighbor-solicit"]})
    assert dropped(request, here=packet(flow)) is True
    assert dropped(request, here=packet(flow, state="ESTABLISHED")) is False
    assert dropped(match(payload("icmp", "type"), "echo-request"), here=packet(flow)) is False


def test_a_port_that_was_not_given_decides_nothing_and_the_reason_says_so() -> None:
    here = packet(SIX.with_destination(SIX.destination, None))
    outcome = through([match(payload("tcp", "dport"), 443), {"drop": None}], here=here)
    assert outcome.is_lost is None
    assert "looks at the port: give one" in outcome.doubt
    # An element of another address is excluded whatever the port is.
    both = {"concat": [payload("ip6", "daddr"), payload("tcp", "dport")]}
    element = {"concat": ["2001:db8::2", 443]}
    assert dropped(match(both, {"set": [element]}), here=here) is False


def test_a_mark_of_which_bits_are_known() -> None:
    bit = {"&": [{"meta": {"key": "mark"}}, 0x4000]}
    assert dropped(match(bit, 0, "!="), here=packet(mark=Mark(0, 0x4000))) is False
    outcome = through([match(bit, 0, "!="), {"drop": None}], here=packet(mark=NOT_KNOWN))
    assert outcome.is_lost is None
    assert "the packet's mark is not known" in outcome.doubt
    set_mark = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}
    outcome = through([set_mark], here=packet(mark=NOT_KNOWN))
    assert outcome.passed is not None
    assert outcome.passed.mark == Mark(7)
    assert [rule.handle for rule in outcome.passed.marked_by if hasattr(rule, "handle")] == [1]


def test_a_set_that_packets_change_may_have_the_packet_by_now() -> None:
    add = {"set": {"op": "add", "elem": payload("ip6", "saddr"), "set": "@seen"}}
    seen = {"name": "seen", "type": "ipv6_addr", "elem": ["fd00::9"]}
    rules = [add], [match(payload("ip6", "saddr"), "@seen"), {"drop": None}]
    assert through(*rules, here=packet(), sets=(seen,)).is_lost is None
    listed = {**seen, "elem": [{"elem": {"val": "fd00::7", "expires": 5}}]}
    assert through(*rules, here=packet(), sets=(listed,)).is_lost is True
    assert through(rules[1], here=packet(), sets=(seen,)).is_lost is False


@pytest.mark.parametrize(
    "statement",
    [
        {"queue": {"num": 3}},
        {"tproxy": {"port": 9}},
        {"xt": {"type": "target", "name": "X"}},
        {"synproxy": {"mss": 1}},
        {"fwd": {"dev": "eth1"}},
        {"new in 2030": None},
    ],
)
def test_a_statement_of_which_nothing_is_known_may_do_anything(statement: dict[str, Any]) -> None:
    outcome = through([statement], here=packet())
    assert outcome.is_lost is None
    assert "is not known" in outcome.doubt


def test_a_chain_that_was_not_read_may_do_anything() -> None:
    assert through([{"jump": {"target": "elsewhere"}}], here=packet()).is_lost is None


def test_an_undecided_rule_leaves_both_ways_open_and_the_one_behind_it_decides() -> None:
    limited = [{"limit": {"rate": 5, "per": "second"}}, {"accept": None}]
    outcome = through(limited, [{"drop": None}], here=packet())
    assert outcome.is_lost is None
    assert "limit of nft inet t base rule 1" in outcome.doubt
    assert through(limited, [{"accept": None}], here=packet()).is_lost is False
    assert through(limited[:1], [{"drop": None}], here=packet()).is_lost is True


def test_chains_that_branch_without_end_are_given_up_soon() -> None:
    ways = [[{"concat": [f"fd00::{n:x}", 1]}, {"jump": {"target": "more"}}] for n in range(300)]
    key = {"concat": [{"meta": {"key": "hour"}}, {"meta": {"key": "cpu"}}]}
    objects: list[Any] = [
        {"map": {"family": "inet", "table": "t", "name": "m", "map": "verdict", "elem": ways}}
    ]
    base = {"family": "inet", "table": "t", "type": "filter", "hook": "forward", "prio": 0}
    objects += [{"chain": {**base, "name": "base"}}, {"chain": {**base, "name": "more"}}]
    for name in ("base", "more"):
        rule = {"family": "inet", "table": "t", "chain": name, "handle": 1}
        objects += [{"rule": {**rule, "expr": [{"vmap": {"key": key, "data": "@m"}}]}}] * 50
    read = ruleset(json.dumps({"nftables": objects}).encode())
    begin = time.process_time()
    outcome = traverse(read, read.chains[0], packet())
    assert outcome.is_lost is None
    assert time.process_time() - begin < 10


# --- nat ------------------------------------------------------------------------------------------


def test_translations_and_where_they_lead() -> None:
    eight = {"dnat": {"addr": "fd00::9", "port": 8080}}
    assert [(e.target, e.to_address) for e in through([eight], here=packet()).ends] == [
        ("DNAT", "[fd00::9]:8080")
    ]
    for statement, target, to in (
        ({"dnat": {"family": "ip6", "addr": "fd00::9"}}, "DNAT", "fd00::9"),
        ({"redirect": {"port": 82}}, "REDIRECT", ":82"),
        ({"snat": {"addr": "fd00::5"}}, "SNAT", "fd00::5"),
        ({"masquerade": None}, "MASQUERADE", ""),
        ({"dnat": {"addr": {"range": ["fd00::5", "fd00::6"]}}}, "DNAT", "fd00::5-fd00::6"),
    ):
        (end,) = through([statement], here=packet()).ends
        assert (end.target, end.to_address) == (target, to)


def test_a_map_of_destinations_gives_an_end_for_each_that_is_possible() -> None:
    chance = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
    pairs = [[0, {"concat": ["fd00::8", 80]}], [1, {"concat": ["fd00::9", 80]}]]
    balanced = {"dnat": {"addr": {"map": {"key": chance, "data": {"set": pairs}}}}}
    ends = through([balanced], here=packet()).ends
    assert [end.to_address for end in ends] == ["[fd00::8]:80", "[fd00::9]:80"]
    known = {"key": payload("tcp", "dport"), "data": {"set": [[443, "fd00::8"], [80, "fd00::9"]]}}
    (end,) = through([{"dnat": {"addr": {"map": known}}}], here=packet()).ends
    assert end.to_address == "fd00::8"


KUBE_PROXY = ruleset(sample("nftables-1.0.6/kube-proxy/nft-j-list-ruleset"))


def kube_proxy(name: str, here: Context) -> ChainOutcome:
    chain = next(each for each in KUBE_PROXY.chains if each.name == name)
    assert isinstance(chain, NftChain)
    return traverse(KUBE_PROXY, chain, here)


def test_kube_proxys_maps_lead_to_the_endpoint_of_a_service() -> None:
    to_web = replace(FOUR, destination=ip_address("10.97.126.8"), destination_port=80)
    (end,) = kube_proxy("nat-prerouting", packet(to_web, out_device="")).ends
    assert (end.target, end.to_address) == ("DNAT", "10.44.1.193:8080")
    # A client that is no pod is marked on the way, and masqueraded by that mark.
    outside = replace(to_web, source=ip_address("172.31.7.200"))
    (end,) = kube_proxy("nat-prerouting", packet(outside, out_device="")).ends
    assert end.context.mark == Mark(0x4000)
    (end,) = kube_proxy("nat-postrouting", packet(outside, mark=Mark(0x4000))).ends
    assert end.target == "MASQUERADE"


def test_kube_proxy_rejects_a_service_without_endpoints_and_passes_other_packets() -> None:
    to_nothing = replace(FOUR, destination=ip_address("10.97.44.220"), destination_port=80)
    assert kube_proxy("filter-forward", packet(to_nothing)).is_lost is True
    for name in ("filter-prerouting-pre-dnat", "filter-forward", "nat-prerouting"):
        assert kube_proxy(name, packet(FOUR)).target == "ACCEPT"
    assert kube_proxy("filter-forward", packet(replace(FOUR, protocol=UDP))).is_lost is False
