"""nftables' matches against a packet: yes, no, or undecided.

Sources: Linux net/netfilter/nft_cmp.c, nft_range.c, nft_lookup.c, nft_limit.c, nft_quota.c; nft(8);
libnftables-json(5). A match whose expression finds nothing to read ends the rule, also with `!=`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import Mark
from kubectl_ebpfnet.explain.kernel.match_modules import Answer, all_of, any_of, not_if
from kubectl_ebpfnet.explain.kernel.nft_values import (
    MISSING,
    Flags,
    Value,
    constant_bits,
    value_of,
)
from kubectl_ebpfnet.model import json_members as members
from kubectl_ebpfnet.model.net import protocol_number
from kubectl_ebpfnet.model.nft import Expression, NftRule, NftSet

_PASSING_ON = frozenset({
    "counter", "log", "last", "dup", "flow", "notrack", "mangle", "ct helper", "ct timeout",
    "ct expectation", "secmark", "tunnel",
})  # fmt: skip
"""Statements that never end a rule; what they change is applied in nft.py."""
_ICMP_TYPES = {
    "echo-reply": (0, 129), "destination-unreachable": (3, 1), "source-quench": (4,),
    "redirect": (5,), "echo-request": (8, 128), "router-advertisement": (9,),
    "router-solicitation": (10,), "time-exceeded": (11, 3), "parameter-problem": (12, 4),
    "timestamp-request": (13,), "timestamp-reply": (14,), "info-request": (15,),
    "info-reply": (16,), "address-mask-request": (17,), "address-mask-reply": (18,),
    "packet-too-big": (2,), "mld-listener-query": (130,), "mld-listener-report": (131,),
    "mld-listener-done": (132,), "mld-listener-reduction": (132,), "nd-router-solicit": (133,),
    "nd-router-advert": (134,), "nd-neighbor-solicit": (135,), "nd-neighbor-advert": (136,),
    "nd-redirect": (137,), "router-renumbering": (138,), "ind-neighbor-solicit": (141,),
    "ind-neighbor-advert": (142,), "mld2-listener-report": (143,),
}  # fmt: skip
"""Of ICMP, ICMPv6, or both, in this order (nftables src/proto.c); neither has the other's echo."""
_BY_CHANCE = "numgen random"
AFFINITY = "kube-proxy's affinity set"
"""A set of the clients that kube-proxy sent to an endpoint (pkg/proxy/nftables/proxier.go)."""


def holds(statement: Expression, rule: NftRule, context: Context) -> Answer:
    """Tell whether a rule goes on after a statement that may end it; None when undecided.

    Args:
        statement: of the rule; one with a verdict, or one that changes the packet, goes on.
        rule: with the sets of its table.
        context: the packet there.
    """
    name, body = next(iter(statement.items()))
    if name == "match":
        return _match(body, rule, context)
    if name in ("limit", "quota", "ct count", "connlimit", "meter"):
        return None
    if name == "xt":
        return True if body == {"type": "match", "name": "comment"} else None
    if name in ("set", "map"):
        return None if members.items(body, "stmt") else True
    return True


def undecided(rule: NftRule, context: Context) -> tuple[str, ...]:
    """Return what of a rule cannot be decided, in words."""
    return tuple(dict.fromkeys(_undecided(rule, context)))


def _undecided(rule: NftRule, context: Context) -> Iterator[str]:
    for statement in rule.statements:
        name, body = next(iter(statement.items()))
        key = members.dig(body, "key") if name == "vmap" else None
        key = key or members.dig(body, "addr", "map", "key")
        if isinstance(key, dict) and key:
            if "numgen" in key:
                yield _BY_CHANCE
            elif _is_open(value_of(key, context)):
                yield "a key of its map"
        elif holds(statement, rule, context) is None:
            if rule.table == "kube-proxy" and _asks_affinity(body):
                yield AFFINITY
                continue
            left = members.dig(body, "left")
            yield _named(left) if isinstance(left, dict) and left else name


def _asks_affinity(body: Any) -> bool:
    return str(members.dig(body, "right")).startswith("@affinity-")


def _is_open(value: Value) -> bool:
    return value is None or (isinstance(value, tuple) and None in value)


def _named(expression: Expression) -> str:
    name, body = next(iter(expression.items()))
    if isinstance(body, list) and body and isinstance(body[0], dict) and body[0]:
        return _named(body[0])  # of a bitwise expression, or a concatenation
    key = members.text(body, "field") or members.text(body, "key")
    return " ".join(filter(None, (members.text(body, "protocol") or name, key)))


def _match(body: Any, rule: NftRule, context: Context) -> Answer:
    left, operator, right = (members.dig(body, each) for each in ("left", "op", "right"))
    if not isinstance(left, dict) or not left:
        return None
    value = value_of(left, context)
    if value is MISSING:
        return False
    if operator == "!=":
        return not_if(_is_in(value, right, rule), inverted=True)
    if operator == "==":
        return _is_in(value, right, rule)
    if operator in ("in", "!"):
        return not_if(_has_any(value, right, rule), inverted=operator == "!")
    return _ordered(value, operator, right)


def _has_any(value: Value, right: Any, rule: NftRule) -> Answer:
    """Tell whether any bit of the right side is set: `tcp flags syn`, `ct state new,related`."""
    if isinstance(value, Mark):
        bits = constant_bits(right)
        return None if bits is None else not_if(value.equals(0, bits), inverted=True)
    if isinstance(value, Flags):
        words = right if isinstance(right, list) else [right]
        return any(word in value for word in words) if set(words) <= _KNOWN_STATUS else None
    return _is_in(value, right, rule)


_KNOWN_STATUS = frozenset({"dnat", "snat", "seen-reply", "assured", "confirmed", "expected"})
"""Of a connection's first packet."""


def _is_in(value: Value, right: Any, rule: NftRule) -> Answer:
    """Tell whether a value is what stands on the right: a constant, a range, a set."""
    if isinstance(right, str) and right.startswith("@"):
        found = rule.sets.get(right[1:])
        return None if found is None else in_set(value, found)
    if isinstance(right, dict) and "set" in right:
        return any_of(equals(value, each) for each in members.items(right, "set"))
    if isinstance(right, list) and not isinstance(value, Mark):
        return any_of(equals(value, each) for each in right)
    return equals(value, right)


def in_set(value: Value, found: NftSet) -> Answer:
    """Tell whether a set has a value; one that packets change may have it by now."""
    keys = (each[0] for each in found.elements) if found.is_map else iter(found.elements)
    answer = any_of(equals(value, key) for key in keys)
    return None if answer is False and found.changes else answer


def equals(value: Value, constant: Any) -> Answer:
    """Tell whether a value is a constant of libnftables-json(5); None when undecided."""
    if isinstance(constant, dict) and "elem" in constant:
        constant = members.dig(constant, "elem", "val")
    if constant == "*":
        return True
    if value is None:
        return None
    if isinstance(value, Flags):
        return None  # nft compares bits that have no names
    if isinstance(value, tuple):
        parts = members.items(constant, "concat")
        if len(parts) != len(value):
            return None
        return all_of(equals(one, other) for one, other in zip(value, parts, strict=True))
    if isinstance(constant, dict) and "|" not in constant:
        return _in_range(value, constant)
    if isinstance(value, Mark):
        return _number_equals(value, constant)
    if isinstance(value, bool):
        return value == constant if isinstance(constant, bool) else None
    if isinstance(value, str):
        return _text_equals(value, constant)
    other = members.address(constant)
    return None if other is None else value == other


def _text_equals(value: str, constant: Any) -> Answer:
    """Compare names of devices, which may end in a star, and other words."""
    if isinstance(constant, dict) and members.items(constant, "|"):
        return False  # a state is one word
    if not isinstance(constant, str):
        return None
    if constant.endswith("*"):
        return None if constant.endswith("\\*") else value.startswith(constant[:-1])
    if value == "unicast" and constant in _OF_ROUTES:
        return None  # whether a route makes it one is not looked at
    return value == constant


_OF_ROUTES = frozenset({"broadcast", "anycast", "blackhole", "unreachable", "prohibit"})


def _number_equals(value: Mark, constant: Any) -> Answer:
    if isinstance(constant, str) and constant in _ICMP_TYPES:
        return any_of(value.equals(number) for number in _ICMP_TYPES[constant])
    number = constant_bits(constant)
    if number is None and isinstance(constant, str):
        number = protocol_number(_PROTOCOLS.get(constant, constant))
    return None if number is None else value.equals(number)


_PROTOCOLS = {
    "ipv6-icmp": "icmpv6", "esp": "50", "ah": "51", "comp": "108", "udplite": "136", "dccp": "33",
    "gre": "47", "igmp": "2", "ipip": "4", "ospf": "89", "vrrp": "112",
}  # fmt: skip


def _in_range(value: Value, constant: Any) -> Answer:
    if "prefix" in constant:
        prefix = constant["prefix"]
        text = f"{members.text(prefix, 'addr')}/{members.number(prefix, 'len')}"
        network = members.network(text)
        if network is None or isinstance(value, Mark | bool | str | tuple) or value is MISSING:
            return None
        return value in network
    bounds = members.items(constant, "range")
    if len(bounds) != 2:
        return None
    low, high = _ordered(value, ">=", bounds[0]), _ordered(value, "<=", bounds[1])
    return all_of((low, high))


def _ordered(value: Value, operator: Any, constant: Any) -> Answer:
    if isinstance(value, Mark):
        one, other = value.number, constant_bits(constant)
    elif value is None or isinstance(value, bool | str | tuple) or value is MISSING:
        return None
    else:
        address = members.address(constant)
        if address is None or address.version != value.version:
            return None
        one, other = int(value), int(address)
    if one is None or other is None:
        return None
    compared = {"<": one < other, ">": one > other, "<=": one <= other, ">=": one >= other}
    return compared.get(operator)
