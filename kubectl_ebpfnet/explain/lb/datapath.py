"""The balancer of a Service's outside traffic on a node: kube-proxy, or Cilium and in which mode.

Settings say who should (kube-proxy replacement); tables show who has the address. Where the two
disagree the tables are believed. Modes: Cilium's `bpf-lb-mode`; of one Service by the annotation
`service.cilium.io/forwarding-mode`, which agents heed with `bpf-lb-mode-annotation` (1.18+) alone.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel import kube_proxy
from kubectl_ebpfnet.explain.kernel.kube_proxy import ServiceOutcome
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Frontend
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Service
from kubectl_ebpfnet.model.matching import matching_lines
from kubectl_ebpfnet.model.net import Address, Flow, protocol_name
from kubectl_ebpfnet.model.netfilter import Ruleset
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.probe import ProbeTarget

KUBE_PROXY, CILIUM = "kube-proxy", "Cilium"
FORWARDING_MODE = "service.cilium.io/forwarding-mode"


@dataclass(frozen=True, slots=True)
class Balancer:
    """The balancer of a target on a node.

    Attributes:
        name: KUBE_PROXY, CILIUM, or "" when not known.
        mode: `iptables`, `ipvs`; `snat`, `dsr`, `hybrid`; "" when not known.
        evidence: the proof.
    """

    name: str = ""
    mode: str = ""
    evidence: tuple[Evidence, ...] = ()

    @property
    def title(self) -> str:
        """`kube-proxy iptables`, `Cilium DSR`, or ""."""
        mode = self.mode.upper() if self.mode in ("dsr", "snat") else self.mode
        return f"{self.name} {mode}".strip()


@dataclass(frozen=True, slots=True)
class _KubeProxySigns:
    """Signs of kube-proxy on a node: its chains, and its rule for a target."""

    mode: str
    proof: tuple[Evidence, ...]
    has_rule: bool


def balancer(
    cluster: ClusterView, node: NodeView, service: Service, target: ProbeTarget
) -> Balancer:
    """Decide who balances a target on a node.

    Args:
        cluster: the bundle's indexes.
        node: the node.
        service: of the target.
        target: address and port.
    """
    config = node.config
    signs = _kube_proxy(node, target)
    replaced = config.kube_proxy_replacement
    if replaced is None and signs is None and node[q.LB_MAP].facts:
        replaced = True
    if replaced and not (
        signs is not None and signs.has_rule and _cilium_lacks(cluster, node, target)
    ):
        return Balancer(
            CILIUM, _mode(cluster, node, service, target), cite.whole(node.config_record)
        )
    if signs is not None:
        return Balancer(KUBE_PROXY, signs.mode, signs.proof)
    if replaced is False:
        return Balancer(KUBE_PROXY, "", cite.whole(node.config_record))
    if any(
        pod.node == node.name and "kube-proxy" in (pod.label("k8s-app"), pod.label("component"))
        for pod in cluster.kube.pods
    ):
        return Balancer(KUBE_PROXY, "", cite.whole(cluster.api_record("pods")))
    return Balancer()


def _mode(cluster: ClusterView, node: NodeView, service: Service, target: ProbeTarget) -> str:
    """Return Cilium's mode for a target; "" when not known."""
    config, own = node.config, service.annotation(FORWARDING_MODE).lower()
    mode = config.node_port_mode.lower()
    if not own or own == mode or config.node_port_mode_annotation is False:
        return mode
    if config.node_port_mode_annotation:
        return own
    # Only the map shows it now: its frontends have a `dsr` flag where Services have their own mode.
    address = probed_address(cluster, node, target)
    found = frontends(cluster, node, address, target.port, target.protocol) if address else ()
    return "dsr" if any("dsr" in frontend.flags for frontend in found) else ""


def _kube_proxy(node: NodeView, target: ProbeTarget) -> _KubeProxySigns | None:
    """Search the rules line by line: a node may have 100,000 of them, which are parsed only where
    a mismatch has to be explained (kube_proxy_outcome)."""
    record = node.table_state(q.NETFILTER if target.version == 4 else q.NETFILTER6).record
    if record is None or not record.ok:
        return None
    address = target.address
    port, protocol = f"--dport {target.port} ", f" -p {protocol_name(target.protocol).lower()} "
    words = port if address is None else f" -d {address}/{address.max_prefixlen} "
    chain = f"-A {kube_proxy.SERVICES if address is not None else kube_proxy.NODE_PORTS} "
    needles = (f":{kube_proxy.SERVICES} ", ":KUBE-LOAD-BALANCER ", words)
    found = [
        (number, line.decode("utf-8", "replace"))
        for number, line in matching_lines(record.stdout, [n.encode() for n in needles])
    ]
    if not any(text.startswith(needles[0]) for _, text in found):
        return None
    ipvs = any(text.startswith(needles[1]) for _, text in found)
    wanted = (chain, words, port, protocol)
    rule = [line for line in found if all(part in line[1] for part in wanted)]
    # The rule that leads on comes before the rules that mark.
    rule.sort(key=lambda line: "-j KUBE-MARK-MASQ" in line[1])
    proof = cite.line(record, *rule[0]) if rule else cite.whole(record)
    return _KubeProxySigns("ipvs" if ipvs else "iptables", proof, bool(rule))


def ruleset(node: NodeView, version: int) -> Ruleset | None:
    """Return the node's netfilter rules of one IP version, None when they are not known."""
    answer = node.ruleset(version)
    return answer.facts[0] if answer.facts else None


def frontends(
    cluster: ClusterView, node: NodeView, address: Address, port: int, protocol: int
) -> tuple[Frontend, ...]:
    """Return the frontends of the node's map that clients outside use.

    Args:
        cluster: the bundle's indexes.
        node: whose map is read.
        address: of the frontend.
        port: of the frontend.
        protocol: IANA number.
    """
    hits = [
        f
        for f in node[q.LB_MAP].facts
        if f.port == port and f.protocol in (None, protocol) and _is_at(cluster, node, f, address)
    ]
    outside = tuple(f for f in hits if not f.internal)
    return outside or tuple(hits)


def _is_at(cluster: ClusterView, node: NodeView, frontend: Frontend, address: Address) -> bool:
    if frontend.address == address:
        return True
    same = frontend.address.version == address.version
    return frontend.address.is_unspecified and same and cluster.node_of(address) == node.name


def probed_address(cluster: ClusterView, node: NodeView, target: ProbeTarget) -> Address | None:
    """Return the address that a probe goes to: the target's, or the node's for node ports.

    Args:
        cluster: the bundle's indexes.
        node: the probed node.
        target: address and port.
    """
    if target.address is not None:
        return target.address
    kube_node = cluster.kube_node(node.name)
    return kube_node.address(target.version) if kube_node is not None else None


def kube_proxy_outcome(cluster: ClusterView, node: NodeView, flow: Flow) -> ServiceOutcome | None:
    """Follow a packet through kube-proxy's rules.

    Args:
        cluster: the bundle's indexes.
        node: whose rules are read.
        flow: of the packet, as it comes in.

    Returns:
        The outcome; None when the rules are not known, or have no chains of kube-proxy.
    """
    rules = ruleset(node, flow.destination.version)
    if rules is None or not kube_proxy.has_kube_proxy(rules):
        return None
    return kube_proxy.follow(rules, flow, local_addresses(cluster, node))


def local_addresses(cluster: ClusterView, node: NodeView) -> frozenset[Address]:
    """Return the node's own addresses, by its devices and by the API."""
    kube_node = cluster.kube_node(node.name)
    named = (*kube_node.internal_addresses, *kube_node.external_addresses) if kube_node else ()
    return node.own_addresses | frozenset(named)


def _cilium_lacks(cluster: ClusterView, node: NodeView, target: ProbeTarget) -> bool:
    """Tell whether Cilium's map was read and lacks the target."""
    address = probed_address(cluster, node, target)
    if address is None or not node[q.LB_MAP].known:
        return False
    return not frontends(cluster, node, address, target.port, target.protocol)
