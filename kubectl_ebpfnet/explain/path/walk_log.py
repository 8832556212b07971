"""What a walk writes down: its hops, what is not decided, its findings, and how it ends.

Every stage writes by these methods of its `PathBuilder` (state.py); verdict.py weighs what stands
here, and render/ shows it.
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.explain.path.endings import (
    Dropped,
    End,
    Stopped,
    Undecided,
)
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import (
    Contradiction,
    Decides,
    Drop,
    Evidence,
    Finding,
    Fix,
    Hop,
    HopKind,
    HopPlace,
    Packet,
    Severity,
    State,
)

_NOT_BEGUN = Stopped("the walk did not begin")


@dataclass(kw_only=True)
class WalkLog:
    """The record of a walk in progress.

    Attributes:
        hops: in the packet's order.
        findings: of the stages, in their order.
        outdated: the tables show that what let earlier flows through is gone: their answers prove
            nothing of a packet that is sent now.
        undecided: hops that may lose the packet or send it elsewhere.
        otherwise: that it may have gone another way since a hop, which counts where it is lost on
            this one; None where the way does not matter any more.
        contradictions: evidence against the walk.
        though: evidence that speaks against it where it lets the packet through.
        seen: drops that end it, and that a record shows, one line each.
        end: how the walk ended.
    """

    hops: list[Hop] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    outdated: bool = False
    undecided: list[Undecided] = field(default_factory=list)
    otherwise: Undecided | None = None
    contradictions: list[Contradiction] = field(default_factory=list)
    though: list[Contradiction] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    end: End = _NOT_BEGUN

    def hop(
        self,
        place: HopPlace,
        where: str,
        node: str,
        kind: HopKind,
        summary: str,
        state: State,
        packet: Packet,
        evidence: tuple[Evidence, ...] = (),
        *,
        reason: str = "",
        drops: bool = False,
        decides: Decides = Decides.NOTHING,
        fix: Fix | None = None,
        short: str = "",
    ) -> None:
        """Add a hop.

        Args:
            place: the kind of place.
            where: its name: a pod, a node, a device, an address.
            node: the node that it is on, "" off the nodes.
            kind: the kind of thing that acts on the packet.
            summary: what it does to the packet, one line.
            state: how that is known.
            packet: as it leaves the hop.
            evidence: the proof.
            reason: for UNKNOWN: the missing fact, and why it is missing.
            drops: for drop() alone.
            decides: for UNKNOWN: what may happen to the packet there.
            fix: for UNKNOWN: how to get the missing fact.
            short: the summary for a screen (`Hop.short`), "" where it is short.
        """
        number = len(self.hops) + 1
        if state is State.UNKNOWN and decides is not Decides.NOTHING:
            self.undecided.append(Undecided(number, decides, reason, fix))
        self.hops.append(
            Hop(
                number, place, where, node, kind, summary, state, packet, reason, drops, evidence,
                short,
            )
        )  # fmt: skip

    def drop(
        self,
        place: HopPlace,
        where: str,
        node: str,
        kind: HopKind,
        summary: str,
        state: State,
        packet: Packet,
        evidence: tuple[Evidence, ...],
        *,
        title: str,
        detail: str,
        proof: tuple[Evidence, ...] = (),
        seen: bool = False,
        cause: str = "",
        fix: Fix | None = None,
        object: str = "",
        short: str = "",
        by: str = "",
    ) -> None:
        """Add the hop that drops the packet and its finding; the walk is over.

        Args:
            place: the kind of place.
            where: its name: a pod, a node, a device, an address.
            node: the node that it is on, "" off the nodes.
            kind: the kind of thing that acts on the packet.
            summary: what drops the packet and why, one line.
            state: OBSERVED when what drops it was seen as it is, DERIVED when it follows from
                several facts.
            packet: as it came to the hop.
            evidence: the proof.
            title: the finding, one line.
            detail: what to do about it.
            proof: the finding's, where it is not the hop's.
            seen: the drop of this packet itself was seen: a drop notice, a RST.
            cause: one sentence for the verdict; `title` where it is not given.
            fix: one sentence and a command; `detail` where it is not given.
            object: the object that a person would edit, e.g. `NetworkPolicy shop/deny-all`.
            short: the summary for a screen, "" where it is short.
            by: what drops it, for the verdict on a screen: `by the egress policy of pod/client`.
        """
        self.hop(
            place, where, node, kind, summary, state, packet, evidence, drops=True, short=short
        )  # fmt: skip
        number = len(self.hops)
        on = f" on {node}" if node and node not in summary else ""
        self.end = Dropped(
            Drop(
                "seen" if seen else "derived", number, node, summary, object,
                short=by or short or summary,
            ),
            f"dropped at hop {number}{on}: {summary}",
            cause or title,
            fix or Fix(detail),
            (*self.undecided, *([self.otherwise] if self.otherwise is not None else ())),
            Finding(Severity.ERROR, title, detail, proof or evidence, decides=True),
        )  # fmt: skip
        self.findings.append(self.end.finding)

    def unknown(self, reason: str, fix: Fix | None = None, besides: str = "") -> None:
        """End the walk: a fact that decides what happens next is missing.

        Args:
            reason: which fact, and why it is missing.
            fix: how to get it.
            besides: what can be said all the same, one sentence.
        """
        self.end = Stopped(reason, fix, besides)

    def doubt(self, reason: str, decides: Decides = Decides.DROP, fix: Fix | None = None) -> None:
        """Say that the last hop may lose the packet, or an answer to it, though it is known.

        Args:
            reason: what is not known.
            decides: what may happen.
            fix: how to get it.
        """
        self.undecided.append(Undecided(len(self.hops), decides, reason, fix))

    def outdate(self) -> None:
        """Say that what let earlier flows through is gone."""
        self.outdated = True

    def contradicts(self, text: str, evidence: tuple[Evidence, ...] = ()) -> None:
        """Add evidence against the walk, one sentence and its proof."""
        self.contradictions.append(Contradiction(text, evidence))

    def lets_pass_though(self, text: str, evidence: tuple[Evidence, ...] = ()) -> None:
        """Add what speaks against a walk that lets the packet through, one sentence and its proof:
        maps and objects that disagree, though the maps lead it on."""
        self.though.append(Contradiction(text, evidence))

    def finding(
        self, severity: Severity, title: str, detail: str, evidence: tuple[Evidence, ...] = ()
    ) -> None:
        """Add a finding.

        Args:
            severity: whether it breaks the path.
            title: one line.
            detail: what to do about it.
            evidence: the proof.
        """
        self.findings.append(Finding(severity, title, detail, evidence))
