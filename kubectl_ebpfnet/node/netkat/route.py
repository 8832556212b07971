"""The host's route to a peer or to clients: device, source address, next hop.

The kernel looks the route up (RTM_GETROUTE, as for `ip route get`). Sources:
rtnetlink(7), Linux include/uapi/linux/{rtnetlink,if_arp}.h.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.netkat.request import Request
from kubectl_ebpfnet.node.netkat import changes
from kubectl_ebpfnet.node.netkat.changes import ADDRESS, LINK, ROUTE, family, packed
from kubectl_ebpfnet.node.netlink.message import (
    NETLINK_ROUTE,
    answers,
    attribute,
    attributes_of,
    dump,
    number,
    text,
)

# ARPHRD_* of devices with Ethernet frames, and of devices with bare IP
_ETHERNET = 1
_LOOPBACK = 772
_BARE = frozenset({0xFFFE, 512, 519, 768, 769, 776, 778, 823})  # none, ppp, rawip, ipip, sit, gre
_UNICAST, _LOCAL = 1, 2
_KINDS = {3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_MAIN_TABLE = 254
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO = 1, 3, 4, 18
_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 2, 4, 5, 6
_RTA_PREFSRC, _RTA_METRICS, _RTA_TABLE, _RTA_MARK, _RTA_VIA = 7, 8, 15, 16, 18
_RTA_ENCAP_TYPE, _RTAX_MTU = 21, 2


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
    question = LINK.pack(0, 0, index, 0, 0)
    data, start, end = next(
        answers(NETLINK_ROUTE, _GETLINK, 0, question, f"look at device {index}")
    )
    kind, _, flags, _ = LINK.unpack_from(data, start)[1:]
    link = attributes_of(data[start:end], LINK.size)
    name, mac = text(link, _IFLA_IFNAME), link.get(_IFLA_ADDRESS, b"")
    kind_name = text(attributes_of(link.get(_IFLA_LINKINFO, b"")), _INFO_KIND) or "device"
    if kind == _LOOPBACK:
        raise Unsupported(f"{name} is the loopback device: nothing of it leaves the host's stack")
    if kind != _ETHERNET and kind not in _BARE:
        raise Unsupported(
            f"{kind_name} {name} has neither Ethernet nor bare IP frames (type {kind})"
        )
    if not flags & _IFF_UP:
        raise KernelError(f"{kind_name} {name} is down")
    if kind != _ETHERNET:
        mac = b""
    arp = bool(mac) and not flags & _IFF_NOARP
    return HostDevice(index, name, mac, number(link, _IFLA_MTU) or 0, arp)


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _address(value: bytes | None) -> str:
    return str(ipaddress.ip_address(value)) if value else ""


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


def _route_row(data: bytes, start: int, end: int) -> _RouteRow:
    _, length, _, _, table, _, _, kind, _ = ROUTE.unpack_from(data, start)
    attributes = attributes_of(data[start:end], ROUTE.size)
    via = attributes.get(_RTA_VIA, b"")[2:]  # struct rtvia: a family, and an address of it
    metrics = attributes_of(attributes.get(_RTA_METRICS, b""))
    return _RouteRow(
        type=kind,
        prefix=f"{_address(attributes.get(_RTA_DST))}/{length}" if length else "",
        device=number(attributes, _RTA_OIF) or 0,
        gateway=_address(via or attributes.get(_RTA_GATEWAY)),
        source=_address(attributes.get(_RTA_PREFSRC)),
        table=number(attributes, _RTA_TABLE) or table,
        priority=number(attributes, _RTA_PRIORITY) or 0,
        mtu=number(metrics, _RTAX_MTU) or 0,
        tunnelled=_RTA_ENCAP_TYPE in attributes,
    )


def _lookup(address: str, device: int, request: Request) -> _RouteRow:
    """Look a route up in the kernel, as `ip route get` does."""
    destination = packed(address)
    bits = len(destination) * 8
    source = packed(request.source) if request.source else b""
    question = ROUTE.pack(family(_version(address)), bits, len(source) * 8, 0, 0, 0, 0, 0, 0)
    question += attribute(_RTA_DST, destination)
    if source:
        question += attribute(_RTA_SRC, source)
    for kind, value in ((_RTA_OIF, device), (_RTA_MARK, request.mark)):
        if value:
            question += attribute(kind, changes.number(value))
    what = f"this host has no route to {address}"
    lookup = _route_row(*next(answers(NETLINK_ROUTE, _GETROUTE, 0, question, what)))
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
    question = ADDRESS.pack(family(version), 0, 0, 0, 0)
    messages = dump(_GETADDR, question, "list the host's addresses")
    for data, start, end in messages:
        address_family, _, _, scope, index = ADDRESS.unpack_from(data, start)
        attributes = attributes_of(data[start:end], ADDRESS.size)
        # A kernel without IPv6 answers with its IPv4 addresses.
        if address_family == family(version):
            yield index, scope, _address(attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS))


def _addresses(index: int, version: int) -> Iterator[str]:
    """Return the addresses of a device, global scope first."""
    rows = sorted(_host_addresses(version), key=lambda row: row[1])
    return (address for device, _, address in rows if device == index)


def _device_of(address: str, version: int) -> int:
    canonical = str(ipaddress.ip_address(address))
    for index, _, own in _host_addresses(version):
        if own == canonical:
            return index
    raise KernelError(f"{address} is no address of this host")


def _main_table(version: int) -> Iterator[_RouteRow]:
    """Yield the unicast routes of the main table."""
    question = ROUTE.pack(family(version), 0, 0, 0, _MAIN_TABLE, 0, 0, 0, 0)
    messages = dump(_GETROUTE, question, "list the host's routes")
    for data, start, end in messages:
        row = _route_row(data, start, end)
        if (data[start], row.table, row.type) == (family(version), _MAIN_TABLE, _UNICAST):
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
