"""Write sysctls of the calling thread's network namespace, under /proc/sys/net.

Container runtimes mount /proc/sys read-only in unprivileged containers. It is a bind mount (runc's
`readonlyPaths`), so a thread with CAP_SYS_ADMIN can remount it writable in a mount namespace of its
own, write, and end: no other process sees it (mount(2), MS_REMOUNT with MS_BIND;
mount_namespaces(7)).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from pathlib import Path

from kubectl_ebpfnet.node.host.aside import OWN_MOUNTS, aside

ROOT = "/proc/sys"
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


def write(settings: Mapping[str, str]) -> dict[str, OSError]:
    """Write sysctls.

    Args:
        settings: e.g. {"net/ipv4/conf/all/rp_filter": "0"}.

    Returns:
        The sysctls that could not be written, with the error.
    """
    failed = _written(settings)
    if any(error.errno == errno.EROFS for error in failed.values()):
        return _aside({name: settings[name] for name in failed})
    return failed


def _written(settings: Mapping[str, str]) -> dict[str, OSError]:
    failed = {}
    for name, value in settings.items():
        try:
            Path(ROOT, name).write_text(value)
        except OSError as error:
            failed[name] = error
    return failed


def _aside(settings: Mapping[str, str]) -> dict[str, OSError]:
    """Write sysctls in a thread where /proc/sys is writable."""

    def write() -> dict[str, OSError]:
        _remount()
        return _written(settings)

    try:
        return aside(write, OWN_MOUNTS)
    except OSError as error:
        return dict.fromkeys(settings, error)


def _remount() -> None:
    """Remount /proc/sys writable in the calling thread's mount namespace. Raises OSError."""
    calls = ((b"/", _MS_REC | _MS_PRIVATE), (ROOT.encode(), _MS_REMOUNT | _MS_BIND))
    for target, flags in calls:
        if _libc.mount(None, target, None, flags, None):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fsdecode(target))
