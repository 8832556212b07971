"""A packet through chains of netfilter, as hops: what drops it, what may, what lets it pass.

The chains may be of a node's stack, of a device, or of a pod's own namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.path.stages.kube_proxy_cause import remedy
from kubectl_ebpfnet.explain.path.stages.passage import Passage, rules_evidence
from kubectl_ebpfnet.explain.path.state import PathBuilder, Where
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.nft import NftRule
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, Packet, State


@dataclass(slots=True)
class Passing:
    """A packet on its way through chains.

    Attributes:
        walk: takes the hops.
        where: of the hops.
        place: in words: a node's name, `pod default/web`.
        packet: of the hops.
        context: the packet before the next chain.
        bypass: why it is not known that it comes there at all, "" where it does.
        doubts: chains that may lose it, each with its `bypass`.
        last: the chain that is shown where nothing happens.
    """

    walk: PathBuilder
    where: Where
    place: str
    packet: Packet
    context: Context
    bypass: str = ""
    doubts: list[tuple[Passage, str]] = field(default_factory=list)
    last: Passage | None = None

    def passes(self, passages: Iterable[Passage]) -> bool:
        """Pass chains, each of which yields what it does with `context`; return False, after the
        hop, where the packet is lost."""
        for passage in passages:
            if passage.outcome.is_lost and not self.bypass:
                self._drop(passage)
                return False
            if passage.outcome.is_lost is not False:
                self.doubts.append((passage, self.bypass))
            self.context = passage.after or self.context
            self.last = passage if passage.chain is None or self.last is None else self.last
        return True

    def _drop(self, passage: Passage) -> None:
        """End the walk at the chain that drops the packet."""
        end = passage.outcome.end
        verb = "rejects" if end.target == "REJECT" else "drops"
        named, rule, where = passage.named(end), end.rule, passage.where
        of_service = remedy(self.walk, self.where[2], passage, end)
        of_table = "" if isinstance(rule, NftRule) else f" of table {passage.table}"
        counted = ""
        if rule is not None and rule.packets is not None:
            counted = f" It counts {rule.packets} packets."
        self.walk.drop(
            *self.where,
            f"netfilter {verb} it {passage.ends_in(end)}",
            State.DERIVED,
            self.packet,
            passage.proof(end),
            title=f"netfilter on {self.place} {verb} the packet in {where}",
            detail=f"By {named}.{counted}",
            cause=of_service.cause
            if of_service
            else f"{named}{of_table} on {self.place} {verb} it",
            fix=of_service.fix if of_service is not None else passage.mend(self.place, end),
            object=of_service.object if of_service else passage.object(end),
            short=f"{verb} it {passage.ends_in(end)}",
            by=f"netfilter {verb} it {passage.ends_in(end)}",
        )

    def show_doubt(self) -> bool:
        """Add the hop of the first chain that may drop the packet; return whether there is one."""
        if not self.doubts:
            return False
        passage, bypass = self.doubts[0]
        outcome, chain = passage.outcome, passage.outcome.chain
        losing = outcome.losses[0] if outcome.losses else None
        proof: tuple[Evidence, ...] = ()
        if outcome.is_lost:
            named = passage.named(outcome.end)
            summary = f"netfilter {chain}: {named} drops it, if it comes there"
            reason, proof = bypass, passage.proof(outcome.end)
        elif losing is not None:
            what = passage.named(losing)
            summary = f"netfilter {chain}: {what} may drop it"
            if_so = "if so" if losing.context.assumed else "if not"
            who = "it drops the packet" if what in outcome.doubt else f"{what} drops it"
            reason, proof = f"{outcome.doubt}; {if_so}, {who}", passage.proof(losing)
        else:
            summary = f"netfilter {chain}: what becomes of it is not known"
            reason = outcome.doubt
        self.walk.hop(
            *self.where,
            summary,
            State.UNKNOWN,
            self.packet,
            (rules_evidence(passage.back_end, outcome.open_rules) + proof)
            or cite.whole(passage.back_end.record),
            reason=reason,
            decides=Decides.DROP,
            fix=Fix(
                f"See on {self.place} whether the rules' counters grow while the packet is sent.",
                passage.listing,
            ),
        )
        return True
