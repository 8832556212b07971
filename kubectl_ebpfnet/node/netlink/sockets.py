"""The sockets of a network namespace that new senders may reach, by sock_diag.

The kernel selects them by their state, so a node with 100,000 connections answers at once; /proc
walks over all of them, and tells neither the length of an accept queue nor IPV6_V6ONLY.

Sources: sock_diag(7), Linux include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c
(inet_diag_msg_attrs_fill), tcp_diag.c (tcp_diag_get_info: of a listener rqueue is sk_ack_backlog,
wqueue sk_max_ack_backlog), udp_diag.c.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from pyroute2.netlink import NLM_F_DUMP

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.kernel import Listener
from kubectl_ebpfnet.model.net import TCP, UDP, Address
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink import transport
from kubectl_ebpfnet.node.netlink.names import device, device_names

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
# A bit for each state (include/net/tcp_states.h): LISTEN; ESTABLISHED and CLOSE, which UDP sockets
# with and without a peer are in.
_LISTEN, _BOUND = 1 << 10, 1 << 1 | 1 << 7
_SKV6ONLY = 11  # INET_DIAG_SKV6ONLY
# struct inet_diag_req_v2: family, protocol, wanted attributes, states, id.
_REQUEST = struct.Struct("=BBBxI48x")
# struct inet_diag_msg: family; id.sport, id.dport, id.src, id.dst, id.if; rqueue, wqueue.
_MESSAGE = struct.Struct("=B3x 2s2s16s16sI8x 4xII8x")
_ATTRIBUTE = struct.Struct("=HH")
_MOST = 20_000
"""Sockets of a protocol that are told."""


def tcp_listeners(request: NodeRequest) -> Iterator[Listener]:  # noqa: ARG001
    """Yield the TCP sockets in the state LISTEN, IPv4 before IPv6.

    Raises:
        KernelError: the kernel refused (ENOENT without tcp_diag), or there are too many.
    """
    yield from _sockets(TCP, _LISTEN, "list the TCP listeners")


def udp_sockets(request: NodeRequest) -> Iterator[Listener]:  # noqa: ARG001
    """Yield the UDP sockets that are bound to a port, as `tcp_listeners`."""
    yield from _sockets(UDP, _BOUND, "list the UDP sockets")


def _sockets(protocol: int, states: int, what: str) -> Iterator[Listener]:
    devices, count = device_names(), 0
    for family in (socket.AF_INET, socket.AF_INET6):
        body = _REQUEST.pack(family, protocol, 0, states)
        for answer in transport.answers(
            _NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body, what
        ):
            count += 1
            if count > _MOST:
                raise KernelError(f"{what}: there are more than {_MOST}")
            yield _listener(*answer, protocol, devices)


def _listener(
    data: bytes, start: int, end: int, protocol: int, devices: dict[int, str]
) -> Listener:
    family, port, peer_port, address, peer, index, waiting, backlog = _MESSAGE.unpack_from(
        data, start
    )
    has_peer = protocol == UDP and any(peer_port)
    return Listener(
        address=_address(family, address),
        port=int.from_bytes(port, "big"),
        v6_only=_v6_only(data, start + _MESSAGE.size, end) if family == socket.AF_INET6 else None,
        device=device(devices, index) if index else "",
        waiting=waiting if protocol == TCP else 0,
        backlog=backlog if protocol == TCP else None,
        peer=_address(family, peer) if has_peer else None,
        peer_port=int.from_bytes(peer_port, "big") if has_peer else None,
    )


def _address(family: int, raw: bytes) -> Address:
    if family == socket.AF_INET:
        return IPv4Address(raw[:4])
    address = IPv6Address(raw)
    return address.ipv4_mapped or address


def _v6_only(data: bytes, at: int, end: int) -> bool | None:
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == _SKV6ONLY and length > _ATTRIBUTE.size:
            return bool(data[at + _ATTRIBUTE.size])
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return None
