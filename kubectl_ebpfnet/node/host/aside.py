"""Run work in a separate thread, with its own root directory and mounts.

A process with threads must not fork: locks of other threads stay locked in the child (Python warns
of it since 3.12). After unshare(2) with CLONE_FS, which CLONE_NEWNS implies, a thread has its own
root and working directory. It keeps the network namespace of the calling thread. All of it ends
with the thread.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
OWN_ROOT = 0x00000200  # CLONE_FS
OWN_MOUNTS = 0x00020000  # CLONE_NEWNS
_libc = ctypes.CDLL(None, use_errno=True)


def aside(work: Callable[[], T], own: int = OWN_ROOT) -> T:
    """Run the work in a thread; return its result and raise its exceptions.

    Args:
        work: to run.
        own: OWN_ROOT or OWN_MOUNTS.

    Raises:
        OSError: unshare(2) fails: EPERM for mounts without CAP_SYS_ADMIN.
    """
    found: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.unshare(own):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            found.append(work())
        except BaseException as error:  # raised by the caller
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return found[0]
