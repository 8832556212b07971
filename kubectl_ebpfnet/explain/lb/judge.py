"""Attempts compared with what the Service asks for: rows, a verdict, findings. Sends nothing.

`judge` without attempts gives the plan of a probe: the expectation of each node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from kubectl_ebpfnet.explain.lb import client_source
from kubectl_ebpfnet.explain.lb import findings as probe_findings
from kubectl_ebpfnet.explain.lb import targets as probe_targets
from kubectl_ebpfnet.explain.lb import verdict as probe_verdict
from kubectl_ebpfnet.explain.lb.datapath import balancer
from kubectl_ebpfnet.explain.lb.evidence import ApiProof
from kubectl_ebpfnet.explain.lb.expectation import expected
from kubectl_ebpfnet.explain.lb.situation import NodeContext, endpoints_of
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.kube import Node, Service
from kubectl_ebpfnet.model.net import SCTP, UDP, Address
from kubectl_ebpfnet.model.probe import (
    AttemptOutcome,
    Expectation,
    HealthCheck,
    How,
    Judgement,
    NodeRow,
    ProbeAttempt,
    ProbeReport,
    ProbeRequest,
    ProbeTarget,
)


def judge(
    request: ProbeRequest,
    bundle: Bundle,
    attempts: Sequence[ProbeAttempt] | None = None,
    health_checks: Sequence[HealthCheck] = (),
    internal: Sequence[ProbeAttempt] = (),
) -> ProbeReport:
    """Compare attempts with what the Service asks for.

    Args:
        request: what to probe.
        bundle: the Service, its EndpointSlices, nodes and pods; look-ups of load-balancers that are
            given by name; and of the probed nodes the records that prove causes: netfilter's
            rules, Cilium's status and maps, counters.
        attempts: of any targets and nodes, in any order; None for a plan, without a probe.
        health_checks: one a node.
        internal: attempts of clients on nodes, which are shown and judge nothing.

    Raises:
        NotFound, EbpfnetError, UsageError: as probe_targets.service, ports and nodes.
    """
    dry_run = attempts is None
    attempts = attempts or ()
    cluster = ClusterView(bundle)
    service = probe_targets.service(cluster, request)
    nodes = probe_targets.nodes(cluster, request.nodes)
    probe_targets.check_sender(cluster, request.from_node)
    resolved = probe_targets.resolved(cluster, service)
    found = probe_targets.targets(request, service, nodes, resolved)
    targets = tuple(dict.fromkeys((*found, *(a.target for a in attempts))))
    proof = ApiProof(cluster, service)
    places = [
        node_context(cluster, request, service, target, node)
        for target in targets
        for node in nodes
    ]
    answered = {_server(a.target) for a in attempts if a.outcome is AttemptOutcome.CONNECTED}
    places = [
        replace(context, silence_counts=_silence_counts(context, answered)) for context in places
    ]
    judged = [_row(cluster, context, proof, attempts, health_checks) for context in places]
    rows = tuple(row for row, _ in judged)
    findings = probe_findings.of(cluster, judged)
    verdict = probe_verdict.of_rows(rows)
    titles = dict.fromkeys(context.balancer.title for context in places)
    # Where the rules of some nodes were read, others run the same kube-proxy.
    known = [t for t in titles if t and not any(o != t and o.startswith(t) for o in titles)]
    return ProbeReport(
        request=request,
        type=service.type,
        policy=service.external_traffic_policy or "Cluster",
        datapath=", ".join(known),
        verdict=verdict,
        summary=probe_verdict.summary(service, rows, verdict, dry_run=dry_run),
        targets=targets,
        rows=rows,
        findings=tuple(findings),
        missing=tuple(_missing(cluster, service, resolved)),
        internal=tuple(internal),
    )


def _row(
    cluster: ClusterView,
    context: NodeContext,
    proof: ApiProof,
    attempts: Sequence[ProbeAttempt],
    health_checks: Sequence[HealthCheck],
) -> tuple[NodeRow, NodeContext]:
    target, node = context.target, context.node
    mine = tuple(a for a in attempts if a.target == target and a.node == node.name)
    health = next((h for h in health_checks if h.node == node.name), None)
    how = mine[0].how if mine else None
    context = replace(context, how=how or context.how)
    wanted = expected(context)
    evidence = (*proof.of(context.of_port, node.name), *wanted.evidence)
    wanted = replace(wanted, evidence=evidence)
    conclusive = [a for a in mine if a.outcome.conclusive]
    answered = [a for a in mine if a.outcome is AttemptOutcome.CONNECTED]
    telling = next(
        (a for a in mine if a.outcome is not AttemptOutcome.CONNECTED), *mine[:1] or (None,)
    )
    times = [a.seconds for a in answered if a.seconds is not None]
    row = NodeRow(
        target=target,
        node=node.name,
        from_node=",".join(dict.fromkeys(a.from_node for a in mine if a.from_node)),
        endpoints=endpoints_of(context),
        expected=wanted,
        connected=len(answered),
        told=len(conclusive),
        outcome=telling.outcome if telling else AttemptOutcome.NOT_TRIED,
        detail=telling.detail if telling else "",
        how=how,
        seconds=median(times) if times else None,
        source=client_source.observed(cluster, node, mine),
        source_seen=tuple(dict.fromkeys(a.source_seen for a in mine if a.source_seen)),
        health=health,
        judgement=Judgement.UNKNOWN,
        notes=_notes(mine, health, wanted),
        attempts=mine,
    )
    if (
        not context.silence_counts
        and row.silent
        and probe_findings.loss_is_shown(cluster, row, context)
    ):
        context = replace(context, silence_counts=True)
    if row.silent and not context.silence_counts:
        row = replace(row, notes=(*row.notes, *_silence_notes(row)))
    return replace(row, judgement=probe_verdict.of_row(row, context.silence_counts)), context


def _server(target: ProbeTarget) -> tuple[int, str]:
    """Return the key of a target's backends, which all addresses of the Service share."""
    return target.protocol, target.port_name


def _silence_counts(context: NodeContext, answered: set[tuple[int, str]]) -> bool:
    """Tell whether silence proves that the node does not serve: a backend is known to answer
    probes, or no backend is there that could. Else a loss has to be proved."""
    if context.target.protocol != UDP or _server(context.target) in answered:
        return True
    return context.endpoints is not None and not any(e.ready or e.serving for e in context.of_port)


def _silence_notes(row: NodeRow) -> list[str]:
    """Return notes on what a UDP server's silence leaves open."""
    notes = ["silence over UDP tells nothing: the server may not answer what a probe asks"]
    for backend in row.sent_on:
        notes.append(f"the node sent it on to {backend}, and nothing came back")
    return notes


def node_context(
    cluster: ClusterView, request: ProbeRequest, service: Service, target: ProbeTarget, node: Node
) -> NodeContext:
    """Collect what decides the expectation of a node for a target.

    Args:
        cluster: the bundle's indexes.
        request: what to probe.
        service: the Service.
        target: one of its addresses and ports.
        node: the probed node.
    """
    others = tuple(n for n in cluster.kube.nodes if n.name != node.name)
    if request.from_node:
        others = tuple(n for n in others if n.name == request.from_node)
    key = (service.namespace, service.name)
    ends = tuple(cluster.index.endpoints_of(*key))
    known = bool(ends) or cluster.api_record("endpointslices", "endpointslice") is not None
    return NodeContext(
        service,
        target,
        node,
        others,
        ends if known else None,
        cluster.kube.pods,
        balancer(cluster, cluster.node(node.name), service, target),
        How.NEXT_HOP if target.address is not None else How.NODE_PORT,
        tuple(
            policy.title
            for policy in cluster.kube.network_policies
            if policy.namespace in ("", service.namespace)
        ),
        answers_in_tunnel=_answers_in_tunnel(cluster),
    )


def _answers_in_tunnel(cluster: ClusterView) -> bool:
    """Tell whether answers to a node's address come back in the tunnel: with the host firewall,
    nodes' addresses are reached by it too, where the routing is not native."""
    settings = cluster.settings
    native = settings.routing_mode == "native"
    return bool(settings.host_firewall) and bool(settings.routing_mode) and not native


def _notes(
    attempts: Sequence[ProbeAttempt], health: HealthCheck | None, wanted: Expectation
) -> tuple[str, ...]:
    """Return sentences that the row's other members cannot hold, each once."""
    notes = [f"load-balancers send nothing here: {wanted.excluded}"] if wanted.excluded else []
    notes += [a.note for a in attempts]
    notes += [a.detail for a in attempts if not a.outcome.conclusive]
    notes += [
        f"source not known: {a.source_missing}"
        for a in attempts
        if a.outcome is AttemptOutcome.CONNECTED and a.source_seen is None and a.source_missing
    ]
    if health is not None and health.status is None and health.error:
        notes.append(f"health check: {health.error}")
    return tuple(dict.fromkeys(text for text in (*notes, *wanted.cautions) if text))


def _missing(
    cluster: ClusterView, service: Service, resolved: Mapping[str, Sequence[Address]]
) -> list[str]:
    missing = [
        f"{name}, the load-balancer's name, was not resolved to an address"
        for name in service.ingress_hostnames
        if not resolved.get(name)
    ]
    missing += [
        f"port {port.port}/SCTP: netkat does not speak SCTP"
        for port in service.ports
        if port.protocol == SCTP
    ]
    if not cluster.kube.nodes:
        missing.append("no node is known: nothing could be expected of any")
    return missing
