"""ICMP errors about a socket's packets, with their sender: the kernel's error queue.

Most ICMP errors have the same errno, and a UDP socket reports few of them. Sources:
ip(7) and ipv6(7), IP_RECVERR; Linux include/uapi/linux/errqueue.h; the names of types and codes:
RFC 792 and 1812 (5.2.7.1), RFC 4443.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from kubectl_ebpfnet.model.dataclass import dataclass

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_ERROR = struct.Struct("=IBBBxII")  # struct sock_extended_err
_BY_ICMP = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
_PROHIBITED = "communication prohibited"
_WORDS = {
    (4, 3, 0): "network unreachable", (4, 3, 1): "host unreachable",
    (4, 3, 2): "protocol unreachable", (4, 3, 3): "port unreachable",
    (4, 3, 4): "fragmentation needed", (4, 3, 9): _PROHIBITED, (4, 3, 10): _PROHIBITED,
    (4, 3, 13): _PROHIBITED,
    (6, 1, 0): "no route", (6, 1, 1): _PROHIBITED, (6, 1, 3): "address unreachable",
    (6, 1, 4): "port unreachable", (6, 1, 5): "source address failed policy",
    (6, 1, 6): "route rejects",
}  # fmt: skip
_TYPES = {
    (4, 3): "destination unreachable", (4, 11): "time exceeded", (4, 12): "parameter problem",
    (6, 1): "destination unreachable", (6, 2): "packet too big", (6, 3): "time exceeded",
    (6, 4): "parameter problem",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error about a packet of the socket.

    Attributes:
        text: `ICMP port unreachable, said by 10.0.0.1`.
        errno: the kernel's errno for it; ECONNREFUSED for port unreachable.
    """

    text: str
    errno: int


def collect_errors(sock: socket.socket, enabled: bool = True) -> None:
    """Let a socket queue ICMP errors about its packets; each becomes an error of the socket."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, enabled)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, enabled)


def first_error(sock: socket.socket) -> IcmpError | None:
    """Return the first queued ICMP error, or None. Makes the socket non-blocking."""
    sock.setblocking(False)  # with a time-out Python waits for data, regardless of the flags
    try:
        _, control_messages, _, _ = sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for _, kind, data in control_messages:
        if kind in (_IP_RECVERR, _IPV6_RECVERR) and len(data) >= _ERROR.size:
            code, origin, icmp_type, icmp_code, _, _ = _ERROR.unpack_from(data)
            if origin in _BY_ICMP:
                version = 4 if origin == _BY_ICMP[0] else 6
                what = _name(version, icmp_type, icmp_code)
                return IcmpError(f"ICMP {what}{_sender(version, data[_ERROR.size :])}", code)
    return None


def _name(version: int, kind: int, code: int) -> str:
    word = _WORDS.get((version, kind, code)) or _TYPES.get((version, kind))
    return word or f"type {kind} code {code}"


def _sender(version: int, name: bytes) -> str:
    """Return `, said by …` from a struct sockaddr_in or sockaddr_in6, else ""."""
    at, size = (4, 4) if version == 4 else (8, 16)
    packed = name[at : at + size]
    return f", said by {ipaddress.ip_address(packed)}" if len(packed) == size else ""
