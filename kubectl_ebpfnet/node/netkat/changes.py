"""Netkat's changes to a namespace, as messages for netlink/message.py `change`.

pyroute2 has all of them, but its import takes 190 ms, and each of the dozen messages before a
connection half a millisecond: most of the time to netkat's first byte (bench/netkat.py).

Sources: rtnetlink(7); Linux include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,fib_rules,veth,
pkt_sched,pkt_cls}.h. A number has no name where the builder's argument tells its meaning.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

from kubectl_ebpfnet.node.netlink.message import NEW, Change, attribute

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # parents of filters: TC_H_CLSACT and a direction
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_NEWLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH, _NEWRULE = 16, 20, 24, 28, 32
_NEWQDISC, _DELQDISC, _NEWTFILTER, _DELTFILTER = 36, 37, 44, 45
LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefixlen, flags, scope, index
# struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags;
# struct fib_rule_hdr has the same sizes: …, table, two reserved, action, flags
ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxIHBB")  # struct ndmsg: family, ifindex, state, flags, type
TC = struct.Struct("=BxxxiIII")  # struct tcmsg: family, ifindex, handle, parent, info
_UP, _NOARP = 0x1, 0x80  # IFF_*
_NODAD, _NOPREFIXROUTE = 0x02, 0x200  # IFA_F_*
_MAIN, _STATIC, _LINK_SCOPE, _UNICAST, _ONLINK = 254, 4, 253, 1, 4
_PERMANENT = 0x80  # NUD_PERMANENT
_TO_TABLE = 1  # FR_ACT_TO_TBL
_ALL_PROTOCOLS = socket.htons(0x0003)  # ETH_P_ALL
_NO_ADDRESS_OF_ITS_OWN = 1  # IN6_ADDR_GEN_MODE_NONE


def family(version: int) -> int:
    """Return AF_INET or AF_INET6."""
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def number(value: int) -> bytes:
    """Return a number as the payload of an attribute (__u32)."""
    return struct.pack("=I", value)


def text(value: str) -> bytes:
    """Return a string as the payload of an attribute."""
    return value.encode() + b"\0"


def packed(address: str) -> bytes:
    """Return an IPv4 or IPv6 address in network order."""
    return ipaddress.ip_address(address).packed


def veth(name: str, peer: str, netns: int, mtu: int, mac: bytes) -> Change:
    """Add a veth.

    Args:
        name: of this end; the kernel replaces %d by a number.
        peer: name of the other end.
        netns: descriptor of the other end's namespace.
        mtu: of both ends.
        mac: of the other end, b"" for any.
    """
    there = LINK.pack(0, 0, 0, 0, 0) + attribute(3, text(peer)) + attribute(28, number(netns))
    there += attribute(4, number(mtu)) + (attribute(1, mac) if mac else b"")
    data = attribute(2, attribute(1, there, nested=True), nested=True)
    body = LINK.pack(0, 0, 0, 0, 0) + attribute(3, text(name)) + attribute(4, number(mtu))
    body += attribute(18, attribute(1, text("veth")) + data, nested=True)
    return Change(_NEWLINK, NEW, body, "add a veth")


def up(index: int, *, arp: bool = True) -> list[Change]:
    """Bring a device up, without an automatic IPv6 link-local address."""
    changes = []
    if os.path.exists("/proc/net/if_inet6"):
        of_ipv6 = attribute(10, attribute(8, bytes([_NO_ADDRESS_OF_ITS_OWN])), nested=True)
        body = LINK.pack(0, 0, index, 0, 0) + attribute(26, of_ipv6, nested=True)
        changes.append(Change(_NEWLINK, 0, body, f"keep device {index} from a link-local address"))
    flags = _UP if arp else _UP | _NOARP
    body = LINK.pack(0, 0, index, flags, flags)
    return [*changes, Change(_NEWLINK, 0, body, f"bring device {index} up")]


def address(index: int, host: str) -> Change:
    """Add an address with a full-length prefix, usable at once (no duplicate detection)."""
    value = packed(host)
    flags = _NOPREFIXROUTE | (_NODAD if len(value) == 16 else 0)
    body = ADDRESS.pack(family(4 if len(value) == 4 else 6), len(value) * 8, 0, 0, index)
    body += attribute(2, value) + attribute(1, value) + attribute(8, number(flags))
    return Change(_NEWADDR, NEW, body, f"add address {host}")


def route(
    version: int, prefix: str, gateway: str, index: int, source: str, *, mtu: int = 0,
    table: int = _MAIN,
) -> Change:  # fmt: skip
    """Add a route.

    Args:
        version: IP version of the destination.
        prefix: ADDRESS/LENGTH, "" for the default route.
        gateway: on the link, of either version; "" when the destination is on the link.
        index: ifindex of the device.
        source: preferred source address.
        mtu: 0 for the device's.
        table: number of the routing table.
    """
    destination, _, length = prefix.partition("/")
    ours = family(version)
    # A route without a next hop is on the link; for IPv6 the kernel ignores the scope.
    scope = 0 if gateway or version == 6 else _LINK_SCOPE
    head = (ours, int(length or 0), 0, 0, table if table < 256 else 0)
    body = ROUTE.pack(*head, _STATIC, scope, _UNICAST, _ONLINK if gateway else 0)
    if destination:
        body += attribute(1, packed(destination))
    body += attribute(4, number(index)) + attribute(7, packed(source))
    body += attribute(15, number(table))
    if gateway:
        value = packed(gateway)
        if len(value) == len(packed(source)):
            body += attribute(5, value)
        else:  # RTA_VIA: struct rtvia, an IPv6 next hop of IPv4 routes (RFC 5549)
            body += attribute(18, struct.pack("=H", family(6)) + value)
    if mtu:
        body += attribute(8, attribute(2, number(mtu)), nested=True)
    return Change(_NEWROUTE, NEW, body, f"add the route to {prefix or 'all'}")


def neighbour(index: int, host: str, mac: bytes) -> Change:
    """Add a permanent neighbour.

    Args:
        index: ifindex of the device.
        host: its address.
        mac: its MAC.
    """
    value = packed(host)
    body = _NEIGHBOUR.pack(family(4 if len(value) == 4 else 6), index, _PERMANENT, 0, 0)
    body += attribute(1, value) + attribute(2, mac)
    return Change(_NEWNEIGH, NEW, body, f"add the neighbour {host}")


def rule(version: int, mark: int, table: int, priority: int) -> Change:
    """Add a rule that looks up packets with a mark in a table.

    Args:
        version: IP version.
        mark: of the packets.
        table: number of the routing table.
        priority: of the rule.
    """
    body = ROUTE.pack(family(version), 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    body += attribute(6, number(priority)) + attribute(10, number(mark))
    body += attribute(15, number(table))
    return Change(_NEWRULE, NEW, body, f"add the rule of mark {mark}")


def clsact(index: int, *, take_away: bool = False) -> Change:
    """Add the qdisc clsact, which has filters and no queue, or remove it."""
    body = TC.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0) + attribute(1, text("clsact"))
    if take_away:
        return Change(_DELQDISC, 0, body, f"remove clsact from device {index}")
    return Change(_NEWQDISC, NEW, body, f"add clsact to device {index}")


def bpf_filter(index: int, handle: int, priority: int, program: int, name: str) -> Change:
    """Add a direct-action BPF filter to a device's ingress.

    Args:
        index: ifindex of the device.
        handle: number of the filter.
        priority: lower ones run first.
        program: descriptor of a sched_cls program.
        name: of the filter.
    """
    options = attribute(6, number(program)) + attribute(7, text(name)) + attribute(8, number(1))
    body = _filter(index, handle, priority) + attribute(2, options, nested=True)
    return Change(_NEWTFILTER, NEW, body, f"add a filter to device {index}")


def no_filter(index: int, handle: int, priority: int) -> Change:
    """Remove a filter of `bpf_filter`.

    Args:
        index: ifindex of the device.
        handle: number of the filter.
        priority: of the filter.
    """
    body = _filter(index, handle, priority)
    return Change(_DELTFILTER, 0, body, f"remove a filter from device {index}")


def _filter(index: int, handle: int, priority: int) -> bytes:
    info = priority << 16 | _ALL_PROTOCOLS
    return TC.pack(0, index, handle, INGRESS, info) + attribute(1, text("bpf"))
