"""The nat tables of a node: every end that a packet may come to, over both back ends."""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.chain_ends import TRANSLATING, ChainEnd, ChainOutcome
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.nft_matches import AFFINITY
from kubectl_ebpfnet.explain.kernel.rule_matches import undecided
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables
from kubectl_ebpfnet.explain.path.stages.passage import BackEnd, Native
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.nft import AnyRule
from kubectl_ebpfnet.model.path import Evidence

_AFFINITIES = frozenset(("-m recent", AFFINITY))
"""Matches by which kube-proxy sends a client where it was sent before."""
_BY_CHANCE = frozenset(("-m statistic", "numgen random")) | _AFFINITIES
"""Matches by which kube-proxy spreads connections; any of their ends is right for one."""


@dataclass(frozen=True, slots=True)
class NatOutcome:
    """What nat may do with a packet.

    Attributes:
        ends: of all back ends, in order; the first translation counts.
        outcomes: of each back end.
    """

    ends: tuple[tuple[BackEnd | Native, ChainEnd], ...]
    outcomes: tuple[ChainOutcome, ...]

    @property
    def end(self) -> tuple[BackEnd | Native, ChainEnd]:
        """The end of a packet for which no undecided rule matches, or the last one."""
        plain = (one for one in self.ends if not one[1].context.assumed and not one[1].doubt)
        return next(plain, self.ends[-1])

    @property
    def translates(self) -> bool | None:
        """Whether the packet is translated; None when undecided."""
        found = {None if end.doubt else end.target in TRANSLATING for _, end in self.ends}
        return found.pop() if len(found) == 1 else None

    @property
    def by_chance(self) -> bool:
        """Whether only kube-proxy's dice decide between the ends."""
        return self._open <= _BY_CHANCE and not any(end.doubt for _, end in self.ends)

    @property
    def by_affinity(self) -> bool:
        """Whether what the client used before decides as well (sessionAffinity)."""
        return bool(self._open & _AFFINITIES)

    @property
    def _open(self) -> frozenset[str]:
        """The matches that the ends differ by, in words."""
        return frozenset(
            part
            for _, end in self.ends
            for rule in end.context.assumed
            for part in undecided(rule, end.context)
        )

    @property
    def doubt(self) -> str:
        """Why the ends differ, one sentence; "" where they do not."""
        return next((outcome.doubt for outcome in self.outcomes if outcome.doubt), "")

    @property
    def open_rules(self) -> tuple[AnyRule, ...]:
        """The undecided rules that the ends differ by."""
        return tuple(rule for outcome in self.outcomes for rule in outcome.open_rules)


def nat_outcome(rules: HookTables, chain: str, context: Context) -> NatOutcome:
    """Run a packet through nat of each back end, until one surely translates it.

    Args:
        rules: with at least one back end, or nftables' own chains.
        chain: `PREROUTING`, `OUTPUT` or `POSTROUTING`.
        context: the packet there.
    """
    ends: list[tuple[BackEnd | Native, ChainEnd]] = []
    outcomes = []
    for passage in rules.traverse("nat", chain, context):
        outcome = passage.outcome
        outcomes.append(outcome)
        translated = [(b, end) for b, end in ends if end.target in TRANSLATING]
        ends = translated + [(passage.back_end, end) for end in outcome.ends]
        if all(end.target in TRANSLATING for end in outcome.ends):
            break
    if not outcomes:  # no table nat, nor a chain of that type
        by = rules.back_ends[0] if rules.back_ends else rules.native
        assert by is not None
        accepted = ChainEnd("ACCEPT", None, (), context)
        return NatOutcome(((by, accepted),), (ChainOutcome((accepted,), chain),))
    return NatOutcome(tuple(ends), tuple(outcomes))


def untracked(rules: HookTables, context: Context) -> tuple[str, tuple[Evidence, ...]]:
    """Return why nat passes over a packet that is not tracked, one clause, and the proof."""
    rule = context.untracked_by
    if rule is None:
        return "its packets are not tracked", cite.whole(rules.record)
    return f"{rule.title} leaves it untracked, so nat passes over it", rules.evidence((rule,))
