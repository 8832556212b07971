"""Work in a thread of its own, with a root directory and mounts of its own.

A fork would do the same, but a process with threads must not fork: locks that another thread holds
are held for ever in the child (Python warns of it since 3.12). Root and working directory are a
thread's own after unshare(2) with CLONE_FS; CLONE_NEWNS implies it. The network namespace is that
of the thread which asks. All of it is gone with the thread.
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
    """Do the work; gives what it returns and raises what it raises.

    Raises:
        OSError: nothing of its own can be had: EPERM for mounts without CAP_SYS_ADMIN.
    """
    found: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.unshare(own):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            found.append(work())
        except BaseException as error:  # raised where the work is waited for
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return found[0]
