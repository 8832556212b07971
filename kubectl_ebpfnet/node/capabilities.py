"""Facts about this node's kernel, and what the node side cannot do on it, found by trying.

Sources: uname(2), clock_gettime(2), proc_pid_status(5) (CapEff), capabilities(7), Linux
include/uapi/linux/capability.h (names), Documentation/admin-guide/sysctl/kernel.rst
(bpf_stats_enabled). Which capability a refusal is for: kernel/bpf/syscall.c (BPF_*_GET_NEXT_ID:
CAP_SYS_ADMIN), kernel/bpf/mprog.c, net/core/net_namespace.c (netns_install), nfnetlink.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.kernel import KernelFacts
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.bpf import programs, syscall
from kubectl_ebpfnet.node.cilium import pins
from kubectl_ebpfnet.node.host import mounts, netns
from kubectl_ebpfnet.node.host.aside import aside
from kubectl_ebpfnet.node.netlink import conntrack

_STATUS = Path("/proc/thread-self/status")
_FIRST = Path("/proc/1")  # the node's first process, given hostPID
_LOOPBACK = 1  # ifindex of `lo` in every namespace

# linux/capability.h, by number
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip


def facts(_request: NodeRequest) -> Iterator[KernelFacts]:
    """Yield one fact about this kernel; `problems` has a sentence for each failed attempt."""
    uname = os.uname()
    folder, maps = _cilium()
    yield KernelFacts(
        release=uname.release,
        machine=uname.machine,
        boot_seconds=time.clock_gettime(time.CLOCK_BOOTTIME),
        monotonic_seconds=time.clock_gettime(time.CLOCK_MONOTONIC),
        bpf_stats=programs.run_statistics(),
        bpffs=_mounted("bpf", folder),
        cgroup2=_mounted("cgroup2"),
        cilium_maps=maps,
        capabilities=_capabilities(),
        problems=tuple(_problems(folder, maps)),
    )


def _cilium() -> tuple[Path | None, tuple[str, ...]]:
    """Return the folder of Cilium's maps, or None, and their names."""
    try:
        folder = pins.root()
        return folder, pins.names(folder)
    except KernelError:
        return None, ()


def _mounted(kind: str, holding: Path | None = None) -> str:
    """Return where a file system is mounted: here, or below the root of process 1. Of several
    mounts, the one that contains a folder; "" for none."""
    paths: list[Path] = []
    with contextlib.suppress(KernelError):  # without /proc mounts are unknown
        paths = [mount.opened for mount in (*mounts.own(kind), *mounts.of_first_process(kind))]
    for path in paths:
        if holding is not None and holding.is_relative_to(path):
            return str(path)
    return str(paths[0]) if paths else ""


def _capabilities() -> tuple[str, ...]:
    """Return the effective capabilities, sorted; an unknown one is `CAP_<number>`."""
    try:
        effective = re.search(r"^CapEff:\s*([0-9a-f]{1,32})$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return ()
    bits = int(effective[1], 16) if effective else 0
    held = (number for number in range(bits.bit_length()) if bits >> number & 1)
    return tuple(sorted(map(_capability, held)))


def _capability(number: int) -> str:
    return f"CAP_{_CAPABILITIES[number] if number < len(_CAPABILITIES) else number}"


def _problems(folder: Path | None, maps: tuple[str, ...]) -> Iterator[str]:
    """Yield a sentence for each attempt that failed."""
    held = _capabilities()
    tried: list[tuple[str, str, Callable[[], object]]] = [
        ("BPF programs cannot be listed", "SYS_ADMIN", _list_programs),
        ("programs at tcx hooks cannot be read", "NET_ADMIN", _query_tcx),
        ("pods' network namespaces cannot be entered", "SYS_ADMIN SYS_PTRACE", _enter),
        ("nf_conntrack cannot be read", "NET_ADMIN", conntrack.count),
        ("the node's own programs cannot be run", "SYS_CHROOT SYS_PTRACE", _chroot),
    ]
    if folder is not None and maps:
        pinned = folder / maps[0]
        what = "Cilium's maps cannot be opened"
        tried.append((what, "BPF", lambda: os.close(syscall.open_pinned(pinned))))
    for what, needed, attempt in tried:
        try:
            attempt()
        except Unsupported as error:
            yield f"{what}: {error.message}"
        except KernelError as error:
            missing = [name for word in needed.split() if (name := f"CAP_{word}") not in held]
            refused = error.errno in (errno.EPERM, errno.EACCES)
            hint = f" ({' and '.join(missing)} would allow it)" if refused and missing else ""
            yield f"{what}: {error.message}{hint}"
    if programs.run_statistics() is None:
        yield f"whether BPF programs' run statistics are on cannot be read: {programs.STATISTICS}"
    if not _mounted("bpf"):
        yield "pinned BPF objects cannot be read: no bpffs is mounted here (the node's /sys/fs/bpf)"
    if not _mounted("cgroup2"):
        yield "programs at cgroup hooks cannot be read: no cgroup v2 hierarchy is mounted here"


def _list_programs() -> None:
    next(syscall.program_ids(), None)


def _query_tcx() -> None:
    with contextlib.suppress(Unsupported):  # before Linux 6.6 there is nothing to read
        syscall.query(_LOOPBACK, syscall.TCX_INGRESS)


def _enter() -> None:
    with netns.inside(_FIRST / "ns/net"):
        pass


def _chroot() -> None:
    """Change to the root of the node's first process, as host/programs.py does, in a thread."""
    try:
        aside(lambda: os.chroot(_FIRST / "root"))
    except OSError as error:
        problem = f"change the root to {_FIRST}/root: {error.strerror}"
        raise KernelError(problem, error.errno or 0) from None
