"""Connect or listen in the private netns, and copy data."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from typing import Any

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.netkat.request import Request
from kubectl_ebpfnet.node.netkat.copy import (
    CopyOptions,
    StandardInput,
    StreamCopy,
    abort_when_closed,
    flush,
)
from kubectl_ebpfnet.node.netkat.setup import NetkatSetup


def connect_to_peer(setup: NetkatSetup, request: Request, peer: str) -> socket.socket:
    """Connect to the peer.

    Args:
        setup: the path.
        request: netkat's options.
        peer: the peer's own address, for the error.

    Raises:
        KernelError: refused, unreachable, or no answer in time.
    """
    sock = _socket(setup, request)
    try:
        sock.bind(_socket_address(setup, setup.route.sources[0], setup.first_port))
        sock.settimeout(request.wait)
        sock.connect(_socket_address(setup, setup.peer_address, request.port))
        sock.settimeout(None)
    except OSError as error:
        sock.close()
        where = f"{peer} port {request.port}"
        if isinstance(error, TimeoutError):
            raise KernelError(
                f"connect to {where}: no answer in {request.wait:g} s", errno.ETIMEDOUT
            ) from None
        raise KernelError(f"connect to {where}: {error.strerror}", error.errno or 0) from None
    return sock


def transfer(peer: socket.socket, request: Request) -> None:
    """Copy stdin and stdout until the end, or only probe the peer (-z). Raises KernelError."""
    if not request.connect_only:
        StreamCopy(peer, standard_input(), copy_options(request)).run()
    elif request.udp:
        _probe(peer, request.wait)
    else:
        flush(peer, request.wait)


def copy_options(request: Request) -> CopyOptions:
    """Return when copying ends, by the options (model/netkat/request.py, USAGE)."""
    wait = request.wait if request.wait_given else 0.0
    # Without another sign of the end, silence is the end.
    ends_by_silence = request.udp or not (request.half_close or request.listen)
    return CopyOptions(
        udp=request.udp,
        half_close=request.half_close,
        idle=wait,
        last=request.wait if ends_by_silence else wait,
        # At a terminal no more input is awaited, and the next client of -k may be waiting.
        after_peer=0.0 if request.keep or request.terminal or os.isatty(0) else request.wait,
        flush=request.wait,
    )


def listen(setup: NetkatSetup, request: Request) -> list[socket.socket]:
    """Return listening sockets, one for each address. Raises KernelError."""
    sockets = []
    for address in setup.route.sources:
        sock = _socket(setup, request)
        sock.bind(_socket_address(setup, address, request.port))
        if not request.udp:
            sock.listen(16)
        sockets.append(sock)
    return sockets


def serve_clients(listeners: list[socket.socket], request: Request) -> None:
    """Copy data with a client, with -k with one client after the other.

    Raises:
        KernelError: no client came in time (with -w), or the client's connection broke.
    """
    source = standard_input()
    if request.udp and request.keep:
        StreamCopy(_AnyClient(listeners), source, copy_options(request)).run()
        return
    while True:
        peer = _next_client(listeners, request)
        try:
            StreamCopy(peer, source, copy_options(request)).run()
        except KernelError:
            if not request.keep:
                raise
        finally:
            if not request.udp:  # a UDP client has the listening socket
                hang_up(peer)
        if not request.keep:
            return


def hang_up(peer: socket.socket) -> None:
    """Close a socket; wake threads that wait for it."""
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
    peer.close()


def standard_input() -> StandardInput:
    """Return stdin; a closed stdin has ended."""
    stdin = StandardInput()
    try:
        os.fstat(stdin.fd)
    except OSError:
        stdin.ended = True
    return stdin


def _socket(setup: NetkatSetup, request: Request) -> socket.socket:
    family = socket.AF_INET6 if ":" in setup.route.sources[0] else socket.AF_INET
    with setup.netns.inside():
        sock = socket.socket(family, socket.SOCK_DGRAM if request.udp else socket.SOCK_STREAM)
    if not request.udp:
        abort_when_closed(sock)
    return sock


def _socket_address(
    setup: NetkatSetup, address: str, port: int
) -> tuple[str, int] | tuple[str, int, int, int]:
    if ":" not in address:
        return (address, port)
    scope = setup.netns.index if address.lower().startswith("fe8") else 0
    return (address, port, 0, scope)


def _next_client(listeners: list[socket.socket], request: Request) -> socket.socket:
    """Return the next client: an accepted connection, or the socket of its first datagram."""
    ready, _, _ = select.select(listeners, [], [], request.wait if request.wait_given else None)
    if not ready:
        raise KernelError(f"nobody came in {request.wait:g} s", errno.ETIMEDOUT)
    if not request.udp:
        return ready[0].accept()[0]
    _, sender = ready[0].recvfrom(0, socket.MSG_PEEK)
    ready[0].connect(sender)
    return ready[0]


def _probe(peer: socket.socket, seconds: float) -> None:
    """Send an empty datagram; only an ICMP error is a failure."""
    peer.settimeout(seconds)
    try:
        peer.send(b"")
        peer.recv(1)
    except TimeoutError:
        return
    except OSError as error:
        raise KernelError(f"the peer refuses: {error.strerror}", error.errno or 0) from None


class _AnyClient:
    """UDP with any client; stdin goes to the sender of the last datagram."""

    def __init__(self, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
        self._last: tuple[socket.socket, Any] | None = None

    def recv_into(self, memory: memoryview, /) -> int:
        """Receive a datagram of any client."""
        ready, _, _ = select.select(self._listeners, [], [])
        size, sender = ready[0].recvfrom_into(memory)
        self._last = (ready[0], sender)
        return size

    def sendall(self, data: memoryview, /) -> None:
        """Send to the last client; wait for the first."""
        while self._last is None:
            time.sleep(0.01)
        sock, sender = self._last
        sock.sendto(data, sender)

    def shutdown(self, how: int, /) -> None:
        """Do nothing: datagrams have no end."""
