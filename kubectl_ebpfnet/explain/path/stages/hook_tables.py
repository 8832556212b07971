"""All rules of a network namespace that a packet may meet: iptables' of two back ends, and base
chains of nftables' own, in the kernel's order.

A hook calls its chains by priority: raw -300, connection tracking -200, mangle -150, destination
NAT -100, filter 0, security 50, source NAT 100 (Linux include/uapi/linux/netfilter_ipv4.h); a base
chain of nftables may stand anywhere between them. `DROP` at any of them is final; `ACCEPT` ends one
chain alone. iptables' nf_tables back end keeps its tables in nftables too: what iptables-save
printed whole is taken from there, since nft does not print iptables' extensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from kubectl_ebpfnet.explain.kernel import netfilter
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.path.stages.passage import BackEnd, Native, Passage, rules_evidence
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.netns import Netns
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import PlaceKind, Record
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.netfilter import Ruleset
from kubectl_ebpfnet.model.nft import AnyRule, NftChain, NftRule, NftRuleset
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.parse.netfilter import LEGACY_WARNING

_TRACKING, _DESTINATION, _SOURCE = -200, -100, 100
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}


@dataclass(frozen=True, slots=True)
class HookTables:
    """What is known of a namespace's rules for one IP version.

    Attributes:
        back_ends: of iptables, those that were read.
        missing: why the rules that somebody asked for are not known whole, "" when they are.
        record: that failed, or that says that something is missing.
        native: nftables' own chains; None where nobody told whether there are any.
        printed: what is missing was printed, and cannot be parsed: nothing is presumed of it.
    """

    back_ends: tuple[BackEnd, ...]
    missing: str
    record: Record | None
    native: Native | None = None
    printed: bool = False

    def traverse(self, table: str, chain: str, context: Context) -> Iterator[Passage]:
        """Yield what each chain of a part of a hook does with a packet, one after the other.

        Args:
            table: the part that has the table's name: `raw` (until connection tracking), `mangle`,
                `nat`, or `filter` (all that is behind nat, and iptables' security).
            chain: a built-in chain, which names the hook.
            context: the packet.
        """
        for step in self._steps(table, chain):
            passage = self._pass(step, table, chain, context)
            yield passage
            if passage.after is None:
                return
            context = passage.after

    @property
    def own_record(self) -> Record | None:
        """The record of nftables' own rules, None where nobody told of them."""
        return self.native.record if self.native is not None else None

    def evidence(self, rules: Sequence[AnyRule]) -> tuple[Evidence, ...]:
        """Cite rules of iptables' first back end, and of nftables' own, in their records."""
        natives = [rule for rule in rules if isinstance(rule, NftRule)]
        others = [rule for rule in rules if not isinstance(rule, NftRule)]
        found = rules_evidence(self.back_ends[0], others) if self.back_ends else ()
        return found + (rules_evidence(self.native, natives) if self.native is not None else ())

    def _pass(
        self, step: tuple[BackEnd, str] | NftChain, table: str, chain: str, context: Context
    ) -> Passage:
        if isinstance(step, tuple):
            back_end, name = step
            outcome = netfilter.traverse(back_end.ruleset, name, chain, context)
            return Passage(back_end, name, outcome)
        assert self.native is not None
        if step.priority == _TRACKING and table == "raw":
            # Whether it comes before connection tracking depends on which was there first.
            passage = self.native.traverse(step, replace(context, state=""))
            return replace(passage, state_before=context.state)
        here = self.native.traverse(step, replace(context, tracked=table != "raw"))
        if step.priority != _DESTINATION or context.original is None:
            return here
        # It has the priority of nat: which comes first depends on which was there first.
        flow = context.original
        before = replace(context, flow=flow, original=None, translated=False)
        there = self.native.traverse(step, before)
        return (
            here
            if there.outcome.is_lost == here.outcome.is_lost
            else here.undecided(
                f"whether nft {step.title} stands before nat, whose priority it has, is not known"
            )
        )

    def _steps(self, table: str, chain: str) -> list[tuple[BackEnd, str] | NftChain]:
        """Return the chains of a part of a hook in the kernel's order."""
        found: list[tuple[float, tuple[BackEnd, str] | NftChain]] = []
        of_iptables = ("filter", "security") if table == "filter" else (table,)
        for name in of_iptables:
            at = _PRIORITIES.get(name, _SOURCE if chain == "POSTROUTING" else _DESTINATION)
            found += [(at, (each, name)) for each in self.back_ends if self._has(each, name, chain)]
        for base in self.native.chains if self.native is not None else ():
            of_stack = base.hook == chain.lower() and base.family in ("ip", "ip6", "inet")
            if of_stack and (base.kind == "nat") == (table == "nat"):
                low, high = _part(table, chain)
                if low <= base.priority < high:
                    found.append((base.priority, base))
        return [step for _, step in sorted(found, key=lambda each: each[0])]

    def _has(self, back_end: BackEnd, table: str, chain: str) -> bool:
        """Tell whether a packet is run through a table of iptables: not through one that iptables
        could not print and nft did, nor through security, which few nodes have, if it is not there.
        """
        problem = back_end.ruleset.problem(table)
        if table == "security" and not problem:
            return back_end.ruleset.has_chain(table, chain)
        native = self.native.chains if self.native is not None and self.native.ruleset else ()
        of_nft = any(each.table == table and each.family in ("ip", "ip6") for each in native)
        return not (problem and of_nft and back_end.ruleset.backend == "nf_tables")


def _part(table: str, chain: str) -> tuple[float, float]:
    """Return the lowest priority of a part of a hook, and the one at which the next begins."""
    if table == "nat":
        return -inf, inf  # nat's chains are ordered among themselves alone (nf_nat_register_fn)
    if chain in ("PREROUTING", "OUTPUT"):
        parts = {"raw": (-inf, _TRACKING + 1), "mangle": (_TRACKING + 1, _DESTINATION)}
        return parts.get(table, (_DESTINATION, inf))
    border = _SOURCE if chain == "POSTROUTING" else 0
    return (-inf, border) if table == "mangle" else (border, inf)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of the catalogue that hold a namespace's rules for one IP version."""

    main: Fact[Ruleset]
    legacy: Fact[Ruleset]
    nft: Fact[Ruleset]
    rules: Fact[NftRuleset]
    chains: Fact[NftChain]


_NODE = {
    4: _Rows(q.NETFILTER, q.LEGACY, q.NFT, q.NFT_RULES, q.NFT_CHAINS),
    6: _Rows(q.NETFILTER6, q.LEGACY6, q.NFT6, q.NFT_RULES, q.NFT_CHAINS),
}
_POD = {
    4: _Rows(q.POD_NETFILTER, q.POD_LEGACY, q.NFT, q.POD_NFT_RULES, q.POD_NFT_CHAINS),
    6: _Rows(q.POD_NETFILTER6, q.POD_LEGACY6, q.NFT6, q.POD_NFT_RULES, q.POD_NFT_CHAINS),
}


def tables_of(netns: Netns, version: int) -> HookTables:
    """Return the rules of a node's or a pod's namespace for one IP version.

    iptables-save prints those of one back end, mostly nf_tables; its header says which.
    """
    in_pod = netns.places[0].kind is PlaceKind.POD
    rows = (_POD if in_pod else _NODE)[version]
    main, legacy, own = netns[rows.main], netns[rows.legacy], netns[rows.nft]
    command = "iptables" if version == 4 else "ip6tables"
    backend = main.facts[0].backend if main.facts else ""
    answers = [(command, main)]
    if backend != "legacy":
        answers.append((f"{command}-legacy", legacy))
    if backend != "nf_tables" and (backend or not main.facts):
        answers.append((f"{command}-nft", own))
    found = [BackEnd(rules, each.record, name) for name, each in answers for rules in each.facts]
    missing = ""
    if not main.facts and not own.facts:
        missing = f"netfilter's rules could not be read: {main.missing}"
    elif main.facts and not legacy.facts and _legacy_too(main.facts[0], main.record):
        missing = (
            f"{command}-save says that {command}-legacy has tables as well, and "
            f"{command}-legacy-save: {legacy.missing}"
        )
    own_tables = netns[rows.rules]
    native = _native(own_tables, netns[rows.chains], found, version)
    if native is None and _was_printed(own_tables):
        missing = f"nftables' own tables could not be read: {own_tables.missing}"
        return HookTables(tuple(found), missing, own_tables.record, printed=True)
    printed = bool(missing) and _was_printed(main)
    return HookTables(tuple(found), missing, main.record, native, printed)


def _was_printed(answer: Answer[Any]) -> bool:
    """Tell whether a place told of rules that nobody here can parse."""
    return answer.record is not None and answer.record.ok and not answer.known


def _native(
    rules: Answer[NftRuleset], chains: Answer[NftChain], back_ends: list[BackEnd], version: int
) -> Native | None:
    """Return nftables' own base chains; None where neither nft nor the kernel told of them."""
    if not rules.facts and not chains.known:
        return None
    ruleset = next(iter(rules.facts), None)
    listed = chains.facts if chains.known or ruleset is None else ruleset.chains
    family = "ip" if version == 4 else "ip6"
    families = (family, "inet", "netdev", "bridge")
    own = tuple(
        _with_span(chain, ruleset)
        for chain in listed
        if chain.hook and chain.family in families and not chain.dormant
        and not (chain.family == family and _is_iptables(chain, back_ends))
    )  # fmt: skip
    record = rules.record if ruleset is not None else chains.record
    return Native(own, ruleset, record, "" if ruleset is not None else rules.missing)


def _with_span(chain: NftChain, ruleset: NftRuleset | None) -> NftChain:
    """Return a chain that the kernel told of as nft printed it, for its place in the record."""
    if ruleset is None:
        return chain
    printed = ruleset.declared(chain.family, chain.table, chain.name)
    return chain if printed is None else replace(chain, span=printed.span, policy=printed.policy)


def _is_iptables(chain: NftChain, back_ends: list[BackEnd]) -> bool:
    """Tell whether iptables-save printed a chain, with all of its table."""
    return any(
        each.ruleset.backend != "legacy"
        and not each.command.endswith("-legacy")
        and each.ruleset.has_chain(chain.table, chain.name)
        and not each.ruleset.problem(chain.table)
        for each in back_ends
    )


def _legacy_too(ruleset: Ruleset, record: Record | None) -> bool:
    warned = record is not None and LEGACY_WARNING.encode() in record.stderr
    return warned or ruleset.legacy_too
