"""Why a rule of kube-proxy drops or rejects a packet, by what kube-proxy writes of it.

Sources: Kubernetes pkg/proxy/iptables/proxier.go (comments `has no endpoints`, `has no local
endpoints`, `traffic not accepted by KUBE-FW-…`; before 1.25 the chain KUBE-MARK-DROP, whose mark
KUBE-FIREWALL drops) and pkg/proxy/nftables/proxier.go (maps `no-endpoint-services`,
`no-endpoint-nodeports` and `firewall-ips`, chain `cluster-ips-check`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from kubectl_ebpfnet.explain.kernel.chain_ends import ChainEnd
from kubectl_ebpfnet.explain.kernel.kube_proxy_dead_end import dead_end
from kubectl_ebpfnet.model import json_members as members
from kubectl_ebpfnet.model.netfilter import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.nft import AnyRule, NftRule

TABLE = "kube-proxy"
"""kube-proxy's table of nftables, of the families ip and ip6."""


class Refused(StrEnum):
    """What keeps a packet from the endpoints of a Service."""

    NO_ENDPOINTS = "no endpoints"
    """The Service has none."""
    NO_LOCAL_ENDPOINTS = "no local endpoints"
    """The node has none, and its traffic policy is Local."""
    SOURCE_RANGES = "source ranges"
    """Its loadBalancerSourceRanges do not hold the client."""
    NO_SUCH_PORT = "no such port"
    """No Service has this port of the ClusterIP."""
    NO_SUCH_ADDRESS = "no such address"
    """No Service has the address, which is of the range of ClusterIPs."""


_COMMENTS = {
    "has no endpoints": Refused.NO_ENDPOINTS,
    "has no local endpoints": Refused.NO_LOCAL_ENDPOINTS,
    "traffic not accepted by KUBE-FW-": Refused.SOURCE_RANGES,
}
_MARKED = "kubernetes firewall for dropping marked packets"


def is_kube_proxys(rule: AnyRule | None) -> bool:
    """Tell whether kube-proxy keeps a rule; kubelet has KUBE-FIREWALL too."""
    if isinstance(rule, NftRule):
        return rule.table == TABLE and rule.family in ("ip", "ip6")
    return rule is not None and rule.chain.startswith("KUBE-")


def refused(end: ChainEnd, ruleset: Ruleset | None) -> Refused | None:
    """Return why a rule of kube-proxy loses a packet; None where the rule does not tell, or is not
    kube-proxy's.

    Args:
        end: that loses it.
        ruleset: of iptables that the rule is of; None of nftables.
    """
    if not is_kube_proxys(end.rule):
        return None
    if isinstance(end.rule, NftRule):
        return _by_map(end)
    assert isinstance(end.rule, NetfilterRule)
    if _MARKED in end.rule.comment and ruleset is not None:
        return _marked(end, ruleset)
    return _by_comment(end.rule)


def _by_comment(rule: NetfilterRule) -> Refused | None:
    found = (why for words, why in _COMMENTS.items() if words in rule.comment)
    return next(found, None)


def _marked(end: ChainEnd, ruleset: Ruleset) -> Refused | None:
    """Return why a packet has the mark that KUBE-FIREWALL drops: the rule of nat that set it."""
    for chain in ("PREROUTING", "OUTPUT"):
        why = left_alone(dead_end(ruleset, end.context, chain).way)
        if why is not None:
            return why
    return None


def left_alone(way: Sequence[AnyRule]) -> Refused | None:
    """Return why rules of nat of iptables leave a packet alone; None where they do not tell.

    Args:
        way: the rules that lead to where they leave it (kube_proxy_dead_end.py).
    """
    rule = way[-1] if way else None
    if not isinstance(rule, NetfilterRule):
        return None
    # KUBE-FW- ends for whoever is of no range: with this jump, or without a rule for it.
    if "KUBE-FW-" in (rule.chain[:8], rule.jump[:8]):
        return Refused.SOURCE_RANGES
    return _by_comment(rule)


def _by_map(end: ChainEnd) -> Refused | None:
    maps = {
        str(data).removeprefix("@")
        for rule in end.way
        if isinstance(rule, NftRule)
        for statement in rule.statements
        for data in (members.dig(statement, "vmap", "data"),)
        if isinstance(data, str)
    }
    if "firewall-ips" in maps:
        return Refused.SOURCE_RANGES
    if maps & {"no-endpoint-services", "no-endpoint-nodeports"}:
        # It rejects what has no endpoint at all, and drops what has none on this node.
        rejects = end.target == "REJECT"
        return Refused.NO_ENDPOINTS if rejects else Refused.NO_LOCAL_ENDPOINTS
    if end.rule is not None and end.rule.chain == "cluster-ips-check":
        return Refused.NO_SUCH_PORT if end.target == "REJECT" else Refused.NO_SUCH_ADDRESS
    return None
