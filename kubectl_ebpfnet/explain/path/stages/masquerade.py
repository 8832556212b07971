"""Source NAT by netfilter as a packet leaves a node.

Source: the rules of chain CILIUM_POST_nat (pkg/datapath/iptables/iptables.go) as iptables-save
prints them.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.kernel import netfilter
from kubectl_ebpfnet.explain.path.stages.host import context
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.kernel import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.net import Address, Flow, endpoint_text
from kubectl_ebpfnet.model.path import Evidence, Fix, HopKind, Outcome, Severity, State, TrackedFlow
from kubectl_ebpfnet.model.untrusted import address


def by_netfilter(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState:
    """Apply nat POSTROUTING: add the hop and give the packet its new source.

    Args:
        walk: takes hops and findings.
        here: the packet at its egress device.
        node: the node that it leaves.
    """
    flow = here.packet.flow
    where = here.on_node(HopKind.NAT)
    answer = node.ruleset(flow.destination.version)
    seen, proof = _netfilter_translation(walk, here)
    rule: NetfilterRule | None = None
    uncertain: tuple[NetfilterRule, ...] = ()
    if answer.facts:
        outcome = netfilter.traverse(
            answer.facts[0], "nat", "POSTROUTING", context(walk, here, node, here.device)
        )
        uncertain = outcome.uncertain
        rule = outcome.rule if outcome.target in netfilter.TRANSLATING else None
    evidence = (cite.of(answer.record, rule.span) if rule else ()) + proof
    by = f" by {rule.chain} rule {rule.number} “{rule.comment or rule.text}”" if rule else ""
    if seen is not None and (seen.source, seen.source_port) != (flow.source, flow.source_port):
        packet = replace(here.packet, flow=seen)
        walk.hop(
            *where,
            f"netfilter rewrites the source to {endpoint_text(seen.source, seen.source_port)}"
            f"{by}, as nf_conntrack shows",
            State.OBSERVED,
            packet,
            evidence,
        )
        return here.to(here.stage, packet=packet)
    if rule is None:
        # Once this flow is tracked, the translation of another (older) flow proves nothing.
        other = _other_translated_flow(walk, here) if seen is None else None
        if other is not None:
            return _like_other_flow(walk, here, other)
        _no_rule(walk, here, node, uncertain, answer)
        return here
    if seen is not None:
        walk.finding(
            Severity.ERROR,
            f"nf_conntrack tracks the flow without the translation that {rule.chain} rule "
            f"{rule.number} asks for",
            "The entry is older than the rule, or another rule took the packet first. "
            "NAT is decided for the first packet only: `conntrack -D` for this flow, or wait for "
            "its time-out.",
            evidence,
        )
    new = _new_source(node, here, rule)
    if new is None:
        walk.hop(
            *where, f"netfilter masquerades it{by}", State.UNKNOWN, here.packet, evidence,
            reason=f"the address of {here.device} is not known",
        )  # fmt: skip
        return here
    packet = replace(here.packet, flow=flow.with_source(new, None))
    walk.hop(
        *where, f"netfilter masquerades the source to {new}{by}", State.DERIVED, packet, evidence
    )
    return here.to(here.stage, packet=packet)


def _netfilter_translation(
    walk: PathBuilder, here: PacketState
) -> tuple[Flow | None, tuple[Evidence, ...]]:
    tracked = walk.tracked_at(here)
    if tracked is None or tracked.netfilter is None:
        return None, ()
    return tracked.netfilter.translated(), tracked.evidence[-1:]


def _other_translated_flow(walk: PathBuilder, here: PacketState) -> TrackedFlow | None:
    """Find another flow of the pod to the same destination that netfilter translates."""
    here_too = (flow for flow in walk.flows if flow.node == here.node)
    return next((f for f in here_too if f.netfilter is not None and f.netfilter.source_nat), None)


def _like_other_flow(walk: PathBuilder, here: PacketState, other: TrackedFlow) -> PacketState:
    assert other.netfilter is not None
    new = other.netfilter.translated().source
    packet = replace(here.packet, flow=here.packet.flow.with_source(new, None))
    walk.hop(
        *here.on_node(HopKind.NAT),
        f"netfilter masquerades the source to {new}, as nf_conntrack shows for another flow of "
        f"this pod ({other.flow})",
        State.DERIVED,
        packet,
        other.evidence[-1:],
    )
    return here.to(here.stage, packet=packet)


def _new_source(node: NodeView, here: PacketState, rule: NetfilterRule) -> Address | None:
    if rule.jump == "SNAT" and rule.to_address:
        try:
            return address(rule.to_address.partition("-")[0].partition(":")[0], "a rule")
        except ParseError:
            return None
    found = node.addresses_of(here.device, here.packet.flow.source.version)
    return found[0] if found else None


def _no_rule(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    uncertain: tuple[NetfilterRule, ...],
    answer: Answer[Ruleset],
) -> None:
    """Report that no rule translates, unless the packet stays in the cluster or Cilium does it."""
    version = here.packet.flow.source.version
    if not _leaves_cluster(walk, here) or node.config.masquerading_of(version) == "bpf":
        return
    where = here.on_node(HopKind.NAT)
    maybe = [r for r in uncertain if r.jump in netfilter.TRANSLATING]
    if answer.missing or maybe:
        reason = answer.missing and f"netfilter's rules could not be read: {answer.missing}"
        walk.hop(
            *where, "masquerading", State.UNKNOWN, here.packet,
            reason=reason or f"rule “{maybe[0].comment or maybe[0].text}” cannot be evaluated",
        )  # fmt: skip
        return
    report_missing(walk, here, node, cite.whole(answer.record))


def _leaves_cluster(walk: PathBuilder, here: PacketState) -> bool:
    flow = here.packet.flow
    return not walk.cluster.in_cluster(flow.destination) and not walk.ends.host_network


def report_missing(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    evidence: tuple[Evidence, ...],
    why: str = "nothing on the node does it",
) -> None:
    """Add the hop and the finding of a pod's packet that leaves the cluster with its own address.

    Args:
        walk: takes hops and findings.
        here: the packet at its egress device.
        node: the node that it leaves.
        evidence: the table that does not masquerade it.
        why: why not, one clause, where masquerading is on.
    """
    flow = here.packet.flow
    if flow.source in node.own_addresses or flow.source in walk.cluster.node_addresses:
        return
    walk.hop(
        *here.on_node(HopKind.NAT),
        f"nothing masquerades pod address {flow.source}: it leaves the cluster as it is",
        State.DERIVED, here.packet, evidence,
    )  # fmt: skip
    wanted = node.config.masquerading_of(flow.source.version)
    off = wanted == "disabled"
    answered = walk.attempt is not None and walk.attempt.outcome is Outcome.ANSWERED
    if not off:
        walk.doubt(
            f"pod address {flow.source} leaves the cluster as it is, and no answer was seen",
            fix=Fix(f"Masquerade it, or see that {flow.destination} has a route to the pods."),
        )
    walk.finding(
        Severity.WARNING if off or answered else Severity.ERROR,
        f"pod address {flow.source} leaves the cluster without masquerading",
        (
            f"Masquerading is switched off (enable-ipv{flow.source.version}-masquerade); "
            if off
            else f"Cilium is set to masquerade by {wanted or 'a way that is not known'}, but "
            f"{why}; "
        )
        + f"{flow.destination} can answer only if its network routes the pod CIDR back here.",
        evidence,
    )
