"""Loaded BPF programs of the machine, and the pins that keep links and maps.

Sources: include/uapi/linux/bpf.h (struct bpf_prog_info, struct bpf_func_info, enum
bpf_prog_type), Documentation/admin-guide/sysctl/kernel.rst (bpf_stats_enabled); Cilium
pkg/bpf/bpffs_linux.go, pkg/datapath/loader/paths.go, pkg/socketlb/cgroup.go (paths of pins).
Programs belong to the whole machine, in every namespace.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.bpf import BpfPin, Program
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.bpf.btf import FunctionNames
from kubectl_ebpfnet.node.host import mounts

# enum bpf_prog_type, by bpftool's words.
_TYPES = (
    "unspec", "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp",
    "perf_event", "cgroup_skb", "cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "sock_ops",
    "sk_skb", "cgroup_device", "sk_msg", "raw_tracepoint", "cgroup_sock_addr", "lwt_seg6local",
    "lirc_mode2", "sk_reuseport", "flow_dissector", "cgroup_sysctl", "raw_tracepoint_writable",
    "cgroup_sockopt", "tracing", "struct_ops", "ext", "lsm", "sk_lookup", "syscall", "netfilter",
)  # fmt: skip
_INFO_BYTES = 232
_SHORT_NAME = 15  # BPF_OBJ_NAME_LEN without its NUL
_FUNC_INFO_BYTES = 8
STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
_OWNERS = {"devices": "device", "endpoints": "endpoint"}


def programs(request: NodeRequest) -> Iterable[Program]:
    """Return every loaded program by rising id, or those whose ids follow the question's name.

    Programs that go away meanwhile are left out.

    Raises:
        KernelError: EPERM without CAP_SYS_ADMIN, or a word is no id.
    """
    words = request.argv[2:]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise KernelError("programs are named by their ids")
    ids = [int(word) for word in words] if words else syscall.program_ids()
    reader = ProgramReader()
    return [found for id in ids if (found := reader.program(id)) is not None]


class ProgramReader:
    """Reads programs by id; each at most once."""

    def __init__(self) -> None:
        self._names = FunctionNames()
        self._known: dict[int, Program | None] = {}
        self._booted_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(
            time.CLOCK_BOOTTIME
        )
        self._statistics = run_statistics()

    def program(self, id: int) -> Program | None:
        """Return a loaded program, None when it is gone. Raises KernelError (EPERM)."""
        if id not in self._known:
            try:
                with syscall.closing(syscall.open_program(id)) as fd:
                    self._known[id] = self._read_program(fd)
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
                self._known[id] = None
        return self._known[id]

    def _read_program(self, fd: int, maps: int = 64) -> Program:
        """Read struct bpf_prog_info, with room for `maps` ids of maps or for more."""
        map_ids, functions = syscall.buffer(4 * maps), syscall.buffer(_FUNC_INFO_BYTES)
        head = bytearray(_INFO_BYTES)
        struct.pack_into("=IQ", head, 52, maps, syscall.pointer(map_ids))
        struct.pack_into("=IQI", head, 132, _FUNC_INFO_BYTES, syscall.pointer(functions), 1)
        info = syscall.info(fd, _INFO_BYTES, bytes(head))
        (count,) = struct.unpack_from("=I", info, 52)
        if count > maps:
            return self._read_program(fd, count)
        kind, id, tag = struct.unpack_from("=II8s", info)
        (loaded_ns,) = struct.unpack_from("=Q", info, 40)
        name = info[64:80].rstrip(b"\0").decode("latin-1")
        (btf_id,) = struct.unpack_from("=I", info, 128)
        _, function = struct.unpack_from("=II", functions)  # the BTF type of the first one
        if len(name) == _SHORT_NAME and btf_id and function:
            name = self._names.name(btf_id, function) or name
        run_time_ns, run_count = struct.unpack_from("=QQ", info, 192)
        has_statistics = self._statistics or run_count > 0
        return Program(
            id=id,
            name=name,
            type=_TYPES[kind] if kind < len(_TYPES) else str(kind),
            tag=tag.hex(),
            loaded_at=(self._booted_ns + loaded_ns) // 1_000_000_000,
            map_ids=struct.unpack_from(f"={count}I", map_ids),
            run_count=run_count if has_statistics else None,
            run_time_ns=run_time_ns if has_statistics else None,
        )


def run_statistics() -> bool | None:
    """Tell whether the kernel counts the runs of programs; None where that cannot be read."""
    try:
        return STATISTICS.read_text().strip() != "0"
    except OSError:
        return None


def pins(_: NodeRequest) -> Iterable[BpfPin]:
    """Return the links and maps that Cilium pinned on the bpffs of this mount namespace.

    In the order of `ls -R`. Other pins are left out: their path does not tell their kind.

    Raises:
        KernelError: no bpffs is mounted here.
    """
    mounted = mounts.reachable("bpf")
    if not mounted:
        raise KernelError("no bpffs is mounted here", hint="mount the node's /sys/fs/bpf")
    found = (
        _pin(path.removeprefix(mount.below)) for mount in mounted for path in files(mount.opened)
    )
    return [pin for pin in found if pin is not None]


def files(folder: Path | str) -> Iterator[str]:
    """Yield the paths of all files below a folder, in the order of `ls -R` in the C locale.

    Files that go away meanwhile, and unreadable folders, are left out.
    """
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: os.fsencode(entry.name))
    except OSError:
        return
    folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    yield from (entry.path for entry in entries if not entry.is_dir(follow_symlinks=False))
    for path in folders:
        yield from files(path)


def _pin(path: str) -> BpfPin | None:
    """Return the pin of a path, as parse/bpf/bpffs.py does for `ls -R`; None for other paths."""
    path = os.fsencode(path).decode("utf-8", "replace")
    parts = path.split("/")
    if parts[-3:-1] == ["tc", "globals"]:
        return BpfPin(path, "map", "", "", parts[-1])
    if len(parts) < 6 or parts[-5] != "cilium":
        return None
    _, owner, name, folder, program = parts[-5:]
    if owner in _OWNERS and folder == "links":
        return BpfPin(path, "link", _OWNERS[owner], name, program)
    if (owner, name) == ("socketlb", "links"):
        return BpfPin(path, "link", "cgroup", folder, program)
    return None
