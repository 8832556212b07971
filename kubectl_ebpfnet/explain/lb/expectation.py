"""The behaviour that a Service asks of a node towards a client outside the cluster.

Endpoints that a node uses: kube-proxy's pkg/proxy/topology.go and KEP-1669 (ready endpoints; where
there are none, terminating ones that still serve); Cilium does the same. Fate of the source:
Cilium's Documentation/network/kubernetes/kubeproxy-free.rst (SNAT, DSR, hybrid), kube-proxy's
masquerading of externalTrafficPolicy Cluster. Health checks: pkg/proxy/healthcheck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.explain.lb import client_source, targets
from kubectl_ebpfnet.explain.lb.datapath import CILIUM, KUBE_PROXY
from kubectl_ebpfnet.explain.lb.situation import (
    NodeContext,
    count,
    ending,
    on_node,
    usable,
    uses_terminating,
)
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kube import ServiceEndpoint
from kubectl_ebpfnet.model.probe import Answers, Expectation, How, SourceFate, TargetKind

_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
_RANGES_POLICY = "service.cilium.io/src-ranges-policy"
_ONLY_NODE, _ONLY_NODES = "service.cilium.io/node", "service.cilium.io/node-selector"


def expected(context: NodeContext) -> Expectation:
    """Return what the Service asks of the node for the target."""
    expectation = _answers(context)
    if expectation.answers is Answers.YES and not context.node.ready:
        reason = f" ({context.node.reason})" if context.node.reason else ""
        expectation = replace(
            expectation,
            answers=Answers.UNKNOWN,
            why=f"the node is NotReady{reason}; otherwise {expectation.why}",
        )
    if expectation.answers is not Answers.NO:
        source, why = client_source.expected(context)
        expectation = replace(expectation, source=source, source_why=why)
    status, counted = _health(context)
    return replace(
        expectation,
        health_status=status,
        health_count=counted,
        excluded=context.node.not_balanced_to,
        cautions=_cautions(context),
        evidence=context.balancer.evidence,
    )


def _answers(context: NodeContext) -> Expectation:
    """Decide whether the node answers, and why; the caller fills in the rest."""
    expectation = (
        _undecidable(context)
        or _kept_off_node(context)
        or _unheard_dsr_answer(context)
        or _unheard_in_tunnel(context)
        or _by_endpoints(context)
    )
    if expectation.answers is Answers.NO:
        return expectation
    return _source_ranges(context) or expectation


def _by_endpoints(context: NodeContext) -> Expectation:
    near = on_node(context.of_port, context.node) if context.local_policy else list(context.of_port)
    where = f"{context.node.name} has" if context.local_policy else "the Service has"
    kind = "local endpoint" if context.local_policy else "endpoint"
    ready = [e for e in near if e.ready]
    if ready:
        return _ready(context, ready, f"{where} {_number(count(ready), f'ready {kind}')}")
    leaving = count(e for e in near if ending(e))
    if leaving:
        return _terminating(context, f"{where} only {_number(leaving, f'terminating {kind}')}")
    idle = count(near)
    also = f" ({_number(idle, 'endpoint')} not ready)" if idle else ""
    return _expectation(Answers.NO, f"{where} no ready {kind}{also}")


def _undecidable(context: NodeContext) -> Expectation | None:
    """Return an expectation of UNKNOWN where the rules below cannot decide."""
    labels = dict(context.service.labels)
    if context.endpoints is None:
        return _expectation(Answers.UNKNOWN, "no EndpointSlice could be read")
    if labels.get(_PROXY_NAME):
        name = labels[_PROXY_NAME]
        return _expectation(Answers.UNKNOWN, f"another service proxy serves it (label {name})")
    if context.target.address in context.service.proxied_addresses and context.how is How.NEXT_HOP:
        return _expectation(
            Answers.UNKNOWN,
            "its load-balancer is a proxy (ipMode Proxy): nodes need not know this address; "
            "probe the node ports",
        )
    if context.node.address(context.target.version) is None:
        return _expectation(Answers.UNKNOWN, _no_address(context))
    if not [n for n in context.from_nodes if n.address(context.target.version) is not None]:
        of = " with an IPv6 address" if context.from_nodes and context.target.version == 6 else ""
        return _expectation(Answers.UNKNOWN, f"there is no other node{of} to send from")
    return None


def _no_address(context: NodeContext) -> str:
    return f"the node has no InternalIP with an IPv{context.target.version} address to send to"


def _unheard_dsr_answer(context: NodeContext) -> Expectation | None:
    """Return an expectation of UNKNOWN where the probe cannot hear an answer by DSR: an endpoint
    on the sending node answers into that node's own stack, and netkat listens on the wire."""
    if context.local_policy or not client_source.answers_from_its_node(context):
        return None
    ends = {e.node for e in usable(context)} - {context.node.name}
    if not ends or not all(node.name in ends for node in context.from_nodes):
        return None
    return _expectation(
        Answers.UNKNOWN,
        "with DSR an endpoint on the node that sends answers into that node, where the probe does "
        "not hear it; every node that may send has one (--from-node NODE without one, or a client "
        "outside the cluster, tells)",
    )


def _unheard_in_tunnel(context: NodeContext) -> Expectation | None:
    """Return an expectation of UNKNOWN where answers come back in the tunnel: they go up the
    sender's stack, and netkat listens on the wire."""
    if not context.answers_in_tunnel:
        return None
    return _expectation(
        Answers.UNKNOWN,
        "with the host firewall, answers to a node's address come back in the tunnel, where the "
        "probe does not hear them (a client outside the cluster tells)",
    )


def _kept_off_node(context: NodeContext) -> Expectation | None:
    """Apply Cilium's annotations that keep a Service off a node."""
    if context.balancer.name == KUBE_PROXY:
        return None
    only, selector = context.service.annotation(_ONLY_NODE), context.service.annotation(_ONLY_NODES)
    labels = context.node.labels
    if only and dict(labels).get(_ONLY_NODE) != only:
        return _expectation(
            Answers.NO, f"the annotation {_ONLY_NODE}={only} keeps it off this node"
        )
    try:
        here = targets.selects(selector, labels)
    except UsageError:
        return _expectation(Answers.UNKNOWN, f"the annotation {_ONLY_NODES} is no label selector")
    if not here:
        return _expectation(Answers.NO, f"the annotation {_ONLY_NODES} keeps it off this node")
    return None


def _source_ranges(context: NodeContext) -> Expectation | None:
    """Apply loadBalancerSourceRanges, which hold for the load-balancer's addresses only."""
    if context.target.kind is not TargetKind.INGRESS or context.how is not How.NEXT_HOP:
        return None
    ranges = [r for r in context.service.source_ranges if r.version == context.target.version]
    sources = [
        a for n in context.from_nodes if (a := n.address(context.target.version)) is not None
    ]
    if not ranges or not sources:
        return None
    denies = (
        context.service.annotation(_RANGES_POLICY) == "deny" and context.balancer.name == CILIUM
    )
    let = [any(a in prefix for prefix in ranges) != denies for a in sources]
    if all(let):
        return None
    if any(let):
        return _expectation(
            Answers.UNKNOWN, "loadBalancerSourceRanges lets some nodes in and not others"
        )
    shown = ", ".join(map(str, ranges[:3])) + (", …" if len(ranges) > 3 else "")
    rule = "shuts out" if denies else "does not hold"
    return _expectation(
        Answers.NO,
        f"loadBalancerSourceRanges ({shown}) {rule} the node's address that the probe has "
        f"({sources[0]}); clients that it lets in may be answered",
    )


def _ready(context: NodeContext, ready: Sequence[ServiceEndpoint], why: str) -> Expectation:
    if context.service.publish_not_ready:
        known = {(p.namespace, p.name): p.ready for p in context.pods}
        if not any(known.get((e.namespace, e.pod), True) for e in ready):
            return _expectation(
                Answers.UNKNOWN,
                f"{why}, by publishNotReadyAddresses alone: no pod of them is Ready",
            )
    return _expectation(Answers.YES, why)


def _terminating(context: NodeContext, why: str) -> Expectation:
    uses = uses_terminating(context)
    if uses:
        return _expectation(Answers.YES, f"{why}, used while nothing else is ready (KEP-1669)")
    if uses is None:
        return _expectation(
            Answers.UNKNOWN, f"{why}: used since 1.26, before that by a feature gate"
        )
    return _expectation(Answers.NO, f"{why}, not used before Kubernetes 1.26 (KEP-1669)")


def _health(context: NodeContext) -> tuple[int | None, int | None]:
    """Return status and count of the health check. kube-proxy counts distinct ready addresses of
    all ports, without terminating ones (so load-balancers turn away while connections end)."""
    port = context.service.health_check_node_port
    if (
        not port
        or not context.local_policy
        or context.service.type != "LoadBalancer"
        or context.endpoints is None
    ):
        return None, None
    ready = on_node([e for e in context.endpoints if e.ready], context.node)
    counts = {v: count([e for e in ready if e.address.version == v]) for v in (4, 6)}
    # A pod of a dual-stack Service is one endpoint in each version, and counted in one of them.
    due = counts[context.target.version] or max(counts.values())
    return (200 if due else 503), due


def _cautions(context: NodeContext) -> tuple[str, ...]:
    cautions = []
    if context.node.address(context.target.version) is None:
        cautions.append(_no_address(context))
    if context.policies:
        cautions.append(
            f"{few(context.policies, 1)} may decide otherwise for this probe: it comes from a "
            "node's address, which policies can tell from clients outside"
        )
    if context.node.unschedulable and not context.node.not_balanced_to:
        cautions.append(
            "the node is cordoned, which does not keep load-balancers away since Kubernetes 1.19"
        )
    return tuple(cautions)


def _expectation(answers: Answers, why: str) -> Expectation:
    return Expectation(answers, SourceFate.UNKNOWN, why)


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")
