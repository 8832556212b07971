"""What nftables' expressions say of a packet: its addresses, ports, marks, devices, its connection.

A value is known, known in some bits (a `Mark`), not known (None), or the expression finds nothing
to read (MISSING), which ends the rule without a match, whatever it compares.

Sources: Linux net/netfilter/nft_payload.c, nft_meta.c, nft_ct.c, nft_fib.c, nft_socket.c,
nft_exthdr.c, nft_numgen.c, nft_bitwise.c; nft(8), "EXPRESSIONS"; libnftables-json(5).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import BITS, Mark
from kubectl_ebpfnet.explain.kernel.match_modules import has_type
from kubectl_ebpfnet.model import json_members as members
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, UDP, Address, has_ports
from kubectl_ebpfnet.model.nft import Expression


class Missing(Enum):
    """The packet lacks what an expression reads."""

    MISSING = "missing"


MISSING = Missing.MISSING


class Flags(tuple[str, ...]):
    """Those that are set of a connection's status bits; nft's words name some, which are known."""


Value = Mark | Address | str | bool | Flags | tuple[Any, ...] | Missing | None
"""Of a packet. A tuple is of a concatenation."""

TCP_FLAGS = {
    "fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128,
}  # fmt: skip
_CONGESTION = TCP_FLAGS["ecn"] | TCP_FLAGS["cwr"]
_DONT_FRAGMENT = 0x4000
_SOCKETS_OWN = frozenset({"skuid", "skgid"})
_EXTENSION_HEADERS = frozenset({"hbh", "rt", "frag", "dst", "mh", "srh"})


def value_of(expression: Expression, context: Context) -> Value:
    """Return what an expression of a rule says of a packet."""
    name, body = next(iter(expression.items()))
    if name in ("&", "|", "^"):
        return _bitwise(name, body, context)
    read = _READERS.get(name)
    return read(body, context) if read is not None else None


def constant_bits(constant: Any) -> int | None:
    """Return a constant of a bitwise expression as a number: 255, "255.0.0.255", ["syn", "ack"]."""
    if isinstance(constant, bool):
        return None
    if isinstance(constant, int):
        return constant
    if isinstance(constant, list):
        parts = [constant_bits(each) for each in constant]
        return None if None in parts else sum({part for part in parts if part is not None})
    if isinstance(constant, dict) and set(constant) == {"|"}:
        return constant_bits(constant["|"])
    if isinstance(constant, str):
        address = members.address(constant)
        return int(address) if address is not None else TCP_FLAGS.get(constant)
    return None


def _bitwise(operator: str, operands: Any, context: Context) -> Value:
    """Apply a constant to a value. Addresses become numbers of 32 bits; IPv6 is not followed."""
    if not isinstance(operands, list) or len(operands) != 2 or not isinstance(operands[0], dict):
        return None
    value, other = value_of(operands[0], context), constant_bits(operands[1])
    if value is MISSING:
        return MISSING
    if not isinstance(value, Mark | bool | str | tuple) and value is not None:
        value = Mark(int(value)) if value.version == 4 else None
    if not isinstance(value, Mark) or other is None or not 0 <= other <= BITS:
        return None
    if operator == "&":
        return value.changed(0, ~other & BITS)
    if operator == "|":
        return value.changed(other, other)
    return value.changed(other, 0)


def _payload(body: Any, context: Context) -> Value:
    """nft_payload.c; nft asks for the header's protocol before it reads the header."""
    header, name = members.text(body, "protocol"), members.text(body, "field")
    flow, version = context.flow, context.flow.source.version
    if header in ("ip", "ip6"):
        if (header == "ip6") != (version == 6):
            return MISSING
        return _network_header(name, context)
    if header == "th":
        return _ports(name, context) if has_ports(flow.protocol) else None
    number = _TRANSPORTS.get(header)
    if number is None:  # ether, vlan, arp, or raw bytes
        return MISSING if header == "arp" else None
    if flow.protocol != number:
        return MISSING
    if header in ("icmp", "icmpv6"):
        return _icmp(name, context)
    if name == "flags" and header == "tcp":
        if not context.state:
            return None
        begins = TCP_FLAGS["syn"] if context.is_first else TCP_FLAGS["syn"] | TCP_FLAGS["ack"]
        return Mark(begins, BITS & ~_CONGESTION)
    return _ports(name, context)


_TRANSPORTS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPV6, "sctp": 132}


def _network_header(name: str, context: Context) -> Value:
    flow = context.flow
    if name in ("saddr", "daddr"):
        return flow.source if name == "saddr" else flow.destination
    if name in ("protocol", "nexthdr"):
        return Mark(flow.protocol)
    if name == "version":
        return Mark(flow.source.version)
    if name == "frag-off":  # the packets here are whole
        return Mark(0, BITS & ~_DONT_FRAGMENT)
    return None


def _ports(name: str, context: Context) -> Value:
    number = {
        "sport": context.flow.source_port, "dport": context.flow.destination_port,
    }.get(name)  # fmt: skip
    return None if number is None else Mark(number)


def _icmp(name: str, context: Context) -> Value:
    """An echo request comes first: type 8 of ICMP, 128 of ICMPv6; its code is 0."""
    if name == "code":
        return Mark(0)
    if name != "type" or not context.state:
        return None
    request, reply = (8, 0) if context.flow.protocol == ICMP else (128, 129)
    return Mark(request if context.is_first else reply)


def _meta(body: Any, context: Context) -> Value:
    key, flow = members.text(body, "key"), context.flow
    if key in ("iif", "iifname"):
        return context.in_device if context.in_device != "" else _no_device(key)
    if key in ("oif", "oifname"):
        return context.out_device if context.out_device != "" else _no_device(key)
    if key == "mark":
        return context.mark
    if key == "l4proto":
        return Mark(flow.protocol)
    if key == "nfproto":
        return "ipv4" if flow.source.version == 4 else "ipv6"
    if key == "protocol":
        return "ip" if flow.source.version == 4 else "ip6"
    if key in _SOCKETS_OWN:  # what is forwarded has no socket
        return MISSING if context.in_device else None
    if key == "pkttype":
        return "host"
    return None


def _no_device(key: str) -> Value:
    """A hook without a device: its index is 0, its name empty (nft_meta_store_ifname)."""
    return "0" if key in ("iif", "oif") else ""


def _connection(body: Any, context: Context) -> Value:
    """nft_ct.c (nft_ct_get_eval): without a connection only the state can be read."""
    key, direction = members.text(body, "key"), members.text(body, "dir")
    if key == "state":
        if not context.tracked:
            return "untracked" if context.state == "UNTRACKED" else "invalid"
        return context.state.lower() or None
    if not context.tracked or context.state == "UNTRACKED":
        return MISSING
    if key == "mark":
        return context.connmark
    if not context.state:
        return None
    if key == "direction":
        return "original" if context.is_first else "reply"
    if key == "status":
        return _status(context)
    if key in ("protocol", "l4proto"):
        return Mark(context.flow.protocol)
    original = context.original or context.flow
    if not context.is_first or direction != "original":
        return None
    if key in ("saddr", "ip saddr", "ip6 saddr"):
        return original.source
    if key in ("daddr", "ip daddr", "ip6 daddr"):
        return original.destination
    if key == "proto-dst" and original.destination_port is not None:
        return Mark(original.destination_port)
    return None


def _status(context: Context) -> Value:
    """Of the first packet nothing is known to the table but a translation of its destination."""
    if not context.is_first or context.translated is None:
        return None
    return Flags(("dnat",)) if context.translated else Flags(())


def _fib(body: Any, context: Context) -> Value:
    flags, result = members.texts(body, "flags"), members.text(body, "result")
    flow = context.flow
    if result == "type":
        one = flow.source if "saddr" in flags else flow.destination
        limited = "iif" in flags or "oif" in flags
        types = ("local", "unicast", "multicast")
        found = [each for each in types if has_type(one, each.upper(), limited, context)]
        return found[0] if len(found) == 1 else None
    # The reverse path: `fib saddr . iif oif missing`.
    back = context.back_device
    if "saddr" not in flags or "oif" in flags or back is None:
        return None
    if context.local is None or flow.source in context.local or not context.in_device:
        return None
    if "iif" in flags and back != context.in_device:
        back = ""
    if result == "oifname":
        return back
    return None if result not in ("oif", "check") else back != ""


def _socket(body: Any, context: Context) -> Value:
    """Nobody has a socket yet for the first packet to an address of another machine."""
    one = context.flow.destination
    if not context.is_first or context.local is None or members.text(body, "key") == "wildcard":
        return None
    return None if one in context.local or one.is_loopback else MISSING


def _extension_header(body: Any, context: Context) -> Value:
    """The packets here have none; an option of TCP or IPv4 is not known."""
    if members.text(body, "name") not in _EXTENSION_HEADERS:
        return None
    return MISSING if "field" in body or context.flow.source.version == 4 else False


def _number_generator(body: Any, _context: Context) -> Value:
    return Mark(members.number(body, "offset") or 0) if members.number(body, "mod") == 1 else None


def _concatenation(body: Any, context: Context) -> Value:
    parts = tuple(value_of(each, context) for each in body if isinstance(each, dict) and each)
    return MISSING if MISSING in parts else parts


_READERS: dict[str, Callable[[Any, Context], Value]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": _connection,
    "fib": _fib,
    "socket": _socket,
    "exthdr": _extension_header,
    "numgen": _number_generator,
    "concat": _concatenation,
}
