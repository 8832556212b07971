"""Hold local ports that no socket of this host uses.

An idle socket of the host, bound to a port, holds it: bind(2) refuses the port to others, and
connect(2) skips it (net/ipv4/inet_hashtables.c, __inet_hash_connect). The socket never gets a
packet, since they are redirected before.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError

RANGE = 64
_TRIES = 200
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class HeldPorts:
    """Ports `first` to `last`, held until `release` or the process's end."""

    def __init__(self, sockets: list[socket.socket], first: int) -> None:
        self._sockets = sockets
        self.first = first
        self.last = first + len(sockets) - 1

    def release(self) -> None:
        """Release the ports."""
        for sock in self._sockets:
            sock.close()
        self._sockets = []


def hold(version: int, udp: bool, address: str, port: int = 0, scope: int = 0) -> HeldPorts:
    """Hold one port.

    Args:
        version: 4 or 6.
        udp: a UDP port.
        address: of this host, or the unspecified one.
        port: the port, 0 for any.
        scope: ifindex of a link-local address's device, 0 for other addresses.

    Raises:
        KernelError: the port is in use, the address is not this host's, or no port is free.
    """
    sock = _bound_socket(version, udp, address, port, scope)
    return HeldPorts([sock], sock.getsockname()[1])


def hold_range(
    version: int, udp: bool, address: str, scope: int = 0, count: int = RANGE
) -> HeldPorts:
    """Hold consecutive ports of the ephemeral range.

    Args:
        version: 4 or 6.
        udp: UDP ports.
        address: of this host.
        scope: ifindex of a link-local address's device, 0 for other addresses.
        count: number of ports.

    Raises:
        KernelError: no such range is free, or the address is not this host's.
    """
    low, high = (int(word) for word in _EPHEMERAL.read_text().split())
    for _ in range(_TRIES):
        first = random.randint(low, max(low, high - count))  # noqa: S311  no secret
        sockets: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                sockets.append(_bound_socket(version, udp, address, port, scope))
            return HeldPorts(sockets, first)
        except KernelError as error:
            for sock in sockets:
                sock.close()
            if error.errno != errno.EADDRINUSE:
                raise
    raise KernelError(f"no {count} local ports in a row are free", errno.EADDRINUSE)


def _bound_socket(version: int, udp: bool, address: str, port: int, scope: int) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    try:
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port) if version == 4 else (address, port, 0, scope))
    except OSError as error:
        sock.close()
        raise KernelError(_bind_error(error, udp, address, port), error.errno or 0) from None
    return sock


def _bind_error(error: OSError, udp: bool, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        kind = "UDP" if udp else "TCP"
        return f"{kind} port {port} is in use on this host" if port else "no local port is free"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this host"
    return f"bind {address} port {port}: {os.strerror(error.errno or 0)}"
