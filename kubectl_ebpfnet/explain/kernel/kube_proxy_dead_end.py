"""Where kube-proxy's rules of iptables leave a packet to a Service alone, and why.

Source: Kubernetes pkg/proxy/iptables/proxier.go: what has no endpoint has a rule of the table
filter instead of one of nat (KUBE-SERVICES, KUBE-EXTERNAL-SERVICES).
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.kernel import netfilter
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.kube_proxy import (
    MARK_MASQUERADE,
    NODE_PORTS,
    REFUSING,
    SERVICES,
)
from kubectl_ebpfnet.explain.kernel.rule_matches import matches
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Flow, protocol_name
from kubectl_ebpfnet.model.netfilter import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.nft import AnyRule

_OF_FILTER = (SERVICES, "KUBE-EXTERNAL-SERVICES")


@dataclass(frozen=True, slots=True)
class DeadEnd:
    """Why kube-proxy's rules do not translate a packet.

    Attributes:
        text: a clause that names the chain.
        way: the rules that lead there; () where none names the packet's destination.
        broken: kube-proxy itself leaves no such rules. It does leave rules none of which translates
            (externalTrafficPolicy Local without a local endpoint) or that mark it to be dropped.
    """

    text: str
    way: tuple[AnyRule, ...] = ()
    broken: bool = False


def dead_end(ruleset: Ruleset, context: Context, chain: str) -> DeadEnd:
    """Follow a packet that no rule translates to the chain where it is left alone.

    Args:
        ruleset: of the node, in the packet's IP version.
        context: the packet.
        chain: of nat that it passed: `PREROUTING` or `OUTPUT`.
    """
    entries = [*ruleset.chain("nat", SERVICES), *ruleset.chain("nat", NODE_PORTS)]
    named = [r for r in entries if r.names_port and r.jump.startswith("KUBE-")]
    named = [r for r in named if r.jump != MARK_MASQUERADE]
    first = next((r for r in named if matches(r, context) is not False), None)
    if first is None:
        for_others = [rule for rule in named if _names(rule, context.flow)]
        refusing = _refused_by_filter(ruleset, context)
        if refusing is not None:
            return DeadEnd(f"{refusing.title} of table filter refuses it", (refusing,))
        if for_others:
            rule = for_others[0]
            text = f"{rule.chain} rule {rule.number} is for it, but not from {context.flow.source}"
            return DeadEnd(text, (rule,))
        return DeadEnd(f"no rule of {SERVICES} is for it", broken=True)
    to_ports = [rule for rule in ruleset.chain("nat", SERVICES) if rule.jump == NODE_PORTS]
    if first.chain == NODE_PORTS and all(matches(rule, context) is False for rule in to_ports):
        text = f"no rule of {SERVICES} leads {context.flow.destination} to {NODE_PORTS}"
        return DeadEnd(text, (*to_ports, first), broken=not to_ports)
    way = [first]
    while len(way) < netfilter.DEEPEST:
        inside = _inside(ruleset, context, way[-1].jump)
        dropping = next((rule for rule in inside if rule.jump in REFUSING), None)
        if dropping is not None:
            # KUBE-FW- up to 1.24 marks whatever KUBE-XLB- before it did not translate.
            before = inside[: inside.index(dropping)]
            marked = (r for rule in before for r in _inside(ruleset, context, rule.jump))
            first_drop = next((rule for rule in marked if rule.jump in REFUSING), None)
            if first_drop is not None:
                way += [rule for rule in before if rule.jump == first_drop.chain][:1]
                dropping = first_drop
            return DeadEnd(f"{dropping.title} has it dropped", (*way, dropping))
        deeper = [rule for rule in inside if rule.jump.startswith("KUBE-")]
        if not deeper:
            if any(rule.jump == "DNAT" for rule in inside):
                return _not_entered(ruleset, chain, way)
            break
        way.append(deeper[-1])
    last = way[-1].jump
    if not ruleset.has_chain("nat", last):
        what = "which does not exist"
    elif not ruleset.chain("nat", last):
        what = "which has no rule"
    else:
        what = "none of whose rules translates it"
    text = f"{first.chain} rule {first.number} leads to {last}, {what}"
    return DeadEnd(text, tuple(way), not ruleset.chain("nat", last))


def _inside(ruleset: Ruleset, context: Context, chain: str) -> list[NetfilterRule]:
    """Return the rules of a chain of nat that may be for a packet, but for its masquerading."""
    rules = (rule for rule in ruleset.chain("nat", chain) if rule.jump != MARK_MASQUERADE)
    return [rule for rule in rules if matches(rule, context) is not False]


def _not_entered(ruleset: Ruleset, chain: str, way: Sequence[NetfilterRule]) -> DeadEnd:
    """Return why a packet does not come to kube-proxy's rules, which would translate it."""
    entry = next((r for r in ruleset.chain("nat", chain) if r.jump == SERVICES), None)
    would = f"whose rules would translate it by {way[-1].jump}"
    if entry is None:
        return DeadEnd(f"no rule of {chain} leads to {SERVICES}, {would}", tuple(way), broken=True)
    text = f"it does not come to {chain} rule {entry.number}, which leads to {SERVICES}, {would}"
    return DeadEnd(text, (entry, *way), broken=True)


def _names(rule: NetfilterRule, flow: Flow) -> bool:
    """Tell whether a rule names a packet's address and port, whatever else it looks at."""
    if rule.destination is None or rule.not_destination or flow.destination not in rule.destination:
        return False
    if rule.protocol != protocol_name(flow.protocol).lower():
        return False
    ports = {o.value for m in rule.matches for o in m.options if o.name in ("--dport", "--dports")}
    return str(flow.destination_port) in ports


def _refused_by_filter(ruleset: Ruleset, context: Context) -> NetfilterRule | None:
    """Return kube-proxy's rule that refuses a packet to a Service without endpoints."""
    rules = (rule for chain in _OF_FILTER for rule in ruleset.chain("filter", chain))
    refusing = (rule for rule in rules if rule.names_port and rule.jump in REFUSING)
    return next((rule for rule in refusing if matches(rule, context) is not False), None)
