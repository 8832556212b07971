"""The routing decision: rules, tables, longest prefix (ip-rule(8), ip-route(8)).

The kernel asks the rules in the order of their priority and takes the first table that has a route.
A rule that looks at what is not known of the packet, or a table that nobody listed, leaves the
decision undecided unless every possibility leads to the same route.

Sources: Linux net/core/fib_rules.c (fib_rules_lookup, fib_rule_match), net/ipv4/fib_rules.c
(fib4_rule_match, fib4_rule_suppress), net/ipv4/fib_trie.c (fib_table_lookup), net/ipv6/ip6_fib.c.
A route's scope does not narrow the look-up of a packet, whose own scope is `global`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network

from kubectl_ebpfnet.explain.kernel.decision import (
    USUAL_TABLES,
    Decision,
    RoutingTables,
    describe,
    prefix,
)
from kubectl_ebpfnet.explain.kernel.rule_match import RoutedPacket, rule_text, selects
from kubectl_ebpfnet.model.kernel import FibAnswer, Route, Rule
from kubectl_ebpfnet.model.net import UDP

DEFAULT_RULES = (Rule(0, "local"), Rule(32766, "main"), Rule(32767, "default"))
"""The rules of a new namespace."""

_OF_VRFS = Rule(1000, "", action="l3mdev")
"""The rule that the first VRF of a namespace adds (drivers/net/vrf.c)."""

REFUSING = frozenset({"blackhole", "unreachable", "prohibit"})
_LOOK_UP = "lookup"


def decide(tables: RoutingTables, packet: RoutedPacket) -> Decision:
    """Look a packet up as the kernel does.

    Args:
        tables: of the namespace.
        packet: what is known of it.

    Returns:
        The decision; `refused` says "no route to …" when nothing matches.
    """
    listed = tables.rules
    if listed is None:
        listed = (*DEFAULT_RULES, _OF_VRFS) if packet.in_vrf else DEFAULT_RULES
    rules = sorted(listed, key=lambda rule: rule.priority)
    version = packet.destination.version
    rules = [rule for rule in rules if rule.version in (None, version)]
    nothing = Decision(None, None, f"no route to {packet.destination}")
    # From the last rule to the first: what may become of a packet that no earlier rule took. The
    # first of each is the result if no rule that is undecided matches. `goto` only leads forward.
    after: list[_Possible] = [[(nothing, "")]]
    first_at: dict[int, _Possible] = {}
    for rule in reversed(rules):
        passed = after[-1]
        selected = selects(rule, packet)
        found = passed
        if selected is not False:
            found = _acted(rule, tables, packet, passed, first_at.get(rule.goto or -1))
        if isinstance(selected, str):
            possible = [(each, why or selected) for each, why in found]
            found = _merged(passed[:1], [*possible, *passed[1:]])
        after.append(found)
        first_at[rule.priority] = found
    (taken, _), *others = after[-1]
    elsewhere = [(each, why) for each, why in others if each.ends_at != taken.ends_at]
    if taken.undecided or not elsewhere:
        return taken
    other, why = elsewhere[0]
    return replace(taken, undecided=f"{why}, and would then lead to: {_result(other)}")


_Possible = list[tuple[Decision, str]]
"""Possible decisions, each with the reason why it is not certain ("" for none)."""


def _acted(
    rule: Rule,
    tables: RoutingTables,
    packet: RoutedPacket,
    passed: _Possible,
    target: _Possible | None,
) -> _Possible:
    """Return what may become of a packet that a rule selects.

    Args:
        rule: selects the packet.
        tables: of the namespace.
        packet: the packet.
        passed: what becomes of it by the rules after this one.
        target: what becomes of it by the rules from the target of `goto` on; None without them.
    """
    if rule.action in REFUSING:
        return [(Decision(None, rule, f"{rule_text(rule)} says {rule.action}"), "")]
    if rule.action == "goto":
        return passed if target is None else target  # an unresolved goto is passed over
    if rule.action == "nop":
        return passed
    if rule.action == "l3mdev" and packet.vrf_table:
        return _looked_up(replace(rule, table=packet.vrf_table), tables, packet, passed)
    if rule.action == "l3mdev":
        reason = f"the table of the VRF is not known, which {rule_text(rule)} looks up"
        return _merged([(Decision(None, rule, undecided=reason), "")], passed)
    if rule.action != _LOOK_UP:
        reason = f"{rule_text(rule)} is not understood: {rule.action or 'no action'}"
        return _merged([(Decision(None, rule, undecided=reason), "")], passed)
    return _looked_up(rule, tables, packet, passed)


def _merged(one: _Possible, other: _Possible) -> _Possible:
    """Return the decisions of both, each once, with the first reason."""
    merged = list(one)
    seen = {each.ends_at for each, _ in one if not each.undecided}
    for each, why in other:
        if each.undecided or each.ends_at not in seen:
            seen.add(each.ends_at)
            merged.append((each, why))
    return merged[:_MOST]


_MOST = 8
"""Possible decisions to keep: two decide that a look-up is undecided."""


def _looked_up(
    rule: Rule, tables: RoutingTables, packet: RoutedPacket, passed: _Possible
) -> _Possible:
    """Return what may become of a packet that is looked up in a rule's table."""
    destination = packet.destination
    if tables.listed is not None and rule.table not in tables.listed:
        if rule.table == "local":
            if destination in tables.own:
                whole = ip_network(destination.packed)
                own = Route(whole, None, "lo", "local", "local")
                return [(Decision(own, rule, next_hops=(own,)), "")]
            return passed
        if rule.table == "default":  # empty unless somebody fills it, which `ip route` hides
            return passed
        reason = f"table {rule.table} was not read, which {rule_text(rule)} looks up"
        return _merged([(Decision(None, rule, undecided=reason), "")], passed)
    instead: _Possible = []
    for hops, why in _longest(tables.routes, rule.table, packet):
        found = _by(rule, hops, passed)
        if not why:
            return _merged(found, instead)
        instead += [(each, why) for each, _ in found]
    return _merged(passed, instead)


def _by(rule: Rule, hops: tuple[Route, ...], passed: _Possible) -> _Possible:
    """Return what becomes of a packet by the route that a rule's table has for it."""
    route = hops[0]
    if route.type == "throw":
        return passed
    where = f"table {route.table}, which {rule_text(rule)} looks up"
    usual = route.table in USUAL_TABLES and rule.table == route.table
    if route.type in REFUSING:
        refused = f"{prefix(route)} is {route.type}"
        refused = f"the route {refused}" if usual else f"the route {refused} in {where}"
        return [(Decision(route, rule, refused), "")]
    if rule.suppress_prefix is not None and route.destination.prefixlen <= rule.suppress_prefix:
        return passed
    if route.type in ("unicast", "local", "broadcast") and (route.device or route.type == "local"):
        decision = Decision(route, rule, next_hops=hops)
        if not rule.suppress_group:
            return [(decision, "")]
        why = f"the device group of {route.device} is not known, which {rule_text(rule)} looks at"
        return _merged([(decision, "")], [(each, w or why) for each, w in passed])
    what = f"a route of type {route.type}" if route.device else "a next hop that is not shown"
    reason = f"{prefix(route)} of table {route.table} has {what}"
    return [(Decision(None, rule, undecided=reason), "")]


def _longest(
    routes: Sequence[Route], table: str, packet: RoutedPacket
) -> Iterator[tuple[tuple[Route, ...], str]]:
    """Yield the next hops of the best route of a table; before it, those of routes that may be
    taken instead, with the reason.

    The best has the longest prefix, then (IPv6) the longest source prefix, then the lowest metric.
    Dead next hops are passed over, and with all its next hops a route.
    """
    hits = [
        route
        for route in routes
        if route.table == table
        and not route.dead
        and route.type not in ("multicast", "anycast")
        and packet.destination in route.destination
        and (route.source is None or packet.source in route.source)
    ]
    hits.sort(key=_order)
    while hits:
        best = hits[0]
        same = [route for route in hits if _order(route) == _order(best)]
        hops: tuple[Route, ...] = ()
        if best.weight:
            hops = tuple(route for route in same if route.weight)
        elif best.destination.version == 6 and best.type == "unicast":
            hops = tuple(same)  # IPv6 keeps the next hops of a route as routes
        why = f"the route {describe(best)} is for packets of TOS {best.tos}" if best.tos else ""
        yield hops or (best,), why
        if not why:
            return
        hits = hits[len(same) :]


def _order(route: Route) -> tuple[int, int, bool, str, int]:
    source = route.source.prefixlen if route.source is not None else 0
    return -route.destination.prefixlen, -source, not route.tos, route.tos, route.metric


def with_kernel_answer(
    decision: Decision, answer: FibAnswer, tables: RoutingTables, packet: RoutedPacket
) -> Decision:
    """Return the decision by the kernel's own answer, which also depends on what the tables do not
    show, such as VRFs.

    The kernel was asked about a packet of UDP without ports, mark or TOS, by uid 0: its answer
    holds for another packet only if no rule tells the two apart.

    Args:
        decision: of `decide`, by the tables.
        answer: of RTM_GETROUTE for the same addresses.
        tables: of the namespace, to name the route that was taken.
        packet: the packet of the decision.
    """
    if not _same_to_rules(tables, packet):
        return decision
    from_tables = describe(decision.route) if decision.route else decision.refused
    from_tables = "" if decision.undecided else from_tables
    if answer.error:
        if decision.refused and not decision.undecided:
            return decision
        refused = f"the kernel's look-up for {answer.destination} fails: {answer.error}"
        return Decision(None, None, refused, from_tables)
    taken = (answer.gateway, answer.device, answer.type)
    if not decision.refused:
        for hop in decision.next_hops:
            same_hop = (hop.gateway, hop.device, hop.type) == taken
            if same_hop or (hop.type == answer.type == "local"):
                return replace(decision, undecided="")
    matching = [
        route
        for route in tables.routes
        if (route.gateway, route.device, route.type) == taken
        and answer.table in ("", route.table)
        and answer.destination in route.destination
    ]
    found = max(matching, key=lambda route: route.destination.prefixlen, default=None)
    if found is None:
        whole = ip_network(answer.destination.packed)
        found = Route(
            whole, answer.gateway, answer.device, answer.table or "main", answer.type,
            mtu=answer.mtu,
        )  # fmt: skip
    return Decision(found, None, "", from_tables, (found,))


def _same_to_rules(tables: RoutingTables, packet: RoutedPacket) -> bool:
    asked = replace(
        packet, mark=0, protocol=UDP, source_port=0, destination_port=0, user=0, tos=0, tunnel_id=0
    )
    for rule in tables.rules or ():
        selected = selects(rule, packet)
        # What is not understood of a rule may tell them apart as well.
        if selected != selects(rule, asked) or (rule.other_selectors and selected is not False):
            return False
    return True


def _result(decision: Decision) -> str:
    if decision.undecided or decision.refused:
        return decision.undecided or decision.refused
    return describe(decision.route) if decision.route else "nothing"
