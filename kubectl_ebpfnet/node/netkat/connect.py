"""Connect or listen in the private netns, and copy."""

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
from kubectl_ebpfnet.node.netkat.copy import Copying, Input, Manners, abort_when_closed, flush
from kubectl_ebpfnet.node.netkat.setup import NetkatSetup


def connected(laid: NetkatSetup, request: Request, peer: str) -> socket.socket:
    """A connected socket to the peer.

    Raises:
        KernelError: refused, unreachable, or no answer in time; `peer` is for the words.
    """
    one = _socket(laid, request)
    try:
        one.bind(_name(laid, laid.way.sources[0], laid.first_port))
        one.settimeout(request.wait)
        one.connect(_name(laid, laid.near, request.port))
        one.settimeout(None)
    except OSError as error:
        one.close()
        where = f"{peer} port {request.port}"
        if isinstance(error, TimeoutError):
            raise KernelError(
                f"connect to {where}: no answer in {request.wait:g} s", errno.ETIMEDOUT
            ) from None
        raise KernelError(f"connect to {where}: {error.strerror}", error.errno or 0) from None
    return one


def exchange(peer: socket.socket, request: Request) -> None:
    """Copy stdin and stdout until the end, or see that the peer is there. Raises KernelError."""
    if not request.connect_only:
        Copying(peer, standard_input(), manners(request)).run()
    elif request.udp:
        _probe(peer, request.wait)
    else:
        flush(peer, request.wait)


def manners(request: Request) -> Manners:
    """When copying ends, as the words say (kubectl_ebpfnet/model/netkat/request.py, USAGE)."""
    given = request.wait if request.wait_given else 0.0
    # Where nothing else can tell the end, silence does.
    endless = request.udp or not (request.half_close or request.listen)
    return Manners(
        udp=request.udp,
        half_close=request.half_close,
        idle=given,
        last=request.wait if endless else given,
        # At a terminal nobody waits for more input, and the next client of -k may be there.
        after_peer=0.0 if request.keep or request.terminal or os.isatty(0) else request.wait,
        flush=request.wait,
    )


def listen(laid: NetkatSetup, request: Request) -> list[socket.socket]:
    """Sockets that wait for clients, one for each address. Raises KernelError."""
    found = []
    for address in laid.way.sources:
        one = _socket(laid, request)
        one.bind(_name(laid, address, request.port))
        if not request.udp:
            one.listen(16)
        found.append(one)
    return found


def serve(waiting: list[socket.socket], request: Request) -> None:
    """Copy with a client; with -k with one after the other.

    Raises:
        KernelError: nobody came in time (with -w), or the one client's connection broke.
    """
    source = standard_input()
    if request.udp and request.keep:
        Copying(_Anybody(waiting), source, manners(request)).run()
        return
    while True:
        peer = _client(waiting, request)
        try:
            Copying(peer, source, manners(request)).run()
        except KernelError:
            if not request.keep:
                raise
        finally:
            if not request.udp:  # there the socket is the one that waits
                hang_up(peer)
        if not request.keep:
            return


def hang_up(peer: socket.socket) -> None:
    """Close a socket; threads that wait for it are woken."""
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
    peer.close()


def standard_input() -> Input:
    """stdin; one that is closed has ended."""
    found = Input()
    try:
        os.fstat(found.fd)
    except OSError:
        found.ended = True
    return found


def _socket(laid: NetkatSetup, request: Request) -> socket.socket:
    family = socket.AF_INET6 if ":" in laid.way.sources[0] else socket.AF_INET
    with laid.private.inside():
        one = socket.socket(family, socket.SOCK_DGRAM if request.udp else socket.SOCK_STREAM)
    if not request.udp:
        abort_when_closed(one)
    return one


def _name(
    laid: NetkatSetup, address: str, port: int
) -> tuple[str, int] | tuple[str, int, int, int]:
    if ":" not in address:
        return (address, port)
    scope = laid.private.index if address.lower().startswith("fe8") else 0
    return (address, port, 0, scope)


def _client(waiting: list[socket.socket], request: Request) -> socket.socket:
    """The next client: an accepted connection, or the socket that its first datagram came to."""
    ready, _, _ = select.select(waiting, [], [], request.wait if request.wait_given else None)
    if not ready:
        raise KernelError(f"nobody came in {request.wait:g} s", errno.ETIMEDOUT)
    if not request.udp:
        return ready[0].accept()[0]
    _, sender = ready[0].recvfrom(0, socket.MSG_PEEK)
    ready[0].connect(sender)
    return ready[0]


def _probe(peer: socket.socket, seconds: float) -> None:
    """An empty datagram: silence and an answer are well, an ICMP error is not."""
    peer.settimeout(seconds)
    try:
        peer.send(b"")
        peer.recv(1)
    except TimeoutError:
        return
    except OSError as error:
        raise KernelError(f"the peer refuses: {error.strerror}", error.errno or 0) from None


class _Anybody:
    """UDP with whoever sends; stdin goes to the one who sent last."""

    def __init__(self, waiting: list[socket.socket]) -> None:
        self._waiting = waiting
        self._last: tuple[socket.socket, Any] | None = None

    def recv_into(self, memory: memoryview, /) -> int:
        """A datagram of anybody's."""
        ready, _, _ = select.select(self._waiting, [], [])
        size, sender = ready[0].recvfrom_into(memory)
        self._last = (ready[0], sender)
        return size

    def sendall(self, data: memoryview, /) -> None:
        """To the last one, once there is one."""
        while self._last is None:
            time.sleep(0.01)
        one, sender = self._last
        one.sendto(data, sender)

    def shutdown(self, how: int, /) -> None:
        """Datagrams have no end."""
