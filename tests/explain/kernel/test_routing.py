"""Routing decisions, against what the kernel documents (ip-rule(8), ip-route(8))."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.explain.kernel.routing import decide, describe, unresolved, with_kernel_answer
from kubectl_ebpfnet.model.kernel import FibAnswer, Neighbour, Route, Rule

SOURCE = ip_address("10.244.1.160")


def route(prefix: str, device: str = "eth0", gateway: str | None = None, **more: object) -> Route:
    via = ip_address(gateway) if gateway else None
    return Route(ip_network(prefix), via, device, **more)  # type: ignore[arg-type]


def test_the_longest_prefix_wins_whatever_the_order() -> None:
    routes = [route("0.0.0.0/0", gateway="172.30.0.1"), route("1.1.1.1/32", gateway="172.30.0.200")]
    for order in (routes, routes[::-1]):
        taken = decide((), order, SOURCE, ip_address("1.1.1.1")).route
        assert taken is not None
        assert str(taken.gateway) == "172.30.0.200"


def test_the_lower_metric_wins_among_equal_prefixes() -> None:
    routes = [route("10.0.0.0/8", "slow", metric=200), route("10.0.0.0/8", "fast", metric=100)]
    taken = decide((), routes, SOURCE, ip_address("10.1.1.1")).route
    assert taken is not None
    assert taken.device == "fast"


def test_the_local_table_is_asked_before_main() -> None:
    routes = [route("172.30.0.12/32", "eth0", table="local", type="local"), route("172.30.0.0/24")]
    decision = decide((), routes, SOURCE, ip_address("172.30.0.12"))
    assert decision.local


def test_nothing_that_matches_is_no_route() -> None:
    decision = decide((), [route("10.0.0.0/8")], SOURCE, ip_address("1.1.1.1"))
    assert decision.route is None
    assert decision.refused == "no route to 1.1.1.1"


@pytest.mark.parametrize("kind", ["unreachable", "blackhole", "prohibit"])
def test_a_refusing_route_refuses(kind: str) -> None:
    routes = [route("0.0.0.0/0"), route("1.1.1.0/24", "", type=kind)]
    assert kind in decide((), routes, SOURCE, ip_address("1.1.1.1")).refused


def test_a_throw_route_goes_on_to_the_next_rule() -> None:
    routes = [
        route("1.1.1.0/24", "", type="throw", table="main"),
        route("0.0.0.0/0", table="default"),
    ]
    taken = decide((), routes, SOURCE, ip_address("1.1.1.1")).route
    assert taken is not None
    assert taken.table == "default"


def test_a_mark_rule_is_taken_only_with_its_mark() -> None:
    # Cilium's own: from all fwmark 0x200/0xf00 lookup 2004 (cilium-facts 4.3).
    rules = (Rule(9, "2004", mark=0x200, mark_mask=0xF00), Rule(32766, "main"))
    routes = [route("0.0.0.0/0", "lo", table="2004", type="local"), route("0.0.0.0/0", "eth0")]
    plain = decide(rules, routes, SOURCE, ip_address("1.1.1.1"), mark=0xED3F0F00).route
    proxied = decide(rules, routes, SOURCE, ip_address("1.1.1.1"), mark=0x1234_0200).route
    assert plain is not None
    assert plain.device == "eth0"
    assert proxied is not None
    assert proxied.device == "lo"


def test_source_and_device_rules() -> None:
    rules = (
        Rule(110, "10", source=ip_network("10.244.1.160/32")),
        Rule(111, "11", in_device="lxc1"),
        Rule(32766, "main"),
    )
    routes = [
        route("0.0.0.0/0", name, table=table)
        for name, table in (("eni", "10"), ("dev", "11"), ("eth0", "main"))
    ]
    far = ip_address("1.1.1.1")
    other = ip_address("10.244.1.7")

    def device(source: object, in_device: str = "") -> str:
        taken = decide(rules, routes, source, far, in_device=in_device).route  # type: ignore[arg-type]
        assert taken is not None
        return taken.device

    assert device(SOURCE) == "eni"
    assert device(other, "lxc1") == "dev"
    assert device(other, "lxc2") == "eth0"


def test_a_rule_that_cannot_be_evaluated_is_not_taken_for_a_match_of_everything() -> None:
    rules = (Rule(100, "vpn", other_selectors=("ipproto",)), Rule(32766, "main"))
    routes = [route("0.0.0.0/0", "tun0", table="vpn"), route("0.0.0.0/0", "eth0")]
    taken = decide(rules, routes, SOURCE, ip_address("1.1.1.1")).route
    assert taken is not None
    assert taken.device == "eth0"


def test_ipv6_does_not_meet_ipv4_routes() -> None:
    routes = [route("0.0.0.0/0", "four"), route("::/0", "six", gateway="fe80::1")]
    taken = decide((), routes, ip_address("fd00::1"), ip_address("2001:db8::1")).route
    assert taken is not None
    assert taken.device == "six"
    assert describe(taken) == "default via fe80::1 dev six"


def test_a_rule_of_the_other_ip_version_is_passed_over() -> None:
    rules = (Rule(100, "vpn", version=6), Rule(32766, "main", version=4))
    routes = [route("0.0.0.0/0", "tun0", table="vpn"), route("0.0.0.0/0", "eth0")]
    taken = decide(rules, routes, SOURCE, ip_address("1.1.1.1")).route
    assert taken is not None
    assert taken.device == "eth0"


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


# --- the kernel's own answer ----------------------------------------------------------------------

THERE = ip_address("1.1.1.1")
TABLE = [route("0.0.0.0/0", gateway="10.0.0.1"), route("1.1.1.0/24", "vpn0", table="77")]


def said(**more: object) -> FibAnswer:
    return FibAnswer(THERE, SOURCE, "lxc1", type="unicast", **more)  # type: ignore[arg-type]


def test_a_kernel_that_agrees_changes_nothing() -> None:
    decision = decide((), TABLE, SOURCE, THERE)
    answer = said(gateway=ip_address("10.0.0.1"), device="eth0", table="main")
    assert with_kernel_answer(decision, answer, TABLE) == decision


def test_the_kernel_knows_rules_that_the_tables_do_not_show() -> None:
    found = with_kernel_answer(
        decide((), TABLE, SOURCE, THERE), said(device="vpn0", table="77"), TABLE
    )
    assert found.route == TABLE[1]
    assert found.differs == "default via 10.0.0.1 dev eth0"


def test_a_route_that_no_table_shows_is_still_the_kernels_answer() -> None:
    found = with_kernel_answer(
        decide((), TABLE, SOURCE, THERE), said(device="wg0", table="9"), TABLE
    )
    assert found.route is not None
    assert describe(found.route) == "1.1.1.1/32 dev wg0"
    assert found.differs


def test_what_the_kernel_refuses_is_refused() -> None:
    answer = FibAnswer(THERE, SOURCE, "lxc1", error="Network is unreachable")
    found = with_kernel_answer(decide((), TABLE, SOURCE, THERE), answer, TABLE)
    assert found.route is None
    assert found.refused == "no route to 1.1.1.1: Network is unreachable"
    # Where the tables say so too, their words are the better ones: they name the route.
    refused = decide((), [route("0.0.0.0/0", "", type="prohibit")], SOURCE, THERE)
    assert with_kernel_answer(refused, answer, TABLE) is refused


def test_a_local_answer_is_the_same_whatever_the_device() -> None:
    routes = [route("1.1.1.1/32", "eth0", table="local", type="local")]
    decision = decide((), routes, SOURCE, THERE)
    answer = FibAnswer(THERE, SOURCE, "lxc1", type="local", device="lo", table="local")
    assert with_kernel_answer(decision, answer, routes) == decision
