"""Whether what a node's pods send passes the node's netfilter by: BPF host routing.

The agent's word alone does not tell it. With a tunnel, up to Cilium 1.16 what has no tunnel
endpoint passes to the stack although `status` says `Host: BPF` (bpf/bpf_lxc.c, pass_to_stack);
without the agent nothing says it. The node's own tables do: Cilium's rule for what comes from pods
counts every packet that the stack forwards for them, and nf_conntrack tracks it.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.netfilter import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.path import Evidence

_CHAIN, _DEVICES = "CILIUM_FORWARD", ("lxc+", "lxc*")


@dataclass(frozen=True, slots=True)
class HostRouting:
    """Whether pods' packets pass the node's stack by.

    Attributes:
        bpf: True: past the stack; False: through it; None: undecided.
        reason: what tells it, or which record is missing; one clause.
        evidence: the proof.
    """

    bpf: bool | None
    reason: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class ForwardedFlow:
    """A TCP flow of a local pod that left the node without a tunnel and was answered.

    Attributes:
        in_netfilter: nf_conntrack has it; None where that table was not read.
        evidence: its line in Cilium's conntrack, and in nf_conntrack's; or what hubble or monitor
            showed of it.
        point: where hubble or monitor showed it, `to-stack` or `to-network`; "" for tables.
    """

    in_netfilter: bool | None
    evidence: tuple[Evidence, ...]
    point: str = ""


def forward_rule(ruleset: Ruleset | None) -> NetfilterRule | None:
    """Return Cilium's rule that accepts what pods send and the stack forwards, None without one."""
    rules = ruleset.chain("filter", _CHAIN) if ruleset is not None else ()
    return next((rule for rule in rules if rule.in_device in _DEVICES), None)


def decide(
    config: DatapathConfig,
    rule: NetfilterRule | None,
    proof: tuple[Evidence, ...],
    flows: Iterable[ForwardedFlow],
) -> HostRouting:
    """Decide how a node forwards its pods' packets.

    Args:
        config: of the node's datapath.
        rule: forward_rule() of the node's IPv4 rules.
        proof: the rule's line.
        flows: of the node's pods.
    """
    counted = rule.packets if rule is not None else None
    if counted:
        return HostRouting(False, f"netfilter has forwarded {counted} packets of pods", proof)
    if config.host_routing == "legacy":
        return HostRouting(False, "the agent has legacy host routing")
    for flow in flows:
        if flow.point:
            why = f"a packet of a pod was seen {flow.point.replace('-', ' the ', 1)}"
            return HostRouting(flow.point != "to-stack", why, flow.evidence)
        if flow.in_netfilter:
            return HostRouting(False, "nf_conntrack has a flow of a pod", flow.evidence)
        if counted == 0:
            why = "a flow of a pod was answered, and netfilter has forwarded no packet of a pod"
            return HostRouting(True, why, proof + flow.evidence)
        if flow.in_netfilter is False:
            why = "a flow of a pod was answered that nf_conntrack has not"
            return HostRouting(True, why, flow.evidence)
    if config.host_routing == "bpf" and config.routing_mode == "native":
        return HostRouting(True, "the agent has BPF host routing")
    if config.kube_proxy_replacement is False or config.masquerade == "iptables":
        # BPF host routing needs both (pkg/kpr/initializer; up to 1.18 daemon/cmd/daemon_main.go).
        return HostRouting(
            False, "BPF host routing needs kube-proxy replacement and BPF masquerade"
        )
    if config.host_routing == "bpf":
        return HostRouting(
            None,
            "the agent has BPF host routing, but with a tunnel Cilium up to 1.16 passes to the "
            "stack what it does not encapsulate, and no answered flow of a pod, no packet that was "
            f"seen and no counter of {_CHAIN} tells which",
        )
    return HostRouting(
        None,
        "neither the agent's status nor a flow or counter tells whether BPF host routing is on",
    )
