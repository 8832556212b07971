"""Copy as netcat does: stdin to the peer, the peer to stdout, each in its own thread.

Two threads instead of a poll(2) loop: a blocked stdout must not block the other direction (`netkat
| program` and back again), and stdin's file description may be shared, so it cannot be
non-blocking.
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
from typing import Protocol

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.dataclass import dataclass

_STREAM_BYTES = 1 << 18
_PIPE_BYTES = 1 << 20
_DATAGRAM_BYTES = 1 << 16
_SENT_AT_ONCE = 16384  # of stdin, in one datagram, as netcat-openbsd
_TCP_INFO_STATE_DONE = frozenset({5, 6, 7, 11})  # FIN_WAIT2, TIME_WAIT, CLOSE, CLOSING
_STEP_S = 0.002


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """When copying ends; times are in seconds.

    Attributes:
        udp: the peer is a UDP socket.
        half_close: shut down the sending direction at the end of stdin.
        idle: longest silence at any time, 0 for no limit.
        last: longest silence after the end of stdin, 0 to wait for the peer's end.
        after_peer: longest wait for input after the peer's end, 0 to end with the peer.
        flush: longest wait for acknowledgements at the end.
    """

    udp: bool
    half_close: bool
    idle: float
    last: float
    after_peer: float
    flush: float


class Peer(Protocol):
    """The methods of a connected socket that copying needs."""

    def recv_into(self, memory: memoryview, /) -> int:
        """Receive as socket.recv_into does."""

    def sendall(self, data: memoryview, /) -> None:
        """Send as socket.sendall does."""

    def shutdown(self, how: int, /) -> None:
        """Shut down as socket.shutdown does."""


class StandardInput:
    """stdin: one thread at a time reads it; a listener with -k uses it for all clients."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd
        self.ended = False


class StreamCopy:
    """Copies both directions of one connection."""

    def __init__(
        self, peer: Peer, source: StandardInput, options: CopyOptions, out: int = 1
    ) -> None:
        """
        Args:
            peer: the socket.
            source: data for the peer.
            options: when copying ends.
            out: descriptor for the peer's data.
        """
        self._peer = peer
        self._source = source
        self._out = out
        self._options = options
        self._events: queue.SimpleQueue[tuple[str, Exception | None]] = queue.SimpleQueue()
        self._last = time.monotonic()
        self._reader_gone = False
        # Ends the reader of stdin after the peer's end, without losing a byte of stdin.
        self._stop_reading, self._stop = os.pipe()

    def run(self) -> None:
        """Copy until the end.

        Raises:
            KernelError: the connection broke (reset, unreachable).
            BrokenPipeError: the reader of stdout is gone.
        """
        for fd in (self._source.fd, self._out):
            _widen(fd)
        incoming = self._thread("peer", self._to_stdout)
        outgoing = self._thread("stdin", self._to_peer)
        incoming.start()
        if self._source.ended:
            self._events.put(("stdin", None))
        else:
            outgoing.start()
        problem = None
        try:
            problem = self._wait()
        finally:
            os.close(self._stop)
            if outgoing.ident and not self._source.ended:
                outgoing.join(1)
        if self._reader_gone:
            raise BrokenPipeError
        if problem is not None:
            raise KernelError(_words(problem), problem.errno or 0) from None
        self._flush()

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._run_direction, args=(name, work), daemon=True)

    def _run_direction(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
            self._events.put((name, None))
        except OSError as error:
            self._events.put((name, error))

    def _wait(self) -> OSError | None:
        """Wait for the end; return the error that broke the connection, or None."""
        stdin_over = peer_over = False
        while True:
            limit = self._options.last if stdin_over else self._options.idle
            if peer_over:
                limit = self._options.after_peer
            remaining = self._last + limit - time.monotonic() if limit else None
            if remaining is not None and remaining <= 0:
                return None
            try:
                name, problem = self._events.get(timeout=remaining)
            except queue.Empty:
                continue
            if isinstance(problem, OSError):
                return problem
            # The peer may have ended only its sending direction, and still receive.
            if peer_over or (name == "peer" and (stdin_over or not self._options.after_peer)):
                return None
            peer_over, stdin_over = name == "peer", name == "stdin"
            self._last = time.monotonic()

    def _to_stdout(self) -> None:
        memory = memoryview(bytearray(_DATAGRAM_BYTES if self._options.udp else _STREAM_BYTES))
        while True:
            size = self._peer.recv_into(memory)
            if not size and not self._options.udp:
                return
            self._last = time.monotonic()
            try:
                _write(self._out, memory[:size])
            except BrokenPipeError:
                self._reader_gone = True
                raise
            self._last = time.monotonic()

    def _to_peer(self) -> None:
        memory = memoryview(bytearray(_SENT_AT_ONCE if self._options.udp else _STREAM_BYTES))
        poll = select.poll()
        poll.register(self._source.fd, select.POLLIN)
        poll.register(self._stop_reading, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._stop_reading in ready:
                return
            size = os.readv(self._source.fd, [memory])
            if not size:
                break
            self._last = time.monotonic()
            self._peer.sendall(memory[:size])
            self._last = time.monotonic()
        self._source.ended = True
        if self._options.half_close and not self._options.udp:
            self._peer.shutdown(socket.SHUT_WR)

    def _flush(self) -> None:
        """Wait until the peer has all data: the namespace and its queues end with this process."""
        if isinstance(self._peer, socket.socket) and not self._options.udp:
            flush(self._peer, self._options.flush)


def flush(peer: socket.socket, seconds: float) -> None:
    """Shut down the sending direction, and wait for the acknowledgement of all data.

    `seconds` without progress end the wait; then the following close is a reset.
    """
    try:
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        return  # not connected any more
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
    """Make close(2) reset the connection, unless `flush` saw it end well.

    A closed socket with unsent data keeps its namespace, and the veth, for minutes; and after this
    process nothing that it sends would get out.
    """
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _widen(fd: int) -> None:
    """Enlarge a pipe from 64 KB to 1 MB where allowed: fewer process switches."""
    with contextlib.suppress(OSError):  # no pipe, or above /proc/sys/fs/pipe-max-size
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < _PIPE_BYTES:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _words(problem: OSError) -> str:
    return f"the connection broke: {os.strerror(problem.errno or 0)}"
