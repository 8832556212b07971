"""The modules of netfilter's matches (`-m`), each against a packet.

Sources: iptables-extensions(8); Linux net/netfilter/xt_*.c. A module that is not in `MODULES`, or
an option that its function does not know, is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import BITS
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, Address, Flow, Network, has_ports, within
from kubectl_ebpfnet.model.netfilter import MatchOption, RuleMatch
from kubectl_ebpfnet.model.untrusted import address, integer, network

Answer = bool | None
"""Whether it matches; None for undecided."""
_BEGINNING, _ANSWERING = frozenset(("SYN",)), frozenset(("SYN", "ACK"))
_TCP_FLAGS = frozenset(("FIN", "SYN", "RST", "PSH", "ACK", "URG"))
_SPECIAL_TYPES = frozenset(("BROADCAST", "ANYCAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT"))
_Option = Callable[[MatchOption, Context], Answer]


def all_of(answers: Iterable[Answer]) -> Answer:
    """Return False if one is False, else None if one is undecided, else True."""
    found = list(answers)
    if False in found:
        return False
    return None if None in found else True


def any_of(answers: Iterable[Answer]) -> Answer:
    found = list(answers)
    if True in found:
        return True
    return None if None in found else False


def not_if(answer: Answer, inverted: bool) -> Answer:
    return answer if answer is None else answer != inverted


def _options(**known: _Option) -> Callable[[RuleMatch, Context], Answer]:
    """Return a match all of whose options must hold; an option that is not known is undecided."""
    table = {"--" + name.replace("_", "-"): read for name, read in known.items()}

    def read(match: RuleMatch, context: Context) -> Answer:
        return all_of(
            not_if(table[o.name](o, context), o.inverted) if o.name in table else None
            for o in match.options
        )

    return read


def _port_of(*ends: str) -> _Option:
    def read(option: MatchOption, context: Context) -> Answer:
        flow = context.flow
        if not has_ports(flow.protocol):
            # The module's own protocol is the rule's; xt_multiport refuses others.
            return None if option.inverted else False
        ranges = _ranges(option.value)
        ports = {"source": flow.source_port, "destination": flow.destination_port}
        client = context.to_client
        return any_of(
            _in_ranges(ports[end], ranges, of_client=client and end == "destination")
            for end in ends
        )

    return read


def _in_ranges(port: int | None, ranges: tuple[tuple[int, int], ...], *, of_client: bool) -> Answer:
    return any_of(within(port, low, high, of_client=of_client) for low, high in ranges)


@lru_cache(maxsize=4096)
def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for part in text.split(","):
        low, colon, high = part.partition(":")
        first = integer(low or "0", "a rule", most=0xFFFF)
        last = integer(high or "65535", "a rule", most=0xFFFF) if colon else first
        ranges.append((first, last))
    return tuple(ranges)


def _tcp_flags(option: MatchOption, context: Context) -> Answer:
    if context.flow.protocol != TCP:
        return False
    if not context.state:
        return None
    looked_at, wanted = (frozenset(word.split(",")) for word in option.values)
    looked_at = _TCP_FLAGS if "ALL" in looked_at else looked_at - {"NONE"}
    if not looked_at <= _TCP_FLAGS:
        return None
    wanted = _TCP_FLAGS if "ALL" in wanted else wanted - {"NONE"}
    has = _BEGINNING if context.is_first else _ANSWERING
    return has & looked_at == wanted


def _icmp_type(option: MatchOption, context: Context) -> Answer:
    """An echo request comes first: type 8 of ICMP, 128 of ICMPv6; its code is 0."""
    flow = context.flow
    if flow.protocol not in (ICMP, ICMPV6):
        return False
    kind, slash, code = option.value.partition("/")
    request, reply = (8, 0) if flow.protocol == ICMP else (128, 129)
    if not context.state:
        return None
    names = {"any": -1, "echo-request": request, "echo-reply": reply}
    asked = names[kind] if kind in names else integer(kind, "a rule")
    has = request if context.is_first else reply
    return asked in (-1, 255, has) and (not slash or integer(code, "a rule") == 0)


def _mark_of(which: str) -> _Option:
    def read(option: MatchOption, context: Context) -> Answer:
        if which == "connection" and not context.tracked:
            return option.inverted  # no connection: it matches neither way
        value, slash, mask = option.value.partition("/")
        mark = context.mark if which == "packet" else context.connmark
        bits = integer(mask, "a rule", most=BITS) if slash else BITS
        return mark.equals(integer(value, "a rule", most=BITS), bits)

    return read


def _states(option: MatchOption, context: Context) -> Answer:
    words = frozenset(option.value.split(","))
    if not context.tracked and context.state:
        return ("UNTRACKED" if context.state == "UNTRACKED" else "INVALID") in words
    if context.state and context.state in words:
        return True
    answers: list[Answer] = [False if context.state else None]
    if "DNAT" in words:
        answers.append(context.translated)
    if "SNAT" in words:
        answers.append(False if context.is_first else None)
    return any_of(answers)


def _direction(option: MatchOption, context: Context) -> Answer:
    if not context.state or not context.tracked:
        return None
    return option.value == ("ORIGINAL" if context.is_first else "REPLY")


def _original(of: Callable[[Flow], Address]) -> _Option:
    def read(option: MatchOption, context: Context) -> Answer:
        if not context.is_first or not context.tracked:
            return None
        return of(context.original or context.flow) in _network(option.value)

    return read


def _original_port(option: MatchOption, context: Context) -> Answer:
    if not context.is_first or not context.tracked:
        return None
    port = (context.original or context.flow).destination_port
    low, _, high = option.value.partition(":")
    if port is None:
        return None
    return integer(low, "a rule") <= port <= integer(high or low, "a rule")


@lru_cache(maxsize=4096)
def _network(text: str) -> Network:
    return network(text, "a rule")


def _set(option: MatchOption, context: Context) -> Answer:
    name, direction = option.values
    members = context.sets.get(name)
    if members is None or direction not in ("src", "dst"):
        return None
    flow = context.flow
    return (flow.source if direction == "src" else flow.destination) in members


def _address_type(match: RuleMatch, context: Context) -> Answer:
    """xt_addrtype: without routes of its own an address is UNICAST, LOCAL or MULTICAST."""
    limited = any(o.name.startswith("--limit-iface") for o in match.options)
    answers: list[Answer] = []
    for option in match.options:
        if option.name.startswith("--limit-iface"):
            continue
        if option.name not in ("--src-type", "--dst-type"):
            return None
        flow = context.flow
        one = flow.source if option.name == "--src-type" else flow.destination
        answers.append(not_if(has_type(one, option.value, limited, context), option.inverted))
    return all_of(answers)


def has_type(one: Address, words: str, limited: bool, context: Context) -> Answer:
    types = frozenset(words.split(","))
    if one.is_multicast:
        return "MULTICAST" in types
    if not one.is_loopback:
        if context.local is None:
            return None
        if one not in context.local:
            # Whether a route makes it a broadcast address is not looked at.
            return "UNICAST" in types if not types & _SPECIAL_TYPES else None
    if limited:  # LOCAL only if it is an address of that device
        return True if types >= {"LOCAL", "UNICAST"} else None
    return "LOCAL" in types


def _range_of(end: str) -> _Option:
    def read(option: MatchOption, context: Context) -> Answer:
        low, _, high = option.value.partition("-")
        first, last = address(low, "a rule"), address(high or low, "a rule")
        flow = context.flow
        one = flow.source if end == "source" else flow.destination
        return one.version == first.version == last.version and (
            int(first) <= int(one) <= int(last)
        )

    return read


def _owner(match: RuleMatch, context: Context) -> Answer:
    """xt_owner: a forwarded packet has no socket, so it has no owner."""
    if context.in_device == "":
        return None
    return all(option.inverted for option in match.options)


def _socket(match: RuleMatch, context: Context) -> Answer:
    """xt_socket: nobody has a socket yet for the first packet to an address of another machine, and
    one that listens for a proxy (--transparent) is bound to any address, which does not count
    without --nowildcard."""
    names = {option.name for option in match.options}
    if context.proxied is False and "--transparent" in names and "--nowildcard" not in names:
        return False
    if "--nowildcard" in names or not context.is_first:
        return None
    if "--transparent" in names:
        return False
    return False if context.local is not None and not _is_local(context) else None


def _is_local(context: Context) -> bool:
    one = context.flow.destination
    return context.local is not None and (one in context.local or one.is_loopback)


def _bridge(match: RuleMatch, context: Context) -> Answer:
    """xt_physdev: a packet that passes no bridge matches where every option is inverted."""
    if context.bridged is not False:
        return None
    return all(option.inverted for option in match.options)


def _recent(match: RuleMatch, _context: Context) -> Answer:
    """xt_recent: --set always matches; the others depend on who came before."""
    (action,) = (
        o for o in match.options if o.name in ("--set", "--rcheck", "--update", "--remove")
    )
    return not action.inverted if action.name == "--set" else None


def _statistic(match: RuleMatch, _context: Context) -> Answer:
    (chance,) = (o for o in match.options if o.name == "--probability")
    digits = chance.value.replace(".", "", 1)
    if not digits.isascii() or not digits.isdigit() or len(digits) > 20:
        return None
    value = float(chance.value)
    return not_if(True if value >= 1 else False if value <= 0 else None, chance.inverted)


def _reverse_path(match: RuleMatch, context: Context) -> Answer:
    """xt_rpfilter: the route back to the source leads by the device that the packet came in by."""
    if not context.in_device or context.back_device is None:
        return None
    names = {option.name for option in match.options}
    if names - {"--invert", "--validmark", "--loose", "--accept-local"}:
        return None
    if context.in_device == "lo":
        same: Answer = True
    elif "--loose" in names:
        same = context.back_device != ""
    else:
        same = context.back_device == context.in_device
    # A source that is the node's own fails, unless --accept-local.
    if context.local is not None and context.flow.source in context.local:
        same = None
    return not_if(same, "--invert" in names)


_PORTS: dict[str, _Option] = {
    "sport": _port_of("source"),
    "source_port": _port_of("source"),
    "dport": _port_of("destination"),
    "destination_port": _port_of("destination"),
}
_STATE: dict[str, _Option] = {"ctstate": _states, "state": _states}
MODULES: dict[str, Callable[[RuleMatch, Context], Answer]] = {
    "tcp": _options(**_PORTS, tcp_flags=_tcp_flags),
    "udp": _options(**_PORTS),
    "udplite": _options(**_PORTS),
    "sctp": _options(**_PORTS),
    "dccp": _options(**_PORTS),
    "multiport": _options(
        sports=_port_of("source"),
        dports=_port_of("destination"),
        ports=_port_of("source", "destination"),
    ),
    "icmp": _options(icmp_type=_icmp_type),
    "icmp6": _options(icmpv6_type=_icmp_type),
    "icmpv6": _options(icmpv6_type=_icmp_type),
    "mark": _options(mark=_mark_of("packet")),
    "connmark": _options(mark=_mark_of("connection")),
    "conntrack": _options(
        **_STATE,
        ctdir=_direction,
        ctorigsrc=_original(lambda flow: flow.source),
        ctorigdst=_original(lambda flow: flow.destination),
        ctorigdstport=_original_port,
    ),
    "state": _options(**_STATE),
    "set": _options(match_set=_set),
    "iprange": _options(src_range=_range_of("source"), dst_range=_range_of("destination")),
    "addrtype": _address_type,
    "owner": _owner,
    "socket": _socket,
    "physdev": _bridge,
    "recent": _recent,
    "statistic": _statistic,
    "rpfilter": _reverse_path,
}
