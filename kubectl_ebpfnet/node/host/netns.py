"""Network namespaces of this node: find a pod's, and run code inside of one.

Sources: setns(2), proc(5), network_namespaces(7). A pod's processes are found by their cgroup: its
path has the pod's uid (`pod<uid>`, with `_` for `-` under systemd) or the container's id.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_ebpfnet.errors import KernelError

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.protocol.questions import PodNamespace

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
PROC = Path("/proc")


def enter(path: str | Path) -> None:
    """Move the calling thread into a network namespace. Raises KernelError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(
            f"open {path}: {error.strerror}", error.errno or 0,
            hint="CAP_SYS_PTRACE lets the node side look into other processes",
        ) from None  # fmt: skip
    try:
        if _libc.setns(fd, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise KernelError(
                f"enter the namespace {path}: {os.strerror(code)}", code,
                hint="CAP_SYS_ADMIN allows it",
            )  # fmt: skip
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
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(path)
        try:
            yield
        finally:
            if _libc.setns(home, _CLONE_NEWNET):
                os._exit(70)  # facts of the wrong namespace are worse than none
    finally:
        os.close(home)


def empty() -> int:
    """Create a network namespace without a name, with only lo.

    Returns:
        A descriptor; the namespace ends with its last descriptor and process.

    Raises:
        KernelError: no rights (EPERM).
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            code = ctypes.get_errno()
            raise KernelError(
                f"make a network namespace: {os.strerror(code)}", code,
                hint="CAP_SYS_ADMIN allows it",
            )  # fmt: skip
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            if _libc.setns(home, _CLONE_NEWNET):
                os._exit(70)  # there is no way back into the host
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
