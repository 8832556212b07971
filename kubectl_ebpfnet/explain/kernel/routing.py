"""The routing decision: rules, tables, longest prefix (ip-rule(8), ip-route(8)).

Source: Linux net/ipv4/fib_rules.c and fib_lookup; the kernel asks rules in the order of their
priority and takes the first table that has a route.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from kubectl_ebpfnet.model.kernel import FibAnswer, Neighbour, Route, Rule
from kubectl_ebpfnet.model.net import Address

DEFAULT_RULES = (Rule(0, "local"), Rule(32766, "main"), Rule(32767, "default"))
"""The rules of a new namespace; used where routes were read but rules were not."""

REFUSING = frozenset({"blackhole", "unreachable", "prohibit", "throw"})
_FAILED = frozenset({"FAILED", "INCOMPLETE"})


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a routing look-up.

    Attributes:
        route: the route that was taken, None when there is none.
        rule: the rule that led to it, None when rules were not read.
        refused: why the packet is refused here, "" when it is not.
        differs: the tables' result where the kernel's own answer differs from it, else "".
    """

    route: Route | None
    rule: Rule | None = None
    refused: str = ""
    differs: str = ""

    @property
    def local(self) -> bool:
        """Whether the packet is delivered in this namespace."""
        return self.route is not None and self.route.type == "local"


def decide(
    rules: Sequence[Rule],
    routes: Sequence[Route],
    source: Address,
    destination: Address,
    *,
    mark: int = 0,
    in_device: str = "",
) -> Decision:
    """Look a packet up as the kernel does.

    Args:
        rules: () for the three default rules.
        routes: of every table that is known.
        source, destination: of the packet.
        mark: its skb mark.
        in_device: the device it came in by, "" for packets of this namespace.

    Returns:
        The decision; `refused` says "no route to …" when nothing matches.
    """
    for rule in sorted(rules or DEFAULT_RULES, key=lambda rule: rule.priority):
        if not _selects(rule, source, destination, mark, in_device):
            continue
        if rule.action in ("blackhole", "unreachable", "prohibit"):
            return Decision(None, rule, f"rule {rule.priority} says {rule.action}")
        if rule.action != "lookup":
            continue
        route = longest(routes, rule.table, destination)
        if route is None or route.type == "throw":
            continue
        if route.type in REFUSING:
            return Decision(route, rule, f"the route {route.destination} is {route.type}")
        return Decision(route, rule)
    return Decision(None, None, f"no route to {destination}")


def with_kernel_answer(decision: Decision, answer: FibAnswer, routes: Sequence[Route]) -> Decision:
    """Return the decision by the kernel's own answer, which also depends on what the tables do not
    show: rules by port or user, the choice among several next hops, VRFs.

    Args:
        decision: of `decide`, by the tables.
        answer: of RTM_GETROUTE for the same packet.
        routes: of every table that is known, to name the route that was taken.
    """
    from_tables = describe(decision.route) if decision.route else decision.refused
    if answer.error:
        if decision.route is None or decision.refused:
            return decision
        return Decision(
            None, None, f"no route to {answer.destination}: {answer.error}", from_tables
        )
    taken = (answer.gateway, answer.device, answer.type)
    route = decision.route
    if route is not None and not decision.refused:
        same_route = (route.gateway, route.device, route.type) == taken
        if same_route or (route.type == answer.type == "local"):
            return decision
    matching = [
        route
        for route in routes
        if (route.gateway, route.device, route.type) == taken
        and answer.table in ("", route.table)
        and answer.destination in route.destination
    ]
    found = max(matching, key=lambda route: route.destination.prefixlen, default=None)
    if found is None:
        whole = ip_network(answer.destination.packed)
        found = Route(
            whole,
            answer.gateway,
            answer.device,
            answer.table or "main",
            answer.type,
            mtu=answer.mtu,
        )
    return Decision(found, None, "", from_tables)


def longest(routes: Sequence[Route], table: str, destination: Address) -> Route | None:
    """Return the route of a table with the longest prefix, then the lowest metric, or None.

    Args:
        routes: of any tables.
        table: its name.
        destination: of the packet.
    """
    hits = (
        route
        for route in routes
        if route.table == table
        and route.type not in ("broadcast", "multicast", "anycast")
        and destination in route.destination
    )
    return min(hits, key=lambda route: (-route.destination.prefixlen, route.metric), default=None)


def _selects(rule: Rule, source: Address, destination: Address, mark: int, in_device: str) -> bool:
    if rule.other_selectors:
        return False  # ports, protocols, users: not evaluated, so not taken for a match of all
    if rule.version not in (None, destination.version):
        return False
    hit = (
        (rule.source is None or source in rule.source)
        and (rule.destination is None or destination in rule.destination)
        and (rule.mark is None or mark & rule.mark_mask == rule.mark)
        and (not rule.in_device or rule.in_device == (in_device or "lo"))
        and not rule.out_device
    )
    return hit != rule.inverted


def describe(route: Route) -> str:
    """Return a route in iproute2's words, short."""
    default = route.destination.prefixlen == 0
    words = ["default" if default else str(route.destination)]
    if route.type not in ("unicast", "local"):
        words.insert(0, route.type)
    if route.gateway is not None:
        words.append(f"via {route.gateway}")
    if route.device:
        words.append(f"dev {route.device}")
    return " ".join(words)


def neighbour_of(
    neighbours: Sequence[Neighbour], device: str, address: Address
) -> Neighbour | None:
    """Return the neighbour entry for an address on a device, or None.

    Args:
        neighbours: the table.
        device: name of the device.
        address: of the neighbour.
    """
    hits = (n for n in neighbours if n.address == address and n.device in (device, ""))
    return next(hits, None)


def unresolved(neighbour: Neighbour) -> bool:
    """Tell whether the kernel asked for the neighbour's MAC and got no answer."""
    return bool(_FAILED & set(neighbour.states)) and not neighbour.mac
