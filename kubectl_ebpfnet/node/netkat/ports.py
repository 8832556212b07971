"""Local ports that nobody on this host uses, held for the time.

A port is held by a socket of the host that is bound to it and does nothing: bind(2) then refuses it
to others, and connect(2) passes over it (net/ipv4/inet_hashtables.c, __inet_hash_connect). The
host's socket never gets a packet: they are redirected before.
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
    """Ports `first` to `last`, held until `free` or the process's end."""

    def __init__(self, sockets: list[socket.socket], first: int) -> None:
        self._sockets = sockets
        self.first = first
        self.last = first + len(sockets) - 1

    def free(self) -> None:
        """Give the ports back."""
        for one in self._sockets:
            one.close()
        self._sockets = []


def hold(version: int, udp: bool, address: str, port: int = 0, scope: int = 0) -> HeldPorts:
    """Hold one port.

    Args:
        version: 4 or 6.
        address: of this host, or the unspecified one.
        port: the one that is wanted, 0 for any.
        scope: the device of a link-local address.

    Raises:
        KernelError: the port is in use, the address is not this host's, or no port is free.
    """
    one = _bound(version, udp, address, port, scope)
    return HeldPorts([one], one.getsockname()[1])


def hold_range(
    version: int, udp: bool, address: str, scope: int = 0, count: int = RANGE
) -> HeldPorts:
    """Hold `count` ports in a row, out of those that the kernel gives to clients.

    Raises:
        KernelError: no such row is free, or the address is not this host's.
    """
    low, high = (int(word) for word in _EPHEMERAL.read_text().split())
    for _ in range(_TRIES):
        first = random.randint(low, max(low, high - count))  # noqa: S311  no secret
        held: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                held.append(_bound(version, udp, address, port, scope))
            return HeldPorts(held, first)
        except KernelError as error:
            for one in held:
                one.close()
            if error.errno != errno.EADDRINUSE:
                raise
    raise KernelError(f"no {count} local ports in a row are free", errno.EADDRINUSE)


def _bound(version: int, udp: bool, address: str, port: int, scope: int) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    one = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    try:
        if version == 6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port) if version == 4 else (address, port, 0, scope))
    except OSError as error:
        one.close()
        raise KernelError(_why(error, udp, address, port), error.errno or 0) from None
    return one


def _why(error: OSError, udp: bool, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        kind = "UDP" if udp else "TCP"
        return f"{kind} port {port} is in use on this host" if port else "no local port is free"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this host"
    return f"bind {address} port {port}: {os.strerror(error.errno or 0)}"
