"""One chain of netfilter and a packet: what it does with it, whose it is, and how to mend it.

The chain is one of iptables, of either back end, or a base chain of nftables' own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import nft
from kubectl_ebpfnet.explain.kernel.chain_ends import MAY_BE_ANYTHING, ChainEnd, ChainOutcome
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.netfilter import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.nft import AnyRule, NftChain, NftRule, NftRuleset
from kubectl_ebpfnet.model.path import Evidence, Fix
from kubectl_ebpfnet.model.shell import word

_OF_SERVICE = re.compile(r"([a-z0-9-]+)/([a-z0-9.-]+)(?::|\s|$)")
"""Beginning of kube-proxy's comments: `namespace/service:port has no endpoints`."""
_MOST = 6
"""Rules that one hop cites."""


@dataclass(frozen=True, slots=True)
class BackEnd:
    """The rules of one back end of iptables.

    Attributes:
        ruleset: of one IP version.
        record: that holds it.
        command: that changes it, `iptables`, `ip6tables-legacy`, …
    """

    ruleset: Ruleset
    record: Record | None
    command: str


@dataclass(frozen=True, slots=True)
class Native:
    """The base chains of nftables' own.

    Attributes:
        chains: without those that iptables-save printed.
        ruleset: their rules; None where only the chains were read.
        record: that holds the rules, else the chains.
        missing: why the rules were not read, "" when they were.
    """

    chains: tuple[NftChain, ...]
    ruleset: NftRuleset | None
    record: Record | None
    missing: str = ""

    def traverse(self, chain: NftChain, context: Context) -> Passage:
        """Run a packet through a base chain."""
        if self.ruleset is not None:
            return Passage(self, chain.table, nft.traverse(self.ruleset, chain, context), chain)
        doubt = f"chain nft {chain.title} at {chain.hook} could not be read: {self.missing}"
        end = ChainEnd(MAY_BE_ANYTHING, None, (), context, doubt)
        return Passage(self, chain.table, ChainOutcome((end,), chain.title), chain)


@dataclass(frozen=True, slots=True)
class Passage:
    """What one chain of a hook does with a packet.

    Attributes:
        back_end: whose chain it is.
        table: its table.
        outcome: every end that is possible.
        chain: the base chain, of nftables' own.
        state_before: the packet's state before the chain, where that may not be its state there.
    """

    back_end: BackEnd | Native
    table: str
    outcome: ChainOutcome
    chain: NftChain | None = None
    state_before: str = ""

    @property
    def after(self) -> Context | None:
        """The packet as the next chain sees it; None where it is lost."""
        passed = self.outcome.passed
        if passed is None or passed.state:
            return passed
        return replace(passed, state=self.state_before)

    def undecided(self, doubt: str) -> Passage:
        """Return the passage of a packet of which it is not known what the chain does with it."""
        end = ChainEnd(MAY_BE_ANYTHING, None, (), self.outcome.ends[0].context, doubt)
        return replace(self, outcome=ChainOutcome((end,), self.outcome.chain))

    @property
    def where(self) -> str:
        """The chain in words: `FORWARD`, `raw PREROUTING`, `nft inet f23 pre (prerouting)`."""
        if self.chain is not None:
            return f"nft {self.chain.title} ({self.chain.hook} {self.chain.priority:+d})"
        return (
            self.outcome.chain if self.table == "filter" else f"{self.table} {self.outcome.chain}"
        )

    @property
    def listing(self) -> str:
        """A command that prints the rules with their counters."""
        if isinstance(self.back_end, BackEnd):
            return f"{self.back_end.command}-save -c"
        return (
            f"nft list table {word(self.chain.family)} {word(self.table)}"
            if self.chain
            else "nft list ruleset"
        )

    def named(self, end: ChainEnd) -> str:
        """Return what decides an end in words: the rule, or the chain's policy."""
        return end.rule.title if end.rule is not None else f"policy of {self.outcome.chain}"

    def ends_in(self, end: ChainEnd) -> str:
        """Return where an end is and what decides it: `by INPUT rule 1 -j DROP`, `in FORWARD:
        KUBE-FORWARD rule 2 -j DROP`, where a chain is named once."""
        named, where = self.named(end), self.where
        if end.rule is None:
            policy = f"policy of {where}" if self.chain is None else named
            return f"by the {policy}"
        if self.chain is not None:
            own = f"nft {self.chain.title} "
            return (
                f"by {where} {named[len(own) :]}"
                if named.startswith(own)
                else (f"in {where}: {named}")
            )
        if end.rule.chain == self.outcome.chain:
            return f"by {'' if self.table == 'filter' else f'{self.table} '}{named}"
        return f"in {where}: {named}"

    def proof(self, end: ChainEnd) -> tuple[Evidence, ...]:
        """Cite the rules that lead to an end, or the chain with its policy."""
        record = self.back_end.record
        if end.rule is not None:
            return rules_evidence(self.back_end, end.way)
        if isinstance(self.back_end, Native):
            return cite.of(record, self.chain.span) if self.chain else cite.whole(record)
        place = (self.table, self.outcome.chain)
        chains = self.back_end.ruleset.chains
        spans = [each.span for each in chains if (each.table, each.name) == place]
        return cite.of(record, *spans) if spans else cite.whole(record)

    def object(self, end: ChainEnd) -> str:
        """Return the chain that a person would edit."""
        name = end.rule.chain if end.rule is not None else self.outcome.chain
        if self.chain is not None:
            name = end.rule.chain if end.rule is not None else self.chain.name
            return f"nft chain {self.chain.family} {self.table} {name}"
        assert isinstance(self.back_end, BackEnd)
        return f"{self.back_end.command} -t {self.table} chain {name}"

    def mend(self, place: str, end: ChainEnd) -> Fix:
        """Return what to do about an end that loses the packet.

        Args:
            place: the node or the pod, in words.
            end: of the outcome.
        """
        rule = end.rule
        if rule is None:
            return Fix(
                f"Accept this packet in {self.outcome.chain} on {place}, or change the chain's "
                "policy.",
                self._accept(),
            )
        if isinstance(rule, NftRule) and rule.table == "kube-proxy":
            return Fix(
                "kube-proxy keeps this table. Mend the Service, or its endpoints.", self.listing
            )
        service = None
        if isinstance(rule, NetfilterRule) and rule.chain.startswith("KUBE-"):
            service = _OF_SERVICE.match(rule.comment)
        if service is not None:
            return Fix(
                f"kube-proxy keeps this rule: {rule.comment}. Mend the Service, or its endpoints.",
                commands.list_slices(service[1], service[2]),
            )
        return Fix(
            f"Let this packet pass before the rule on {place}, or delete the rule.",
            self.delete(rule),
        )

    def _accept(self) -> str:
        if self.chain is not None:
            place = " ".join(map(word, (self.chain.family, self.table, self.chain.name)))
            return f"nft chain {place} '{{ policy accept; }}'"
        assert isinstance(self.back_end, BackEnd)
        return f"{self.back_end.command} -t {word(self.table)} -P {word(self.outcome.chain)} ACCEPT"

    def delete(self, rule: AnyRule) -> str:
        """Return the command that deletes a rule."""
        if isinstance(rule, NftRule):
            place = " ".join(map(word, (rule.family, rule.table, rule.chain)))
            return f"nft delete rule {place} handle {rule.handle}"
        assert isinstance(self.back_end, BackEnd)
        return f"{self.back_end.command} -t {word(rule.table)} -D {word(rule.chain)} {rule.number}"


def rules_evidence(back_end: BackEnd | Native, rules: Sequence[AnyRule]) -> tuple[Evidence, ...]:
    """Cite rules in the record of their back end; () without rules."""
    spans = [rule.span for rule in dict.fromkeys(rules)]
    return cite.of(back_end.record, *spans[:_MOST]) if spans else ()
