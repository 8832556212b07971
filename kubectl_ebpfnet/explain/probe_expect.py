"""What a Service asks of one node for a client outside the cluster.

Which endpoints a node uses: kube-proxy's pkg/proxy/topology.go and KEP-1669 (ready ones; where
there are none, those that serve while they end), Cilium's the same. What becomes of the source:
Cilium's Documentation/network/kubernetes/kubeproxy-free.rst (SNAT, DSR, hybrid), kube-proxy's
masquerading of externalTrafficPolicy Cluster. Health checks: pkg/proxy/healthcheck.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kubectl_ebpfnet.explain import probe_targets
from kubectl_ebpfnet.explain.probe_datapath import CILIUM, KUBE_PROXY, Balancer
from kubectl_ebpfnet.model.kube import Node, Pod, Service, ServiceEndpoint
from kubectl_ebpfnet.model.net import TCP, Address
from kubectl_ebpfnet.model.probe import (
    Answers,
    Endpoints,
    Expectation,
    How,
    ProbeTarget,
    SourceFate,
    TargetKind,
)

_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
_RANGES_POLICY = "service.cilium.io/src-ranges-policy"
_ONLY_NODE, _ONLY_NODES = "service.cilium.io/node", "service.cilium.io/node-selector"
_L7 = "service.cilium.io/lb-l7"
_TERMINATING_SINCE, _TERMINATING_MAYBE = (1, 26), (1, 22)


@dataclass(frozen=True, slots=True)
class Situation:
    """All that an expectation follows from.

    Attributes:
        service: the Service.
        target: one of its addresses and ports.
        node: the node that is probed.
        from_nodes: the nodes that the probe may come from.
        endpoints: of the whole Service; None when no EndpointSlice could be read.
        pods: those that are known, to tell ready ones where not ready ones are published.
        balancer: who balances on the node.
        how: the way the probe takes.
        policies: `Kind namespace/name` of network policies that may be about the backends.
    """

    service: Service
    target: ProbeTarget
    node: Node
    from_nodes: tuple[Node, ...]
    endpoints: tuple[ServiceEndpoint, ...] | None
    pods: tuple[Pod, ...]
    balancer: Balancer
    how: How = How.NEXT_HOP
    policies: tuple[str, ...] = ()

    @property
    def local_policy(self) -> bool:
        """externalTrafficPolicy is Local."""
        return self.service.external_traffic_policy == "Local"

    @property
    def of_port(self) -> tuple[ServiceEndpoint, ...]:
        """Endpoints of the target's port, in its IP version."""
        return tuple(
            e
            for e in self.endpoints or ()
            if (e.port_name, e.protocol) == (self.target.port_name, self.target.protocol)
            and e.address.version == self.target.version
        )


def expected(at: Situation) -> Expectation:
    """What the Service asks of the node for the target."""
    told = _answers(at)
    if told.answers is Answers.YES and not at.node.ready:
        said = f" ({at.node.reason})" if at.node.reason else ""
        told = replace(
            told, answers=Answers.UNKNOWN, why=f"the node is NotReady{said}; otherwise {told.why}"
        )
    if told.answers is not Answers.NO:
        source, why = _source(at)
        told = replace(told, source=source, source_why=why)
    status, count = _health(at)
    return replace(
        told,
        health_status=status,
        health_count=count,
        excluded=probe_targets.excluded(at.node),
        cautions=_cautions(at),
        evidence=at.balancer.evidence,
    )


def endpoints_of(at: Situation) -> Endpoints:
    """How many endpoints of the target's port there are, by distinct address."""
    ready = [e for e in at.of_port if e.ready]
    ending = [e for e in at.of_port if _ending(e)]
    idle = [e for e in at.of_port if not e.ready and not _ending(e)]
    return Endpoints(
        local=_count(_on(ready, at.node)),
        total=_count(ready),
        local_terminating=_count(_on(ending, at.node)),
        terminating=_count(ending),
        local_not_ready=_count(_on(idle, at.node)),
    )


def usable(at: Situation) -> tuple[ServiceEndpoint, ...]:
    """The endpoints that the node may send the client to."""
    near = _on(at.of_port, at.node) if at.local_policy else list(at.of_port)
    ready = [e for e in near if e.ready]
    if not ready and _uses_terminating(at) is not False:
        ready = [e for e in near if _ending(e)]
    return tuple(ready)


def _answers(at: Situation) -> Expectation:
    """Whether the node answers, and why; the rest is filled in by the caller."""
    for rule in (_nobody_knows, _not_here, _source_ranges):
        told = rule(at)
        if told is not None:
            return told
    near = _on(at.of_port, at.node) if at.local_policy else list(at.of_port)
    where = f"{at.node.name} has" if at.local_policy else "the Service has"
    kind = "local endpoint" if at.local_policy else "endpoint"
    ready = [e for e in near if e.ready]
    if ready:
        return _ready(at, ready, f"{where} {_number(_count(ready), f'ready {kind}')}")
    ending = _count([e for e in near if _ending(e)])
    if ending:
        return _terminating(at, f"{where} only {_number(ending, f'terminating {kind}')}")
    idle = _count(near)
    also = f" ({_number(idle, 'endpoint')} not ready)" if idle else ""
    how = ", so it refuses or is silent" if not at.local_policy else ""
    return _told(Answers.NO, f"{where} no ready {kind}{also}{how}")


def _nobody_knows(at: Situation) -> Expectation | None:
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
    if not at.from_nodes:
        return _told(Answers.UNKNOWN, "there is no other node to send from")
    return None


def _not_here(at: Situation) -> Expectation | None:
    """Cilium's annotations that keep a Service off a node."""
    if at.balancer.name == KUBE_PROXY:
        return None
    only, selector = at.service.annotation(_ONLY_NODE), at.service.annotation(_ONLY_NODES)
    labels = at.node.labels
    if only and dict(labels).get(_ONLY_NODE) != only:
        return _told(Answers.NO, f"the annotation {_ONLY_NODE}={only} keeps it off this node")
    if selector and not probe_targets.selects(selector, labels):
        return _told(Answers.NO, f"the annotation {_ONLY_NODES} keeps it off this node")
    return None


def _source_ranges(at: Situation) -> Expectation | None:
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


def _ready(at: Situation, ready: Sequence[ServiceEndpoint], why: str) -> Expectation:
    if at.service.publish_not_ready:
        known = {(p.namespace, p.name): p.ready for p in at.pods}
        if not any(known.get((e.namespace, e.pod), True) for e in ready):
            return _told(
                Answers.UNKNOWN,
                f"{why}, by publishNotReadyAddresses alone: no pod of them is Ready",
            )
    return _told(Answers.YES, why)


def _terminating(at: Situation, why: str) -> Expectation:
    uses = _uses_terminating(at)
    if uses:
        return _told(Answers.YES, f"{why}, used while nothing else is ready (KEP-1669)")
    if uses is None:
        return _told(Answers.UNKNOWN, f"{why}: used or not by a feature gate before 1.26")
    return _told(Answers.NO, f"{why}, not used before Kubernetes 1.26 (KEP-1669)")


def _uses_terminating(at: Situation) -> bool | None:
    """kube-proxy: alpha in 1.22, on by default in 1.26; Cilium has done so since before."""
    found = re.match(r"v?(\d+)\.(\d+)", at.node.version)
    if at.balancer.name == CILIUM or found is None:
        return True
    version = (int(found[1]), int(found[2]))
    if version >= _TERMINATING_SINCE:
        return True
    return None if version >= _TERMINATING_MAYBE else False


def _source(at: Situation) -> tuple[SourceFate, str]:
    """What becomes of the client's address, and why."""
    if at.service.annotation(_L7) == "enabled" and at.balancer.name == CILIUM:
        return SourceFate.UNKNOWN, "Cilium's L7 proxy ends the connection on the node"
    if at.local_policy:
        return SourceFate.PRESERVED, "externalTrafficPolicy Local does not masquerade"
    if at.balancer.name == KUBE_PROXY:
        return SourceFate.NODE, "kube-proxy masquerades with externalTrafficPolicy Cluster"
    if at.balancer.name != CILIUM:
        return SourceFate.UNKNOWN, "nothing tells whether kube-proxy or Cilium balances here"
    return _source_by_cilium(at)


def _source_by_cilium(at: Situation) -> tuple[SourceFate, str]:
    mode = at.balancer.mode
    if mode == "dsr" or (mode == "hybrid" and at.target.protocol == TCP):
        return SourceFate.PRESERVED, f"Cilium in {_mode(mode)} mode does not masquerade"
    ends = usable(at)
    local = len(_on(ends, at.node))
    if ends and local == len(ends):
        return SourceFate.PRESERVED, "every endpoint is on the node itself"
    if mode not in ("snat", "hybrid"):
        return SourceFate.UNKNOWN, "nothing tells Cilium's load-balancing mode"
    said = f"Cilium in {_mode(mode)} mode masquerades what goes to another node"
    if local:
        return SourceFate.EITHER, f"{said}, and some endpoints are local"
    return SourceFate.NODE, said


def _mode(mode: str) -> str:
    return mode.upper() if mode in ("snat", "dsr") else mode


def _health(at: Situation) -> tuple[int | None, int | None]:
    """Status and count of the health check; kube-proxy counts distinct ready addresses of all
    ports, and terminating ones not (so load-balancers turn away while connections end)."""
    port = at.service.health_check_node_port
    if not port or not at.local_policy or at.service.type != "LoadBalancer" or at.endpoints is None:
        return None, None
    ready = _on([e for e in at.endpoints if e.ready], at.node)
    counts = {v: _count([e for e in ready if e.address.version == v]) for v in (4, 6)}
    # A pod of a dual-stack Service is one endpoint in each version, and counted in one of them.
    count = counts[at.target.version] or max(counts.values())
    return (200 if count else 503), count


def _cautions(at: Situation) -> tuple[str, ...]:
    said = []
    if at.policies:
        what = at.policies[0] + (
            f" and {len(at.policies) - 1} more" if len(at.policies) > 1 else ""
        )
        said.append(
            f"{what} may decide otherwise for this probe: it comes from a node's address, "
            "which policies can tell from clients outside"
        )
    if at.node.unschedulable and not probe_targets.excluded(at.node):
        said.append(
            "the node is cordoned, which does not keep load-balancers away since Kubernetes 1.19"
        )
    return tuple(said)


def _told(answers: Answers, why: str) -> Expectation:
    return Expectation(answers, SourceFate.UNKNOWN, why)


def _ending(endpoint: ServiceEndpoint) -> bool:
    return not endpoint.ready and endpoint.serving and endpoint.terminating


def _on(endpoints: Iterable[ServiceEndpoint], node: Node) -> list[ServiceEndpoint]:
    return [e for e in endpoints if e.node == node.name]


def _count(endpoints: Iterable[ServiceEndpoint]) -> int:
    addresses: set[Address] = {e.address for e in endpoints}
    return len(addresses)


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")
