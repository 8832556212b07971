"""Routing decisions, against what the kernel documents (ip-rule(8), ip-route(8)).

tests/node/netlink/test_routing_kernel.py asks the kernel the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.decision import (
    Decision,
    RoutingTables,
    describe,
    describe_taken,
)
from kubectl_ebpfnet.explain.kernel.neighbours import unresolved
from kubectl_ebpfnet.explain.kernel.routing import with_kernel_answer
from kubectl_ebpfnet.explain.kernel.rule_match import RoutedPacket
from kubectl_ebpfnet.model.kernel import FibAnswer, Neighbour, Route, Rule
from kubectl_ebpfnet.model.net import TCP, Address

SOURCE = ip_address("10.244.1.160")
THERE = ip_address("1.1.1.1")
PACKET = RoutedPacket(SOURCE, THERE)
MAIN = Rule(32766, "main")


def route(prefix: str, device: str = "eth0", gateway: str | None = None, **more: object) -> Route:
    via = ip_address(gateway) if gateway else None
    return Route(ip_network(prefix), via, device, **more)  # type: ignore[arg-type]


def decide(
    rules: Sequence[Rule] | None,
    routes: Sequence[Route],
    source: Address = SOURCE,
    destination: Address = THERE,
    listed: Sequence[str] | None = None,
    **more: object,
) -> Decision:
    packet = replace(PACKET, source=source, destination=destination, **more)  # type: ignore[arg-type]
    tables = RoutingTables(rules, routes, None if listed is None else frozenset(listed))
    return routing.decide(tables, packet)


def device_of(decision: Decision) -> str:
    assert decision.route is not None
    assert not decision.undecided
    return decision.route.device


def test_the_longest_prefix_wins_whatever_the_order() -> None:
    routes = [route("0.0.0.0/0", gateway="172.30.0.1"), route("1.1.1.1/32", gateway="172.30.0.200")]
    for order in (routes, routes[::-1]):
        taken = decide(None, order).route
        assert taken is not None
        assert str(taken.gateway) == "172.30.0.200"


def test_the_lower_metric_wins_among_equal_prefixes() -> None:
    routes = [route("10.0.0.0/8", "slow", metric=200), route("10.0.0.0/8", "fast", metric=100)]
    assert device_of(decide(None, routes, destination=ip_address("10.1.1.1"))) == "fast"


def test_the_local_table_is_asked_before_main() -> None:
    routes = [route("172.30.0.12/32", "eth0", table="local", type="local"), route("172.30.0.0/24")]
    assert decide(None, routes, destination=ip_address("172.30.0.12")).local


def test_nothing_that_matches_is_no_route() -> None:
    decision = decide(None, [route("10.0.0.0/8")])
    assert decision.route is None
    assert decision.refused == "no route to 1.1.1.1"


@pytest.mark.parametrize("kind", ["unreachable", "blackhole", "prohibit"])
def test_a_refusing_route_refuses_and_is_named(kind: str) -> None:
    routes = [route("0.0.0.0/0"), route("1.1.1.0/24", "", type=kind)]
    assert decide(None, routes).refused == f"the route 1.1.1.0/24 is {kind}"
    rules = (Rule(50, "77", destination=ip_network("1.1.1.1/32")), MAIN)
    routes = [route("0.0.0.0/0"), route("0.0.0.0/0", "", table="77", type=kind)]
    assert decide(rules, routes).refused == (
        f"the route default is {kind} in table 77, which rule 50 (to 1.1.1.1) looks up"
    )
    assert decide((Rule(60, "", mark=7, action=kind), MAIN), routes, mark=7).refused == (
        f"rule 60 (fwmark 0x7) says {kind}"
    )


def test_a_throw_route_goes_on_to_the_next_rule() -> None:
    routes = [
        route("1.1.1.0/24", "", type="throw", table="main"),
        route("0.0.0.0/0", table="default"),
    ]
    taken = decide(None, routes).route
    assert taken is not None
    assert taken.table == "default"


def test_a_mark_rule_is_taken_only_with_its_mark() -> None:
    # Cilium's own: from all fwmark 0x200/0xf00 lookup 2004 (cilium-facts 4.3).
    rules = (Rule(9, "2004", mark=0x200, mark_mask=0xF00), MAIN)
    routes = [route("0.0.0.0/0", "lo", table="2004", type="local"), route("0.0.0.0/0", "eth0")]
    assert device_of(decide(rules, routes, mark=0xED3F0F00)) == "eth0"
    assert device_of(decide(rules, routes, mark=0x1234_0200)) == "lo"
    unknown = decide(rules, routes, mark=None)
    assert unknown.undecided == (
        "rule 9 (fwmark 0x200/0xf00) may match: the packet's mark is not known, and would then "
        "lead to: default dev lo"
    )
    # Whatever the mark is, it comes to the same.
    same = [route("0.0.0.0/0", "eth0", table="2004"), route("0.0.0.0/0", "eth0")]
    assert device_of(decide(rules, same, mark=None)) == "eth0"


def test_source_and_device_rules() -> None:
    rules = (
        Rule(110, "10", source=ip_network("10.244.1.160/32")),
        Rule(111, "11", in_device="lxc1"),
        MAIN,
    )
    routes = [
        route("0.0.0.0/0", name, table=table)
        for name, table in (("eni", "10"), ("dev", "11"), ("eth0", "main"))
    ]
    other = ip_address("10.244.1.7")
    assert device_of(decide(rules, routes)) == "eni"
    assert device_of(decide(rules, routes, other, in_device="lxc1")) == "dev"
    assert device_of(decide(rules, routes, other, in_device="lxc2")) == "eth0"


VPN = [route("0.0.0.0/0", "tun0", table="vpn"), route("0.0.0.0/0", "eth0")]


@pytest.mark.parametrize(
    ("rule", "known", "hits"),
    [
        (Rule(100, "vpn", protocol=TCP), {"protocol": TCP}, True),
        (Rule(100, "vpn", protocol=TCP), {"protocol": 17}, False),
        (Rule(100, "vpn", protocol=TCP), {}, None),
        (Rule(100, "vpn", destination_ports=(80, 90)), {"destination_port": 80}, True),
        (Rule(100, "vpn", destination_ports=(80, 90)), {"destination_port": 91}, False),
        (Rule(100, "vpn", source_ports=(5, 5)), {}, None),
        (Rule(100, "vpn", users=(1000, 2000)), {"user": 1500}, True),
        (Rule(100, "vpn", users=(1000, 2000)), {"user": 0}, False),
        (Rule(100, "vpn", users=(1000, 2000)), {}, None),
        (Rule(100, "vpn", users=(1000, 2000), inverted=True), {}, None),
        (Rule(100, "vpn", users=(1, 2), source=ip_network("10.9.0.0/16")), {}, False),
        (Rule(100, "vpn", tos="0x10"), {}, None),
        (Rule(100, "vpn", tos="0x10"), {"tos": 16}, True),
        (Rule(100, "vpn", tos="lowdelay"), {"tos": 16}, None),
        (Rule(100, "vpn", tunnel_id=7), {}, False),
        (Rule(100, "vpn", tunnel_id=7), {"tunnel_id": None}, None),
        (Rule(100, "vpn", out_device="eth0"), {}, False),
        (Rule(100, "vpn", out_device="eth0"), {"out_device": "eth0"}, True),
        (Rule(100, "vpn", other_selectors=("flowlabel",)), {}, None),
        (Rule(100, "", action="l3mdev"), {}, False),
        (Rule(100, "", action="l3mdev"), {"in_vrf": None}, None),
        (Rule(100, "vpn", suppress_prefix=0), {}, False),  # as WireGuard and VPNs set it
        (Rule(100, "vpn", suppress_group="5"), {}, None),
        (Rule(100, "", action="nat"), {}, None),
        (Rule(100, "", action="nop"), {}, False),
    ],
)
def test_a_selector_hits_misses_or_is_undecided(
    rule: Rule, known: dict[str, object], hits: bool | None
) -> None:
    decision = decide((rule, MAIN), VPN, **known)
    if hits is None:
        assert "rule 100" in decision.undecided
    else:
        assert device_of(decision) == ("tun0" if hits else "eth0")


def test_a_rule_to_a_table_that_nobody_listed_is_undecided() -> None:
    rules = (Rule(0, "local"), Rule(111, "11", source=ip_network("10.244.1.160/32")), MAIN)
    decision = decide(rules, [route("0.0.0.0/0")], listed=["main"])
    assert decision.route is None
    assert decision.undecided == (
        "table 11 was not read, which rule 111 (from 10.244.1.160) looks up"
    )
    # It does not concern other packets, and the local table has the namespace's own addresses.
    assert device_of(decide(rules, [route("0.0.0.0/0")], THERE, listed=["main"])) == "eth0"
    own = RoutingTables(rules, (), frozenset(["main"]), frozenset([THERE]))
    assert routing.decide(own, PACKET).local


def test_goto_leads_to_the_rule_of_that_priority() -> None:
    """The review's fourth false certainty."""
    routes = [
        route("0.0.0.0/0", "", table="100", type="blackhole"),
        route("0.0.0.0/0", "five", table="500"),
        route("0.0.0.0/0", "eth0"),
    ]
    rules = (Rule(10, "", action="goto", goto=500), Rule(20, "100"), Rule(500, "500"), MAIN)
    assert device_of(decide(rules, routes)) == "five"
    unresolved_goto = (Rule(10, "", action="goto", goto=501), Rule(20, "100"), MAIN)
    assert "blackhole" in decide(unresolved_goto, routes).refused
    maybe = (Rule(10, "", action="goto", goto=500, users=(1, 2)), *rules[1:])
    assert "rule 10 (uidrange 1-2) may match" in decide(maybe, routes).undecided


def test_a_thousand_rules_do_not_recurse() -> None:
    rules = [Rule(n, "vpn", users=(n, n)) for n in range(1, 3000)]
    assert "rule 1 " in decide([*rules, MAIN], VPN).undecided


def test_whichever_way_it_is_refused() -> None:
    routes = [route("0.0.0.0/0", "", type="unreachable")]
    decision = decide((Rule(5, "", action="prohibit", users=(1, 2)), MAIN), routes)
    assert decision.refused
    assert not decision.undecided


# --- several next hops ----------------------------------------------------------------------------


def hops(*devices: str, **more: object) -> list[Route]:
    return [route("0.0.0.0/0", d, f"10.0.{n}.1", weight=1, **more) for n, d in enumerate(devices)]


def test_one_of_several_next_hops_is_said() -> None:
    decision = decide(None, hops("eth0", "eth1"))
    assert describe_taken(decision) == (
        "default via 10.0.0.1 dev eth0, one of 2 next hops (10.0.0.1, 10.0.1.1 dev eth1)"
    )
    assert not decision.undecided


def test_a_dead_next_hop_is_passed_over_and_a_dead_route_too() -> None:
    dead, alive = hops("eth0", "eth1")
    dead = replace(dead, dead=True)
    assert device_of(decide(None, [dead, alive])) == "eth1"
    backup = route("0.0.0.0/0", "wwan0", metric=500)
    assert device_of(decide(None, [dead, replace(alive, dead=True), backup])) == "wwan0"


def test_ipv6_keeps_next_hops_as_routes_and_ipv4_takes_the_first() -> None:
    six = [route("::/0", "eth0", f"fe80::{n}", metric=1024) for n in (1, 2)]
    decision = decide(None, six, ip_address("fd00::1"), ip_address("2001:db8::1"))
    assert len(decision.next_hops) == 2
    four = [route("0.0.0.0/0", "eth0", f"10.0.0.{n}") for n in (1, 2)]
    assert len(decide(None, four).next_hops) == 1


def test_a_route_of_a_tos_is_taken_by_packets_with_it() -> None:
    routes = [route("1.1.1.0/24", "voice", tos="0x10"), route("1.1.1.0/24", "eth0")]
    decision = decide(None, routes)
    assert decision.route == routes[1]
    assert "is for packets of TOS 0x10" in decision.undecided


def test_an_ipv6_route_for_some_sources() -> None:
    routes = [route("::/0", "b", source=ip_network("fd00:2::/64")), route("::/0", "a")]
    there = ip_address("2001:db8::1")
    assert device_of(decide(None, routes, ip_address("fd00:2::1"), there)) == "b"
    assert device_of(decide(None, routes, ip_address("fd00:1::1"), there)) == "a"


def test_a_next_hop_that_is_not_shown() -> None:
    decision = decide(None, [route("0.0.0.0/0", "")])  # a nexthop object, or BusyBox's multipath
    assert decision.undecided == "default of table main has a next hop that is not shown"


def test_ipv6_does_not_meet_ipv4_routes() -> None:
    routes = [route("0.0.0.0/0", "four"), route("::/0", "six", gateway="fe80::1")]
    taken = decide(None, routes, ip_address("fd00::1"), ip_address("2001:db8::1")).route
    assert taken is not None
    assert taken.device == "six"
    assert describe(taken) == "default via fe80::1 dev six"


def test_a_rule_of_the_other_ip_version_is_passed_over() -> None:
    rules = (Rule(100, "vpn", version=6), Rule(32766, "main", version=4))
    assert device_of(decide(rules, VPN)) == "eth0"


@pytest.mark.parametrize(
    ("states", "mac", "expected"),
    [
        (("FAILED",), "", True),
        (("INCOMPLETE",), "", True),
        (("REACHABLE",), "ca:f7:8c:79:e1:5b", False),
        (("STALE",), "ca:f7:8c:79:e1:5b", False),
        # A known MAC is used while it is probed anew.
        (("FAILED",), "ca:f7:8c:79:e1:5b", False),
        (("NOARP",), "", False),
    ],
)
def test_which_neighbours_are_unresolved(states: tuple[str, ...], mac: str, expected: bool) -> None:
    assert unresolved(Neighbour(SOURCE, "eth0", mac, states)) is expected


# --- any one rule may be undecidable --------------------------------------------------------------

ROUTES = [
    route("0.0.0.0/0", "eth0", "172.30.0.1"),
    route("0.0.0.0/0", "", table="7", type="blackhole"),
    route("1.1.1.0/24", "tun0", table="8"),
    route("0.0.0.0/0", "eth1", table="9"),
]
RULES = (
    Rule(0, "local"),
    Rule(5, "", action="goto", goto=30, source=ip_network("10.244.1.160/32")),
    Rule(6, "7"),
    Rule(30, "8", destination_ports=(443, 443)),
    Rule(31, "9", in_device="lxc1"),
    Rule(32, "main", suppress_prefix=0),
    MAIN,
)


@pytest.mark.parametrize("port", [80, 443])
@pytest.mark.parametrize("in_device", ["", "lxc1"])
@pytest.mark.parametrize("source", ["10.244.1.160", "10.244.1.161"])
def test_an_undecidable_rule_or_an_unread_table_only_takes_certainty(
    port: int, in_device: str, source: str
) -> None:
    known = {"in_device": in_device, "destination_port": port}
    there = ip_address(source)
    whole = decide(RULES, ROUTES, there, **known)
    assert not whole.undecided
    for index, rule in enumerate(RULES):
        less = [*RULES[:index], replace(rule, other_selectors=("riddle",)), *RULES[index + 1 :]]
        decision = decide(less, ROUTES, there, **known)
        assert decision.undecided or decision.ends_at == whole.ends_at, rule
    for table in ("7", "8", "9"):
        kept = [one for one in ROUTES if one.table != table]
        listed = {"main", "local", "7", "8", "9"} - {table}
        decision = decide(RULES, kept, there, listed=sorted(listed), **known)
        assert decision.undecided or decision.ends_at == whole.ends_at, table


# --- the kernel's own answer ----------------------------------------------------------------------

TABLE = [route("0.0.0.0/0", gateway="10.0.0.1"), route("1.1.1.0/24", "vpn0", table="77")]


def said(**more: object) -> FibAnswer:
    return FibAnswer(THERE, SOURCE, "lxc1", type="unicast", **more)  # type: ignore[arg-type]


def corrected(
    answer: FibAnswer,
    routes: Sequence[Route] = TABLE,
    rules: Sequence[Rule] | None = None,
    **known: object,
) -> Decision:
    packet = replace(PACKET, **known)  # type: ignore[arg-type]
    tables = RoutingTables(rules, routes)
    return with_kernel_answer(routing.decide(tables, packet), answer, tables, packet)


def test_a_kernel_that_agrees_changes_nothing() -> None:
    answer = said(gateway=ip_address("10.0.0.1"), device="eth0", table="main")
    assert corrected(answer) == decide(None, TABLE)


def test_the_kernel_knows_what_the_tables_do_not_show() -> None:
    found = corrected(said(device="vpn0", table="77"))
    assert found.route == TABLE[1]
    assert found.differs == "default via 10.0.0.1 dev eth0"


def test_a_route_that_no_table_shows_is_still_the_kernels_answer() -> None:
    found = corrected(said(device="wg0", table="9"))
    assert found.route is not None
    assert describe(found.route) == "1.1.1.1/32 dev wg0"
    assert found.differs


def test_the_kernel_decides_what_the_tables_leave_open() -> None:
    rules = (Rule(5, "", action="l3mdev"), MAIN)
    answer = said(gateway=ip_address("10.0.0.1"), device="eth0", table="main")
    assert corrected(answer, rules=rules, in_vrf=None) == replace(
        decide(rules, TABLE, in_vrf=None), undecided=""
    )


@pytest.mark.parametrize(
    "rule",
    [
        Rule(5, "77", destination_ports=(443, 443)),
        Rule(5, "77", mark=1),
        Rule(5, "77", users=(7, 7)),
        Rule(5, "77", tos="0x10"),
        Rule(5, "77", other_selectors=("flowlabel",)),
    ],
)
def test_the_kernel_was_asked_about_another_packet(rule: Rule) -> None:
    """It was asked without ports, mark, uid or TOS: a rule on these tells the two apart."""
    known = {"destination_port": 443, "mark": 1, "user": 7}
    answer = said(gateway=ip_address("10.0.0.1"), device="eth0", table="main")
    found = corrected(answer, rules=(rule, MAIN), **known)
    assert found == decide((rule, MAIN), TABLE, **known)
    assert found.undecided or found.route == TABLE[1]


def test_what_the_kernel_refuses_is_refused() -> None:
    answer = FibAnswer(THERE, SOURCE, "lxc1", error="Network is unreachable")
    found = corrected(answer)
    assert found.route is None
    assert found.refused == "the kernel's look-up for 1.1.1.1 fails: Network is unreachable"
    # Where the tables say so too, their words are the better ones: they name the route.
    prohibiting = [route("0.0.0.0/0", "", type="prohibit")]
    assert corrected(answer, prohibiting) == decide(None, prohibiting)


def test_a_local_answer_is_the_same_whatever_the_device() -> None:
    routes = [route("1.1.1.1/32", "eth0", table="local", type="local")]
    answer = FibAnswer(THERE, SOURCE, "lxc1", type="local", device="lo", table="local")
    assert corrected(answer, routes) == decide(None, routes)
