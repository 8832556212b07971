"""A node pod's first process: waits for sessions, serves each in a child, ends when left alone.

    kubectl exec ──▶ doorway.py ──(its stdin, stdout)──▶ a fork of this ──▶ answering.serve
                     kat/door.pl ──(its words)─────────▶ another        ──▶ netkat

Starting Python and importing pyroute2 takes some 200 ms, which is longer than all the questions
of a node. So they are imported here once, and forks serve the sessions. One fork waits ahead of
its session: to fork takes 2 ms too. A session hands its file descriptors over by SCM_RIGHTS
(unix(7)). A client that is gone ends its child; a pod without a session for `idle` seconds ends
itself, so that a client that was killed leaves nothing running for long.

What is left in the container is killed with this process's end. So it waits for those that still
have something to put in order: its children, the children that they leave behind (it is their
subreaper, prctl(2)), and programs of clients that are connected (frames.py).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node import answering, asks

SOCKET = Path("/run/ebpfnet/node.sock")
_STEP_SECONDS = 1.0
_END_SECONDS = 2.0  # kubelets give a pod two seconds, even where it is to have less
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def hold(idle: float, path: Path = SOCKET) -> int:
    """Serve sessions until there was none for `idle` seconds.

    Args:
        idle: seconds.
        path: of the socket that sessions come to; its folder must be there.

    Returns:
        Exit code 0; after SIGTERM too.
    """
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    path.unlink(missing_ok=True)
    stop = False

    def leave(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    children: set[int] = set()
    waiting: _Waiting | None = None
    awake, signalled = socket.socketpair()
    signalled.setblocking(False)
    # select goes on after a signal (PEP 475): without this the end would wait for the next step.
    signal.set_wakeup_fd(signalled.fileno())
    with awake, signalled, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        os.umask(0o077)
        listener.bind(str(path))
        listener.listen(16)
        # Only now: a session that comes meanwhile waits, and is not served by a process of its own
        # that nobody here knows of.
        _import_all()
        _prepare_netkat()
        gc.freeze()  # what is there already is not looked through again in any fork, nor copied
        last = time.monotonic()
        while not stop:
            waiting = waiting or _Waiting(listener)
            ready, _, _ = select.select([waiting.fd, awake.fileno()], [], [], _STEP_SECONDS)
            if waiting.fd in ready:
                if not waiting.has_a_session():
                    time.sleep(_STEP_SECONDS)  # it has died: not again and again at full speed
                if not waiting.ended:
                    children.add(waiting.pid)
                waiting = None
            for pid in _ended():
                children.discard(pid)
                if waiting and pid == waiting.pid:
                    waiting.ended = True
            if children:
                last = time.monotonic()
            elif time.monotonic() - last > idle:
                break
        signal.set_wakeup_fd(-1)
    path.unlink(missing_ok=True)
    if waiting and not waiting.ended:
        os.kill(waiting.pid, signal.SIGKILL)  # it may be too young to heed another signal
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    _wait_for_all()
    return 0


def _import_all() -> None:
    for name in asks.ASKS:
        # What cannot be imported is told to whoever asks for it.
        with contextlib.suppress(Exception):
            asks.function(name)
    for name in ("netkat", "kat.door", "kat.laying", "kat.running", "kat.talk", "kat.pcap"):
        with contextlib.suppress(Exception):
            importlib.import_module(f"kubectl_ebpfnet.node.{name}")


def _prepare_netkat() -> None:
    # Without it a connection waits a little longer. Forks keep it, and it is gone with the last.
    with contextlib.suppress(Exception):
        from kubectl_ebpfnet.node.kat import attach, clsact

        try:
            attach.hold_keys()
        except KernelError:
            clsact.sweep()  # of earlier pods that were killed; there is nothing to sweep with tcx


def _rehearse() -> None:
    # What it cannot do here is told to whoever asks for it.
    with contextlib.suppress(Exception):
        from kubectl_ebpfnet.node.kat import door

        door.rehearse()


def _ended() -> Iterator[int]:
    """Children that have ended, also those that were another's before."""
    with contextlib.suppress(ChildProcessError):  # there is none at all
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            yield pid


def _wait_for_all() -> None:
    """Wait until there is no child any more, for _END_SECONDS at most."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # kept for sigtimedwait
    end = time.monotonic() + _END_SECONDS
    while (left := end - time.monotonic()) > 0:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, left)


class _Waiting:
    """A fork that waits for a session and then serves it.

    Attributes:
        pid: its process.
        fd: can be read when it has a session, or has died.
        ended: it has been waited for (waitpid(2)).
    """

    def __init__(self, listener: socket.socket) -> None:
        self.ended = False
        ours = os.getpid()
        self.fd, taken = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(taken)
            return
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            _rehearse()
            connection = _next_session(listener, ours)
            os.write(taken, b"+")
            os.close(taken)
            os.close(self.fd)
            code = _serve(connection)
        finally:
            os._exit(code)  # never back into the parent's loop

    def has_a_session(self) -> bool:
        """Once `fd` can be read: False when it died before one came."""
        found = bool(os.read(self.fd, 1))
        os.close(self.fd)
        return found


def _next_session(listener: socket.socket, parent: int) -> socket.socket:
    """Wait for it; end with the parent meanwhile."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    connection, _ = listener.accept()
    _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
    # One that says nothing holds the pod, and is to end with it (frames.py): tell it, and wait.
    signal.signal(signal.SIGTERM, lambda *_: connection.shutdown(socket.SHUT_WR))
    listener.close()
    return connection


def _serve(connection: socket.socket) -> int:
    fds = array.array("i")
    message, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_LEN(2 * fds.itemsize))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # all else ends at once
    if message == b"k":
        from kubectl_ebpfnet.node.kat import door

        return door.serve(connection)
    if not message or len(fds) != 2:
        return 1
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    with os.fdopen(fds[0], "rb") as requests, os.fdopen(fds[1], "wb") as answers:
        code = answering.serve(requests, answers)
    connection.sendall(bytes([code]))
    return code


def _end_with(connection: socket.socket) -> None:
    """End this child as soon as its session's process is gone."""
    connection.recv(1)  # nothing is ever sent this way: it returns at the other side's end
    os._exit(1)
