"""Run the client as another system would see it: `python as_seen_on.py win32|darwin WORDS…`.

A fake, on Linux: what that system's Python lacks is taken away before the client is imported
("Availability" of os, signal, select, socket, time and of modules in docs.python.org), and
sys.platform says its name. The standard library and typer are imported before, since they have code
for each system. What the system does otherwise (its own files, consoles, sockets) is not shown.
"""

from __future__ import annotations

# Of the standard library: what the client and its libraries import, and choose by system.
import asyncio  # noqa: F401
import concurrent.futures.thread  # noqa: F401
import ctypes.util  # noqa: F401
import getpass  # noqa: F401
import http.client  # noqa: F401
import importlib.metadata
import importlib.resources  # noqa: F401
import logging  # noqa: F401
import multiprocessing.pool  # noqa: F401
import os
import pathlib  # noqa: F401
import platform  # noqa: F401
import select
import selectors  # noqa: F401
import shutil  # noqa: F401
import signal
import socket
import ssl
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
import time
import urllib.request  # noqa: F401
import uuid  # noqa: F401
import zipfile  # noqa: F401

import typer.main  # noqa: F401

UNIX_MODULES = "curses fcntl grp posix pty pwd readline resource syslog termios tty"
UNIX_OS = """
O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC WNOHANG chown chroot confstr ctermid
fchdir fchmod fchown fork forkpty fpathconf getegid geteuid getgid getgroups getloadavg getpgid
getpgrp getpriority getsid getuid killpg lchown lockf mkfifo mknod nice openpty pathconf posix_spawn
posix_spawnp pread preadv pwrite pwritev register_at_fork sendfile set_blocking setegid seteuid
setgid setgroups setpgid setpriority setregid setsid setuid statvfs sync sysconf tcgetpgrp tcsetpgrp
ttyname uname wait wait3 wait4
"""
LINUX_OS = """
copy_file_range eventfd eventfd_read eventfd_write memfd_create pipe2 posix_fadvise posix_fallocate
getresgid getresuid getrandom getxattr listxattr pidfd_open removexattr sched_getaffinity
sched_setaffinity setns setresgid setresuid setxattr splice unshare
"""
WINDOWS_SIGNALS = "SIGABRT SIGFPE SIGILL SIGINT SIGSEGV SIGTERM SIG_DFL SIG_IGN"
LINUX_SIGNALS = "SIGCLD SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT"
UNIX_SIGNAL_FUNCTIONS = """
alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait
sigwait sigwaitinfo
"""
LINUX_SOCKET = "AF_NETLINK AF_PACKET SO_MARK SO_BINDTODEVICE SOCK_CLOEXEC SOCK_NONBLOCK"
UNIX_SOCKET = "AF_UNIX CMSG_LEN socketpair sethostname"


def take_away(system: str) -> None:
    """Take away what the system lacks. Raises ValueError for a system that this does not know."""
    if system not in ("darwin", "win32"):
        raise ValueError(f"as seen on {system}?")
    _lack(os, LINUX_OS)
    _lack(socket, LINUX_SOCKET)
    _lack(select, "epoll")
    _lack(signal, LINUX_SIGNALS)
    if system == "win32":
        _as_windows()
    sys.platform = system


def _as_windows() -> None:
    known = WINDOWS_SIGNALS.split()
    signals = [name for name in dir(signal) if name.startswith("SIG") and name.isupper()]
    _lack(signal, " ".join(name for name in signals if name not in known))
    _lack(signal, UNIX_SIGNAL_FUNCTIONS)
    _lack(os, UNIX_OS)
    _lack(select, "poll")
    _lack(socket, UNIX_SOCKET)
    _lack(time, "tzset clock_gettime")
    for name in UNIX_MODULES.split():
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails
    ssl.enum_certificates = lambda _: []  # Windows' store; here an empty one
    # A pipe is text of the console's code page, with two characters to a line's end.
    sys.stdout.reconfigure(encoding="cp1252", newline="\r\n")
    sys.stderr.reconfigure(encoding="cp1252", newline="\r\n")


def _lack(module: object, names: str) -> None:
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)


if __name__ == "__main__":
    take_away(sys.argv[1])
    sys.argv[:] = sys.argv[2:]
    from kubectl_ebpfnet.cli.app import complete, start

    if sys.argv[0] == "kubectl_complete-ebpfnet":
        complete()
    start()
