"""Settings of the network namespace that the calling thread is in, under /proc/sys/net.

Container runtimes mount /proc/sys read-only for whoever is not privileged. It is a bind mount of
its own (runc's `readonlyPaths`), so a process with CAP_SYS_ADMIN can make it writable again in a
mount namespace of its own: a forked child does, writes, and ends, and nobody else sees any of it
(mount(2), MS_REMOUNT with MS_BIND; mount_namespaces(7)).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from pathlib import Path

ROOT = "/proc/sys"
_CLONE_NEWNS = 0x00020000
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


def write(settings: Mapping[str, str]) -> dict[str, OSError]:
    """Write some of them.

    Args:
        settings: e.g. {"net/ipv4/conf/all/rp_filter": "0"}.

    Returns:
        Those that could not be written, and why.
    """
    failed = _written(settings)
    if any(error.errno == errno.EROFS for error in failed.values()):
        return _in_a_child({name: settings[name] for name in failed})
    return failed


def _written(settings: Mapping[str, str]) -> dict[str, OSError]:
    failed = {}
    for name, value in settings.items():
        try:
            Path(ROOT, name).write_text(value)
        except OSError as error:
            failed[name] = error
    return failed


def _in_a_child(settings: Mapping[str, str]) -> dict[str, OSError]:
    """The same with /proc/sys writable; the child tells by its exit code."""
    child = os.fork()
    if not child:
        code = errno.EROFS
        try:
            code = _remounted() or max(
                (e.errno or 1 for e in _written(settings).values()), default=0
            )
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if not code:
        return {}
    return {name: OSError(abs(code), os.strerror(abs(code)), name) for name in settings}


def _remounted() -> int:
    """Make /proc/sys writable for this process alone. Returns an errno, 0 when it is."""
    if _libc.unshare(_CLONE_NEWNS):
        return ctypes.get_errno()
    calls = ((b"/", _MS_REC | _MS_PRIVATE), (ROOT.encode(), _MS_REMOUNT | _MS_BIND))
    for target, flags in calls:
        if _libc.mount(None, target, None, flags, None):
            return ctypes.get_errno()
    return 0
