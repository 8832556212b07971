"""kube-proxy's iptables rules on a node, applied to the first packet to a Service's address.

Source: pkg/proxy/iptables/proxier.go. KUBE-SERVICES and KUBE-NODEPORTS name addresses and ports,
KUBE-FW and KUBE-EXT (KUBE-XLB before 1.24) part outside from inside traffic, KUBE-SVC and KUBE-SVL
choose an endpoint, KUBE-SEP translates. This module follows the chains by the matches of their
rules, not by their names, so that it reads all versions alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.kernel import netfilter
from kubectl_ebpfnet.explain.kernel.netfilter import Context
from kubectl_ebpfnet.model.kernel import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.untrusted import address, port

SERVICES, NODE_PORTS = "KUBE-SERVICES", "KUBE-NODEPORTS"
MASQUERADE_MARK = 0x4000
"""kube-proxy's default (--iptables-masquerade-bit 14)."""
_MARK_MASQUERADE, _MARK_DROP = "KUBE-MARK-MASQ", "KUBE-MARK-DROP"
_REFUSING = frozenset({"DROP", "REJECT", _MARK_DROP})
_TO = re.compile(r"\[?(?P<address>[0-9A-Fa-f.:]+?)\]?:(?P<port>[0-9]+)")


@dataclass(frozen=True, slots=True)
class ServiceOutcome:
    """What the rules do with a packet from outside.

    Attributes:
        rule: the first rule for this address and port, None without one.
        backends: destinations that the packet may be translated to.
        masquerades: its source is rewritten; None when undecided.
        marking: the rule that marks it for masquerading, None without one.
        refusal: the rule that drops or rejects it, None without one.
    """

    rule: NetfilterRule | None
    backends: tuple[tuple[Address, int], ...] = ()
    masquerades: bool | None = False
    marking: NetfilterRule | None = None
    refusal: NetfilterRule | None = None


@dataclass(slots=True)
class _Walker:
    """A packet on its way through the nat table. A rule that may or may not match counts both
    ways: it is followed, and so are the rules after it."""

    ruleset: Ruleset
    context: Context
    rule: NetfilterRule | None = None
    backends: list[tuple[Address, int]] = field(default_factory=list)
    masquerades: bool | None = False
    marking: NetfilterRule | None = None
    refusal: NetfilterRule | None = None

    def chain(self, name: str, certain: bool = True, depth: int = netfilter.DEEPEST) -> bool:
        """Follow a chain; return whether the packet certainly went no further.

        Args:
            name: of the chain, in the nat table.
            certain: the packet certainly comes to this chain.
            depth: nested chains that may still be followed.
        """
        for rule in self.ruleset.chain("nat", name) if depth else ():
            hit = _matches(rule, self.context)
            if hit is False or not rule.jump:
                continue
            if self.rule is None and name in (SERVICES, NODE_PORTS) and rule.destination_ports:
                self.rule = rule
            if rule.jump == "RETURN":
                if hit:
                    return False
            elif self._ends(rule, certain and hit is True, depth) and hit:
                return True
        return False

    def _ends(self, rule: NetfilterRule, certain: bool, depth: int) -> bool:
        if rule.jump == _MARK_MASQUERADE:
            self.masquerades = True if certain else self.masquerades or None
            self.marking = self.marking or rule
            return False
        if rule.jump in _REFUSING:
            if certain and not self.backends:
                self.refusal = self.refusal or rule
            return True
        if rule.jump == "DNAT":
            backend = _backend(rule)
            if backend is not None and backend not in self.backends:
                self.backends.append(backend)
            return True
        if rule.jump == "ACCEPT":
            return True
        return self.chain(rule.jump, certain, depth - 1)


def follow(ruleset: Ruleset, flow: Flow, local: frozenset[Address]) -> ServiceOutcome:
    """Follow a packet from outside that comes to a node.

    Args:
        ruleset: of the node, in the packet's IP version.
        flow: to the Service's address and port, or to the node's and the node port.
        local: the node's own addresses.
    """
    walker = _Walker(ruleset, Context(flow, local=local))
    walker.chain("PREROUTING")
    refusal = walker.refusal
    if refusal is None and not walker.backends:
        # The filter table refuses packets that nat leaves alone: "has no endpoints", "has no local
        # endpoints", and the firewall of loadBalancerSourceRanges.
        for chain in ("INPUT", "FORWARD"):
            outcome = netfilter.traverse(ruleset, "filter", chain, Context(flow, local=local))
            rule = outcome.rule
            if rule is not None and rule.jump in _REFUSING and rule.destination_ports:
                refusal = refusal or rule
    rule = walker.rule or (refusal if refusal and refusal.destination_ports else None)
    return ServiceOutcome(rule, tuple(walker.backends), walker.masquerades, walker.marking, refusal)


def has_kube_proxy(ruleset: Ruleset) -> str:
    """Return kube-proxy's mode, `iptables` or `ipvs`; "" when its chains are not there."""
    chains = {chain.name for chain in ruleset.chains if chain.table == "nat"}
    if SERVICES not in chains:
        return ""
    return "ipvs" if "KUBE-LOAD-BALANCER" in chains else "iptables"


def dropping(
    ruleset: Ruleset, flow: Flow, in_device: str, out_device: str, *, reply: bool = False
) -> NetfilterRule | None:
    """Return the rule of a FORWARD chain that certainly drops a translated packet, or None.

    Args:
        ruleset: of the node, in the packet's IP version.
        flow: as it is forwarded.
        in_device, out_device: names of the devices, "" where not known.
        reply: the packet is a reply of an established connection.
    """
    state = "ESTABLISHED" if reply else "NEW"
    context = Context(flow, in_device, out_device, state=state)
    return _deciding(ruleset, ("mangle", "filter"), "FORWARD", context, ("DROP", "REJECT"))


def dropping_first(ruleset: Ruleset, flow: Flow, in_device: str) -> NetfilterRule | None:
    """Return the rule that drops a packet as it comes in, before any translation, or None.

    Args:
        ruleset: of the node, in the packet's IP version.
        flow: as it comes in.
        in_device: name of the device, "" where not known.
    """
    context = Context(flow, in_device, state="NEW")
    return _deciding(ruleset, ("raw", "mangle"), "PREROUTING", context, ("DROP", "REJECT"))


def masquerading(
    ruleset: Ruleset, flow: Flow, out_device: str, mark: int | None
) -> NetfilterRule | None:
    """Return the rule that certainly rewrites the source of a translated packet, or None.

    Args:
        ruleset: of the node, in the packet's IP version.
        flow: after its destination was translated.
        out_device: name of the device, "" where not known.
        mark: skb mark, None when not known.
    """
    context = Context(flow, "", out_device, mark)
    return _deciding(ruleset, ("nat",), "POSTROUTING", context, ("MASQUERADE", "SNAT", "NETMAP"))


def _deciding(
    ruleset: Ruleset,
    tables: tuple[str, ...],
    chain: str,
    context: Context,
    targets: tuple[str, ...],
) -> NetfilterRule | None:
    found = (netfilter.traverse(ruleset, table, chain, context).rule for table in tables)
    return next((rule for rule in found if rule is not None and rule.jump in targets), None)


def _matches(rule: NetfilterRule, context: Context) -> bool | None:
    """Match as netfilter.matches does, and evaluate the two matches by which kube-proxy parts
    outside from inside traffic."""
    hit = netfilter.matches(replace(rule, other_matches=()), context)
    if hit is False:
        return False
    for name in rule.other_matches:
        if name == "addrtype" and "--src-type LOCAL" in rule.text:
            if (context.flow.source in context.local) == ("! --src-type" in rule.text):
                return False
        elif name != "physdev":  # `! --physdev-is-in`: it came from no bridge port
            hit = None
    return hit


def _backend(rule: NetfilterRule) -> tuple[Address, int] | None:
    found = _TO.fullmatch(rule.to_address)
    if found is None:
        return None
    try:
        return address(found["address"], "a rule"), port(found["port"], "a rule")
    except ParseError:
        return None
