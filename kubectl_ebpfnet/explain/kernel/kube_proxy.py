"""What kube-proxy's iptables rules on a node do with the first packet to a Service's address.

Shapes of the chains: kube-proxy in iptables mode, pkg/proxy/iptables/proxier.go: KUBE-SERVICES and
KUBE-NODEPORTS name addresses and ports, KUBE-FW and KUBE-EXT (KUBE-XLB before 1.24) tell outside
traffic from inside traffic, KUBE-SVC and KUBE-SVL choose an endpoint, KUBE-SEP translates. The
chains are followed by what their rules match, not by their names, so all versions read alike.
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
        rule: the first that is about this address and port, None when none is.
        backends: where it may be translated to.
        masquerades: its source is rewritten; None when that depends on what is not known.
        marking: the rule that asks for that, None when none does.
        refusal: the rule that drops or rejects it, None when none does.
    """

    rule: NetfilterRule | None
    backends: tuple[tuple[Address, int], ...] = ()
    masquerades: bool | None = False
    marking: NetfilterRule | None = None
    refusal: NetfilterRule | None = None


@dataclass(slots=True)
class _Walker:
    """Follows one packet through the nat table; a rule that may or may not match is followed
    and passed over."""

    ruleset: Ruleset
    context: Context
    rule: NetfilterRule | None = None
    backends: list[tuple[Address, int]] = field(default_factory=list)
    masquerades: bool | None = False
    marking: NetfilterRule | None = None
    refusal: NetfilterRule | None = None

    def chain(self, name: str, certain: bool = True, depth: int = netfilter.DEEPEST) -> bool:
        """Follow a chain; whether the packet certainly went no further."""
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
        flow: to the Service's address and port, or to the node's and the node port.
        local: the node's own addresses.
    """
    walker = _Walker(ruleset, Context(flow, local=local))
    walker.chain("PREROUTING")
    refusal = walker.refusal
    if refusal is None and not walker.backends:
        # What nat leaves alone is refused in filter: "has no endpoints", "has no local endpoints",
        # and the firewall of loadBalancerSourceRanges.
        for chain in ("INPUT", "FORWARD"):
            outcome = netfilter.traverse(ruleset, "filter", chain, Context(flow, local=local))
            rule = outcome.rule
            if rule is not None and rule.jump in _REFUSING and rule.destination_ports:
                refusal = refusal or rule
    rule = walker.rule or (refusal if refusal and refusal.destination_ports else None)
    return ServiceOutcome(rule, tuple(walker.backends), walker.masquerades, walker.marking, refusal)


def has_kube_proxy(ruleset: Ruleset) -> str:
    """`iptables` or `ipvs` when kube-proxy has been at work here, "" when nothing shows it."""
    chains = {chain.name for chain in ruleset.chains if chain.table == "nat"}
    if SERVICES not in chains:
        return ""
    return "ipvs" if "KUBE-LOAD-BALANCER" in chains else "iptables"


def dropping(
    ruleset: Ruleset, flow: Flow, in_device: str, out_device: str, *, reply: bool = False
) -> NetfilterRule | None:
    """The rule of a FORWARD chain that drops a translated packet, None when none does for sure.

    Args:
        flow: as it is forwarded.
        reply: it is an answer, of a connection that is established.
    """
    state = "ESTABLISHED" if reply else "NEW"
    context = Context(flow, in_device, out_device, state=state)
    for table in ("mangle", "filter"):
        outcome = netfilter.traverse(ruleset, table, "FORWARD", context)
        if outcome.rule is not None and outcome.rule.jump in ("DROP", "REJECT"):
            return outcome.rule
    return None


def dropping_first(ruleset: Ruleset, flow: Flow, in_device: str) -> NetfilterRule | None:
    """The rule that drops a packet as it comes in, before any translation."""
    context = Context(flow, in_device, state="NEW")
    for table in ("raw", "mangle"):
        outcome = netfilter.traverse(ruleset, table, "PREROUTING", context)
        if outcome.rule is not None and outcome.rule.jump in ("DROP", "REJECT"):
            return outcome.rule
    return None


def masquerading(
    ruleset: Ruleset, flow: Flow, out_device: str, mark: int | None
) -> NetfilterRule | None:
    """The rule that rewrites the source of a translated packet, None when none does for sure."""
    context = Context(flow, "", out_device, mark)
    outcome = netfilter.traverse(ruleset, "nat", "POSTROUTING", context)
    if outcome.rule is not None and outcome.rule.jump in ("MASQUERADE", "SNAT", "NETMAP"):
        return outcome.rule
    return None


def _matches(rule: NetfilterRule, context: Context) -> bool | None:
    """As netfilter.matches, with the two matches by which kube-proxy tells outside from inside."""
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
