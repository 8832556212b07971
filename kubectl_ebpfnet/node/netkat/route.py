"""The host's route to a peer or to clients: device, source address, next hop.

The kernel looks the route up (RTM_GETROUTE, as for `ip route get`). Sources:
rtnetlink(7), Linux include/uapi/linux/{rtnetlink,if_arp}.h.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.netkat.request import Request
from kubectl_ebpfnet.node.netkat.changes import family
from kubectl_ebpfnet.node.netlink.rtnetlink import dump, get, text

# ARPHRD_* of devices with Ethernet frames, and of devices with bare IP
_ETHERNET = 1
_LOOPBACK = 772
_BARE = frozenset({0xFFFE, 512, 519, 768, 769, 776, 778, 823})  # none, ppp, rawip, ipip, sit, gre
_UNICAST, _LOCAL = 1, 2
_KINDS = {3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_MAIN_TABLE = 254
_IFF_UP, _IFF_NOARP = 0x1, 0x80


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A device of the host. `mac` is b"" for a device without a MAC header."""

    index: int
    name: str
    mac: bytes
    mtu: int
    arp: bool


@dataclass(frozen=True, slots=True)
class CopiedRoute:
    """A route to copy: `prefix` "" for the default route, `gateway` "" for on-link."""

    prefix: str
    gateway: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class PeerRoute:
    """The route from the private netns to the peer, or to its clients.

    Attributes:
        device: the host's device that the packets use.
        sources: addresses for the veth; the first is the source address.
        gateway: address of the next hop, "" when the peer is on the link.
        gateway_mac: MAC of the next hop if the user gave it, else b"".
        mtu: of the route, 0 for the device's.
        routes: for a listener, the device's routes.
    """

    device: HostDevice
    sources: tuple[str, ...]
    gateway: str = ""
    gateway_mac: bytes = b""
    mtu: int = 0
    routes: tuple[CopiedRoute, ...] = ()


def route_to_peer(request: Request, peer: str, scope: int = 0) -> PeerRoute:
    """Return the route to a peer.

    Args:
        request: netkat's options.
        peer: IPv4 or IPv6 address, without a scope.
        scope: ifindex of a link-local address's device, 0 for other addresses.

    Raises:
        Unsupported: netkat cannot use this route; the message has the reason.
        KernelError: the host has no route, or no such device.
    """
    index = _index(request.interface) if request.interface else scope
    if request.via and ipaddress.ip_address(request.via).version != _version(peer):
        raise KernelError(f"--via {request.via} and {peer} are of different IP versions")
    target = request.via or peer
    lookup = _lookup(target, index, request)
    if lookup.type == _LOCAL and request.via_mac:
        lookup = _lookup_past_local(peer, index, request)
    elif lookup.type == _LOCAL:
        raise Unsupported(
            f"{target} is this host's own address: what is sent there never leaves the host's"
            " stack, and there is nothing to go round",
            hint="use nc; or --via ADDRESS|MAC to send it out to a next hop all the same",
        )
    if request.via and lookup.gateway:
        raise KernelError(
            f"--via {request.via} is not on a link of this host (via {lookup.gateway})"
        )
    device = usable_device(lookup.device)
    source = request.source or lookup.source
    if not source:
        source = next(iter(_addresses(device.index, _version(peer))), "")
    if not source:
        raise KernelError(f"device {device.name} has no IPv{_version(peer)} address")
    gateway = "" if request.via_mac else request.via or lookup.gateway
    return PeerRoute(device, (source,), gateway, request.via_mac, lookup.mtu)


def route_to_clients(request: Request, address: str) -> PeerRoute:
    """Return the route of a listener: the device that has the address, and its routes.

    Raises:
        Unsupported, KernelError: as `route_to_peer`; also when no device can be chosen.
    """
    version = _version(address)
    unspecified = ipaddress.ip_address(address).is_unspecified
    if request.interface:
        index = _index(request.interface)
    elif unspecified:
        index = _default_device(version)
    else:
        index = _device_of(address, version)
    device = usable_device(index)
    sources = tuple(_addresses(index, version)) if unspecified else (address,)
    if not sources:
        raise KernelError(f"device {device.name} has no IPv{version} address")
    routes = tuple(_routes(index, version))
    if request.via or request.via_mac:
        routes = (CopiedRoute("", request.via), *(r for r in routes if r.prefix and not r.gateway))
    return PeerRoute(device, sources[:16], request.via, request.via_mac, 0, routes)


def usable_device(index: int) -> HostDevice:
    """Return a device, checked to redirect packets. Raises Unsupported, KernelError."""
    link = get(RTM_GETLINK, f"look at device {index}", index=index)
    name, kind, flags = text(link.get_attr("IFLA_IFNAME")), link["ifi_type"], link["flags"]
    info = link.get_attr("IFLA_LINKINFO")
    kind_name = (text(info.get_attr("IFLA_INFO_KIND")) if info else "") or "device"
    if kind == _LOOPBACK:
        raise Unsupported(f"{name} is the loopback device: nothing of it leaves the host's stack")
    if kind != _ETHERNET and kind not in _BARE:
        raise Unsupported(
            f"{kind_name} {name} has neither Ethernet nor bare IP frames (type {kind})"
        )
    if not flags & _IFF_UP:
        raise KernelError(f"{kind_name} {name} is down")
    mac = b""
    if kind == _ETHERNET:
        mac = bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", ""))
    arp = bool(mac) and not flags & _IFF_NOARP
    return HostDevice(index, name, mac, link.get_attr("IFLA_MTU") or 0, arp)


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


@dataclass(frozen=True, slots=True)
class _RouteRow:
    """A route of the host's tables, or the answer of a look-up.

    Attributes:
        type: RTN_*.
        prefix: ADDRESS/LENGTH, "" for the default.
        device: ifindex, 0 for a route with several next hops.
        gateway: address of the next hop, "" for on-link.
        source: preferred source address, "" for none.
        table, priority: numbers.
        mtu: 0 for the device's.
        tunnelled: the route encapsulates packets (encap).
    """

    type: int
    prefix: str
    device: int
    gateway: str
    source: str
    table: int
    priority: int
    mtu: int
    tunnelled: bool


def _route_row(message: Any) -> _RouteRow:
    via, metrics = message.get_attr("RTA_VIA"), message.get_attr("RTA_METRICS")
    destination, length = message.get_attr("RTA_DST"), message["dst_len"]
    return _RouteRow(
        type=message["type"],
        prefix=f"{destination}/{length}" if length else "",
        device=message.get_attr("RTA_OIF") or 0,
        gateway=via["addr"] if via else message.get_attr("RTA_GATEWAY") or "",
        source=message.get_attr("RTA_PREFSRC") or "",
        table=message.get_attr("RTA_TABLE") or message["table"],
        priority=message.get_attr("RTA_PRIORITY") or 0,
        mtu=(metrics.get_attr("RTAX_MTU") if metrics else None) or 0,
        tunnelled=message.get_attr("RTA_ENCAP_TYPE") is not None,
    )


def _lookup(address: str, device: int, request: Request) -> _RouteRow:
    """Look a route up in the kernel, as `ip route get` does."""
    bits = ipaddress.ip_address(address).max_prefixlen
    question: list[tuple[str, Any]] = [("RTA_DST", address)]
    for name, value in (
        ("RTA_SRC", request.source), ("RTA_OIF", device), ("RTA_MARK", request.mark)
    ):  # fmt: skip
        if value:
            question.append((name, value))
    message = get(
        RTM_GETROUTE, f"this host has no route to {address}", question,
        family=family(_version(address)), dst_len=bits, src_len=bits if request.source else 0,
    )  # fmt: skip
    lookup = _route_row(message)
    if lookup.type not in (_UNICAST, _LOCAL):
        refusal = _KINDS.get(lookup.type, f"type {lookup.type}")
        raise KernelError(f"this host's route to {address} is {refusal}")
    if lookup.tunnelled:
        raise Unsupported(f"the route to {address} puts packets into a tunnel of its own (encap)")
    return lookup


def _lookup_past_local(peer: str, device: int, request: Request) -> _RouteRow:
    """Look up a route for a peer that is this host's own address; the next hop has a MAC."""
    version = _version(peer)
    index = device or _default_device(version)
    # Any other address on the device serves: only its device and source are used.
    for route in _routes(index, version):
        address = route.gateway or route.prefix.partition("/")[0]
        if address:
            return _lookup(address, index, request)
    raise KernelError(f"{peer} is this host's own address; -i with another device is needed")


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise KernelError(f"this host has no device {name}") from None


def _host_addresses(version: int) -> Iterator[tuple[int, int, str]]:
    """Yield (ifindex, scope, address) of the host's addresses."""
    for message in dump(RTM_GETADDR, "list the host's addresses", family=family(version)):
        # A kernel without IPv6 answers with its IPv4 addresses.
        if message["family"] == family(version):
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            yield message["index"], message["scope"], address


def _addresses(index: int, version: int) -> Iterator[str]:
    """Return the addresses of a device, global scope first."""
    rows = sorted(_host_addresses(version), key=lambda row: row[1])
    return (address for device, _, address in rows if device == index)


def _device_of(address: str, version: int) -> int:
    wanted = ipaddress.ip_address(address)
    for index, _, own in _host_addresses(version):
        if ipaddress.ip_address(own) == wanted:
            return index
    raise KernelError(f"{address} is no address of this host")


def _main_table(version: int) -> Iterator[_RouteRow]:
    """Yield the unicast routes of the main table."""
    for message in dump(RTM_GETROUTE, "list the host's routes", family=family(version)):
        row = _route_row(message)
        if (message["family"], row.table, row.type) == (family(version), _MAIN_TABLE, _UNICAST):
            yield row


def _default_device(version: int) -> int:
    defaults = [row for row in _main_table(version) if not row.prefix and row.device]
    if not defaults:
        raise KernelError(
            f"no default route over one device: -i names the one to use (IPv{version})"
        )
    return min(defaults, key=lambda row: row.priority).device


def _routes(index: int, version: int) -> Iterator[CopiedRoute]:
    """Yield the unicast routes of the main table over a device, on-link routes first."""
    rows = [row for row in _main_table(version) if row.device == index and not row.tunnelled]
    seen = set()
    for row in sorted(rows, key=lambda row: (bool(row.gateway), row.priority)):
        if row.prefix not in seen:
            seen.add(row.prefix)
            yield CopiedRoute(row.prefix, row.gateway)
