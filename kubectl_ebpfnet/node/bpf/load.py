"""The writing half of bpf(2): load a program, make a map, hold a tcx link.

Sources: Linux include/uapi/linux/bpf.h (union bpf_attr, enum bpf_prog_type), kernel/bpf/tcx.c,
kernel/bpf/mprog.c (BPF_F_BEFORE without a relative stands for "before all others"). Nothing here
is pinned: what is made lives as long as a descriptor of it is open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import struct

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.node.bpf import syscall

_SCHED_CLS = 3
_F_BEFORE = 1 << 3
_LICENSE = b"Apache-2.0\0"
_LOG_BYTES = 1 << 16


def load_classifier(instructions: bytes, name: str) -> int:
    """Load a program of type sched_cls (tc, tcx).

    Args:
        instructions: struct bpf_insn, 8 bytes each, in this machine's byte order.
        name: up to 15 characters of [0-9A-Za-z_.].

    Returns:
        Its file descriptor, close-on-exec.

    Raises:
        KernelError: the kernel refuses it; the verifier's last words are in the hint.
        Unsupported: there is no bpf(2).
    """
    _allow_memory()
    code, license_ = syscall.buffer(instructions), syscall.buffer(_LICENSE)

    def attr(level: int, log: int) -> bytes:
        head = struct.pack(
            "=IIQQIIQII", _SCHED_CLS, len(instructions) // 8, syscall.pointer(code),
            syscall.pointer(license_), level, _LOG_BYTES if level else 0, log, 0, 0,
        )  # fmt: skip
        return head + name.encode()[:15].ljust(16, b"\0")

    what = f"load BPF program {name}"
    try:
        return syscall.syscall(syscall.PROG_LOAD, attr(0, 0), what)
    except Unsupported:
        raise
    except KernelError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        first = error
    log = syscall.buffer(_LOG_BYTES)
    try:
        return syscall.syscall(syscall.PROG_LOAD, attr(1, syscall.pointer(log)), what)
    except KernelError:
        said = log.value.decode("utf-8", "replace").strip().splitlines()
        raise KernelError(
            first.message, first.errno, hint="; ".join(said[-4:]) or first.hint
        ) from None


def create_array(entries: int, name: str) -> int:
    """An array map of 32-bit numbers, all 0, that programs and we can write.

    Returns:
        Its file descriptor, close-on-exec.

    Raises:
        KernelError, Unsupported: the kernel refuses.
    """
    return _create(syscall.ARRAY, entries, name)


def create_program_array(program: int, name: str) -> int:
    """An array map whose one entry is a program, for tail calls.

    The kernel empties it when the last descriptor of it is closed, whoever else uses the map: that
    is a user's reference, and programs have none (kernel/bpf/syscall.c, bpf_map_put_uref).

    Args:
        program: a descriptor of it.

    Returns:
        Its file descriptor, close-on-exec.

    Raises:
        KernelError, Unsupported: the kernel refuses.
    """
    array = _create(syscall.PROG_ARRAY, 1, name)
    key, value = syscall.buffer(struct.pack("=I", 0)), syscall.buffer(struct.pack("=I", program))
    # map_fd, padding, key, value, flags
    attr = struct.pack("=IIQQQ", array, 0, syscall.pointer(key), syscall.pointer(value), 0)
    try:
        syscall.syscall(syscall.MAP_UPDATE_ELEM, attr, f"put a program into BPF map {name}")
    except KernelError:
        os.close(array)
        raise
    return array


def _create(kind: int, entries: int, name: str) -> int:
    """A map of 32-bit values by 32-bit keys. Returns its descriptor. Raises KernelError."""
    _allow_memory()
    # map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name
    attr = struct.pack("=IIIIIII", kind, 4, 4, entries, 0, 0, 0) + name.encode()[:15]
    return syscall.syscall(syscall.MAP_CREATE, attr, f"create BPF map {name}")


def _allow_memory() -> None:
    """Before Linux 5.11 BPF objects count as locked memory, of which there is little."""
    with contextlib.suppress(OSError, ValueError):
        most = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))


def link_tcx_first(program: int, ifindex: int, attach_type: int) -> int:
    """Attach a program by a tcx link, before all that are at the hook now.

    Args:
        program: a descriptor of a sched_cls program.
        ifindex: of a device in the calling thread's network namespace.
        attach_type: bpf.TCX_INGRESS or bpf.TCX_EGRESS.

    Returns:
        The link's descriptor: the program is detached when the last copy of it is closed.

    Raises:
        Unsupported: this kernel has no tcx (before 6.6).
        KernelError: anything else.
    """
    # prog_fd, target_ifindex, attach_type, flags, relative_fd_or_id, padding, expected_revision
    attr = struct.pack("=IIIIIIQ", program, ifindex, attach_type, _F_BEFORE, 0, 0, 0)
    try:
        return syscall.syscall(syscall.LINK_CREATE, attr, f"attach a tcx link to device {ifindex}")
    except Unsupported:
        raise
    except KernelError as error:
        if error.errno == errno.EINVAL:
            raise Unsupported("this kernel has no tcx links (Linux 6.6)", error.errno) from None
        raise
