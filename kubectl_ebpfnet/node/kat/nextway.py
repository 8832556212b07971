"""Which way the host would send it: device, source address, next hop; or why none will do.

The kernel is asked (RTM_GETROUTE, as `ip route get` does), nothing is worked out here. Sources:
rtnetlink(7), Linux include/uapi/linux/{rtnetlink,if_arp}.h.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.netkat import Request

# ARPHRD_*: what has Ethernet frames, and what carries bare IP
_ETHERNET = 1
_LOOPBACK = 772
_BARE = frozenset({0xFFFE, 512, 519, 768, 769, 776, 778, 823})  # none, ppp, rawip, ipip, sit, gre
_UNICAST, _LOCAL = 1, 2
_KINDS = {3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_MAIN_TABLE = 254
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_RTAX_LOCK, _RTAX_MTU = 1, 2


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host. `mac` is b"" where there is no MAC header."""

    index: int
    name: str
    mac: bytes
    mtu: int
    arp: bool


@dataclass(frozen=True, slots=True)
class Route:
    """One route to copy: `prefix` "" is the default, `gateway` "" is on-link."""

    prefix: str
    gateway: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """How the private netns reaches the peer, or its clients.

    Attributes:
        sources: addresses to wear; the first one is the source.
        gateway: the next hop's address, "" when the peer itself is on the link.
        gateway_mac: its MAC where it was given, else b"".
        mtu: of the route, 0: the device's.
        routes: for listening, the device's routes.
    """

    device: Device
    sources: tuple[str, ...]
    gateway: str = ""
    gateway_mac: bytes = b""
    mtu: int = 0
    routes: tuple[Route, ...] = ()


def to_peer(host: IPRoute, request: Request, peer: str, scope: int = 0) -> Way:
    """The way to an address.

    Args:
        host: a netlink socket of the host's namespace.
        peer: IPv4 or IPv6, without a scope.
        scope: the device of a link-local address, 0 where there is none.

    Raises:
        Unsupported: netkat cannot go this way (its words say why).
        KernelError: the host has no route, or no such device.
    """
    device = _index(host, request.interface) if request.interface else scope
    if request.via and ipaddress.ip_address(request.via).version != _version(peer):
        raise KernelError(f"--via {request.via} and {peer} are of different IP versions")
    asked = request.via or peer
    answer = _fib(host, asked, device, request)
    if answer["type"] == _LOCAL and request.via_mac:
        answer = _past_the_local_one(host, peer, device, request)
    elif answer["type"] == _LOCAL:
        raise Unsupported(
            f"{asked} is this host's own address: what is sent there never leaves the host's stack,"
            " and there is nothing to go round",
            hint="use nc; or --via ADDRESS|MAC to send it out to a next hop all the same",
        )
    gateway = _gateway(answer)
    if request.via and gateway:
        raise KernelError(f"--via {request.via} is not on a link of this host (via {gateway})")
    found = usable(host, answer.get_attr("RTA_OIF"))
    source = request.source or answer.get_attr("RTA_PREFSRC")
    if not source:
        source = next(iter(_addresses(host, found.index, _version(peer))), "")
    if not source:
        raise KernelError(f"device {found.name} has no IPv{_version(peer)} address")
    metrics = answer.get_attr("RTA_METRICS")
    return Way(
        found,
        (str(source),),
        "" if request.via_mac else request.via or gateway,
        request.via_mac,
        int(metrics.get_attr("RTAX_MTU") or 0) if metrics else 0,
    )


def to_clients(host: IPRoute, request: Request, address: str) -> Way:
    """The way of a listener: the device that has the address, and its routes.

    Raises:
        Unsupported, KernelError: as `to_peer`; also when no device can be chosen.
    """
    version = _version(address)
    any_ = ipaddress.ip_address(address).is_unspecified
    if request.interface:
        index = _index(host, request.interface)
    elif any_:
        index = _default_device(host, version)
    else:
        index = _owner(host, address, version)
    device = usable(host, index)
    sources = tuple(_addresses(host, index, version)) if any_ else (address,)
    if not sources:
        raise KernelError(f"device {device.name} has no IPv{version} address")
    routes = tuple(_routes(host, index, version))
    if request.via or request.via_mac:
        routes = (Route("", request.via), *(r for r in routes if r.prefix and not r.gateway))
    return Way(device, sources[:16], request.via, request.via_mac, 0, routes)


def usable(host: IPRoute, index: int) -> Device:
    """A device that packets can be redirected to and from. Raises Unsupported, KernelError."""
    link = _asked(host.link, "get", index=index)[0]
    name, kind = link.get_attr("IFLA_IFNAME"), link["ifi_type"]
    info = link.get_attr("IFLA_LINKINFO")
    what = (info.get_attr("IFLA_INFO_KIND") if info else "") or "device"
    if kind == _LOOPBACK:
        raise Unsupported(f"{name} is the loopback device: nothing of it leaves the host's stack")
    if kind != _ETHERNET and kind not in _BARE:
        raise Unsupported(f"{what} {name} has neither Ethernet nor bare IP frames (type {kind})")
    if not link["flags"] & _IFF_UP:
        raise KernelError(f"{what} {name} is down")
    mac = (
        bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", "")) if kind == _ETHERNET else b""
    )
    arp = bool(mac) and not link["flags"] & _IFF_NOARP
    return Device(index, name, mac, link.get_attr("IFLA_MTU"), arp)


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _family(version: int) -> int:
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def _asked(call: Any, *words: Any, **more: Any) -> list[Any]:
    try:
        return list(call(*words, **more))
    except NetlinkError as error:
        raise KernelError(str(error.args[1]), error.code) from None


def _fib(host: IPRoute, address: str, device: int, request: Request) -> Any:
    more: dict[str, Any] = {"family": _family(_version(address)), "dst": address}
    if device:
        more["oif"] = device
    if request.mark:
        more["mark"] = request.mark
    if request.source:
        more["src"] = request.source
    try:
        answer = next(iter(host.route("get", **more)))
    except NetlinkError as error:
        raise KernelError(
            f"this host has no route to {address}: {os.strerror(error.code)}", error.code
        ) from None
    kind = answer["type"]
    if kind not in (_UNICAST, _LOCAL):
        raise KernelError(f"this host's route to {address} is {_KINDS.get(kind, f'type {kind}')}")
    if answer.get_attr("RTA_ENCAP_TYPE"):
        raise Unsupported(f"the route to {address} puts packets into a tunnel of its own (encap)")
    return answer


def _past_the_local_one(host: IPRoute, peer: str, device: int, request: Request) -> Any:
    """The answer for a peer that is this host's own, when a next hop is given by its MAC."""
    version = _version(peer)
    index = device or _default_device(host, version)
    # Any other address on that device will do: only device and source are taken from it.
    for route in _routes(host, index, version):
        address = route.gateway or route.prefix.partition("/")[0]
        if address:
            return _fib(host, address, index, request)
    raise KernelError(f"{peer} is this host's own address; -i with another device is needed")


def _gateway(answer: Any) -> str:
    via = answer.get_attr("RTA_VIA")
    if via:
        return str(via["addr"])
    return str(answer.get_attr("RTA_GATEWAY") or "")


def _index(host: IPRoute, name: str) -> int:
    found = host.link_lookup(ifname=name)
    if not found:
        raise KernelError(f"this host has no device {name}")
    return int(found[0])


def _addresses(host: IPRoute, index: int, version: int) -> Iterator[str]:
    """Addresses of a device, global ones first."""
    rows = _asked(host.get_addr, family=_family(version), index=index)
    for row in sorted(rows, key=lambda row: row["scope"]):
        yield row.get_attr("IFA_LOCAL") or row.get_attr("IFA_ADDRESS")


def _owner(host: IPRoute, address: str, version: int) -> int:
    for row in _asked(host.get_addr, family=_family(version)):
        if (row.get_attr("IFA_LOCAL") or row.get_attr("IFA_ADDRESS")) == address:
            return int(row["index"])
    raise KernelError(f"{address} is no address of this host")


def _default_device(host: IPRoute, version: int) -> int:
    defaults = [
        row
        for row in _asked(host.get_routes, family=_family(version), table=_MAIN_TABLE)
        if row["dst_len"] == 0 and row["type"] == _UNICAST and row.get_attr("RTA_OIF")
    ]
    if not defaults:
        raise KernelError(
            f"no default route over one device: -i names the one to use (IPv{version})"
        )
    best = min(defaults, key=lambda row: row.get_attr("RTA_PRIORITY") or 0)
    return int(best.get_attr("RTA_OIF"))


def _routes(host: IPRoute, index: int, version: int) -> Iterator[Route]:
    """Unicast routes of the main table over a device, on-link ones first."""
    rows = _asked(host.get_routes, family=_family(version), table=_MAIN_TABLE, oif=index)
    found = []
    for row in rows:
        if row["type"] != _UNICAST or row.get_attr("RTA_ENCAP_TYPE"):
            continue
        prefix = f"{row.get_attr('RTA_DST')}/{row['dst_len']}" if row["dst_len"] else ""
        found.append((row.get_attr("RTA_PRIORITY") or 0, Route(prefix, _gateway(row))))
    seen = set()
    for _, route in sorted(found, key=lambda pair: (bool(pair[1].gateway), pair[0])):
        if route.prefix not in seen:
            seen.add(route.prefix)
            yield route
