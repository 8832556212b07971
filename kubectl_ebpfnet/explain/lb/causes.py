"""Likely causes of a node that does not answer although its Service asks for it, best proof first.

A cause is a sentence with the lines that prove it: netfilter's rules, Cilium's maps, the kernel's
counters. Where no cause is found, the last sentence names what could not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.kernel import kube_proxy, routing
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, way_back
from kubectl_ebpfnet.explain.lb import evidence as probe_proof
from kubectl_ebpfnet.explain.lb.cause import Cause, Mismatch
from kubectl_ebpfnet.explain.lb.cause_policy import denied
from kubectl_ebpfnet.explain.lb.datapath import (
    CILIUM,
    frontends,
    kube_proxy_outcome,
    local_addresses,
    ruleset,
)
from kubectl_ebpfnet.explain.views import cite, records
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.kernel import Counter
from kubectl_ebpfnet.model.kube import ServiceEndpoint
from kubectl_ebpfnet.model.net import UDP, Address, Flow, endpoint_text
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.probe import AttemptOutcome

_MOST_BACKENDS = 4
"""Endpoints whose packets are followed through netfilter's rules."""
_RP_FILTER = "TcpExt.IPReversePathFilter"
_CILIUM_PROGRAMS = ("cil_", "from-container", "to-container", "bpf_lxc", "handle_policy")


Rule = Callable[[Mismatch], Iterator[Cause]]


def of_silence(mismatch: Mismatch) -> list[Cause]:
    """Return why a node that should answer does not, best proof first; never empty."""
    rules: Sequence[Rule] = (
        _kube_proxy_refuses, _cilium_lacks, _drops, denied, _reverse_path, _no_program, _pods,
        _refusal, _sent_on,
    )  # fmt: skip
    found = [cause for rule in rules for cause in rule(mismatch)]
    return [cause for cause in found if cause.sure] or found or [_no_cause(mismatch)]


def _kube_proxy_refuses(mismatch: Mismatch) -> Iterator[Cause]:
    outcome = kube_proxy_outcome(mismatch.cluster, mismatch.node, mismatch.flow)
    if outcome is None or mismatch.balancer.name == CILIUM:
        return
    answer = mismatch.node.ruleset(mismatch.flow.destination.version)
    if outcome.refusal is not None:
        proof = rule_lines(mismatch, outcome.rule, outcome.refusal)
        yield Cause(f"kube-proxy's rule there refuses it: {outcome.refusal.text}", proof)
    elif outcome.rule is None:
        yield Cause(
            f"kube-proxy there has no rule for {mismatch.title}: it does not run, or is behind",
            cite.whole(answer.record),
        )
    else:
        known = {(e.address, e.port) for e in mismatch.backends}
        for address, port in outcome.backends:
            if (address, port) not in known:
                yield Cause(
                    f"kube-proxy there sends it to {endpoint_text(address, port)}, "
                    "which is no ready endpoint",
                    rule_lines(mismatch, outcome.rule),
                )


def rule_lines(mismatch: Mismatch, *found: NetfilterRule | None) -> tuple[Evidence, ...]:
    """Cite rules of the probed node, in the IP version of the probe."""
    return probe_proof.rules(mismatch.node.ruleset(mismatch.flow.destination.version), *found)


def _cilium_lacks(mismatch: Mismatch) -> Iterator[Cause]:
    node, flow = mismatch.node, mismatch.flow
    table = node[q.LB_MAP]
    if mismatch.balancer.name != CILIUM or not table.known or flow.destination_port is None:
        return
    entries = frontends(
        mismatch.cluster, node, flow.destination, flow.destination_port, flow.protocol
    )
    if not entries:
        yield Cause(
            f"Cilium's load-balancer there has no entry for {mismatch.title}",
            cite.whole(table.record),
        )
    for entry in entries:
        spans = [entry.span, *(b.span for b in entry.backends)]
        known = {(e.address, e.port) for e in mismatch.backends}
        if not entry.backends:
            yield Cause(
                f"Cilium's entry for {mismatch.title} there has no backend",
                cite.of(table.record, *spans),
            )
        for backend in entry.backends:
            if known and (backend.address, backend.port) not in known:
                yield Cause(
                    f"Cilium there sends it to {endpoint_text(backend.address, backend.port)}, "
                    "which is no endpoint that it should use",
                    cite.of(table.record, entry.span, backend.span),
                )


def _drops(mismatch: Mismatch) -> Iterator[Cause]:
    """Find netfilter rules that drop the packet on the probed node or the backend's."""
    rules = ruleset(mismatch.node, mismatch.flow.destination.version)
    device = device_to(mismatch.node, mismatch.flow.source)
    first = kube_proxy.dropping_first(rules, mismatch.flow, device) if rules else None
    if first is not None:
        yield Cause(
            f"a rule there drops it as it comes in: {first.text}", rule_lines(mismatch, first)
        )
    # Most rules of the node treat all backends alike, but a rule may name a single address.
    for backend in mismatch.backends[:_MOST_BACKENDS]:
        for name in dict.fromkeys((mismatch.row.node, backend.node)):
            yield from _drops_on(mismatch, mismatch.cluster.node(name), backend, device)


def _drops_on(
    mismatch: Mismatch, node: NodeView, backend: ServiceEndpoint, device: str
) -> Iterator[Cause]:
    rules = ruleset(node, backend.address.version)
    if rules is None or backend.address in local_addresses(mismatch.cluster, node):
        return
    there = "there" if node.name == mismatch.row.node else f"on {node.name}, where the endpoint is,"
    out = device_to(node, backend.address)
    flow = mismatch.translated(backend)
    for packet, what, reply in ((flow, "it", False), (flow.reversed(), "its answer", True)):
        ends = (out, device) if reply else (device, out)
        rule = kube_proxy.dropping(rules, packet, *ends, reply=reply)
        if rule is not None:
            yield Cause(
                f"a FORWARD rule {there} drops {what}: {rule.text}",
                probe_proof.rules(node.ruleset(backend.address.version), rule),
            )
            return


def device_to(node: NodeView, peer: Address) -> str:
    """Return the device of a node's route to an address, "" when it has no known route."""
    tables = node_tables(node, peer.version)
    if isinstance(tables, str):
        return ""
    decision = routing.decide(tables, way_back(peer, peer))
    return decision.route.device if decision.route is not None else ""


def _reverse_path(mismatch: Mismatch) -> Iterator[Cause]:
    """Find drops by rp_filter: the counter's growth between two records, else its value."""
    looks = [look for look in _counters(mismatch.node) if look[1].name == _RP_FILTER]
    if not looks or not looks[-1][1].value:
        return
    record, last = looks[-1]
    grown = last.value - looks[0][1].value
    if len(looks) > 1 and not grown:
        return
    count = f"{grown} packets meanwhile" if len(looks) > 1 else f"{last.value} packets since boot"
    yield Cause(
        f"rp_filter there dropped {count} ({_RP_FILTER}): a strict rp_filter refuses packets "
        "whose source is not routed by the device they came in by",
        cite.of(record, last.span),
        sure=len(looks) > 1,
    )


def _counters(node: NodeView) -> Iterator[tuple[Record, Counter]]:
    """Yield every counter in every record of the node's counters, the earliest record first."""
    for record in node.bundle.records:
        if record.place in node.places and record.argv in q.COUNTERS.answers and record.ok:
            try:
                found = records.parse(q.COUNTERS, record)
            except ParseError:
                continue
            yield from ((record, fact) for fact in found)


def _no_program(mismatch: Mismatch) -> Iterator[Cause]:
    """Find endpoints of Cilium on the node whose device has none of Cilium's programs."""
    node = mismatch.node
    if mismatch.balancer.name != CILIUM:
        return
    answer = node[q.ATTACHMENTS] if node[q.ATTACHMENTS].known else node[q.BPF_NET]
    if not answer.known:
        return
    for backend in mismatch.backends:
        endpoint = node.endpoint_of(backend.address) if backend.node == node.name else None
        if endpoint is None or not endpoint.interface:
            continue
        there = [a.program_name for a in answer.facts if a.device == endpoint.interface]
        if not any(name.startswith(_CILIUM_PROGRAMS) for name in there):
            yield Cause(
                f"no program of Cilium is attached to {endpoint.interface}, the device of "
                f"endpoint {endpoint_text(backend.address, backend.port)}",
                cite.whole(answer.record),
            )


def _pods(mismatch: Mismatch) -> Iterator[Cause]:
    """Find endpoints that count as ready although their pod is not."""
    for backend in mismatch.backends:
        pod = mismatch.cluster.pod(backend.namespace, backend.pod) if backend.pod else None
        if pod is not None and not pod.ready:
            why = f" ({pod.reason})" if pod.reason else ""
            yield Cause(
                f"pod {pod.name} is an endpoint but not Ready{why}",
                cite.of(mismatch.cluster.api_record_of(pod), pod.span.member("metadata")),
            )


def _refusal(mismatch: Mismatch) -> Iterator[Cause]:
    row = mismatch.row
    if row.outcome is AttemptOutcome.REFUSED and mismatch.backends:
        ports = ", ".join(map(str, sorted({e.port for e in mismatch.backends})))
        nobody = f"nothing listens on its port {ports} (targetPort)"
        if not row.detail.startswith("ICMP"):
            yield Cause(f"an endpoint resets the connection: {nobody}")
        elif row.target.protocol == UDP:
            yield Cause(f"{row.detail}: an endpoint says that {nobody}, or a rule rejects it")
        else:
            yield Cause(f"{row.detail}: a rule on the way rejects it")
    if row.outcome is AttemptOutcome.UNREACHABLE:
        yield Cause(row.detail or "the packet did not reach the node")


def tracked(mismatch: Mismatch) -> Iterator[tuple[Flow, tuple[Evidence, ...]]]:
    """Find the node's conntrack entry that translates the probe's packets; at most one.

    Yields:
        The packet after translation, and the entry's line.
    """
    for line in mismatch.node.lines(q.CONNTRACK, [str(mismatch.flow.source)]):
        entry = line.fact
        if entry.original.matches(mismatch.flow) and entry.destination_nat:
            yield entry.translated(), line.evidence
            return


def _sent_on(mismatch: Mismatch) -> Iterator[Cause]:
    """Report that the node's conntrack sends the packet on to an endpoint."""
    for to, proof in tracked(mismatch) if mismatch.row.sent_on else ():
        yield Cause(
            f"the node sends it on to {endpoint_text(to.destination, to.destination_port)} "
            f"from {endpoint_text(to.source, to.source_port)}, and nothing comes back: it is "
            "lost there, or on the way there and back",
            proof,
            sure=False,
        )


def _no_cause(mismatch: Mismatch) -> Cause:
    node = mismatch.node
    unread = [
        f"{what} ({answer.missing})"
        for what, answer in (
            ("netfilter's rules", node.ruleset(mismatch.flow.destination.version)),
            ("counters", node.table_state(q.COUNTERS)),
        )
        if not answer.known
    ]
    if unread:
        return Cause(f"no cause was found; not read of {node.name}: {'; '.join(unread)}")
    return Cause(
        f"nothing that was read of {node.name} explains it: a policy, the endpoint itself or the "
        "network between the nodes"
    )
