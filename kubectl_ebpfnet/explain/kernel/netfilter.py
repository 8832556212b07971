"""Netfilter's rules, applied to a packet.

iptables-save(8), iptables-extensions(8). A rule matches, does not match, or is undecided: then the
walk of the chain goes on, and the outcome names the rule if it could have changed it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kubectl_ebpfnet.model.kernel import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.net import Address, Flow, Network, has_ports, protocol_number

TERMINAL = frozenset({"ACCEPT", "DROP", "REJECT", "QUEUE", "NFQUEUE"})
TRANSLATING = frozenset({"MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP"})
DEEPEST = 32
"""Nested chains that are followed; the kernel's own limit is the table's size."""


@dataclass(frozen=True, slots=True)
class Context:
    """A packet at a netfilter hook.

    Attributes:
        flow: its 5-tuple there.
        in_device, out_device: "" where the hook has none.
        mark: skb mark, None when not known.
        state: conntrack state word: `NEW`, `ESTABLISHED`, … or "" when not known.
        sets: ipset name → members, for the sets whose content is known.
        local: addresses of the node itself, for `addrtype`.
    """

    flow: Flow
    in_device: str = ""
    out_device: str = ""
    mark: int | None = None
    state: str = "NEW"
    sets: dict[str, frozenset[Address]] = field(default_factory=dict)
    local: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class ChainOutcome:
    """What a chain decided.

    Attributes:
        target: `ACCEPT`, `DROP`, `REJECT`, or a translating target.
        rule: the rule that decided, None for the chain's policy.
        uncertain: undecided rules that would have decided otherwise.
    """

    target: str
    rule: NetfilterRule | None = None
    uncertain: tuple[NetfilterRule, ...] = ()


def traverse(ruleset: Ruleset, table: str, chain: str, context: Context) -> ChainOutcome:
    """Run a packet through a built-in chain of one table.

    Args:
        ruleset: chains and rules of one IP version.
        table: `raw`, `mangle`, `nat` or `filter`.
        chain: `PREROUTING`, `INPUT`, `FORWARD`, …
        context: the packet at that hook.

    Returns:
        The first decision, else the chain's policy as target (`ACCEPT` where it has none).
    """
    uncertain: list[NetfilterRule] = []
    outcome = _chain(ruleset, table, chain, context, uncertain, DEEPEST)
    if outcome is None:
        policy = ruleset.policy(table, chain)
        return ChainOutcome("DROP" if policy == "DROP" else "ACCEPT", None, tuple(uncertain))
    return ChainOutcome(outcome.target, outcome.rule, tuple(uncertain))


def _chain(
    ruleset: Ruleset,
    table: str,
    chain: str,
    context: Context,
    uncertain: list[NetfilterRule],
    depth: int,
) -> ChainOutcome | None:
    if depth <= 0:
        return None
    for rule in ruleset.chain(table, chain):
        hit = matches(rule, context)
        if hit is False or not rule.jump:
            continue
        if rule.jump in TERMINAL | TRANSLATING:
            if hit is None:
                uncertain.append(rule)
                continue
            return ChainOutcome(rule.jump, rule)
        if rule.jump == "RETURN":
            if hit:
                return None
            continue
        below = _chain(ruleset, table, rule.jump, context, uncertain, depth - 1)
        if below is not None and hit:
            return below
        if below is not None and below.rule is not None:
            uncertain.append(below.rule)
    return None


def matches(rule: NetfilterRule, context: Context) -> bool | None:
    """Tell whether a rule matches a packet; None when undecided."""
    answers = (
        *_address_answers(rule, context),
        *_device_answers(rule, context),
        _protocol_answer(rule, context.flow),
        _port_answer(rule.source_ports, context.flow, context.flow.source_port),
        _port_answer(rule.destination_ports, context.flow, context.flow.destination_port),
        _mark_answer(rule, context),
        _state_answer(rule, context),
        _set_answer(rule, context),
        _type_answer(rule, context),
    )
    if False in answers:
        return False
    if None in answers or rule.other_matches:
        return None
    return True


def _address_answers(rule: NetfilterRule, context: Context) -> tuple[bool, bool]:
    def inside(network: Network | None, address: Address, inverted: bool) -> bool:
        return network is None or (address in network) != inverted

    return (
        inside(rule.source, context.flow.source, rule.not_source),
        inside(rule.destination, context.flow.destination, rule.not_destination),
    )


def _device_answers(rule: NetfilterRule, context: Context) -> tuple[bool, bool]:
    def named(pattern: str, device: str, inverted: bool) -> bool:
        if not pattern:
            return True
        if pattern.endswith("+"):
            return device.startswith(pattern[:-1]) != inverted
        return (device == pattern) != inverted

    return (
        named(rule.in_device, context.in_device, rule.not_in_device),
        named(rule.out_device, context.out_device, rule.not_out_device),
    )


def _protocol_answer(rule: NetfilterRule, flow: Flow) -> bool:
    if not rule.protocol or rule.protocol == "all":
        return True
    name = {"ipv6-icmp": "icmpv6", "icmp6": "icmpv6"}.get(rule.protocol, rule.protocol)
    return (protocol_number(name) == flow.protocol) != rule.not_protocol


def _port_answer(ranges: tuple[tuple[int, int], ...], flow: Flow, port: int | None) -> bool | None:
    if not ranges:
        return True
    if not has_ports(flow.protocol):
        return False
    if port is None:
        return None
    return any(low <= port <= high for low, high in ranges)


def _mark_answer(rule: NetfilterRule, context: Context) -> bool | None:
    if rule.mark is None:
        return True
    if context.mark is None:
        return None
    return (context.mark & rule.mark_mask == rule.mark) != rule.not_mark


def _state_answer(rule: NetfilterRule, context: Context) -> bool | None:
    if not rule.states:
        return True
    if not context.state:
        return None
    return (context.state in rule.states) != rule.not_states


def _set_answer(rule: NetfilterRule, context: Context) -> bool | None:
    if not rule.set_name:
        return True
    members = context.sets.get(rule.set_name)
    if members is None:
        return None
    flow = context.flow
    address = flow.source if rule.set_direction.startswith("src") else flow.destination
    return (address in members) != rule.not_set


def _type_answer(rule: NetfilterRule, context: Context) -> bool | None:
    if not rule.destination_type:
        return True
    if rule.destination_type != "LOCAL":
        return None
    hit = context.flow.destination in context.local or context.flow.destination.is_loopback
    return hit != rule.not_destination_type
