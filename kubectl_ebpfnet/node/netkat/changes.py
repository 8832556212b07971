"""Netkat's changes to a namespace, for `change` of netlink/rtnetlink.py.

Sources: rtnetlink(7); Linux include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,fib_rules,veth,
pkt_sched,pkt_cls}.h.
"""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from typing import Any

from pyroute2.netlink.rtnl import (
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWQDISC,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTM_NEWTFILTER,
)

from kubectl_ebpfnet.node.netlink.rtnetlink import NEW, Change

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # parents of filters: TC_H_CLSACT and a direction
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_UP, _NOARP = 0x1, 0x80  # IFF_*
_NODAD, _NOPREFIXROUTE = 0x02, 0x200  # IFA_F_*
_MAIN, _STATIC, _LINK_SCOPE, _UNICAST, _ONLINK = 254, 4, 253, 1, 4
_PERMANENT = 0x80  # NUD_PERMANENT
_TO_TABLE = 1  # FR_ACT_TO_TBL
_DIRECT_ACTION = 1  # TCA_BPF_FLAG_ACT_DIRECT
_ALL_PROTOCOLS = socket.htons(0x0003)  # ETH_P_ALL
_NO_ADDRESS_OF_ITS_OWN = 1  # IN6_ADDR_GEN_MODE_NONE


def family(version: int) -> int:
    """Return AF_INET or AF_INET6."""
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def veth(name: str, peer: str, netns: int, mtu: int, mac: bytes) -> Change:
    """Add a veth.

    Args:
        name: of this end; the kernel replaces %d by a number.
        peer: name of the other end.
        netns: descriptor of the other end's namespace.
        mtu: of both ends.
        mac: of the other end, b"" for any.
    """
    there: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", peer), ("IFLA_NET_NS_FD", netns), ("IFLA_MTU", mtu)
    ]  # fmt: skip
    if mac:
        there.append(("IFLA_ADDRESS", mac))
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": there})]}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
    attributes = [("IFLA_IFNAME", name), ("IFLA_MTU", mtu), ("IFLA_LINKINFO", info)]
    return Change(RTM_NEWLINK, NEW, "add a veth", {}, attributes)


def up(index: int, *, arp: bool = True) -> list[Change]:
    """Bring a device up, without an automatic IPv6 link-local address."""
    flags = _UP if arp else _UP | _NOARP
    fields = {"index": index, "flags": flags, "change": flags}
    changes = [Change(RTM_NEWLINK, 0, f"bring device {index} up", fields)]
    if os.path.exists("/proc/net/if_inet6"):
        mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _NO_ADDRESS_OF_ITS_OWN)]}
        what = f"keep device {index} from a link-local address"
        settings = [("IFLA_AF_SPEC", {"attrs": [("AF_INET6", mode)]})]
        changes.insert(0, Change(RTM_NEWLINK, 0, what, {"index": index}, settings))
    return changes


def address(index: int, host: str) -> Change:
    """Add an address with a full-length prefix, usable at once (no duplicate detection)."""
    ip = ip_address(host)
    fields = {"family": family(ip.version), "prefixlen": ip.max_prefixlen, "index": index}
    flags = _NOPREFIXROUTE | (_NODAD if ip.version == 6 else 0)
    attributes = [("IFA_LOCAL", host), ("IFA_ADDRESS", host), ("IFA_FLAGS", flags)]
    return Change(RTM_NEWADDR, NEW, f"add address {host}", fields, attributes)


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
    fields = {
        "family": family(version), "dst_len": int(length or 0), "proto": _STATIC,
        "type": _UNICAST, "flags": _ONLINK if gateway else 0,
        # A route without a next hop is on the link; for IPv6 the kernel ignores the scope.
        "scope": 0 if gateway or version == 6 else _LINK_SCOPE,
    }  # fmt: skip
    attributes: list[tuple[str, Any]] = [
        ("RTA_OIF", index), ("RTA_PREFSRC", source), ("RTA_TABLE", table)
    ]  # fmt: skip
    if destination:
        attributes.append(("RTA_DST", destination))
    if gateway:
        hop = ip_address(gateway).version
        via = {"family": family(hop), "addr": gateway}  # an IPv6 next hop of IPv4 routes (RFC 5549)
        attributes.append(("RTA_GATEWAY", gateway) if hop == version else ("RTA_VIA", via))
    if mtu:
        attributes.append(("RTA_METRICS", {"attrs": [("RTAX_MTU", mtu)]}))
    return Change(RTM_NEWROUTE, NEW, f"add the route to {prefix or 'all'}", fields, attributes)


def neighbour(index: int, host: str, mac: bytes) -> Change:
    """Add a permanent neighbour.

    Args:
        index: ifindex of the device.
        host: its address.
        mac: its MAC.
    """
    version = ip_address(host).version
    fields = {"family": family(version), "ifindex": index, "state": _PERMANENT}
    attributes = [("NDA_DST", host), ("NDA_LLADDR", mac)]
    return Change(RTM_NEWNEIGH, NEW, f"add the neighbour {host}", fields, attributes)


def rule(version: int, mark: int, table: int, priority: int) -> Change:
    """Add a rule that looks up packets with a mark in a table.

    Args:
        version: IP version.
        mark: of the packets.
        table: number of the routing table.
        priority: of the rule.
    """
    fields = {"family": family(version), "action": _TO_TABLE}
    attributes = [("FRA_PRIORITY", priority), ("FRA_FWMARK", mark), ("FRA_TABLE", table)]
    return Change(RTM_NEWRULE, NEW, f"add the rule of mark {mark}", fields, attributes)


def clsact(index: int, *, take_away: bool = False) -> Change:
    """Add the qdisc clsact, which has filters and no queue, or remove it."""
    fields = {"index": index, "handle": _CLSACT_HANDLE, "parent": _CLSACT}
    kind = [("TCA_KIND", "clsact")]
    if take_away:
        return Change(RTM_DELQDISC, 0, f"remove clsact from device {index}", fields, kind)
    return Change(RTM_NEWQDISC, NEW, f"add clsact to device {index}", fields, kind)


def bpf_filter(index: int, handle: int, priority: int, program: int, name: str) -> Change:
    """Add a direct-action BPF filter to a device's ingress.

    Args:
        index: ifindex of the device.
        handle: number of the filter.
        priority: lower ones run first.
        program: descriptor of a sched_cls program.
        name: of the filter.
    """
    bpf = [("TCA_BPF_FD", program), ("TCA_BPF_NAME", name), ("TCA_BPF_FLAGS", _DIRECT_ACTION)]
    attributes = [("TCA_KIND", "bpf"), ("TCA_OPTIONS", {"attrs": bpf})]
    fields = _filter(index, handle, priority)
    return Change(RTM_NEWTFILTER, NEW, f"add a filter to device {index}", fields, attributes)


def no_filter(index: int, handle: int, priority: int) -> Change:
    """Remove a filter of `bpf_filter`.

    Args:
        index: ifindex of the device.
        handle: number of the filter.
        priority: of the filter.
    """
    fields, kind = _filter(index, handle, priority), [("TCA_KIND", "bpf")]
    return Change(RTM_DELTFILTER, 0, f"remove a filter from device {index}", fields, kind)


def _filter(index: int, handle: int, priority: int) -> dict[str, int]:
    info = priority << 16 | _ALL_PROTOCOLS
    return {"index": index, "handle": handle, "parent": INGRESS, "info": info}
