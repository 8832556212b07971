"""Who balances a Service's outside traffic on a node: kube-proxy, or Cilium and in which mode.

Settings say who should (kube-proxy replacement); tables show who has the address. Where the two
disagree the tables are believed. Modes: cilium-facts 4.6; per Service by the annotation
`service.cilium.io/forwarding-mode` (Cilium 1.18+).
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_ebpfnet.explain import cite, probe_rules
from kubectl_ebpfnet.explain.node import NodeView
from kubectl_ebpfnet.explain.probe_rules import Programmed
from kubectl_ebpfnet.model.cilium import Frontend
from kubectl_ebpfnet.model.kernel import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.kube import Service
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.probe import ProbeTarget

KUBE_PROXY, CILIUM = "kube-proxy", "Cilium"
FORWARDING_MODE = "service.cilium.io/forwarding-mode"


@dataclass(frozen=True, slots=True)
class Balancer:
    """Who balances.

    Attributes:
        name: KUBE_PROXY, CILIUM, or "" when nothing says.
        mode: `iptables`, `ipvs`; `snat`, `dsr`, `hybrid`; "" when nothing says.
        evidence: what says so.
    """

    name: str = ""
    mode: str = ""
    evidence: tuple[Evidence, ...] = ()

    @property
    def title(self) -> str:
        """`kube-proxy iptables`, `Cilium DSR`, or ""."""
        mode = self.mode.upper() if self.mode in ("dsr", "snat") else self.mode
        return f"{self.name} {mode}".strip()


def balancer(node: NodeView, service: Service, target: ProbeTarget) -> Balancer:
    """Who balances a target on a node."""
    config = node.config
    rules = ruleset(node, target.version)
    by_rules = probe_rules.has_kube_proxy(rules) if rules is not None else ""
    replaced = config.kube_proxy_replacement
    if replaced is None and not by_rules and node.lb_map.facts:
        replaced = True
    if replaced and not (by_rules and _only_kube_proxy_has(node, target, rules)):
        mode = service.annotation(FORWARDING_MODE).lower() or config.node_port_mode.lower()
        return Balancer(CILIUM, mode, cite.whole(node.config_record))
    if by_rules:
        rule = _rule(node, target, rules)
        record = node.ruleset(target.version).record
        proof = cite.lines(record, [rule.line]) if rule is not None else cite.whole(record)
        return Balancer(KUBE_PROXY, by_rules, proof)
    if replaced is False:
        return Balancer(KUBE_PROXY, "", cite.whole(node.config_record))
    if any(
        pod.node == node.name and "kube-proxy" in (pod.label("k8s-app"), pod.label("component"))
        for pod in node.world.kube.pods
    ):
        return Balancer(KUBE_PROXY, "", cite.whole(node.world.api_record("pods")))
    return Balancer()


def ruleset(node: NodeView, version: int) -> Ruleset | None:
    """The node's netfilter rules of one IP version, None when they are not known."""
    answer = node.ruleset(version)
    return answer.facts[0] if answer.facts else None


def frontends(node: NodeView, address: Address, port: int, protocol: int) -> tuple[Frontend, ...]:
    """Cilium's entries for an address and port that clients outside use, by the node's map."""
    hits = [
        f
        for f in node.lb_map.facts
        if f.port == port and f.protocol in (None, protocol) and _is_at(node, f, address)
    ]
    outside = tuple(f for f in hits if not f.internal)
    return outside or tuple(hits)


def _is_at(node: NodeView, frontend: Frontend, address: Address) -> bool:
    if frontend.address == address:
        return True
    same = frontend.address.version == address.version
    return frontend.address.is_unspecified and same and node.world.node_of(address) == node.name


def sent_to(node: NodeView, target: ProbeTarget) -> Address | None:
    """The address that a probe of the target goes to: its own, or the node's for node ports."""
    if target.address is not None:
        return target.address
    kube_node = node.world.kube_node(node.name)
    return kube_node.address(target.version) if kube_node is not None else None


def by_kube_proxy(node: NodeView, flow: Flow) -> Programmed | None:
    """What kube-proxy's rules do with a packet; None when the rules are not known or not its."""
    rules = ruleset(node, flow.destination.version)
    if rules is None or not probe_rules.has_kube_proxy(rules):
        return None
    return probe_rules.programmed(rules, flow, local_addresses(node))


def local_addresses(node: NodeView) -> frozenset[Address]:
    """The node's own addresses, by its devices and by the API."""
    kube_node = node.world.kube_node(node.name)
    named = (*kube_node.internal_addresses, *kube_node.external_addresses) if kube_node else ()
    return node.own_addresses | frozenset(named)


def _only_kube_proxy_has(node: NodeView, target: ProbeTarget, rules: Ruleset | None) -> bool:
    address = sent_to(node, target)
    if address is None or not node.lb_map.known:
        return False
    if frontends(node, address, target.port, target.protocol):
        return False
    return _rule(node, target, rules) is not None


def _rule(node: NodeView, target: ProbeTarget, rules: Ruleset | None) -> NetfilterRule | None:
    """kube-proxy's rule for the target."""
    address = sent_to(node, target)
    if address is None or rules is None:
        return None
    # Any source outside will do to see whether there is a rule for the address.
    flow = Flow(target.protocol, address, None, address, target.port)
    return probe_rules.programmed(rules, flow, local_addresses(node)).rule
