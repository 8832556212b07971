"""A node side that waits for sessions, serves each in a fork, and ends after idle time. The pod's
first process (first.py) starts it.

    kubectl exec ──▶ connect.py ──(arguments, stdin, stdout, stderr)──▶ a fork of this

To start Python and import pyroute2 takes some 200 ms, longer than all the questions of a node. So
this process imports once, and forks serve the sessions: questions (answer.py) and netkats
(framed_session.py). It starts no thread and opens no netlink socket, which a fork would share. A
session hands its file descriptors over by SCM_RIGHTS (unix(7)). A client that is gone ends its
fork; a pod without a session for `idle` seconds ends, so that a killed client leaves nothing
running for long.

The end of this process kills every process of the container. So it sends SIGTERM to its forks, and
waits for them to clean up, and for the children that they leave behind (it is their subreaper,
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
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import EbpfnetError, KernelError
from kubectl_ebpfnet.model.protocol import node_side
from kubectl_ebpfnet.model.protocol.frames import OPTION
from kubectl_ebpfnet.node.netkat import __main__ as netkat
from kubectl_ebpfnet.node.netkat.redirect import clsact
from kubectl_ebpfnet.node.server import answer, framed_session, registry
from kubectl_ebpfnet.node.trace import session

_STEP_SECONDS = 1.0
_END_SECONDS = 2.0  # kubelets wait two seconds for a pod, even with a shorter grace period
_MOST_BYTES = 1 << 20  # of a session's arguments
_PROGRAMS = {"netkat": netkat.main, "trace": session.main}
"""What runs with framed streams, by the first word of the exec."""
_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def serve_sessions(idle: float, path: Path) -> int:
    """Serve sessions until there was none for a while.

    Args:
        idle: seconds without a session after which to end.
        path: of the socket for sessions; its folder must exist.

    Returns:
        Exit code 0; after SIGTERM too.
    """
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    path.unlink(missing_ok=True)
    stop = False

    def leave(*_: object) -> None:
        nonlocal stop
        stop = True

    for number in _END_SIGNALS:
        signal.signal(number, leave)
    children: set[int] = set()
    awake, signalled = socket.socketpair()
    signalled.setblocking(False)
    # select resumes after a signal (PEP 475): without this the end would wait for the next step.
    signal.set_wakeup_fd(signalled.fileno())
    with awake, signalled, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        os.umask(0o077)
        listener.bind(str(path))
        listener.listen(16)
        # After listen: a session that comes meanwhile waits, instead of starting a process of its
        # own that this one does not know.
        _import_all()
        os.waitpid(_fork_off(_remove_stale_filters), 0)
        last = time.monotonic()
        while not stop:
            ready, _, _ = select.select([listener, awake], [], [], _STEP_SECONDS)
            if listener in ready:
                children.add(_accept(listener))
            children.difference_update(_ended())
            if children:
                last = time.monotonic()
            elif time.monotonic() - last > idle:
                break
        signal.set_wakeup_fd(-1)
    path.unlink(missing_ok=True)
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    _wait_for_children()
    return 0


def _import_all() -> None:
    for name in registry.FUNCTIONS:
        # A question whose module fails to import answers with the error.
        with contextlib.suppress(Exception):
            registry.function(name)
    with contextlib.suppress(EbpfnetError):
        node_side.own_digest()


def _remove_stale_filters() -> int:
    """Remove filters of earlier pods that were killed: in a fork, since the first process opens no
    netlink socket."""
    with contextlib.suppress(KernelError):
        clsact.remove_stale_filters()
    return 0


def _ended() -> Iterator[int]:
    """Yield children that have ended, also orphans of forks."""
    with contextlib.suppress(ChildProcessError):  # there is none at all
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            yield pid


def _wait_for_children() -> None:
    """Wait until there is no child any more, for _END_SECONDS at most."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # kept for sigtimedwait
    deadline = time.monotonic() + _END_SECONDS
    while (remaining := deadline - time.monotonic()) > 0:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, remaining)


def _accept(listener: socket.socket) -> int:
    """Serve the next session in a process of its own. Returns its pid."""
    connection, _ = listener.accept()

    def serve() -> int:
        listener.close()
        return _serve(connection)

    with connection:
        return _fork_off(serve)


def _fork_off(work: Callable[[], int]) -> int:
    """Work in a process of its own, which exits with the result. Returns its pid."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)  # until the fork has its own handlers
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _END_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
        code = work()
    finally:
        os._exit(code)  # never back into the parent's loop; threads may still wait


def _serve(connection: socket.socket) -> int:
    """Serve one exec, with its arguments and streams."""
    message, fds, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
    if len(fds) != 3:
        return 1
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    threading.Thread(target=_exit_with, args=(connection,), daemon=True).start()
    words = os.fsdecode(message).split("\0") if message else []
    if words[1:2] == [OPTION] and words[0] in _PROGRAMS:
        code = framed_session.run(words[2:], _PROGRAMS[words[0]])
    else:
        code = answer.serve(sys.stdin.buffer, sys.stdout.buffer)
    connection.sendall(bytes([code]))
    return code


def _exit_with(connection: socket.socket) -> None:
    """End this process as soon as the exec's process is gone."""
    connection.recv(1)  # the other side sends nothing: this returns at its end
    os._exit(1)
