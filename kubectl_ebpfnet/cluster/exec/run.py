"""Run a program in a container by exec: to its end with known stdin, or live with local streams.

The protocol is in protocol.py, the websocket is websocket-client's, pump.py moves the bytes. The
`stream()` of `kubernetes` is not used: it is quadratic in the output, not thread-safe, and drops
impersonation and sometimes the exit code (ecosystem.md 2.5).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.connection import connect
from kubectl_ebpfnet.cluster.exec.protocol import Sink, stdin_messages
from kubectl_ebpfnet.cluster.exec.pump import Limits, LocalStreams, pump
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.errors import ExecError

_DEFAULT = Limits()
LIVE = Limits(max_bytes=None, keepalives=True)
"""Limits for a program that sends keepalives."""


def exec_stream(
    session: Session,
    container: Container,
    argv: Sequence[str],
    *,
    on_stdout: Sink,
    on_stderr: Sink,
    stdin: bytes | None = None,
    reads_to_end: bool = True,
    limits: Limits = _DEFAULT,
) -> int:
    """Run a program in a container until it ends; pass its output on as it arrives.

    Args:
        session: the connection; many execs may run in it at once.
        container: the container to run in.
        argv: the program and its arguments, without a shell. They are part of the URL, and some
            proxies refuse URLs over 8 KB, so pass long scripts in `stdin`.
        on_stdout: called in this thread with pieces of some 32 KB, in order. Its exceptions close
            the connection and are raised here.
        on_stderr: as `on_stdout`.
        stdin: bytes for the program, None for no stdin.
        reads_to_end: the program reads stdin to its end (`cat`, `sh -s` without `exit`). A v4
            server cannot signal this end, so the exec fails at once. Pass False for a program
            that ends by itself (a script for `sh -s` that ends in `exit`, `head -c N`): stdin
            then stays open on v4, and is closed after the last byte on v5.
        limits: time-outs and size.

    Returns:
        The exit code, zero or not.

    Raises:
        ExecError: no exit code: the program does not start (see `no_such_program`), or the
            connection ended early; the message has the number of bytes received.
        ExecTimeout: a limit of time was reached.
        Forbidden, NotFound, Unauthorized, ApiError: the API server refused.
        ApiUnreachable: the API server cannot be reached.
    """
    requested_at = time.monotonic()
    ws, sock = connect(session, container, argv, stdin is not None, limits.connect)
    try:
        messages = []
        if stdin is not None:
            messages = stdin_messages(stdin, ws.subprotocol, reads_to_end)
        return pump(ws, sock, _KnownStdin(messages, on_stdout, on_stderr), limits, requested_at)
    finally:
        session.hang_up(sock)


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
        limits: time-outs and size.

    Returns:
        The exit code.

    Raises:
        ExecError, ExecTimeout, Forbidden, NotFound, Unauthorized, ApiError, ApiUnreachable: as
            exec_stream.
        BaseException: exceptions of `streams`, and KeyboardInterrupt, after `parting` was sent.
    """
    requested_at = time.monotonic()
    ws, sock = connect(session, container, argv, True, limits.connect)
    try:
        return pump(ws, sock, streams, limits, requested_at)
    finally:
        session.hang_up(sock)


class _KnownStdin:
    """The streams (pump.LocalStreams) of a program whose stdin is known."""

    def __init__(self, messages: Sequence[bytes], stdout: Sink, stderr: Sink) -> None:
        self._messages = deque(messages)
        self.stdout, self.stderr = stdout, stderr

    def wait_for(self, sending: bool) -> tuple[Sequence[int], float | None]:
        return (), 0.0 if self._messages and not sending else None

    def message(self, _ready: Sequence[int]) -> bytes:
        return self._messages.popleft() if self._messages else b""

    def has_room(self) -> bool:
        return True

    def parting(self) -> bytes:
        return b""


def no_such_program(error: ExecError) -> bool:
    """Tell whether the container lacks the program, by messages of runc, crun, gVisor, CRI-O."""
    text = error.message
    return any(
        words in text
        for words in (
            "executable file not found",
            "no such file or directory",
            "not found in $PATH",
        )
    )
