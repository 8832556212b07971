"""Run a program for a client behind an exec: its streams, and its end with the client.

    client ── exec: stdin, frames ──▶ this ── pipe ──▶ the program, a fork ──▶ stdout
           ◀── exec: stderr, frames ─ this ◀── pipes ── its stderr, its --pcap

model/protocol/frames.py has the frames. The program ends with its client: stdin ends without an
END, has a STOP, or has no byte for half a minute (some container runtimes do not close the stdin of
an exec whose connection is lost). It also ends with the pod, whose first process (zygote.py) sends
SIGTERM and waits. If this process is killed, the kernel kills the program (PR_SET_PDEATHSIG,
prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.protocol import frames
from kubectl_ebpfnet.model.protocol.frames import FrameReader, Kind, frame

Program = Callable[[list[str]], int]
_PR_SET_PDEATHSIG = 1
_PIECE = 1 << 16
_QUEUE_BYTES = 1 << 18
"""Most bytes of stderr and pcap in the queue to the client; beyond, the program waits."""
_CONSUMED_BYTES = frames.WINDOW_BYTES // 16
_GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL
_PARTING_SECONDS = 1.0  # to write the rest, to a client that is gone


def run(words: list[str], program: Program, silence: float = frames.SILENCE_SECONDS) -> int:
    """Run a program with framed streams until it ends.

    Args:
        words: arguments of the program.
        program: runs in a fork; it returns the exit code.
        silence: seconds without a byte from the client after which the client counts as gone.

    Returns:
        The program's exit code, or 128 plus the number of the signal that ended it.
    """
    awake, signalled = socket.socketpair()
    signalled.setblocking(False)
    signal.set_wakeup_fd(signalled.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pipes = [os.pipe() for _ in range(3)]
    (stdin, to_stdin), (stderr_end, stderr), (pcap, to_pcap) = pipes
    our_ends = (to_stdin, stderr_end, pcap)
    pid = _fork(words, program, (stdin, stderr, to_pcap), our_ends)
    # After the fork: the program keeps the default, which ends it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    for fd in (stdin, stderr, to_pcap):
        os.close(fd)
    with contextlib.suppress(OSError), open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)  # stdout is the program's alone
    for fd in (2, to_stdin):
        os.set_blocking(fd, False)
    return _Session(pid, our_ends, awake, silence).run()


def _fork(
    words: list[str],
    program: Program,
    program_ends: tuple[int, int, int],
    our_ends: tuple[int, ...],
) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if os.getppid() != parent:
            os._exit(code)
        for fd in our_ends:
            os.close(fd)
        for fd, number in zip(program_ends, (0, 2, frames.PCAP_FD), strict=True):
            os.dup2(fd, number, inheritable=number < frames.PCAP_FD)
        code = program(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # never back into the parent's work; its threads may still wait


class _Session:
    """The streams between a client and a program."""

    def __init__(
        self, pid: int, our_ends: tuple[int, int, int], awake: socket.socket, silence: float
    ) -> None:
        self._pid = pid
        self._to_stdin, stderr_end, pcap = our_ends
        self._sources = {
            stderr_end: (Kind.STDERR, frames.PROGRAM),
            pcap: (Kind.DATA, frames.PACKETS),
        }
        self._awake = awake
        self._silence = silence
        self._incoming = FrameReader("the client's frames")
        self._input = bytearray()
        self._end_of_input = False
        self._consumed = 0
        self._out = bytearray(frame(Kind.ALIVE))  # tells the client that this runs
        self._last_read = self._last_write = time.monotonic()
        self._lost_since = 0.0  # since when the client is gone
        self._killed = False

    def run(self) -> int:
        """Serve until the program has ended and the client has its output."""
        while (status := self._ended()) is None:
            self._step()
        for fd in list(self._sources):
            os.set_blocking(fd, False)
            while fd in self._sources and self._from_program(fd):
                pass
        until = time.monotonic() + (_PARTING_SECONDS if self._lost_since else self._silence)
        while self._out and (remaining := until - time.monotonic()) > 0:
            select.select([], [2], [], remaining)
            self._to_client()
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _ended(self) -> int | None:
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return status if pid else None

    def _step(self) -> None:
        readers: list[int | socket.socket] = [self._awake]
        if not self._lost_since:
            readers.append(0)
        if len(self._out) < _QUEUE_BYTES:
            readers += self._sources
        writers = [2] if self._out else []
        if self._input:
            writers.append(self._to_stdin)
        ready, writable, _ = select.select(readers, writers, [], self._wait())
        if self._awake in ready:
            signals = self._awake.recv(_PIECE)
            if signal.SIGTERM in signals:
                self._lose_client("the node pod is taken away")
        if 0 in ready:
            self._from_client()
        for fd in list(self._sources):
            if fd in ready:
                self._from_program(fd)
        if self._to_stdin in writable:
            self._to_program()
        self._watch()
        if 2 in writable:
            self._to_client()

    def _wait(self) -> float:
        """Return the seconds until the next event."""
        if self._lost_since:
            return _GRACE_SECONDS / 4
        next_event = min(self._last_read + self._silence, self._last_write + frames.ALIVE_SECONDS)
        return max(0.0, next_event - time.monotonic())

    def _watch(self) -> None:
        """End the program of a client that is gone; send a heartbeat to a client that is there."""
        now = time.monotonic()
        if self._lost_since:
            if now > self._lost_since + _GRACE_SECONDS and not self._killed:
                self._killed = True
                os.kill(self._pid, signal.SIGKILL)
        elif now >= self._last_read + self._silence:
            self._lose_client(f"nothing came from the client for {self._silence:g} s")
        elif now >= self._last_write + frames.ALIVE_SECONDS:
            self._last_write = now
            if not self._out:
                self._out += frame(Kind.ALIVE)

    def _lose_client(self, reason: str = "") -> None:
        """Ask the program to end; tell the client the reason if it may still be there."""
        if not self._lost_since:
            self._lost_since = time.monotonic()
            if reason:
                self._out += frame(Kind.END, frames.SESSION, f"the session ends: {reason}".encode())
            os.kill(self._pid, signal.SIGTERM)

    # --- bytes ------------------------------------------------------------------------------------

    def _from_client(self) -> None:
        try:
            data = os.read(0, _PIECE)
            if not data:
                self._lose_client()
            else:
                self._last_read = time.monotonic()
            for kind, stream, payload in self._incoming.feed(data):
                if (kind, stream) == (Kind.DATA, frames.PROGRAM) and not self._end_of_input:
                    self._input += payload
                elif (kind, stream) == (Kind.END, frames.PROGRAM):
                    self._end_of_input = True
                elif kind == Kind.STOP:
                    self._lose_client()
        except OSError:
            self._lose_client()
        except ParseError as error:
            self._lose_client(str(error))
        self._to_program()

    def _to_program(self) -> None:
        """Write input as far as the program's pipe takes it."""
        size = len(self._input)
        try:
            _write(self._to_stdin, self._input)
        except OSError:
            self._input.clear()  # the program reads no more input
        self._consumed += size - len(self._input)
        if self._consumed and (self._consumed >= _CONSUMED_BYTES or not self._input):
            self._out += frames.window_frame(frames.PROGRAM, self._consumed)
            self._consumed = 0
        if self._end_of_input and not self._input and self._to_stdin >= 0:
            os.close(self._to_stdin)
            self._to_stdin = -1

    def _from_program(self, fd: int) -> bool:
        """Read a piece of output; tell whether there may be more."""
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return False
        if data:
            self._out += frame(*self._sources[fd], data)
        else:
            del self._sources[fd]
            os.close(fd)
        return bool(data)

    def _to_client(self) -> None:
        """Write frames as far as stderr takes them."""
        try:
            _write(2, self._out)
            self._last_write = time.monotonic()
        except OSError:
            self._out.clear()
            with contextlib.suppress(ProcessLookupError):
                self._lose_client()


def _write(fd: int, data: bytearray) -> None:
    """Write as much as a non-blocking descriptor takes, and remove it. Raises OSError."""
    with contextlib.suppress(BlockingIOError):
        while data:
            del data[: os.write(fd, data[:_PIECE])]
