"""A base chain of nftables, applied to a packet: what becomes of it, and what may.

The ends are those of netfilter.py: each statement of a rule holds, does not, or is undecided; then
the packet is followed both ways. `accept` ends this base chain alone, and the next one of the hook
sees the packet; `drop` is final (hooks.py).

Sources: Linux net/netfilter/nf_tables_core.c (nft_do_chain), nft_immediate.c, nft_lookup.c,
nft_nat.c, nft_masq.c, nft_redir.c; nft(8), "VERDICT STATEMENTS".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from typing import Any

from kubectl_ebpfnet.explain.kernel.chain_ends import (
    MAY_BE_ANYTHING,
    ChainEnd,
    ChainOutcome,
    joined_or,
)
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.hop_limit import suffices_after_statement
from kubectl_ebpfnet.explain.kernel.marks import NOT_KNOWN, Mark
from kubectl_ebpfnet.explain.kernel.match_modules import Answer
from kubectl_ebpfnet.explain.kernel.netfilter import DEEPEST, ChainWalker
from kubectl_ebpfnet.explain.kernel.nft_matches import equals, holds
from kubectl_ebpfnet.explain.kernel.nft_values import MISSING, value_of
from kubectl_ebpfnet.model import json_members as members
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import endpoint_text
from kubectl_ebpfnet.model.nft import Expression, NftChain, NftRule, NftRuleset

_VERDICTS = {"accept": "ACCEPT", "drop": "DROP", "reject": "REJECT"}
_NAT = {"dnat": "DNAT", "snat": "SNAT", "redirect": "REDIRECT", "masquerade": "MASQUERADE"}
_ANYTHING = {
    "queue": "queue: a process decides",
    "tproxy": "tproxy hands it to a process",
    "synproxy": "synproxy answers in its place",
    "fwd": "fwd sends it by another device",
}
_CHANGES_MATTER = frozenset({"saddr", "daddr", "sport", "dport"})


def traverse(ruleset: NftRuleset, chain: NftChain, context: Context) -> ChainOutcome:
    """Run a packet through a base chain.

    Args:
        ruleset: all tables of the namespace.
        chain: a base chain of the packet's hook.
        context: the packet there; `tracked` tells whether connection tracking has seen it.
    """
    walker = _Walker(ruleset, chain)
    after = walker.chain(chain.name, context, ())
    if walker.rules_left <= 0:
        walker.end(MAY_BE_ANYTHING, None, context, "the chains are too many to be followed")
    if after is not None:
        walker.end("DROP" if chain.policy == "drop" else "ACCEPT", None, after)
    return ChainOutcome(tuple(walker.ends), chain.title)


@dataclass(slots=True)
class _Walker(ChainWalker):
    """A packet on its way through a table of nftables."""

    ruleset: NftRuleset
    base: NftChain
    costs: dict[NftRule, int] = field(default_factory=dict)

    def chain(self, name: str, here: Context | None, above: tuple[str, ...]) -> Context | None:
        """Follow a chain; return the packet as it leaves it for the caller, None if it does not.

        Args:
            name: of the chain.
            here: the packet.
            above: the chains that led there.
        """
        left: Context | None = None
        rules = self.ruleset.chain(self.base.family, self.base.table, name)
        for rule in rules or ():
            if rule not in self.costs:
                self.costs[rule] = 1 + _elements(rule.statements, rule) // _ELEMENTS_A_RULE
            self.rules_left -= self.costs[rule]
            if here is None or self.rules_left <= 0:
                return left
            here, returned = self._rule(rule, here, (*above, name))
            left = joined_or(left, returned)
        return joined_or(left, here)

    def _rule(
        self, rule: NftRule, here: Context, above: tuple[str, ...]
    ) -> tuple[Context | None, Context | None]:
        """Apply a rule; return the packet as the next rule sees it, and as the caller does."""
        passed_by: Context | None = None
        for statement in rule.statements:
            hit = holds(statement, rule, here)
            if hit is not True:
                passed_by = joined_or(passed_by, here)
            if hit is False:
                return passed_by, None
            if hit is None:
                here = _assumed(here, rule)
            ended = self._verdict(rule, statement, here, above)
            if ended is not None:
                after, returned = ended
                return joined_or(passed_by, after), returned
            here = _changed(rule, statement, here)
            if not suffices_after_statement(statement):
                here = self.few_hops(rule, here)
        return joined_or(passed_by, here), None

    def _verdict(
        self, rule: NftRule, statement: Expression, here: Context, above: tuple[str, ...]
    ) -> tuple[Context | None, Context | None] | None:
        """Apply a statement that ends a rule; None for another one.

        Returns:
            The packet as the next rule sees it, and as the chain's caller does.
        """
        name, body = next(iter(statement.items()))
        if name in _VERDICTS:
            self.end(_VERDICTS[name], rule, here)
            return None, None
        if name == "continue":
            return here, None
        if name == "return":
            return None, here
        if name in ("jump", "goto"):
            after = self._into(rule, members.text(body, "target"), here, above)
            return (after, None) if name == "jump" else (None, after)
        if name == "vmap":
            return self._by_map(rule, body, here, above)
        if name in _NAT:
            return self._translated(rule, _NAT[name], body, here)
        if name == "xt" and members.text(body, "type") == "target":
            return self._anything(rule, here, f"what target {members.text(body, 'name')} does")
        if name in _ANYTHING:
            return self._anything(rule, here, _ANYTHING[name])
        if name in ("mangle", "xt", *_UNDERSTOOD):
            return None
        return self._anything(rule, here, f"what {name} does")

    def _into(
        self, rule: NftRule, name: str, here: Context, above: tuple[str, ...]
    ) -> Context | None:
        """Follow a chain that a rule leads to; return the packet as it comes back from it."""
        if self.ruleset.chain(self.base.family, self.base.table, name) is None:
            return self._anything(rule, here, f"chain {name} was not read, and what it does")[0]
        if name in above or len(above) > DEEPEST:
            return self._anything(rule, here, f"chain {name} is nested too deep, and what it does")[
                0
            ]
        self.way.append(rule)
        after = self.into(name, here, above)
        self.way.pop()
        return after

    def _by_map(
        self, rule: NftRule, body: Any, here: Context, above: tuple[str, ...]
    ) -> tuple[Context | None, Context | None]:
        """Apply the verdicts that a verdict map may have for the packet."""
        found, missed = _looked_up(body, rule, here)
        after = here if missed is not False else None
        returned: Context | None = None
        for answer, verdict in found:
            self.rules_left -= 1
            if self.rules_left <= 0:
                break
            taken = here if answer else _assumed(here, rule)
            ended = self._verdict(rule, verdict, taken, above) if verdict else None
            went_on, came_back = ended or self._anything(rule, taken, "what a verdict map does")
            after, returned = joined_or(after, went_on), joined_or(returned, came_back)
        return after, returned

    def _translated(
        self, rule: NftRule, target: str, body: Any, here: Context
    ) -> tuple[Context | None, Context | None]:
        """Add an end for each address that a nat statement may give the packet."""
        for answer, to in _targets(body, rule, here):
            taken = here if answer else _assumed(here, rule)
            self.ends.append(ChainEnd(target, rule, (*self.way, rule), taken, to=to))
        return None, None

    def _anything(
        self, rule: NftRule, here: Context, doubt: str
    ) -> tuple[Context | None, Context | None]:
        """Add an end of which nothing is known, and go on with a packet of unknown marks."""
        here = replace(here, mark=NOT_KNOWN, connmark=NOT_KNOWN)
        self.end(MAY_BE_ANYTHING, rule, here, f"{rule.title}: {doubt} is not known")
        return _assumed(here, rule), None


_UNDERSTOOD = frozenset({
    "match", "counter", "log", "last", "dup", "flow", "notrack", "limit", "quota", "ct count",
    "ct helper", "ct timeout", "ct expectation", "connlimit", "meter", "set", "map", "secmark",
})  # fmt: skip
"""Statements after which the rule goes on; `holds` tells whether it does."""


_ELEMENTS_A_RULE = 32
"""Elements of sets that take as long to look through as a rule takes."""


def _elements(value: Any, rule: NftRule) -> int:
    """Return how many elements a rule's sets have, the named ones among them."""
    if isinstance(value, str):
        named = rule.sets.get(value[1:]) if value.startswith("@") else None
        return len(named.elements) if named is not None else 0
    if isinstance(value, dict):
        return sum(_elements(each, rule) for each in value.values())
    if isinstance(value, list | tuple):
        return len(value) + sum(_elements(each, rule) for each in value)
    return 0


def _assumed(here: Context, rule: NftRule) -> Context:
    if rule in here.assumed:
        return here
    return replace(here, assumed=(*here.assumed, rule))


def _changed(rule: NftRule, statement: Expression, here: Context) -> Context:
    """Return the packet after a statement that changes it: its marks, or that it is not tracked."""
    name, body = next(iter(statement.items()))
    if name == "notrack":
        # After connection tracking it does nothing (nft_notrack_eval).
        return here if here.tracked else replace(here, state="UNTRACKED", untracked_by=rule)
    if name != "mangle":
        return here
    key = members.dig(body, "key")
    if members.text(key, "payload", "field") in _CHANGES_MATTER:
        return replace(here, mark=NOT_KNOWN, connmark=NOT_KNOWN, state="")
    packets, connections = (members.text(key, each, "key") == "mark" for each in ("meta", "ct"))
    if not packets and (not connections or not here.tracked):
        return here
    new = members.dig(body, "value")
    mark = value_of(new, here) if isinstance(new, dict) and new else members.number(new)
    mark = Mark(mark) if isinstance(mark, int) and not isinstance(mark, bool) else mark
    mark = mark if isinstance(mark, Mark) else NOT_KNOWN
    new_marks = (mark, here.connmark) if packets else (here.mark, mark)
    if new_marks == (here.mark, here.connmark):
        return here
    by = (*here.marked_by, rule)
    return replace(here, mark=new_marks[0], connmark=new_marks[1], marked_by=by)


def _looked_up(
    body: Any, rule: NftRule, here: Context
) -> tuple[list[tuple[Answer, Any]], bool | None]:
    """Return the elements of a map that its key may have, and whether it may have none of them.

    Returns:
        Pairs of whether the key is the element's (True or None), and its value; and whether the
        key is in no element: True, False or None.
    """
    key, data = members.dig(body, "key"), members.dig(body, "data")
    named = rule.sets.get(data[1:]) if isinstance(data, str) else None
    elements = list(named.elements) if named is not None else members.items(data, "set")
    value = value_of(key, here) if isinstance(key, dict) and key else None
    if value is MISSING:
        return [], True
    if not all(isinstance(each, list) and len(each) == 2 for each in elements):
        return [(None, None)], None
    if isinstance(data, str) and named is None:
        return [(None, None)], None
    found: list[tuple[Answer, Any]] = []
    for constant, verdict in sorted(elements, key=_catches_all):
        answer = equals(value, constant)
        if answer:
            return [*found, (None if found else True, verdict)], False
        if answer is None:
            found.append((None, verdict))
    covers = isinstance(key, dict) and members.number(key, "numgen", "mod") == len(found)
    changes = named is not None and named.changes
    return found, False if covers else None if found or changes else True


def _catches_all(element: list[Any]) -> bool:
    return element[0] == "*" or members.text(element[0], "elem", "val") == "*"


def _targets(body: Any, rule: NftRule, here: Context) -> Iterator[tuple[Answer, str]]:
    """Yield where a nat statement may translate to, as iptables writes it; "" for not known."""
    address = members.dig(body, "addr")
    port = members.dig(body, "port")
    mapped = members.dig(address, "map")
    if mapped is None:
        yield True, _endpoint(address, port)
        return
    found, missed = _looked_up(mapped, rule, here)
    for answer, value in found:
        parts = members.items(value, "concat") or [value]
        yield answer, _endpoint(parts[0], parts[1] if len(parts) == 2 else port)
    if missed is not False:
        yield None, ""


def _endpoint(address: Any, port: Any) -> str:
    bounds = members.items(address, "range")
    if len(bounds) == 2 and port is None:
        low, high = (members.address(bound) for bound in bounds)
        return "" if low is None or high is None else f"{low}-{high}"
    found = members.address(address)
    number = members.number(port)
    if (port is not None and number is None) or (address is not None and found is None):
        return ""
    if found is None:
        return "" if number is None else f":{number}"
    return endpoint_text(found, number)
