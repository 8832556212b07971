"""What a Service asks of one node for a client outside the cluster.

Which endpoints a node uses: kube-proxy's pkg/proxy/topology.go and KEP-1669 (ready ones; where
there are none, those that serve while they end), Cilium's the same. What becomes of the source:
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
from kubectl_ebpfnet.model.kube import ServiceEndpoint
from kubectl_ebpfnet.model.probe import (
    Answers,
    Expectation,
    How,
    SourceFate,
    TargetKind,
)

_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
_RANGES_POLICY = "service.cilium.io/src-ranges-policy"
_ONLY_NODE, _ONLY_NODES = "service.cilium.io/node", "service.cilium.io/node-selector"


def expected(at: NodeContext) -> Expectation:
    """What the Service asks of the node for the target."""
    told = _answers(at)
    if told.answers is Answers.YES and not at.node.ready:
        said = f" ({at.node.reason})" if at.node.reason else ""
        told = replace(
            told, answers=Answers.UNKNOWN, why=f"the node is NotReady{said}; otherwise {told.why}"
        )
    if told.answers is not Answers.NO:
        source, why = client_source.expected(at)
        told = replace(told, source=source, source_why=why)
    status, counted = _health(at)
    return replace(
        told,
        health_status=status,
        health_count=counted,
        excluded=targets.excluded(at.node),
        cautions=_cautions(at),
        evidence=at.balancer.evidence,
    )


def _answers(at: NodeContext) -> Expectation:
    """Whether the node answers, and why; the rest is filled in by the caller."""
    told = _nobody_knows(at) or _not_here(at) or _not_heard(at) or _by_endpoints(at)
    if told.answers is Answers.NO:
        return told
    return _source_ranges(at) or told


def _by_endpoints(at: NodeContext) -> Expectation:
    near = on_node(at.of_port, at.node) if at.local_policy else list(at.of_port)
    where = f"{at.node.name} has" if at.local_policy else "the Service has"
    kind = "local endpoint" if at.local_policy else "endpoint"
    ready = [e for e in near if e.ready]
    if ready:
        return _ready(at, ready, f"{where} {_number(count(ready), f'ready {kind}')}")
    leaving = count(e for e in near if ending(e))
    if leaving:
        return _terminating(at, f"{where} only {_number(leaving, f'terminating {kind}')}")
    idle = count(near)
    also = f" ({_number(idle, 'endpoint')} not ready)" if idle else ""
    return _told(Answers.NO, f"{where} no ready {kind}{also}")


def _nobody_knows(at: NodeContext) -> Expectation | None:
    """What takes the decision away from the rules below."""
    labels = dict(at.service.labels)
    if at.endpoints is None:
        return _told(Answers.UNKNOWN, "no EndpointSlice could be read")
    if labels.get(_PROXY_NAME):
        name = labels[_PROXY_NAME]
        return _told(Answers.UNKNOWN, f"another service proxy serves it (label {name})")
    if at.target.address in at.service.proxied_addresses and at.how is How.NEXT_HOP:
        return _told(
            Answers.UNKNOWN,
            "its load-balancer is a proxy (ipMode Proxy): nodes need not know this address; "
            "probe the node ports",
        )
    if at.node.address(at.target.version) is None:
        return _told(Answers.UNKNOWN, _no_address(at))
    if not [n for n in at.from_nodes if n.address(at.target.version) is not None]:
        of = " with an IPv6 address" if at.from_nodes and at.target.version == 6 else ""
        return _told(Answers.UNKNOWN, f"there is no other node{of} to send from")
    return None


def _no_address(at: NodeContext) -> str:
    return f"the node has no InternalIP with an IPv{at.target.version} address to send to"


def _not_heard(at: NodeContext) -> Expectation | None:
    """DSR: an endpoint answers the client from its own node. Where that is the node that sends, the
    answer goes into its own stack, past netkat, which listens on the wire."""
    if at.local_policy or not client_source.answers_from_its_node(at):
        return None
    ends = {e.node for e in usable(at)} - {at.node.name}
    if not ends or not all(node.name in ends for node in at.from_nodes):
        return None
    return _told(
        Answers.UNKNOWN,
        "with DSR an endpoint on the node that sends answers into that node, where the probe does "
        "not hear it; every node that may send has one",
    )


def _not_here(at: NodeContext) -> Expectation | None:
    """Cilium's annotations that keep a Service off a node."""
    if at.balancer.name == KUBE_PROXY:
        return None
    only, selector = at.service.annotation(_ONLY_NODE), at.service.annotation(_ONLY_NODES)
    labels = at.node.labels
    if only and dict(labels).get(_ONLY_NODE) != only:
        return _told(Answers.NO, f"the annotation {_ONLY_NODE}={only} keeps it off this node")
    try:
        here = targets.selects(selector, labels)
    except UsageError:
        return _told(Answers.UNKNOWN, f"the annotation {_ONLY_NODES} is no label selector")
    if not here:
        return _told(Answers.NO, f"the annotation {_ONLY_NODES} keeps it off this node")
    return None


def _source_ranges(at: NodeContext) -> Expectation | None:
    """loadBalancerSourceRanges: of the load-balancer's addresses alone, by IP version."""
    if at.target.kind is not TargetKind.INGRESS or at.how is not How.NEXT_HOP:
        return None
    ranges = [r for r in at.service.source_ranges if r.version == at.target.version]
    sources = [a for n in at.from_nodes if (a := n.address(at.target.version)) is not None]
    if not ranges or not sources:
        return None
    denies = at.service.annotation(_RANGES_POLICY) == "deny" and at.balancer.name == CILIUM
    let = [any(a in prefix for prefix in ranges) != denies for a in sources]
    if all(let):
        return None
    if any(let):
        return _told(Answers.UNKNOWN, "loadBalancerSourceRanges lets some nodes in and not others")
    shown = ", ".join(map(str, ranges[:3])) + (", …" if len(ranges) > 3 else "")
    rule = "shuts out" if denies else "does not hold"
    return _told(
        Answers.NO,
        f"loadBalancerSourceRanges ({shown}) {rule} the node's address that the probe has "
        f"({sources[0]}); clients that it lets in may be answered",
    )


def _ready(at: NodeContext, ready: Sequence[ServiceEndpoint], why: str) -> Expectation:
    if at.service.publish_not_ready:
        known = {(p.namespace, p.name): p.ready for p in at.pods}
        if not any(known.get((e.namespace, e.pod), True) for e in ready):
            return _told(
                Answers.UNKNOWN,
                f"{why}, by publishNotReadyAddresses alone: no pod of them is Ready",
            )
    return _told(Answers.YES, why)


def _terminating(at: NodeContext, why: str) -> Expectation:
    uses = uses_terminating(at)
    if uses:
        return _told(Answers.YES, f"{why}, used while nothing else is ready (KEP-1669)")
    if uses is None:
        return _told(Answers.UNKNOWN, f"{why}: used or not by a feature gate before 1.26")
    return _told(Answers.NO, f"{why}, not used before Kubernetes 1.26 (KEP-1669)")


def _health(at: NodeContext) -> tuple[int | None, int | None]:
    """Status and count of the health check; kube-proxy counts distinct ready addresses of all
    ports, and terminating ones not (so load-balancers turn away while connections end)."""
    port = at.service.health_check_node_port
    if not port or not at.local_policy or at.service.type != "LoadBalancer" or at.endpoints is None:
        return None, None
    ready = on_node([e for e in at.endpoints if e.ready], at.node)
    counts = {v: count([e for e in ready if e.address.version == v]) for v in (4, 6)}
    # A pod of a dual-stack Service is one endpoint in each version, and counted in one of them.
    due = counts[at.target.version] or max(counts.values())
    return (200 if due else 503), due


def _cautions(at: NodeContext) -> tuple[str, ...]:
    said = []
    if at.node.address(at.target.version) is None:
        said.append(_no_address(at))
    if at.policies:
        what = at.policies[0] + (
            f" and {len(at.policies) - 1} more" if len(at.policies) > 1 else ""
        )
        said.append(
            f"{what} may decide otherwise for this probe: it comes from a node's address, "
            "which policies can tell from clients outside"
        )
    if at.node.unschedulable and not targets.excluded(at.node):
        said.append(
            "the node is cordoned, which does not keep load-balancers away since Kubernetes 1.19"
        )
    return tuple(said)


def _told(answers: Answers, why: str) -> Expectation:
    return Expectation(answers, SourceFate.UNKNOWN, why)


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")
