"""kube-proxy's iptables rules on a node, applied to the first packet to a Service's address.

Source: pkg/proxy/iptables/proxier.go. KUBE-SERVICES and KUBE-NODEPORTS name addresses and ports,
KUBE-FW and KUBE-EXT (KUBE-XLB before 1.24) part outside from inside traffic, KUBE-SVC and KUBE-SVL
choose an endpoint, KUBE-SEP translates. This module follows the chains by the matches of their
rules, not by their names, so that it reads all versions alike.
"""

from __future__ import annotations

import re
from dataclasses import field

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.kernel import netfilter
from kubectl_ebpfnet.explain.kernel.chain_ends import TRANSLATING
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import NOT_KNOWN, Mark
from kubectl_ebpfnet.explain.kernel.rule_matches import matches
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.netfilter import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.untrusted import address, port

SERVICES, NODE_PORTS = "KUBE-SERVICES", "KUBE-NODEPORTS"
MASQUERADE_MARK = 0x4000
"""kube-proxy's default (--iptables-masquerade-bit 14)."""
CHOOSING = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-XLB-")
"""Beginnings of the chains that choose an endpoint."""
MARK_MASQUERADE, MARK_DROP = "KUBE-MARK-MASQ", "KUBE-MARK-DROP"
REFUSING = frozenset({"DROP", "REJECT", MARK_DROP})
"""Targets that keep a packet from the endpoints."""
_TO = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f.:]+)\]|(?P<v4>[0-9.]+))?(?::(?P<port>[0-9]+))?")


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
            hit = matches(rule, self.context)
            if hit is False or not rule.jump:
                continue
            if self.rule is None and name in (SERVICES, NODE_PORTS) and rule.names_port:
                self.rule = rule
            if rule.jump == "RETURN":
                if hit:
                    return False
            elif self._ends(rule, certain and hit is True, depth) and hit:
                return True
        return False

    def _ends(self, rule: NetfilterRule, certain: bool, depth: int) -> bool:
        if rule.jump == MARK_MASQUERADE:
            self.masquerades = True if certain else self.masquerades or None
            self.marking = self.marking or rule
            return False
        if rule.jump in REFUSING:
            if certain and not self.backends:
                self.refusal = self.refusal or rule
            return True
        if rule.jump == "DNAT":
            backend = destination(rule.to_address, self.context.flow)
            if backend is not None and backend[1] is not None:
                self.backends.append((backend[0], backend[1]))
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
    context = Context(flow, None, None, local=local, bridged=False)
    walker = _Walker(ruleset, context)
    walker.chain("PREROUTING")
    refusal = walker.refusal
    if refusal is None and not walker.backends:
        # The filter table refuses packets that nat leaves alone: "has no endpoints", "has no local
        # endpoints", and the firewall of loadBalancerSourceRanges.
        for chain in ("INPUT", "FORWARD"):
            outcome = netfilter.traverse(ruleset, "filter", chain, context)
            for loss in outcome.losses:
                losing = loss.of_iptables
                if losing is not None and losing.names_port and not loss.context.assumed:
                    refusal = refusal or losing
    rule = walker.rule or (refusal if refusal and refusal.names_port else None)
    backends = tuple(dict.fromkeys(walker.backends))
    return ServiceOutcome(rule, backends, walker.masquerades, walker.marking, refusal)


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
    context = Context(flow, in_device or None, out_device or None, state=state, translated=None)
    return _losing(ruleset, ("mangle", "filter"), "FORWARD", context)


def dropping_first(ruleset: Ruleset, flow: Flow, in_device: str) -> NetfilterRule | None:
    """Return the rule that drops a packet as it comes in, before any translation, or None.

    Args:
        ruleset: of the node, in the packet's IP version.
        flow: as it comes in.
        in_device: name of the device, "" where not known.
    """
    return _losing(ruleset, ("raw", "mangle"), "PREROUTING", Context(flow, in_device or None))


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
    known = NOT_KNOWN if mark is None else Mark(mark)
    context = Context(flow, "", out_device or None, known, translated=True)
    outcome = netfilter.traverse(ruleset, "nat", "POSTROUTING", context)
    certain = all(end.target in TRANSLATING for end in outcome.ends)
    return outcome.end.of_iptables if certain else None


def _losing(
    ruleset: Ruleset, tables: tuple[str, ...], chain: str, context: Context
) -> NetfilterRule | None:
    for table in tables:
        outcome = netfilter.traverse(ruleset, table, chain, context)
        if outcome.is_lost:
            return outcome.end.of_iptables
    return None


def destination(text: str, flow: Flow) -> tuple[Address, int | None] | None:
    """Return where a DNAT rule sends a packet; None for a range, or what cannot be read.

    Args:
        text: of the rule: `10.0.0.9:8080`, `[fd00::9]:8080`, an address, or `:8080`.
        flow: of the packet; a part that the rule does not name stays.
    """
    try:
        if text.count(":") > 1 and not text.startswith("["):  # IPv6 without a port
            return address(text, "a rule"), flow.destination_port
        found = _TO.fullmatch(text)
        if found is None or not text:
            return None
        named = found["v6"] or found["v4"]
        to = address(named, "a rule") if named else flow.destination
        return to, port(found["port"], "a rule") if found["port"] else flow.destination_port
    except ParseError:
        return None
