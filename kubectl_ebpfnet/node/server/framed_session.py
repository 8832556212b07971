"""A program whose client is on a laptop, behind an exec: its streams, and its end with the client.

    client ── exec: stdin, frames ──▶ this ── pipe ──▶ the program, a fork ──▶ stdout
           ◀── exec: stderr, frames ─ this ◀── pipes ── its stderr, its --pcap

The frames are kubectl_ebpfnet/model/protocol/frames.py's. The program ends when its client does,
however that is: stdin ends without an END, says STOP, or is silent for half a minute (some
container runtimes do not close the stdin of an exec whose connection is lost); and with the pod,
whose first process (zygote.py) says so by SIGTERM and waits for us. If this process is killed, the
kernel kills the program (PR_SET_PDEATHSIG, prctl(2)).
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
from collections import deque
from collections.abc import Callable

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.protocol import frames
from kubectl_ebpfnet.model.protocol.frames import Unframing, frame

Program = Callable[[list[str]], int]
_PR_SET_PDEATHSIG = 1
_PIECE = 1 << 16
_QUEUE_BYTES = 1 << 18
"""Of stderr and pcap that wait for the client; then the program waits too."""
_TAKEN_BYTES = frames.WINDOW // 16
_GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL
_PARTING_SECONDS = 1.0  # for the last words, to a client that is gone


def run(words: list[str], program: Program, silence: float = frames.SILENCE_SECONDS) -> int:
    """Run a program with framed streams until it ends.

    Args:
        words: its arguments.
        program: runs in a fork; its result is the exit code.
        silence: seconds without a byte from the client, after which the client is gone.

    Returns:
        The program's exit code, 128 and the signal's number when one ended it.
    """
    awake, signalled = socket.socketpair()
    signalled.setblocking(False)
    signal.set_wakeup_fd(signalled.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pipes = [os.pipe() for _ in range(3)]
    (stdin, to_stdin), (text, stderr), (pcap, to_pcap) = pipes
    ours = (to_stdin, text, pcap)
    pid = _fork(words, program, (stdin, stderr, to_pcap), ours)
    # Only now: in the program it ends the program.
    signal.signal(signal.SIGTERM, lambda *_: None)
    for fd in (stdin, stderr, to_pcap):
        os.close(fd)
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # stdout is the program's alone
    for fd in (2, to_stdin):
        os.set_blocking(fd, False)
    return _Session(pid, ours, awake, silence).run()


def _fork(
    words: list[str], program: Program, theirs: tuple[int, int, int], ours: tuple[int, ...]
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
        for fd in ours:
            os.close(fd)
        for fd, number in zip(theirs, (0, 2, frames.PCAP_FD), strict=True):
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
    """What goes on between a client and a program."""

    def __init__(
        self, pid: int, ours: tuple[int, int, int], awake: socket.socket, silence: float
    ) -> None:
        self._pid = pid
        self._to_stdin, text, pcap = ours
        self._sources = {text: frames.TEXT, pcap: frames.PCAP}
        self._awake = awake
        self._silence = silence
        self._incoming = Unframing("the client's frames")
        self._input: deque[bytes] = deque()
        self._end_of_input = False
        self._taken = 0
        self._out: deque[bytes] = deque([frames.GREETING])
        self._out_bytes = len(frames.GREETING)
        self._heard = self._said = time.monotonic()
        self._lost = 0.0  # since when the client is gone
        self._killed = False

    def run(self) -> int:
        """Until the program has ended and the client has what it said."""
        while (status := self._ended()) is None:
            self._turn()
        for fd in list(self._sources):
            os.set_blocking(fd, False)
            while fd in self._sources and self._from_program(fd):
                pass
        until = time.monotonic() + (_PARTING_SECONDS if self._lost else self._silence)
        while self._out and (left := until - time.monotonic()) > 0:
            select.select([], [2], [], left)
            self._to_client()
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _ended(self) -> int | None:
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return status if pid else None

    def _turn(self) -> None:
        reads: list[int | socket.socket] = [self._awake]
        if not self._lost:
            reads.append(0)
        if self._out_bytes < _QUEUE_BYTES:
            reads += self._sources
        writes = [2] if self._out else []
        if self._input:
            writes.append(self._to_stdin)
        ready, writable, _ = select.select(reads, writes, [], self._wait())
        if self._awake in ready:
            signals = self._awake.recv(_PIECE)
            if signal.SIGTERM in signals and not self._lost:
                self._tell(frame(frames.TEXT, b"netkat: the node pod is taken away\n"))
                self._lose()
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
        """Return seconds until something is due."""
        if self._lost:
            return _GRACE_SECONDS / 4
        due = min(self._heard + self._silence, self._said + frames.ALIVE_SECONDS)
        return max(0.0, due - time.monotonic())

    def _watch(self) -> None:
        """End the program of a client that is gone; tell one that is there that we are."""
        now = time.monotonic()
        if self._lost:
            if now > self._lost + _GRACE_SECONDS and not self._killed:
                self._killed = True
                os.kill(self._pid, signal.SIGKILL)
        elif now >= self._heard + self._silence:
            self._lose()
        elif now >= self._said + frames.ALIVE_SECONDS:
            self._said = now
            if not self._out:
                self._tell(frame(frames.ALIVE))

    def _lose(self) -> None:
        if not self._lost:
            self._lost = time.monotonic()
            os.kill(self._pid, signal.SIGTERM)

    # --- bytes ------------------------------------------------------------------------------------

    def _from_client(self) -> None:
        try:
            data = os.read(0, _PIECE)
            if not data:
                self._lose()
                return
            self._heard = time.monotonic()
            for kind, payload in self._incoming.feed(data):
                if kind == frames.DATA and not self._end_of_input:
                    self._input.append(payload)
                elif kind == frames.END:
                    self._end_of_input = True
                elif kind == frames.STOP:
                    self._lose()
        except (OSError, ParseError):
            self._lose()
        self._to_program()

    def _to_program(self) -> None:
        """What its pipe takes now."""
        while self._input:
            piece = self._input.popleft()
            try:
                done = os.write(self._to_stdin, piece)
            except BlockingIOError:
                done = 0
            except OSError:
                done = len(piece)  # it reads no more; the rest is of no use to anybody
            self._taken += done
            if done < len(piece):
                self._input.appendleft(piece[done:])
                break
        if self._taken and (self._taken >= _TAKEN_BYTES or not self._input):
            self._tell(frames.taken(self._taken))
            self._taken = 0
        if self._end_of_input and not self._input and self._to_stdin >= 0:
            os.close(self._to_stdin)
            self._to_stdin = -1

    def _from_program(self, fd: int) -> bool:
        """Take a piece; whether there may be more."""
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return False
        if data:
            self._tell(frame(self._sources[fd], data))
        else:
            del self._sources[fd]
            os.close(fd)
        return bool(data)

    def _tell(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)

    def _to_client(self) -> None:
        """What stderr takes now."""
        while self._out:
            piece = self._out.popleft()
            try:
                done = os.write(2, piece)
            except BlockingIOError:
                done = 0
            except OSError:
                self._lose_words()
                return
            self._said = time.monotonic()
            self._out_bytes -= done
            if done < len(piece):
                self._out.appendleft(piece[done:])
                return

    def _lose_words(self) -> None:
        self._out.clear()
        self._out_bytes = 0
        with contextlib.suppress(ProcessLookupError):
            self._lose()
