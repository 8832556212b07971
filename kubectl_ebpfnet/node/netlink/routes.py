"""Routes and the kernel's look-ups, equal to the facts of `ip -j route` and `ip -j route get`.

Sources: Linux include/uapi/linux/rtnetlink.h, net/ipv4/fib_semantics.c (fib_dump_info),
net/ipv4/route.c (inet_rtm_getroute), net/ipv6/route.c; iproute2's ip/iproute.c; ip-route(8).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.kernel import FibAnswer, Route
from kubectl_ebpfnet.model.net import Address, protocol_number
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink.dump import (
    GETROUTE,
    INET,
    INET6,
    Message,
    address,
    device,
    device_names,
    dump,
    get,
    names,
    network,
    type_name,
)
from kubectl_ebpfnet.node.netlink.message import Attributes, attribute, attributes_of, number

# struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
_HEAD = struct.Struct("=BBBBBBBBI")
_HOP = struct.Struct("=HBBi")  # struct rtnexthop: len, flags, hops, ifindex
# RTA_*
_DST, _SRC, _IIF, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _MULTIPATH = range(1, 10)
_CACHEINFO, _TABLE, _MARK, _VIA = 12, 15, 16, 18
_IP_PROTO, _SPORT, _DPORT = 27, 28, 29
_MTU = 2  # RTAX_MTU
_CLONED, _LOOKUP_TABLE = 0x200, 0x1000  # RTM_F_*
_MAIN = 254
_RTA_ERROR = struct.Struct("=iIIi")  # struct rta_cacheinfo up to rta_error
_FIB_WORDS = (
    "fib DEST [from ADDRESS] [iif DEVICE] [mark NUMBER]"
    " [ipproto NAME|NUMBER] [sport PORT] [dport PORT]"
)
# The meaning of an errno for a look-up.
_REASONS = {
    errno.EINVAL: "a blackhole route, or a source that cannot be (martian)",
    errno.EXDEV: "the source would be answered by another device (rp_filter)",
    errno.EACCES: "a prohibit route or rule",
}
_NO_ROUTE = frozenset({*_REASONS, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAGAIN})


def routes(request: NodeRequest) -> Iterator[Route]:  # noqa: ARG001
    """Yield the routes of every table, IPv4 then IPv6, one for each next hop.

    Cached exceptions (learned path MTUs and redirects) are left out. Raises KernelError.
    """
    tables, scopes, devices = names("rt_tables"), names("rt_scopes"), device_names()
    for family in (INET, INET6):
        head = _HEAD.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for message in dump(GETROUTE, head, what="routes"):
            # A kernel without IPv6 answers with its IPv4 routes.
            if message.head[0] == family and not _HEAD.unpack(message.head)[8] & _CLONED:
                yield from _routes(message, tables, scopes, devices)


def _routes(
    message: Message, tables: dict[int, str], scopes: dict[int, str], devices: dict[int, str]
) -> Iterator[Route]:
    family, length, source_length, _, table, _, scope, kind, _ = _HEAD.unpack(message.head)
    attributes = message.attributes
    table = number(attributes, _TABLE) or table
    source = attributes.get(_SRC)
    preferred = attributes.get(_PREFSRC)
    for gateway, name in _hops(attributes, devices):
        yield Route(
            destination=network(attributes.get(_DST), length, family),
            gateway=gateway,
            device=name,
            table="main" if table == _MAIN else tables.get(table, str(table)),
            type=type_name(kind),
            metric=number(attributes, _PRIORITY) or 0,
            preferred_source=address(preferred) if preferred else None,
            scope=scopes.get(scope, str(scope)) if scope else "",
            mtu=_mtu(attributes),
            source=network(source, source_length, family) if source and source_length else None,
        )


def _hops(attributes: Attributes, devices: dict[int, str]) -> Iterator[tuple[Address | None, str]]:
    """Yield (gateway, device) of each next hop."""
    multipath = attributes.get(_MULTIPATH)
    if not multipath:
        index = number(attributes, _OIF)
        yield _gateway(attributes), device(devices, index) if index else ""
        return
    at = 0
    while at + _HOP.size <= len(multipath):
        length, _, _, index = _HOP.unpack_from(multipath, at)
        if length < _HOP.size:
            return
        next_hop = attributes_of(multipath[at : at + length], _HOP.size)
        yield _gateway(next_hop), device(devices, index) if index else ""
        at += (length + 3) & ~3


def _gateway(attributes: Attributes) -> Address | None:
    if _GATEWAY in attributes:
        return address(attributes[_GATEWAY])
    via = attributes.get(_VIA)  # struct rtvia: a family, and an address of it
    return address(via[2:]) if via else None


def _mtu(attributes: Attributes) -> int | None:
    metrics = attributes.get(_METRICS)
    return number(attributes_of(metrics), _MTU) if metrics else None


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
    head = _HEAD.pack(family, bits, source_bits, 0, 0, 0, 0, 0, _LOOKUP_TABLE)
    answer = get(GETROUTE, head, b"".join(_request_attributes(packet)))
    yield _answer(packet, answer)


def _answer(packet: FibAnswer, answer: Message | int) -> FibAnswer:
    if isinstance(answer, int):
        if answer == errno.EOPNOTSUPP and packet.protocol is not None:
            raise Unsupported(
                f"this kernel looks no route up for IP protocol {packet.protocol}", answer,
                hint="tcp, udp and icmp are those that it does",
            )  # fmt: skip
        if answer not in _NO_ROUTE:
            raise KernelError(f"look up {packet.destination}: {os.strerror(answer)}", answer)
        return replace(packet, error=_reason(answer))
    route = next(_routes(answer, names("rt_tables"), names("rt_scopes"), device_names()))
    info = answer.attributes.get(_CACHEINFO, b"")
    # IPv6 answers with the refusing route, and an error in its cacheinfo.
    code = -_RTA_ERROR.unpack_from(info)[3] if len(info) >= _RTA_ERROR.size else 0
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


def _request_attributes(packet: FibAnswer) -> Iterator[bytes]:
    yield attribute(_DST, packet.destination.packed)
    if packet.source is not None:
        yield attribute(_SRC, packet.source.packed)
    if packet.in_device:
        try:
            index = socket.if_nametoindex(packet.in_device)
        except OSError:
            raise KernelError(f"no device {packet.in_device} here", errno.ENODEV) from None
        yield attribute(_IIF, struct.pack("=I", index))
    if packet.mark:
        yield attribute(_MARK, struct.pack("=I", packet.mark))
    if packet.protocol is not None:
        yield attribute(_IP_PROTO, struct.pack("=B", packet.protocol))
    for kind, port in ((_SPORT, packet.source_port), (_DPORT, packet.destination_port)):
        if port is not None:
            yield attribute(kind, struct.pack(">H", port))


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
