"""The local stdin, stdout and stderr of a framed session
(kubectl_ebpfnet/model/protocol/frames.py).

Descriptors of a terminal or a shell's pipe are shared with other processes and must stay blocking.
stdin is read when select(2) reports it readable; each output has a thread that may block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from kubectl_ebpfnet.cluster.exec.protocol import STDIN
from kubectl_ebpfnet.errors import EbpfnetError, ParseError
from kubectl_ebpfnet.model.protocol import frames
from kubectl_ebpfnet.model.protocol.frames import FrameReader, Kind, frame

_STDIN = bytes((STDIN,))
_PIECE = 1 << 16
_BUFFER_BYTES = 1 << 20


class Outlet:
    """A descriptor that a thread of its own writes to, so that other threads never block."""

    def __init__(self, fd: int, wake: Callable[[], object]) -> None:
        """`wake` is called in that thread when there is room again, or when writing failed."""
        self._fd = fd
        self._wake = wake
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._error: OSError | None = None
        self._closed = False
        self._condition = threading.Condition()
        threading.Thread(target=self._write_pieces, name=f"outlet {fd}", daemon=True).start()

    def put(self, data: bytes) -> None:
        """Queue a piece; never block."""
        with self._condition:
            self._pieces.append(data)
            self._buffered += len(data)
            self._condition.notify_all()

    def has_room(self) -> bool:
        """Tell whether the queue has room. Raises OSError when writing failed."""
        if self._error is not None:
            raise self._error
        return self._buffered < _BUFFER_BYTES

    def flush(self) -> None:
        """Wait until all is written. Raises OSError when writing failed."""
        with self._condition:
            while self._buffered and self._error is None:
                self._condition.wait(1)  # an endless wait ignores signals on some systems
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """End the thread after the queued pieces, without waiting."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _write_pieces(self) -> None:
        while True:
            with self._condition:
                while not self._pieces:
                    if self._closed:
                        return
                    self._condition.wait()
                piece = memoryview(b"".join(self._pieces))
                self._pieces.clear()
            size = len(piece)
            try:
                while piece:
                    with contextlib.suppress(BlockingIOError):
                        piece = piece[os.write(self._fd, piece) :]
                        continue
                    # Another process that has this pipe or terminal made it non-blocking.
                    select.select([], [self._fd], [])
            except OSError as error:
                self._error = error
            with self._condition:
                was_full = self._buffered >= _BUFFER_BYTES
                self._buffered -= size
                self._condition.notify_all()
            if was_full or self._error is not None:
                self._wake()
            if self._error is not None:
                return


class LiveStreams:
    """The local streams of a session (pump.LocalStreams). Use it in a `with`."""

    def __init__(
        self, stdin: int | None, stdout: int, stderr: int, pcap: int | None = None
    ) -> None:
        """Use these descriptors, which stay open.

        Args:
            stdin: descriptor of stdin; None ends the program's stdin at once.
            stdout: descriptor of stdout.
            stderr: descriptor of stderr.
            pcap: descriptor for packets, None to drop them.
        """
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._woken = False
        self._stdin = stdin
        self._stdin_ended = False  # END was sent
        self._unacknowledged = 0
        self._sent_at = time.monotonic()
        self._out, self._err = Outlet(stdout, self._wake), Outlet(stderr, self._wake)
        self._pcap = None if pcap is None else Outlet(pcap, self._wake)
        self._outlets = [self._out, self._err, *([self._pcap] if self._pcap else [])]
        self._unframing: FrameReader | None = FrameReader("the node pod's frames")

    def __enter__(self) -> LiveStreams:
        return self

    def __exit__(self, *_: object) -> None:
        for outlet in self._outlets:
            outlet.close()
        waker, self._wake_writer = self._wake_writer, -1
        os.close(waker)
        os.close(self._wake_reader)

    def flush(self) -> None:
        """Wait until all output is written. Raises OSError when writing failed."""
        for outlet in self._outlets:
            outlet.flush()

    def _wake(self) -> None:
        # The pipe may be full of such bytes already, or closed.
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"\0")
        self._woken = True  # after the write, so that has_room finds the byte

    # --- LocalStreams ------------------------------------------------------------------------

    def wait_for(self, sending: bool) -> tuple[list[int], float | None]:
        """Return stdin while the window has room, and the time of the next keepalive."""
        fds = [self._wake_reader]
        if sending:
            return fds, None
        if (
            not self._stdin_ended
            and self._stdin is not None
            and self._unacknowledged < frames.WINDOW_BYTES
        ):
            fds.append(self._stdin)
        return fds, max(0.0, self._sent_at + frames.ALIVE_SECONDS - time.monotonic())

    def message(self, ready: Sequence[int]) -> bytes:
        """Return a message with a frame of stdin, its end, or a keepalive."""
        message = b""
        if not self._stdin_ended and (self._stdin is None or self._stdin in ready):
            room = min(_PIECE, frames.WINDOW_BYTES - self._unacknowledged)
            data = b"" if self._stdin is None else _read(self._stdin, room)
            self._unacknowledged += len(data)
            self._stdin_ended = not data
            message = (
                frame(Kind.DATA, frames.PROGRAM, data) if data else frame(Kind.END, frames.PROGRAM)
            )
        elif time.monotonic() >= self._sent_at + frames.ALIVE_SECONDS:
            message = frame(Kind.ALIVE)
        if not message:
            return b""
        self._sent_at = time.monotonic()
        return _STDIN + message

    def has_room(self) -> bool:
        """Tell whether every outlet has room. Raises OSError when writing failed."""
        if self._woken:
            self._woken = False
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_reader, _PIECE)
        return all(outlet.has_room() for outlet in self._outlets)

    def stdout(self, data: bytes) -> None:
        """Write the program's stdout unchanged."""
        self._out.put(data)

    def stderr(self, data: bytes) -> None:
        """Take frames, or plain text once something else comes."""
        if self._unframing is None:
            self._err.put(data)
            return
        try:
            for each in self._unframing.feed(data):
                self._take(*each)
        except ParseError:
            rest, self._unframing = self._unframing.rest, None
            self._err.put(rest)

    def _take(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == Kind.STDERR:
            self._err.put(payload)
        elif (kind, stream) == (Kind.WINDOW, frames.PROGRAM):
            self._unacknowledged -= frames.window_size(payload)
        elif (kind, stream) == (Kind.DATA, frames.PACKETS) and self._pcap is not None:
            self._pcap.put(payload)
        elif (kind, stream) == (Kind.END, frames.SESSION):
            self._err.put(payload + b"\n")

    def parting(self) -> bytes:
        """Return the message that asks the program to end."""
        return _STDIN + frame(Kind.STOP)


def _read(fd: int, size: int) -> bytes:
    """Read from stdin, b"" at its end. Raises EbpfnetError when reading failed."""
    try:
        return os.read(fd, size)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""  # the terminal is gone
        raise EbpfnetError(f"cannot read stdin: {error.strerror}") from error
