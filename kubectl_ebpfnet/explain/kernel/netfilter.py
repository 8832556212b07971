"""Netfilter's chains, applied to a packet: what becomes of it, and what may.

Sources: iptables(8), iptables-extensions(8); Linux net/ipv4/netfilter/ip_tables.c (ipt_do_table),
net/netfilter/xt_*.c. A rule matches, does not match, or is undecided (rule_matches.py): then the
packet is followed both ways, and every end that it may come to is kept, with the undecided rules
that must have matched for it.
"""

from __future__ import annotations

from dataclasses import field, replace

from kubectl_ebpfnet.explain.kernel.chain_ends import (
    LOSING,
    MAY_BE_ANYTHING,
    TRANSLATING,
    ChainEnd,
    ChainOutcome,
    joined_or,
)
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.hop_limit import HOP_LIMITS, IN_DOUBT, suffices_after_target
from kubectl_ebpfnet.explain.kernel.marks import NOT_KNOWN, marked
from kubectl_ebpfnet.explain.kernel.rule_matches import matches
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.netfilter import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.nft import AnyRule

_PASSING_ON = frozenset({
    "AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "DSCP", "ECN", "IDLETIMER", "LED", "LOG",
    "NFLOG", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "ULOG",
})  # fmt: skip
"""Targets after which the next rule is asked, and which change nothing that is looked at here."""
_SETS_MARK = frozenset({"HMARK", "IPMARK"})
DEEPEST = 64
"""Nested chains that are followed; the kernel's limit is the number of chains."""
_FOLLOWED_EACH_TIME = 1 << 12
"""Rules that are asked before a chain is no more followed from each rule that jumps to it."""
_MOST_TIMES = 1 << 10
"""Times that a chain is followed then: rules that branch give the packet ever other marks."""
MOST_RULES = 1 << 16
"""Rules that are asked for one packet, since chains that branch may be asked very often."""


def traverse(ruleset: Ruleset, table: str, chain: str, context: Context) -> ChainOutcome:
    """Run a packet through a built-in chain of one table.

    Args:
        ruleset: chains and rules of one IP version.
        table: `raw`, `mangle`, `nat` or `filter`.
        chain: `PREROUTING`, `INPUT`, `FORWARD`, …
        context: the packet at that hook.
    """
    walker = _Walker(ruleset, table)
    context = replace(context, tracked=table != "raw")
    problem = ruleset.problem(table)
    if problem:
        unknown = replace(context, mark=NOT_KNOWN, connmark=NOT_KNOWN, state="")
        walker.end(MAY_BE_ANYTHING, None, unknown, f"table {table}: {problem}")
    try:
        after = walker.chain(chain, context, ())
    except RecursionError:
        after = None
    if walker.rules_left <= 0:
        walker.end(MAY_BE_ANYTHING, None, context, "the chains are too many to be followed")
    if after is not None:
        policy = "DROP" if ruleset.policy(table, chain) == "DROP" else "ACCEPT"
        walker.end(policy, None, after)
    return ChainOutcome(tuple(walker.ends), chain)


@dataclass(slots=True, kw_only=True)
class ChainWalker:
    """A packet on its way through the chains of a table.

    Attributes:
        ends: where it may come to an end, so far.
        way: the rules whose jumps led to the present chain.
        rules_left: that are asked for it yet.
        seen: what came out of chains, by their name and what of the packet may differ.
        times: that each chain was followed.
    """

    ends: list[ChainEnd] = field(default_factory=list)
    way: list[AnyRule] = field(default_factory=list)
    rules_left: int = MOST_RULES
    seen: dict[tuple[object, ...], Context | None] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)

    def chain(self, name: str, here: Context | None, above: tuple[str, ...]) -> Context | None:
        """Follow a chain; return the packet as it leaves it for the caller, None if it does not."""
        raise NotImplementedError

    def into(self, name: str, here: Context, above: tuple[str, ...]) -> Context | None:
        """Follow a chain as `chain`; where rules branch so often that chains are followed again and
        again, once for each packet that differs: its ends are there already.

        Args:
            name: of the chain.
            here: the packet.
            above: the chains that led there.
        """
        key = (
            name, here.mark, here.connmark, here.state, here.tracked, here.translated,
            here.untracked_by, bool(here.assumed),
        )  # fmt: skip
        self.times[name] = self.times.get(name, 0) + 1
        if self.rules_left < MOST_RULES - _FOLLOWED_EACH_TIME:
            if key in self.seen:
                return self.seen[key]
            if self.times[name] > _MOST_TIMES:
                self.rules_left = 0
                return None
        after = self.chain(name, here, above)
        if self.rules_left > 0:
            self.seen[key] = after
        return after

    def end(self, target: str, rule: AnyRule | None, here: Context, doubt: str = "") -> None:
        """Add an end.

        Args:
            target: what the table does with the packet.
            rule: that decides, None for a policy.
            here: the packet.
            doubt: for MAY_BE_ANYTHING: what is not known.
        """
        way = (*self.way, rule) if rule is not None else ()
        self.ends.append(ChainEnd(target, rule, way, here, doubt))

    def few_hops(self, rule: AnyRule, here: Context) -> Context:
        """Add the end of a packet whose hop limit a rule changes, and go on with the packet."""
        self.end(MAY_BE_ANYTHING, rule, here, f"{rule.title}: {IN_DOUBT}")
        return here if rule in here.assumed else replace(here, assumed=(*here.assumed, rule))


@dataclass(slots=True)
class _Walker(ChainWalker):
    """A packet on its way through a table of iptables."""

    ruleset: Ruleset
    table: str

    def chain(self, name: str, here: Context | None, above: tuple[str, ...]) -> Context | None:
        """Follow a chain; return the packet as it leaves it for the caller, None if it does not.

        Args:
            name: of the chain.
            here: the packet.
            above: the chains that led there.
        """
        left: Context | None = None
        for rule in self.ruleset.chain(self.table, name):
            self.rules_left -= 1
            if here is None or self.rules_left <= 0:
                return left
            hit = matches(rule, here)
            if hit is False or (not rule.jump and not rule.problem):
                continue
            taken = here if hit else replace(here, assumed=(*here.assumed, rule))
            if rule.jump == "RETURN":
                after, left = None, joined_or(left, taken)
            else:
                after = self._target(rule, taken, (*above, name))
                if rule.goto:
                    after, left = None, joined_or(left, after)
            here = after if hit else joined_or(here, after)
        return joined_or(left, here)

    def _target(self, rule: NetfilterRule, here: Context, above: tuple[str, ...]) -> Context | None:
        """Apply a rule's target; return the packet as the next rule sees it, None if it ends."""
        target = rule.jump
        if self.ruleset.has_chain(self.table, target):
            if target in above or len(above) > DEEPEST:
                return self._anything(rule, here, f"chain {target} is nested too deep")
            self.way.append(rule)
            after = self.into(target, here, above)
            self.way.pop()
            return after
        if target == "ACCEPT" or target in LOSING | TRANSLATING:
            self.end(target, rule, here)
            return None
        if target in _PASSING_ON:
            return here
        if target in HOP_LIMITS:
            return here if suffices_after_target(rule) else self.few_hops(rule, here)
        if target == "CONNMARK" and not here.tracked:
            return here
        if target in ("MARK", "CONNMARK"):
            mark, connmark = marked(rule, here.mark, here.connmark)
            if (mark, connmark) == (here.mark, here.connmark):
                return here
            by = (*here.marked_by, rule)
            return replace(here, mark=mark, connmark=connmark, marked_by=by)
        if target in _SETS_MARK:
            return replace(here, mark=NOT_KNOWN)
        if target == "NOTRACK" or (target == "CT" and "--notrack" in rule.target_options):
            return replace(here, state="UNTRACKED", untracked_by=rule)
        if target == "CT":
            return here
        what = rule.problem or f"what target {target} does"
        return self._anything(rule, here, f"{what} is not known" if not rule.problem else what)

    def _anything(self, rule: NetfilterRule, here: Context, doubt: str) -> Context:
        """Add an end of which nothing is known, and go on with a packet of unknown marks."""
        said = f"{rule.title}: {doubt}"
        here = replace(here, mark=NOT_KNOWN, connmark=NOT_KNOWN)
        self.end(MAY_BE_ANYTHING, rule, here, said)
        return replace(here, assumed=(*here.assumed, rule))
