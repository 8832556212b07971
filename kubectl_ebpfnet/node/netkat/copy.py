"""netcat's copying: stdin to the peer, the peer to stdout, each in a thread of its own.

Two threads and not one poll(2) loop: a stdout that nobody reads must not stop what goes the other
way (`netkat | program` and back again), and stdin's file description may be shared, so it cannot be
made non-blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kubectl_ebpfnet.errors import KernelError

_STREAM_BYTES = 1 << 18
_PIPE_BYTES = 1 << 20
_DATAGRAM_BYTES = 1 << 16
_SENT_AT_ONCE = 16384  # of stdin, as one datagram: what netcat-openbsd reads
_TCP_INFO_STATE_DONE = frozenset({5, 6, 7, 11})  # FIN_WAIT2, TIME_WAIT, CLOSE, CLOSING
_STEP_S = 0.002


@dataclass(frozen=True, slots=True)
class Manners:
    """When copying ends; seconds.

    Attributes:
        udp: datagrams.
        half_close: tell the peer that stdin has ended.
        idle: of silence at any time, 0 for as long as it takes.
        last: of silence after the end of stdin, 0 for until the peer's end.
        after_peer: without input after the peer's end, 0 to end with the peer.
        flush: for what was sent to be acknowledged at the end.
    """

    udp: bool
    half_close: bool
    idle: float
    last: float
    after_peer: float
    flush: float


class Peer(Protocol):
    """What is used of a connected socket."""

    def recv_into(self, memory: memoryview, /) -> int:
        """As socket.recv_into."""

    def sendall(self, data: memoryview, /) -> None:
        """As socket.sendall."""

    def shutdown(self, how: int, /) -> None:
        """As socket.shutdown."""


class Input:
    """stdin, read by one thread for all connections; a listener with -k keeps it."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd
        self.ended = False


class Copying:
    """One connection's two directions."""

    def __init__(self, peer: Peer, source: Input, manners: Manners, out: int = 1) -> None:
        self._peer = peer
        self._source = source
        self._out = out
        self._manners = manners
        self._said: queue.SimpleQueue[tuple[str, Exception | None]] = queue.SimpleQueue()
        self._last = time.monotonic()
        self._nobody_reads = False
        # Ends the reader of stdin when the peer has ended first, without losing a byte of it.
        self._stop_reading, self._stop = os.pipe()

    def run(self) -> None:
        """Copy until it is over.

        Raises:
            KernelError: the connection broke (reset, unreachable).
            BrokenPipeError: nobody reads our stdout.
        """
        for fd in (self._source.fd, self._out):
            _widen(fd)
        incoming = threading.Thread(target=self._told, args=("peer", self._to_stdout), daemon=True)
        outgoing = threading.Thread(target=self._told, args=("stdin", self._to_peer), daemon=True)
        incoming.start()
        if self._source.ended:
            self._said.put(("stdin", None))
        else:
            outgoing.start()
        problem = None
        try:
            problem = self._wait()
        finally:
            os.close(self._stop)
            if outgoing.ident and not self._source.ended:
                outgoing.join(1)
        if self._nobody_reads:
            raise BrokenPipeError
        if problem is not None:
            raise KernelError(_words(problem), problem.errno or 0) from None
        self._flush()

    def _told(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
            self._said.put((name, None))
        except OSError as error:
            self._said.put((name, error))

    def _wait(self) -> OSError | None:
        """Until the end; what broke the connection, or None."""
        stdin_over = peer_over = False
        while True:
            limit = self._manners.last if stdin_over else self._manners.idle
            if peer_over:
                limit = self._manners.after_peer
            left = self._last + limit - time.monotonic() if limit else None
            if left is not None and left <= 0:
                return None
            try:
                who, problem = self._said.get(timeout=left)
            except queue.Empty:
                continue
            if isinstance(problem, OSError):
                return problem
            # The peer's end may be that of one direction only: it may still take what we have.
            if peer_over or (who == "peer" and (stdin_over or not self._manners.after_peer)):
                return None
            peer_over, stdin_over = who == "peer", who == "stdin"
            self._last = time.monotonic()

    def _to_stdout(self) -> None:
        memory = memoryview(bytearray(_DATAGRAM_BYTES if self._manners.udp else _STREAM_BYTES))
        while True:
            size = self._peer.recv_into(memory)
            if not size and not self._manners.udp:
                return
            self._last = time.monotonic()
            try:
                _write(self._out, memory[:size])
            except BrokenPipeError:
                self._nobody_reads = True
                raise
            self._last = time.monotonic()

    def _to_peer(self) -> None:
        memory = memoryview(bytearray(_SENT_AT_ONCE if self._manners.udp else _STREAM_BYTES))
        waiting = select.poll()
        waiting.register(self._source.fd, select.POLLIN)
        waiting.register(self._stop_reading, select.POLLIN)
        while True:
            ready = dict(waiting.poll())
            if self._stop_reading in ready:
                return
            size = os.readv(self._source.fd, [memory])
            if not size:
                break
            self._last = time.monotonic()
            self._peer.sendall(memory[:size])
            self._last = time.monotonic()
        self._source.ended = True
        if self._manners.half_close and not self._manners.udp:
            self._peer.shutdown(socket.SHUT_WR)

    def _flush(self) -> None:
        """Wait until the peer has all: the namespace, and what is queued in it, ends with us."""
        if isinstance(self._peer, socket.socket) and not self._manners.udp:
            flush(self._peer, self._manners.flush)


def flush(peer: socket.socket, seconds: float) -> None:
    """Close the writing side, and wait until the peer has acknowledged all that was sent.

    `seconds` without any progress end it too; then the close that follows is a reset.
    """
    try:
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        return  # it is not connected any more
    end, before = 0.0, -1
    while True:
        state = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        unsent = struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        if state in _TCP_INFO_STATE_DONE and not unsent:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            return
        if unsent != before:
            before, end = unsent, time.monotonic() + seconds
        elif time.monotonic() > end:
            return
        time.sleep(_STEP_S)


def abort_when_closed(peer: socket.socket) -> None:
    """Have a close reset the connection, until `flush` has seen it end well.

    A socket that is closed while it still has to send holds its namespace, and the veth with it,
    for minutes; and after our end nothing that it sends would get out.
    """
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _widen(fd: int) -> None:
    """A pipe holds 64 KB, which costs a change of process for each; a megabyte where we may."""
    with contextlib.suppress(OSError):  # no pipe, or above /proc/sys/fs/pipe-max-size
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < _PIPE_BYTES:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _words(problem: OSError) -> str:
    return f"the connection broke: {os.strerror(problem.errno or 0)}"
