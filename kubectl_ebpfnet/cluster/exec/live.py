"""Run an exec with live streams, for a terminal or a pipe.

run.py runs a program whose stdin is known. Here stdin arrives at any time and the local reader may
stop reading for minutes; neither may stop the other stream or the keepalives. So only one
select(2) blocks; reading and writing the local streams is the caller's (`LocalStreams`).

stdin is read only when the last message was sent, so no data piles up.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Protocol

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.connection import Outgoing, binary_frame, connect
from kubectl_ebpfnet.cluster.exec.protocol import STDIN, Channels
from kubectl_ebpfnet.cluster.exec.run import Limits
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.errors import ExecError, ExecTimeout

_CLOSE_GRACE_SECONDS = 1.0  # after the status only the close is expected
_PARTING_SECONDS = 1.0
_FRAMES_AT_ONCE = 64  # then stdin has its turn

LIVE = Limits(idle=60.0, total=None, max_bytes=None)
"""Limits for a program that sends keepalives."""


class LocalStreams(Protocol):
    """The local streams of an exec. An exception of a method ends the exec."""

    def wait_for(self, sending: bool) -> tuple[list[int], float | None]:
        """Return descriptors to wait for, and seconds after which `stdin` is called in any case
        (None for no such time). `sending`: the last message is not sent yet, so `stdin` will not
        be called now."""
        ...

    def stdin(self, ready: Sequence[int]) -> bytes:
        """Return the next message, b"" for none. `ready` are readable descriptors of `wait_for`."""
        ...

    def has_room(self) -> bool:
        """Tell whether output can be taken; until then nothing is read from the server."""
        ...

    def stdout(self, data: bytes) -> None:
        """Take a piece of stdout."""
        ...

    def stderr(self, data: bytes) -> None:
        """Take a piece of stderr."""
        ...

    def parting(self) -> bytes:
        """Return the message to send, without waiting, when the exec is aborted."""
        ...


def exec_live(
    session: Session,
    container: Container,
    argv: Sequence[str],
    streams: LocalStreams,
    limits: Limits = LIVE,
) -> int:
    """Run a program in a container, connected to local streams, until it ends.

    Args:
        session: the connection to the cluster.
        container: the container to run in.
        argv: the program and its arguments.
        streams: source of stdin, and sinks of the output.
        limits: time-outs and size; `idle` counts only while output can be taken.

    Returns:
        The exit code.

    Raises:
        ExecError, ExecTimeout, Forbidden, NotFound, Unauthorized, ApiError, ApiUnreachable: as
            run.exec_stream.
        BaseException: exceptions of `streams`, and KeyboardInterrupt, after `parting` was sent.
    """
    ws, sock = connect(session, container, argv, True, limits.connect)
    channels = Channels(streams.stdout, streams.stderr, limits.max_bytes)
    live = _LiveExec(ws, sock, channels, limits, streams)
    try:
        live.run()
    except BaseException:
        live.send_parting()
        raise
    finally:
        session.hang_up(sock)
    return channels.exit_code()


class _LiveExec:
    """Move bytes between a websocket and the local streams."""

    def __init__(
        self,
        ws: Any,
        sock: socket.socket,
        channels: Channels,
        limits: Limits,
        streams: LocalStreams,
    ) -> None:
        self._ws, self._sock = ws, sock
        self._channels, self._limits, self._streams = channels, limits, streams
        self._outgoing = Outgoing(sock)
        self._send_closed = False  # the server takes no more bytes
        self._may_be_buffered = True  # TLS may hold bytes that select does not see
        self._started_at = self._last_byte_at = time.monotonic()
        self._status_at: float | None = None
        ws.settimeout(0)
        sock.settimeout(0)

    def run(self) -> None:
        """Run until the connection ends, or until a grace time after the status.

        Raises:
            ExecTimeout: a limit was reached first.
            ExecError: the connection broke first.
        """
        while self._step():
            pass

    def _step(self) -> bool:
        """Wait for an event and handle it; return whether the exec continues."""
        has_room = self._streams.has_room()
        if not has_room:
            self._last_byte_at = time.monotonic()  # nothing is read: no silence counts
        fds, seconds = self._streams.wait_for(bool(self._outgoing) or self._send_closed)
        reads: list[Any] = [*fds]
        if has_room:
            reads.append(self._sock)
        writes = [self._sock] if self._outgoing else []
        ready, writable, _ = select.select(
            reads, writes, [], self._select_timeout(has_room, seconds)
        )
        if writable:
            self._send()
        if not self._outgoing and not self._send_closed:
            message = self._streams.stdin([fd for fd in ready if fd is not self._sock])
            if message:
                self._outgoing.add(binary_frame(bytes((STDIN,)) + message))
                self._send()
        if has_room and (self._may_be_buffered or self._sock in ready):
            return self._receive()
        if (
            self._status_at is not None
            and time.monotonic() > self._status_at + _CLOSE_GRACE_SECONDS
        ):
            return False
        self._check_limits()
        return True

    def _select_timeout(self, has_room: bool, seconds: float | None) -> float | None:
        if has_room and self._may_be_buffered:
            return 0
        until = [] if seconds is None else [time.monotonic() + seconds]
        if has_room and self._status_at is not None:
            until.append(self._status_at + _CLOSE_GRACE_SECONDS)
        if has_room and self._limits.idle is not None:
            until.append(self._last_byte_at + self._limits.idle)
        if self._limits.total is not None:
            until.append(self._started_at + self._limits.total)
        return max(0.0, min(until) - time.monotonic()) if until else None

    def _check_limits(self) -> None:
        now, idle, total = time.monotonic(), self._limits.idle, self._limits.total
        if self._status_at is not None:
            return
        if total is not None and now >= self._started_at + total:
            raise ExecTimeout(f"the exec did not end within {total:g} s; {self._channels.so_far}")
        if idle is not None and now >= self._last_byte_at + idle:
            raise ExecTimeout(
                f"no keepalive for {idle:g} s; {self._channels.so_far}",
                hint="was the connection to the cluster lost, or the node?",
            )

    # --- the websocket ----------------------------------------------------------------------------

    def _receive(self) -> bool:
        """Read the frames that arrived; return False at the end of the connection."""
        for _ in range(_FRAMES_AT_ONCE):
            frame = self._next_frame()
            if frame is None or frame is False:
                return frame is None
            if frame.opcode == frame.OPCODE_CLOSE:
                return False
            if frame.opcode == frame.OPCODE_PING:
                self._outgoing.answer(frame)
            elif frame.opcode != frame.OPCODE_PONG:
                self._take(frame)
            if not self._streams.has_room():
                break
        self._may_be_buffered = True
        return True

    def _take(self, frame: Any) -> None:
        starts = frame.opcode != frame.OPCODE_CONT
        if self._channels.add_frame(frame.data, starts, bool(frame.fin)):
            self._last_byte_at = time.monotonic()
        if self._channels.ended and self._status_at is None:
            self._status_at = time.monotonic()

    def _next_frame(self) -> Any:
        """Return a frame, None when it is incomplete, False at the end of the connection."""
        import websocket

        try:
            return self._ws.recv_frame()  # it buffers an incomplete frame
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._may_be_buffered = False
            return None
        except websocket.WebSocketConnectionClosedException:
            return False
        except (OSError, ValueError, websocket.WebSocketException) as e:
            if self._channels.ended:
                return False
            text = " ".join(str(e).split())
            raise ExecError(f"the connection broke ({text}); {self._channels.so_far}") from e

    def _send(self) -> None:
        """Send as much as the socket takes."""
        try:
            self._outgoing.send()
        except OSError:
            # Servers may close their end before they read all stdin; their output is still unread.
            self._send_closed = True

    def send_parting(self) -> None:
        """Send the parting message if possible, so that the program ends at once."""
        message = self._streams.parting()
        if not message or self._send_closed:
            return
        self._outgoing.add(binary_frame(bytes((STDIN,)) + message))
        until = time.monotonic() + _PARTING_SECONDS
        with contextlib.suppress(OSError, ValueError):
            while self._outgoing and (left := until - time.monotonic()) > 0:
                select.select([], [self._sock], [], left)
                self._send()
