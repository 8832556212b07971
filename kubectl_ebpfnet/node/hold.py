"""A node pod's first process: waits for sessions, serves each in a child, ends when left alone.

    kubectl exec ──▶ doorway.py ──(its stdin, stdout)──▶ this ──fork──▶ answering.serve

Starting Python and importing pyroute2 takes some 200 ms, which is longer than all the questions
of a node. So they are imported here once; a session hands its file descriptors over by SCM_RIGHTS
(unix(7)) and is served by a fork. A client that is gone ends its child; a pod without a session
for `idle` seconds ends itself, so that a client that was killed leaves nothing running for long.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import os
import select
import signal
import socket
import threading
import time
from pathlib import Path

from kubectl_ebpfnet.node import answering, asks

SOCKET = Path("/run/ebpfnet/node.sock")
_STEP_SECONDS = 1.0


def hold(idle: float, path: Path = SOCKET) -> int:
    """Serve sessions until there was none for `idle` seconds.

    Args:
        idle: seconds.
        path: of the socket that sessions come to; its folder must be there.

    Returns:
        Exit code 0; after SIGTERM too.
    """
    path.unlink(missing_ok=True)
    stop = False

    def leave(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    children: set[int] = set()
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
        last = time.monotonic()
        while not stop:
            ready, _, _ = select.select([listener, awake], [], [], _STEP_SECONDS)
            if listener in ready:
                children.add(_session(listener))
            children -= {pid for pid in children if _ended(pid)}
            if children:
                last = time.monotonic()
            elif time.monotonic() - last > idle:
                break
        signal.set_wakeup_fd(-1)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    path.unlink(missing_ok=True)
    return 0


def _import_all() -> None:
    for name in asks.ASKS:
        # What cannot be imported is told to whoever asks for it.
        with contextlib.suppress(Exception):
            asks.function(name)
    for name in ("netkat", "kat.door", "kat.laying", "kat.running", "kat.talk", "kat.pcap"):
        with contextlib.suppress(Exception):
            importlib.import_module(f"kubectl_ebpfnet.node.{name}")


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _session(listener: socket.socket) -> int:
    """Fork a child for the session that has come; its pid."""
    connection, _ = listener.accept()
    pid = os.fork()
    if pid:
        connection.close()
        return pid
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        listener.close()
        code = _serve(connection)
    finally:
        os._exit(code)  # never back into the parent's loop


def _serve(connection: socket.socket) -> int:
    fds = array.array("i")
    message, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_LEN(3 * fds.itemsize))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if message == b"k" and len(fds) == 3:
        from kubectl_ebpfnet.node.kat import door

        return door.serve(connection, tuple(fds))
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
