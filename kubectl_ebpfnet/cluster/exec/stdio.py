"""This side's stdin, stdout and stderr of a framed session
(kubectl_ebpfnet/model/protocol/frames.py).

Descriptors that belong to a terminal or a shell's pipe are shared with others and must not be made
non-blocking. stdin is read when select(2) says so; each output has a thread that may block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from kubectl_ebpfnet.errors import EbpfnetError, ParseError
from kubectl_ebpfnet.model.protocol import frames
from kubectl_ebpfnet.model.protocol.frames import Unframing, frame

_PIECE = 1 << 16
_WAITING_BYTES = 1 << 20


class Outlet:
    """A descriptor that a thread writes to, so that nobody else has to wait for it."""

    def __init__(self, fd: int, wake: Callable[[], object]) -> None:
        """`wake` is called in that thread when there is room again, or never will be."""
        self._fd = fd
        self._wake = wake
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._error: OSError | None = None
        self._closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name=f"outlet {fd}", daemon=True).start()

    def put(self, data: bytes) -> None:
        """Take a piece; never blocks."""
        with self._changed:
            self._pieces.append(data)
            self._bytes += len(data)
            self._changed.notify_all()

    def has_room(self) -> bool:
        """Whether a piece should be put now. Raises OSError when writing failed."""
        if self._error is not None:
            raise self._error
        return self._bytes < _WAITING_BYTES

    def flush(self) -> None:
        """Wait until all is written. Raises OSError when it cannot be."""
        with self._changed:
            while self._bytes and self._error is None:
                self._changed.wait(1)  # a wait without end hears no signal on some systems
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Nothing more is put; what is not written yet is not waited for."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._pieces:
                    if self._closed:
                        return
                    self._changed.wait()
                piece = memoryview(b"".join(self._pieces))
                self._pieces.clear()
            size = len(piece)
            try:
                while piece:
                    piece = piece[os.write(self._fd, piece) :]
            except OSError as error:
                self._error = error
            with self._changed:
                was_full = self._bytes >= _WAITING_BYTES
                self._bytes -= size
                self._changed.notify_all()
            if was_full or self._error is not None:
                self._wake()
            if self._error is not None:
                return


class LiveStreams:
    """The ends of one session (exec_live.Ends). Use it in a `with`."""

    def __init__(
        self, stdin: int | None, stdout: int, stderr: int, pcap: int | None = None
    ) -> None:
        """Descriptors; they stay open. Without stdin the program's has ended from the start."""
        self._awake, self._waker = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._waker, False)
        self._woken = False
        self._stdin = stdin
        self._ended = False  # END was said
        self._on_the_way = 0
        self._said = time.monotonic()
        self._out, self._err = Outlet(stdout, self._wake), Outlet(stderr, self._wake)
        self._pcap = None if pcap is None else Outlet(pcap, self._wake)
        self._all = [self._out, self._err, *([self._pcap] if self._pcap else [])]
        self._incoming: Unframing | None = Unframing("the node pod's frames")
        self._opening = b""  # what came before the greeting was whole

    def __enter__(self) -> LiveStreams:
        return self

    def __exit__(self, *_: object) -> None:
        for outlet in self._all:
            outlet.close()
        waker, self._waker = self._waker, -1
        os.close(waker)
        os.close(self._awake)

    def flush(self) -> None:
        """Wait until what came is written. Raises OSError when it cannot be."""
        for outlet in self._all:
            outlet.flush()

    def _wake(self) -> None:
        # It may be full of such bytes already, or nobody waits any more.
        with contextlib.suppress(OSError):
            os.write(self._waker, b"\0")
        self._woken = True  # after the write: so that whoever sees it finds the byte

    # --- what exec_live asks for --------------------------------------------------------------

    def waits(self, sending: bool) -> tuple[list[int], float | None]:
        """stdin while more of it may be on the way; the next sign of life."""
        fds = [self._awake]
        if sending:
            return fds, None
        if not self._ended and self._stdin is not None and self._on_the_way < frames.WINDOW:
            fds.append(self._stdin)
        return fds, max(0.0, self._said + frames.ALIVE_SECONDS - time.monotonic())

    def stdin(self, ready: Sequence[int]) -> bytes:
        """A frame of stdin, its end, or a sign of life."""
        message = b""
        if not self._ended and (self._stdin is None or self._stdin in ready):
            data = b"" if self._stdin is None else _read(self._stdin, self._allowed())
            self._on_the_way += len(data)
            self._ended = not data
            message = frame(frames.DATA, data) if data else frame(frames.END)
        elif time.monotonic() >= self._said + frames.ALIVE_SECONDS:
            message = frame(frames.ALIVE)
        if message:
            self._said = time.monotonic()
        return message

    def _allowed(self) -> int:
        return min(_PIECE, frames.WINDOW - self._on_the_way)

    def has_room(self) -> bool:
        """Whether every outlet has. Raises OSError when one is broken."""
        if self._woken:
            self._woken = False
            with contextlib.suppress(BlockingIOError):
                os.read(self._awake, _PIECE)
        return all(outlet.has_room() for outlet in self._all)

    def stdout(self, data: bytes) -> None:
        """The program's, as it is."""
        self._out.put(data)

    def stderr(self, data: bytes) -> None:
        """Frames; or words, when the program did not even start."""
        if self._incoming is None:
            self._err.put(data)
            return
        if self._opening != frames.GREETING:
            self._opening += data
            size = len(frames.GREETING)
            if not self._opening.startswith(frames.GREETING[: len(self._opening)]):
                self._incoming = None
                self._err.put(self._opening)
                return
            self._opening, data = self._opening[:size], self._opening[size:]
        try:
            for kind, payload in self._incoming.feed(data):
                self._frame(kind, payload)
        except ParseError:
            rest, self._incoming = self._incoming.rest, None
            self._err.put(rest)

    def _frame(self, kind: bytes, payload: bytes) -> None:
        if kind == frames.TEXT:
            self._err.put(payload)
        elif kind == frames.TAKEN:
            self._on_the_way -= int.from_bytes(payload, "big")
        elif kind == frames.PCAP and self._pcap is not None:
            self._pcap.put(payload)

    def parting(self) -> bytes:
        """Ask the program to end."""
        return frame(frames.STOP)


def _read(fd: int, size: int) -> bytes:
    """What is there of stdin, b"" at its end. Raises EbpfnetError when it cannot be read."""
    try:
        return os.read(fd, size)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""  # a terminal that is gone
        raise EbpfnetError(f"cannot read stdin: {error.strerror}") from error
