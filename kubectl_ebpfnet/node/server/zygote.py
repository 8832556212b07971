"""A node pod's first process: waits for sessions, serves each in a fork, ends when left alone.

    kubectl exec ──▶ connect.py ──(its words, stdin, stdout, stderr)──▶ a fork of this

Starting Python and importing pyroute2 takes some 200 ms, which is longer than all the questions
of a node. So they are imported here once, and forks serve the sessions: questions (answer.py)
and netkats (framed_session.py). A session hands its file descriptors over by SCM_RIGHTS (unix(7)).
A client that is gone ends its fork; a pod without a session for `idle` seconds ends itself, so that
a client that was killed leaves nothing running for long.

What is left in the container is killed with this process's end. So it tells its forks of the end,
and waits for those that still have something to put in order: its forks, and the children that they
leave behind (it is their subreaper, prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.protocol.frames import OPTION
from kubectl_ebpfnet.node.netkat import __main__ as netkat
from kubectl_ebpfnet.node.netkat.redirect import clsact
from kubectl_ebpfnet.node.server import answer as answering
from kubectl_ebpfnet.node.server import framed_session, registry

SOCKET = Path("/run/ebpfnet/node.sock")
_STEP_SECONDS = 1.0
_END_SECONDS = 2.0  # kubelets give a pod two seconds, even where it is to have less
_MOST_BYTES = 1 << 20  # of a session's words
_ENDING = (signal.SIGTERM, signal.SIGINT)
_PR_SET_CHILD_SUBREAPER = 36
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

    for number in _ENDING:
        signal.signal(number, leave)
    children: set[int] = set()
    awake, signalled = socket.socketpair()
    signalled.setblocking(False)
    # select goes on after a signal (PEP 475): without this the end would wait for the next step.
    signal.set_wakeup_fd(signalled.fileno())
    with awake, signalled, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        os.umask(0o077)
        listener.bind(str(path))
        listener.listen(16)
        # Only now: a session that comes meanwhile waits, and is not served by a process of its own
        # that nobody here knows of.
        _import_all()
        with contextlib.suppress(KernelError):
            clsact.remove_stale_filters()  # of earlier pods that were killed
        last = time.monotonic()
        while not stop:
            ready, _, _ = select.select([listener, awake], [], [], _STEP_SECONDS)
            if listener in ready:
                children.add(_fork(listener))
            children.difference_update(_ended())
            if children:
                last = time.monotonic()
            elif time.monotonic() - last > idle:
                break
        signal.set_wakeup_fd(-1)
    path.unlink(missing_ok=True)
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    _wait_for_all()
    return 0


def _import_all() -> None:
    for name in registry.ASKS:
        # What cannot be imported is told to whoever asks for it.
        with contextlib.suppress(Exception):
            registry.function(name)


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


def _fork(listener: socket.socket) -> int:
    """Serve the next session in a process of its own. Returns its pid."""
    connection, _ = listener.accept()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until it heeds them as it is to
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        connection.close()
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        listener.close()
        code = _serve(connection)
    finally:
        os._exit(code)  # never back into the parent's loop; threads may still wait


def _serve(connection: socket.socket) -> int:
    """Be what an exec has started: with its words and its streams, until it is gone."""
    message, fds, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
    if len(fds) != 3:
        return 1
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    words = os.fsdecode(message).split("\0") if message else []
    if words[:2] == ["netkat", OPTION]:
        code = framed_session.run(words[2:], netkat.main)
    else:
        code = answering.serve(sys.stdin.buffer, sys.stdout.buffer)
    connection.sendall(bytes([code]))
    return code


def _end_with(connection: socket.socket) -> None:
    """End this process as soon as what the exec has started is gone."""
    connection.recv(1)  # nothing more is sent this way: it returns at the other side's end
    os._exit(1)
