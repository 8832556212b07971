"""Likely causes of a node that answers where it should not, and of a client's address that is lost:
where the node's tables send a packet, and with which source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_ebpfnet.explain.kernel import kube_proxy
from kubectl_ebpfnet.explain.lb.cause import Cause, Mismatch
from kubectl_ebpfnet.explain.lb.causes import Rule, device_to, rule_lines, tracked
from kubectl_ebpfnet.explain.lb.datapath import CILIUM, frontends, kube_proxy_outcome, ruleset
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import endpoint_text


def of_answer(mismatch: Mismatch) -> list[Cause]:
    """Return why a node that should not answer does, best proof first; never empty."""
    rules: Sequence[Rule] = (_own_address, _kube_proxy_sends, _cilium_sends, _tracked)
    found = [cause for rule in rules for cause in rule(mismatch)]
    if (
        not found
        and (outcome := kube_proxy_outcome(mismatch.cluster, mismatch.node, mismatch.flow))
        and outcome.refusal is not None
    ):
        text = f"kube-proxy's rule there refuses it now ({outcome.refusal.text}): probe again"
        return [Cause(text, rule_lines(mismatch, outcome.refusal))]
    return found or [Cause("nothing that was read of the node tells where it sends the packet")]


def _masquerades(mismatch: Mismatch) -> Iterator[Cause]:
    """Find the rules that rewrite the source, and the conntrack entry that shows it."""
    outcome = kube_proxy_outcome(mismatch.cluster, mismatch.node, mismatch.flow)
    if outcome is not None and outcome.marking is not None and outcome.masquerades:
        yield Cause(
            f"kube-proxy's rule there has it masqueraded: {outcome.marking.text}",
            rule_lines(mismatch, outcome.rule, outcome.marking),
        )
    rules = ruleset(mismatch.node, mismatch.flow.destination.version)
    mark = kube_proxy.MASQUERADE_MARK if outcome is not None and outcome.masquerades else 0
    for backend in mismatch.backends if rules is not None else ():
        assert rules is not None
        out = device_to(mismatch.node, backend.address)
        rule = kube_proxy.masquerading(rules, mismatch.translated(backend), out, mark)
        if rule is not None:
            yield Cause(
                f"a rule of netfilter there rewrites the source: {rule.text}",
                rule_lines(mismatch, rule),
            )
            break
    for line in mismatch.node.lines(q.CONNTRACK, [str(mismatch.flow.source)]):
        entry = line.fact
        if entry.original.matches(mismatch.flow) and entry.source_nat:
            to = entry.translated()
            yield Cause(
                f"conntrack there has it leave as {endpoint_text(to.source, to.source_port)}",
                line.evidence,
            )
            return


def of_lost_source(mismatch: Mismatch) -> list[Cause]:
    """Return why backends do not see the client's address, best proof first; never empty."""
    return list(_masquerades(mismatch)) or [Cause("no rule that was read explains it")]


def _own_address(mismatch: Mismatch) -> Iterator[Cause]:
    owner = mismatch.cluster.node_of(mismatch.flow.destination)
    if mismatch.row.target.address is not None and owner:
        yield Cause(f"{mismatch.flow.destination} is an address of node {owner} itself")


def _kube_proxy_sends(mismatch: Mismatch) -> Iterator[Cause]:
    outcome = kube_proxy_outcome(mismatch.cluster, mismatch.node, mismatch.flow)
    if outcome is None or not outcome.backends or mismatch.balancer.name == CILIUM:
        return
    to = ", ".join(endpoint_text(*backend) for backend in outcome.backends[:3])
    yield Cause(
        f"kube-proxy's rules there send it to {to}: they are behind the Service or its "
        "EndpointSlices, or were made for another policy",
        rule_lines(mismatch, outcome.rule),
    )


def _cilium_sends(mismatch: Mismatch) -> Iterator[Cause]:
    node, flow = mismatch.node, mismatch.flow
    if mismatch.balancer.name != CILIUM or flow.destination_port is None:
        return
    for entry in frontends(
        mismatch.cluster, node, flow.destination, flow.destination_port, flow.protocol
    ):
        if entry.backends:
            to = ", ".join(endpoint_text(b.address, b.port) for b in entry.backends[:3])
            yield Cause(
                f"Cilium's entry there has {to}: it is behind the Service or its EndpointSlices, "
                "or was made for another policy",
                cite.of(node[q.LB_MAP].record, entry.span, *(b.span for b in entry.backends)),
            )


def _tracked(mismatch: Mismatch) -> Iterator[Cause]:
    """Report a conntrack entry that translates the probe's packets."""
    for to, proof in tracked(mismatch):
        yield Cause(
            f"conntrack there sends the flow to "
            f"{endpoint_text(to.destination, to.destination_port)}: an entry outlives the rules "
            "that made it",
            proof,
        )
