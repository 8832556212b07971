"""Network namespaces of this node: find a pod's, and run code inside of one.

Sources: setns(2), proc(5), network_namespaces(7). A pod's processes are found by their cgroup: its
path has the pod's uid (`pod<uid>`, with `_` for `-` under systemd) or the container's id.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_ebpfnet.errors import KernelError

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.protocol.questions import PodNamespace

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
PROC = Path("/proc")
_OWN = "/proc/thread-self/ns/net"


def enter(path: str | Path) -> None:
    """Move the calling thread into a network namespace. Raises KernelError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM)
        hint = "CAP_SYS_PTRACE lets the node side look into other processes" if denied else ""
        raise KernelError(f"open {path}: {error.strerror}", error.errno or 0, hint=hint) from None
    try:
        if _libc.setns(fd, _CLONE_NEWNET):
            code = ctypes.get_errno()
            problem = f"enter the namespace {path}: {os.strerror(code)}"
            raise KernelError(problem, code, hint="CAP_SYS_ADMIN allows it")
    finally:
        os.close(fd)


@contextlib.contextmanager
def inside(path: str | Path | None) -> Iterator[None]:
    """Run the block in a network namespace; None is the current one.

    Raises:
        KernelError: the namespace cannot be entered.
    """
    if path is None:
        yield
        return
    with _away(lambda: enter(path)):
        yield


def empty() -> int:
    """Create a network namespace without a name, with only lo.

    Returns:
        A descriptor; the namespace ends with its last descriptor and process.

    Raises:
        KernelError: no rights (EPERM).
    """
    with _away(_unshare):
        return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def _unshare() -> None:
    if _libc.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        problem = f"make a network namespace: {os.strerror(code)}"
        raise KernelError(problem, code, hint="CAP_SYS_ADMIN allows it")


@contextlib.contextmanager
def _away(leave: Callable[[], None]) -> Iterator[None]:
    """Run the block in the namespace to which `leave` moves this thread."""
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        leave()
        try:
            yield
        finally:
            if _libc.setns(home, _CLONE_NEWNET):
                os._exit(70)  # facts of the wrong namespace are worse than none
    finally:
        os.close(home)


def of_pod(pod: PodNamespace) -> str:
    """Return /proc/PID/ns/net of a process of the pod.

    Raises:
        KernelError: no process of the pod is found (it has ended, or hostPID is missing).
    """
    words = [word for word in (*pod.containers, pod.uid, pod.uid.replace("-", "_")) if word]
    if not all(re.fullmatch(r"[0-9A-Za-z_.-]{8,}", word) for word in words) or not words:
        raise KernelError("a pod is named by its uid and its containers' ids")
    for process in os.listdir(PROC):
        if not process.isdigit():
            continue
        try:
            text = (PROC / process / "cgroup").read_text()
        except OSError:
            continue  # the process has ended meanwhile
        if any(word in text for word in words):
            return f"{PROC}/{process}/ns/net"
    raise KernelError(
        f"no process of pod {pod.uid} is here",
        hint="the pod has ended, or the node side runs without hostPID",
    )
