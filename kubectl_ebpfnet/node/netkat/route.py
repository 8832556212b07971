"""Which way the host would send it: device, source address, next hop; or why none will do.

The kernel is asked (RTM_GETROUTE, as `ip route get` does), nothing is worked out here. Sources:
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

# ARPHRD_*: what has Ethernet frames, and what carries bare IP
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
    """A device of the host. `mac` is b"" where there is no MAC header."""

    index: int
    name: str
    mac: bytes
    mtu: int
    arp: bool


@dataclass(frozen=True, slots=True)
class CopiedRoute:
    """One route to copy: `prefix` "" is the default, `gateway` "" is on-link."""

    prefix: str
    gateway: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class PeerRoute:
    """How the private netns reaches the peer, or its clients.

    Attributes:
        sources: addresses to wear; the first one is the source.
        gateway: the next hop's address, "" when the peer itself is on the link.
        gateway_mac: its MAC where it was given, else b"".
        mtu: of the route, 0: the device's.
        routes: for listening, the device's routes.
    """

    device: HostDevice
    sources: tuple[str, ...]
    gateway: str = ""
    gateway_mac: bytes = b""
    mtu: int = 0
    routes: tuple[CopiedRoute, ...] = ()


def to_peer(request: Request, peer: str, scope: int = 0) -> PeerRoute:
    """The way to an address.

    Args:
        peer: IPv4 or IPv6, without a scope.
        scope: the device of a link-local address, 0 where there is none.

    Raises:
        Unsupported: netkat cannot go this way (its words say why).
        KernelError: the host has no route, or no such device.
    """
    device = _index(request.interface) if request.interface else scope
    if request.via and ipaddress.ip_address(request.via).version != _version(peer):
        raise KernelError(f"--via {request.via} and {peer} are of different IP versions")
    asked = request.via or peer
    answer = _fib(asked, device, request)
    if answer.type == _LOCAL and request.via_mac:
        answer = _past_the_local_one(peer, device, request)
    elif answer.type == _LOCAL:
        raise Unsupported(
            f"{asked} is this host's own address: what is sent there never leaves the host's stack,"
            " and there is nothing to go round",
            hint="use nc; or --via ADDRESS|MAC to send it out to a next hop all the same",
        )
    if request.via and answer.gateway:
        raise KernelError(
            f"--via {request.via} is not on a link of this host (via {answer.gateway})"
        )
    found = usable(answer.device)
    source = request.source or answer.source
    if not source:
        source = next(iter(_addresses(found.index, _version(peer))), "")
    if not source:
        raise KernelError(f"device {found.name} has no IPv{_version(peer)} address")
    gateway = "" if request.via_mac else request.via or answer.gateway
    return PeerRoute(found, (source,), gateway, request.via_mac, answer.mtu)


def to_clients(request: Request, address: str) -> PeerRoute:
    """The way of a listener: the device that has the address, and its routes.

    Raises:
        Unsupported, KernelError: as `to_peer`; also when no device can be chosen.
    """
    version = _version(address)
    any_ = ipaddress.ip_address(address).is_unspecified
    if request.interface:
        index = _index(request.interface)
    elif any_:
        index = _default_device(version)
    else:
        index = _owner(address, version)
    device = usable(index)
    sources = tuple(_addresses(index, version)) if any_ else (address,)
    if not sources:
        raise KernelError(f"device {device.name} has no IPv{version} address")
    routes = tuple(_routes(index, version))
    if request.via or request.via_mac:
        routes = (CopiedRoute("", request.via), *(r for r in routes if r.prefix and not r.gateway))
    return PeerRoute(device, sources[:16], request.via, request.via_mac, 0, routes)


def usable(index: int) -> HostDevice:
    """A device that packets can be redirected to and from. Raises Unsupported, KernelError."""
    question = LINK.pack(0, 0, index, 0, 0)
    data, start, end = next(
        answers(NETLINK_ROUTE, _GETLINK, 0, question, f"look at device {index}")
    )
    kind, _, flags, _ = LINK.unpack_from(data, start)[1:]
    link = attributes_of(data[start:end], LINK.size)
    name, mac = text(link, _IFLA_IFNAME), link.get(_IFLA_ADDRESS, b"")
    what = text(attributes_of(link.get(_IFLA_LINKINFO, b"")), _INFO_KIND) or "device"
    if kind == _LOOPBACK:
        raise Unsupported(f"{name} is the loopback device: nothing of it leaves the host's stack")
    if kind != _ETHERNET and kind not in _BARE:
        raise Unsupported(f"{what} {name} has neither Ethernet nor bare IP frames (type {kind})")
    if not flags & _IFF_UP:
        raise KernelError(f"{what} {name} is down")
    if kind != _ETHERNET:
        mac = b""
    arp = bool(mac) and not flags & _IFF_NOARP
    return HostDevice(index, name, mac, number(link, _IFLA_MTU) or 0, arp)


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _address(value: bytes | None) -> str:
    return str(ipaddress.ip_address(value)) if value else ""


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the host's tables, or what a look-up in them gives.

    Attributes:
        type: RTN_*.
        prefix: ADDRESS/LENGTH, "" for the default.
        device: ifindex, 0 for a route with several next hops.
        source: the preferred one, "" for none.
        tunnelled: packets are put into another one (encap).
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


def _row(data: bytes, start: int, end: int) -> _Row:
    _, length, _, _, table, _, _, kind, _ = ROUTE.unpack_from(data, start)
    found = attributes_of(data[start:end], ROUTE.size)
    via = found.get(_RTA_VIA, b"")[2:]  # struct rtvia: a family, and an address of it
    metrics = attributes_of(found.get(_RTA_METRICS, b""))
    return _Row(
        type=kind,
        prefix=f"{_address(found.get(_RTA_DST))}/{length}" if length else "",
        device=number(found, _RTA_OIF) or 0,
        gateway=_address(via or found.get(_RTA_GATEWAY)),
        source=_address(found.get(_RTA_PREFSRC)),
        table=number(found, _RTA_TABLE) or table,
        priority=number(found, _RTA_PRIORITY) or 0,
        mtu=number(metrics, _RTAX_MTU) or 0,
        tunnelled=_RTA_ENCAP_TYPE in found,
    )


def _fib(address: str, device: int, request: Request) -> _Row:
    """The kernel's look-up of an address, as `ip route get` shows it."""
    value = packed(address)
    bits = len(value) * 8
    source = packed(request.source) if request.source else b""
    question = ROUTE.pack(family(_version(address)), bits, len(source) * 8, 0, 0, 0, 0, 0, 0)
    question += attribute(_RTA_DST, value)
    if source:
        question += attribute(_RTA_SRC, source)
    for kind, wanted in ((_RTA_OIF, device), (_RTA_MARK, request.mark)):
        if wanted:
            question += attribute(kind, changes.number(wanted))
    what = f"this host has no route to {address}"
    answer = _row(*next(answers(NETLINK_ROUTE, _GETROUTE, 0, question, what)))
    if answer.type not in (_UNICAST, _LOCAL):
        kind_of_it = _KINDS.get(answer.type, f"type {answer.type}")
        raise KernelError(f"this host's route to {address} is {kind_of_it}")
    if answer.tunnelled:
        raise Unsupported(f"the route to {address} puts packets into a tunnel of its own (encap)")
    return answer


def _past_the_local_one(peer: str, device: int, request: Request) -> _Row:
    """The answer for a peer that is this host's own, when a next hop is given by its MAC."""
    version = _version(peer)
    index = device or _default_device(version)
    # Any other address on that device will do: only device and source are taken from it.
    for route in _routes(index, version):
        address = route.gateway or route.prefix.partition("/")[0]
        if address:
            return _fib(address, index, request)
    raise KernelError(f"{peer} is this host's own address; -i with another device is needed")


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise KernelError(f"this host has no device {name}") from None


def _owned(version: int) -> Iterator[tuple[int, int, str]]:
    """(ifindex, scope, address) of the host's addresses."""
    question = ADDRESS.pack(family(version), 0, 0, 0, 0)
    rows = dump(_GETADDR, question, "list the host's addresses")
    for data, start, end in rows:
        of, _, _, scope, index = ADDRESS.unpack_from(data, start)
        found = attributes_of(data[start:end], ADDRESS.size)
        if of == family(version):  # a kernel without IPv6 answers with what it has
            yield index, scope, _address(found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS))


def _addresses(index: int, version: int) -> Iterator[str]:
    """Addresses of a device, global ones first."""
    rows = sorted(_owned(version), key=lambda row: row[1])
    return (address for device, _, address in rows if device == index)


def _owner(address: str, version: int) -> int:
    wanted = str(ipaddress.ip_address(address))
    for index, _, found in _owned(version):
        if found == wanted:
            return index
    raise KernelError(f"{address} is no address of this host")


def _table(version: int) -> Iterator[_Row]:
    """Unicast routes of the main table."""
    question = ROUTE.pack(family(version), 0, 0, 0, _MAIN_TABLE, 0, 0, 0, 0)
    rows = dump(_GETROUTE, question, "list the host's routes")
    for data, start, end in rows:
        row = _row(data, start, end)
        if (data[start], row.table, row.type) == (family(version), _MAIN_TABLE, _UNICAST):
            yield row


def _default_device(version: int) -> int:
    defaults = [row for row in _table(version) if not row.prefix and row.device]
    if not defaults:
        raise KernelError(
            f"no default route over one device: -i names the one to use (IPv{version})"
        )
    return min(defaults, key=lambda row: row.priority).device


def _routes(index: int, version: int) -> Iterator[CopiedRoute]:
    """Unicast routes of the main table over a device, on-link ones first."""
    found = [row for row in _table(version) if row.device == index and not row.tunnelled]
    seen = set()
    for row in sorted(found, key=lambda row: (bool(row.gateway), row.priority)):
        if row.prefix not in seen:
            seen.add(row.prefix)
            yield CopiedRoute(row.prefix, row.gateway)
