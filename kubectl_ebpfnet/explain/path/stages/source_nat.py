"""Source NAT by netfilter as a packet leaves a node: nat POSTROUTING.

Sources: chain CILIUM_POST_nat (Cilium pkg/datapath/iptables/iptables.go), KUBE-POSTROUTING
(Kubernetes pkg/proxy/iptables/proxier.go), as iptables-save prints them.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.chain_ends import TRANSLATING
from kubectl_ebpfnet.explain.path import snat_ports
from kubectl_ebpfnet.explain.path.own_flow import tracked_at
from kubectl_ebpfnet.explain.path.stages import hooks, reply_nat
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables, tables_of
from kubectl_ebpfnet.explain.path.stages.masquerade import report_missing
from kubectl_ebpfnet.explain.path.stages.nat import NatOutcome, nat_outcome, untracked
from kubectl_ebpfnet.explain.path.stages.new_source import (
    check_owner,
    ports_of,
    source_of,
    to_one_of_several,
)
from kubectl_ebpfnet.explain.path.stages.passage import rules_evidence
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.net import Flow, endpoint_text
from kubectl_ebpfnet.model.path import (
    Decides,
    Evidence,
    Fix,
    HopKind,
    Severity,
    State,
    TrackedFlow,
)

_SAVE = "iptables-save -c"


def by_netfilter(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Apply nat POSTROUTING: add the hop and give the packet its new source; None where it has no
    port for it.

    Args:
        walk: takes hops and findings.
        here: the packet at its egress device.
        node: the node that it leaves.
    """
    if walk.forth is not None:
        return reply_nat.undo(walk, here, reply_nat.Undone.AS_IT_LEAVES)
    context = here.netfilter or hooks.entering(walk, here, node)
    context = replace(context, flow=here.packet.flow, out_device=here.device)
    rules = tables_of(node, here.packet.flow.destination.version)
    if not rules.back_ends:
        return _not_read(walk, here, node, rules)
    if context.state == "UNTRACKED":  # nat leaves alone what is not tracked
        why, proof = untracked(rules, context)
        _nothing(walk, here, node, proof, why)
        return here
    nat = nat_outcome(rules, "POSTROUTING", context)
    doubt = nat.doubt or hooks.bypass(walk, here)
    if context.state == "":
        doubt = doubt or "whether its connection is tracked is not known"
    sources = dict.fromkeys(source_of(node, here, end) for _, end in nat.ends)
    if nat.translates is False:
        return _untranslated(walk, here, node, rules)
    if nat.translates and len(sources) == 1 and not hooks.bypass(walk, here) and context.state:
        return _translated(walk, here, node, nat)
    return _undecided(walk, here, nat, doubt)


def _translated(
    walk: PathBuilder, here: PacketState, node: NodeView, nat: NatOutcome
) -> PacketState | None:
    """Give the packet the source that a rule says; with the port of the newest flow, if seen."""
    back_end, end = nat.end
    assert end.rule is not None
    flow, where, by = here.packet.flow, here.on_node(HopKind.NAT), f"by {end.rule.title}"
    new = source_of(node, here, end)
    seen, proof = _seen(walk, here)
    evidence = rules_evidence(back_end, (*end.context.marked_by[-2:], *end.way))
    if seen is not None and new in (None, seen.source):
        packet = replace(here.packet, flow=seen)
        walk.hop(
            *where,
            f"netfilter rewrites the source to {endpoint_text(seen.source, seen.source_port)} "
            f"{by}, as nf_conntrack shows",
            State.OBSERVED, packet, evidence + proof, short=f"netfilter, {by}",
        )  # fmt: skip
        if not walk.answered_now():  # else something routes the address to this node
            check_owner(walk, here, node, seen.source, evidence)
        return here.to(here.stage, packet=packet)
    if seen is not None and seen.source == flow.source:
        walk.finding(
            Severity.WARNING,
            f"nf_conntrack tracks the flow without the translation that {end.rule.chain} rule "
            f"{end.rule.number} asks for",
            "The entry is older than the rule, or another rule took the packet first. "
            "NAT is decided for the first packet only: `conntrack -D` for this flow, or wait for "
            "its time-out.",
            evidence + proof,
        )
    if new is None:
        return to_one_of_several(walk, here, node, end, evidence)
    if not snat_ports.by_netfilter(walk, here, node, new, ports_of(end.to_address)):
        return None
    packet = replace(here.packet, flow=flow.with_source(new, None))
    walk.hop(
        *where, f"netfilter masquerades the source to {new} {by}", State.DERIVED, packet, evidence,
        short=f"netfilter, {by}",
    )  # fmt: skip
    check_owner(walk, here, node, new, evidence)
    return here.to(here.stage, packet=packet)


def _seen(walk: PathBuilder, here: PacketState) -> tuple[Flow | None, tuple[Evidence, ...]]:
    """Return the packet with the source that nf_conntrack gives the newest flow, and the entry's
    line; None for an entry that goes elsewhere, which is of another time."""
    tracked, flow = tracked_at(walk, here), here.packet.flow
    if tracked is None or tracked.netfilter is None:
        return None, ()
    seen = tracked.netfilter.translated()
    if (seen.destination, seen.destination_port) != (flow.destination, flow.destination_port):
        return None, ()
    return seen, tracked.evidence[-1:]


def _undecided(walk: PathBuilder, here: PacketState, nat: NatOutcome, doubt: str) -> PacketState:
    """Add the hop of a source that may change; go on with the newest flow's, else as it is."""
    seen, proof = _seen(walk, here)
    back_end, _ = nat.end
    rules = [*nat.open_rules, *(e.rule for _, e in nat.ends if e.rule and e.target in TRANSLATING)]
    translating = next((e.rule for _, e in nat.ends if e.rule and e.target in TRANSLATING), None)
    packet = replace(here.packet, flow=seen) if seen is not None else here.packet
    by = f" by {translating.title}" if translating is not None else ""
    text = f"netfilter may rewrite the source{by}"
    if seen is not None:
        text += f"; the newest flow has {endpoint_text(seen.source, seen.source_port)}"
    walk.hop(
        *here.on_node(HopKind.NAT), text, State.UNKNOWN, packet,
        rules_evidence(back_end, rules) + proof,
        reason=doubt or "which source a rule gives it is not known", decides=Decides.WAY,
        fix=Fix(f"See on {here.node} which of these rules' counters grow.", _SAVE),
    )  # fmt: skip
    return here.to(here.stage, packet=packet)


def _not_read(
    walk: PathBuilder, here: PacketState, node: NodeView, rules: HookTables
) -> PacketState:
    """Go on where the rules are not known: as a flow that is tracked went."""
    by_flow = _like_a_flow(walk, here, rules.missing)
    if by_flow is not None:
        return by_flow
    if _leaves(walk, here) and not _by_bpf(node, here):
        walk.hop(
            *here.on_node(HopKind.NAT), "masquerading", State.UNKNOWN, here.packet,
            cite.whole(rules.record), reason=rules.missing, decides=Decides.WAY,
            fix=Fix(f"Read the rules on {here.node}.", _SAVE),
        )  # fmt: skip
    return here


def _untranslated(
    walk: PathBuilder, here: PacketState, node: NodeView, rules: HookTables
) -> PacketState:
    """No rule translates it: unless a flow shows otherwise, it leaves as it is."""
    doubt = "no rule does it now"
    if rules.native is None or rules.native.missing:
        doubt = "no rule of iptables does it, and nftables' own rules were not read"
    by_flow = _like_a_flow(walk, here, doubt)
    if by_flow is not None:
        return by_flow
    _nothing(walk, here, node, cite.whole(rules.record))
    return here


def _like_a_flow(walk: PathBuilder, here: PacketState, doubt: str) -> PacketState | None:
    """Translate the source as nf_conntrack does for the newest flow, else for another one of this
    pod to the same destination; None where no such flow is translated.

    Args:
        walk: takes the hop.
        here: the packet.
        doubt: why a new connection need not be translated the same way.
    """
    seen, proof = _seen(walk, here)
    which, sure = "", walk.answered_now()
    if seen is None:
        other = _other_translated_flow(walk, here)
        if other is None or other.netfilter is None:
            return None
        source = other.netfilter.translated().source
        seen, proof = here.packet.flow.with_source(source, None), other.evidence[-1:]
        which, sure = f" for another flow of this pod ({other.flow})", False
    if seen.source == here.packet.flow.source:
        return None
    packet = replace(here.packet, flow=seen)
    walk.hop(
        *here.on_node(HopKind.NAT),
        "netfilter masquerades the source to "
        f"{endpoint_text(seen.source, seen.source_port)}, as nf_conntrack shows{which}",
        State.OBSERVED if sure else State.UNKNOWN, packet, proof,
        reason="" if sure else doubt, decides=Decides.WAY,
        short=f"netfilter, as nf_conntrack shows{which}",
    )  # fmt: skip
    return here.to(here.stage, packet=packet)


def _other_translated_flow(walk: PathBuilder, here: PacketState) -> TrackedFlow | None:
    """Find another flow of the pod to the same destination that netfilter translates."""
    to = here.packet.flow.destination
    for flow in walk.flows:
        entry = flow.netfilter if flow.node == here.node else None
        if entry is not None and entry.source_nat and entry.translated().destination == to:
            return flow
    return None


def _leaves(walk: PathBuilder, here: PacketState) -> bool:
    return not walk.cluster.in_cluster(here.packet.flow.destination) and not walk.ends.host_network


def _by_bpf(node: NodeView, here: PacketState) -> bool:
    return node.config.masquerading_of(here.packet.flow.source.version) == "bpf"


def _nothing(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    evidence: tuple[Evidence, ...],
    why: str = "nothing on the node does it",
) -> None:
    """Report that no rule translates, unless the packet stays in the cluster or Cilium does it."""
    if _leaves(walk, here) and not _by_bpf(node, here):
        report_missing(walk, here, node, evidence, why)
