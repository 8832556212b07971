"""Routes and the kernel's look-ups, equal to the facts of `ip -j route` and `ip -j route get`.

Sources: Linux include/uapi/linux/rtnetlink.h, net/ipv4/fib_semantics.c (fib_dump_info),
net/ipv4/route.c (inet_rtm_getroute), net/ipv6/route.c; iproute2's ip/iproute.c; ip-route(8).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from pyroute2.netlink.rtnl import RTM_GETROUTE

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.kernel import FibAnswer, Route
from kubectl_ebpfnet.model.net import Address, Network, protocol_number
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink.names import device, device_names, names, type_name
from kubectl_ebpfnet.node.netlink.rtnetlink import dump, get

INET, INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_CLONED, _LOOKUP_TABLE = 0x200, 0x1000  # RTM_F_*
_MAIN = 254
_DEAD = 1  # RTNH_F_DEAD
_FIB_WORDS = (
    "fib DEST [from ADDRESS] [iif DEVICE] [mark NUMBER]"
    " [ipproto NAME|NUMBER] [sport PORT] [dport PORT]"
)
# The meaning of an errno for a look-up.
_REASONS = {
    errno.EINVAL: "a blackhole route, or a source that cannot be (martian, rp_filter)",
    errno.EXDEV: "the source would be answered by another device (rp_filter)",
    errno.EACCES: "a prohibit route or rule",
    errno.EHOSTUNREACH: "an unreachable route or rule, or forwarding is off at the device",
}
_NO_ROUTE = frozenset({*_REASONS, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAGAIN})


def routes(request: NodeRequest) -> Iterator[Route]:  # noqa: ARG001
    """Yield the routes of every table, IPv4 then IPv6, one for each next hop.

    Cached exceptions (learned path MTUs and redirects) are left out. Raises KernelError.
    """
    tables, scopes, devices = names("rt_tables"), names("rt_scopes"), device_names()
    for family in (INET, INET6):
        for message in dump(RTM_GETROUTE, "list routes", family=family):
            # A kernel without IPv6 answers with its IPv4 routes.
            if message["family"] == family and not message["flags"] & _CLONED:
                yield from _routes(message, tables, scopes, devices)


def network(address: str | None, length: int, family: int) -> Network:
    """Return a prefix.

    Args:
        address: None for length 0, which messages leave out.
        length: of the prefix.
        family: INET or INET6.
    """
    if family == INET:
        return IPv4Network((address or 0, length), strict=False)
    return IPv6Network((address or 0, length), strict=False)


def _routes(
    message: Any, tables: dict[int, str], scopes: dict[int, str], devices: dict[int, str]
) -> Iterator[Route]:
    family, scope, source_length = message["family"], message["scope"], message["src_len"]
    table = message.get_attr("RTA_TABLE") or message["table"]
    source = message.get_attr("RTA_SRC") if source_length else None
    preferred = message.get_attr("RTA_PREFSRC")
    metrics = message.get_attr("RTA_METRICS")
    for hop in message.get_attr("RTA_MULTIPATH") or (message,):
        one_of_several = hop is not message
        index = hop["oif"] if one_of_several else message.get_attr("RTA_OIF")
        yield Route(
            destination=network(message.get_attr("RTA_DST"), message["dst_len"], family),
            gateway=_gateway(hop),
            device=device(devices, index) if index else "",
            table="main" if table == _MAIN else tables.get(table, str(table)),
            type=type_name(message["type"]),
            metric=message.get_attr("RTA_PRIORITY") or 0,
            preferred_source=ip_address(preferred) if preferred else None,
            scope=scopes.get(scope, str(scope)) if scope else "",
            mtu=metrics.get_attr("RTAX_MTU") if metrics else None,
            advmss=metrics.get_attr("RTAX_ADVMSS") if metrics else None,
            source=network(source, source_length, family) if source else None,
            tos=f"0x{message['tos']:02x}" if message["tos"] else "",
            weight=hop["hops"] + 1 if one_of_several else 0,
            dead=bool((hop["flags"] | message["flags"]) & _DEAD),
        )


def _gateway(hop: Any) -> Address | None:
    """Return the address of a next hop, which may be of the other family (RTA_VIA)."""
    via = hop.get_attr("RTA_VIA")
    gateway = hop.get_attr("RTA_GATEWAY") or (via["addr"] if via else None)
    return ip_address(gateway) if gateway else None


def fib(request: NodeRequest) -> Iterator[FibAnswer]:
    """Yield the kernel's routing decision for one packet (RTM_GETROUTE).

    Args:
        request: `ebpfnet-node fib DEST [from ADDRESS] [iif DEVICE] [mark NUMBER]
            [ipproto NAME|NUMBER] [sport PORT] [dport PORT]`. A forwarded packet needs `iif`:
            without it, the source must be an address of this namespace.

    Returns:
        One answer; with `error` where the packet has no route.

    Raises:
        KernelError: malformed words, or there is no such device.
        Unsupported: this kernel does not look up this protocol.
    """
    packet = _parse_packet(request.argv[2:])
    version = packet.destination.version
    family, bits = (INET, 32) if version == 4 else (INET6, 128)
    source_bits = bits if packet.source is not None else 0
    try:
        message = get(
            RTM_GETROUTE, f"look up {packet.destination}", list(_question(packet)), family=family,
            dst_len=bits, src_len=source_bits, flags=_LOOKUP_TABLE,
        )  # fmt: skip
    except KernelError as error:
        yield _refused(packet, error)
    else:
        yield _answer(packet, message)


def _refused(packet: FibAnswer, error: KernelError) -> FibAnswer:
    if error.errno == errno.EOPNOTSUPP and packet.protocol is not None:
        raise Unsupported(
            f"this kernel looks no route up for IP protocol {packet.protocol}", error.errno,
            hint="tcp, udp and icmp are those that it does",
        )  # fmt: skip
    if error.errno not in _NO_ROUTE:
        raise error
    return replace(packet, error=_reason(error.errno))


def _answer(packet: FibAnswer, message: Any) -> FibAnswer:
    route = next(_routes(message, names("rt_tables"), names("rt_scopes"), device_names()))
    info = message.get_attr("RTA_CACHEINFO")
    # IPv6 answers with the refusing route, and an error in its cacheinfo.
    code = -info["rta_error"] & 0xFFFFFFFF if info else 0
    return replace(
        packet,
        type=route.type,
        gateway=route.gateway,
        device=route.device,
        preferred_source=route.preferred_source,
        table=route.table,
        mtu=route.mtu,
        error=_reason(code) if code else "",
    )


def _reason(code: int) -> str:
    words = os.strerror(code)
    return f"{words}: {_REASONS[code]}" if code in _REASONS else words


def _question(packet: FibAnswer) -> Iterator[tuple[str, Any]]:
    yield "RTA_DST", str(packet.destination)
    if packet.source is not None:
        yield "RTA_SRC", str(packet.source)
    if packet.in_device:
        try:
            yield "RTA_IIF", socket.if_nametoindex(packet.in_device)
        except OSError:
            raise KernelError(f"no device {packet.in_device} here", errno.ENODEV) from None
    if packet.mark:
        yield "RTA_MARK", packet.mark
    selectors = (packet.protocol, packet.source_port, packet.destination_port)
    for name, value in zip(("RTA_IP_PROTO", "RTA_SPORT", "RTA_DPORT"), selectors, strict=True):
        if value is not None:
            yield name, value


def _parse_packet(words: tuple[str, ...]) -> FibAnswer:
    """Return the packet of the words, as an answer without a route yet."""
    if len(words) % 2 == 0:
        raise KernelError(f"a look-up is asked for as: {_FIB_WORDS}")
    pairs = list(zip(words[1::2], words[2::2], strict=True))
    options = dict(pairs)
    unknown = options.keys() - {"from", "iif", "mark", "ipproto", "sport", "dport"}
    if unknown or len(options) != len(pairs):
        raise KernelError(f"a look-up is asked for as: {_FIB_WORDS}")
    destination = _address(words[0])
    source = _address(options["from"]) if "from" in options else None
    if source is not None and source.version != destination.version:
        raise KernelError(f"{source} and {destination} are of different IP versions")
    protocol = protocol_number(options["ipproto"]) if "ipproto" in options else None
    if "ipproto" in options and (protocol is None or protocol > 0xFF):
        word = options["ipproto"]
        raise KernelError(f"no IP protocol {word!r}; e.g. tcp, udp, icmp, or a number")
    return FibAnswer(
        destination=destination,
        source=source,
        in_device=options.get("iif", ""),
        mark=_number(options, "mark", 0xFFFFFFFF) or 0,
        protocol=protocol,
        source_port=_number(options, "sport", 0xFFFF),
        destination_port=_number(options, "dport", 0xFFFF),
    )


def _address(word: str) -> Address:
    try:
        if "%" not in word:
            return ip_address(word)
    except ValueError:
        pass
    raise KernelError(f"{word!r} is not an IP address; a look-up is asked for as: {_FIB_WORDS}")


def _number(options: dict[str, str], name: str, most: int) -> int | None:
    if name not in options:
        return None
    try:
        value = int(options[name], 0)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise KernelError(f"{name} {options[name]!r} is not a number from 0 to {most}")
    return value
