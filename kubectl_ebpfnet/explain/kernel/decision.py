"""What routing tables decide about a packet, and how that is said."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.kernel.rule_match import rule_text
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kernel import Route, Rule
from kubectl_ebpfnet.model.net import Address

USUAL_TABLES = frozenset({"local", "main", "default"})
"""Those of the default rules."""


@dataclass(frozen=True, slots=True)
class RoutingTables:
    """What is known of a namespace's routing, of one IP version.

    Attributes:
        rules: None for the three default rules.
        routes: of every table that was listed.
        listed: names of the tables that were listed; None for all.
        own: addresses of the namespace, which stand for the table `local` where it was not listed.
        not_read: why the rules are not known, "" where they are.
    """

    rules: Sequence[Rule] | None
    routes: Sequence[Route]
    listed: frozenset[str] | None = None
    own: frozenset[Address] = frozenset()
    not_read: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a routing look-up.

    Attributes:
        route: the route that was taken, None when there is none.
        rule: the rule that led to it, None when rules were not read.
        refused: why the packet is refused here, "" when it is not.
        differs: the tables' result where the kernel's own answer differs from it, else "".
        next_hops: every usable next hop of the route, the first of which is `route`.
        undecided: the rule or table that may lead elsewhere, "" when nothing may. `route` is then
            the one that is taken if it does not; None where a table must have been read to tell.
    """

    route: Route | None
    rule: Rule | None = None
    refused: str = ""
    differs: str = ""
    next_hops: tuple[Route, ...] = ()
    undecided: str = ""

    @property
    def local(self) -> bool:
        """Whether the packet is delivered in this namespace."""
        return self.route is not None and self.route.type == "local"

    @property
    def ends_at(self) -> object:
        """What decisions have in common that do the same to the packet."""
        if self.refused:
            return "refused"
        hops = self.next_hops or ((self.route,) if self.route else ())
        return frozenset((h.gateway, h.device, h.type, h.mtu, h.preferred_source) for h in hops)


def describe(route: Route) -> str:
    """Return a route in iproute2's words, short."""
    words = [prefix(route)]
    if route.type not in ("unicast", "local"):
        words.insert(0, route.type)
    if route.gateway is not None:
        words.append(f"via {route.gateway}")
    if route.device:
        words.append(f"dev {route.device}")
    return " ".join(words)


def describe_taken(decision: Decision) -> str:
    """Return the route of a decision in words: which of several next hops, and by which rule, where
    the table is none of the usual ones."""
    assert decision.route is not None
    words = describe(decision.route)
    if len(decision.next_hops) > 1:
        hops = ", ".join(
            str(hop.gateway or "on the link")
            + (f" dev {hop.device}" if hop.device != decision.route.device else "")
            for hop in decision.next_hops
        )
        words += f", one of {len(decision.next_hops)} next hops ({hops})"
    rule = decision.rule
    return words + (f" by rule {rule.priority}" if rule and by_own_rule(decision) else "")


def by_own_rule(decision: Decision) -> bool:
    """Tell whether a rule that somebody added led to the route."""
    rule = decision.rule
    plain = rule is not None and rule_text(rule) == f"rule {rule.priority}"
    return rule is not None and (rule.table not in USUAL_TABLES or not plain)


def prefix(route: Route) -> str:
    """Return where a route leads, `default` for everywhere."""
    return str(route.destination) if route.destination.prefixlen else "default"
