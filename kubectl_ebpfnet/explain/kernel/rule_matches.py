"""One netfilter rule against one packet: it matches, does not, or that cannot be told.

Sources: iptables-extensions(8); Linux net/ipv4/netfilter/ip_tables.c (ip_packet_match).
"""

from __future__ import annotations

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.kernel import nft_matches
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.match_modules import MODULES, Answer, all_of
from kubectl_ebpfnet.model.net import Address, Flow, Network, protocol_number
from kubectl_ebpfnet.model.netfilter import NetfilterRule, RuleMatch
from kubectl_ebpfnet.model.nft import AnyRule, NftRule


def matches(rule: NetfilterRule, context: Context) -> Answer:
    """Tell whether a rule matches a packet; None when undecided."""
    if rule.problem:
        return None
    # Cheap and certain first: most rules of a node are for other addresses.
    flow = context.flow
    if not _inside(rule.destination, flow.destination, rule.not_destination):
        return False
    if not _inside(rule.source, flow.source, rule.not_source):
        return False
    answers = [
        _named(rule.in_device, context.in_device, rule.not_in_device),
        _named(rule.out_device, context.out_device, rule.not_out_device),
        _protocol(rule, flow),
        # A fragment after the first is meant, and the packets here are whole.
        rule.fragment is not True,
    ]
    if False in answers:
        return False
    answers += (one_match(match, context) for match in rule.matches)
    return all_of(answers)


def undecided(rule: AnyRule, context: Context) -> tuple[str, ...]:
    """Return what of a rule cannot be decided: `-m set`, `-i lxc+`, `limit`; or its problem."""
    if isinstance(rule, NftRule):
        return nft_matches.undecided(rule, context)
    if rule.problem:
        return (rule.problem,)
    open_matches = [m for m in rule.matches if one_match(m, context) is None]
    parts = [f"-m {m.module}" if m.module else m.options[0].name for m in open_matches]
    for name, pattern, device in (
        ("-i", rule.in_device, context.in_device),
        ("-o", rule.out_device, context.out_device),
    ):
        if pattern and device is None:
            parts.append(f"{name} {pattern}")
    return tuple(dict.fromkeys(parts))


def one_match(match: RuleMatch, context: Context) -> Answer:
    """Tell whether one `-m` of a rule matches a packet; None when undecided."""
    read = MODULES.get(match.module)
    if read is None:
        return None
    try:
        return read(match, context)
    except (ParseError, ValueError):
        return None


def _inside(network: Network | None, one: Address, inverted: bool) -> bool:
    return network is None or (one in network) != inverted


def _named(pattern: str, device: str | None, inverted: bool) -> Answer:
    if not pattern or pattern == "+":
        return not (pattern and inverted)
    if device is None:
        return None
    if pattern.endswith("+"):
        return device.startswith(pattern[:-1]) != inverted
    return (device == pattern) != inverted


def _protocol(rule: NetfilterRule, flow: Flow) -> bool:
    if not rule.protocol or rule.protocol == "all":
        return True
    return (protocol_number(rule.protocol) == flow.protocol) != rule.not_protocol
