"""The writing half of bpf(2): load a program, create a map, attach a tcx link.

Sources: Linux include/uapi/linux/bpf.h (union bpf_attr, enum bpf_prog_type), kernel/bpf/tcx.c,
kernel/bpf/mprog.c (BPF_F_BEFORE without a relative means "before all others"). Nothing is pinned:
an object lives as long as a descriptor of it is open.
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
        A descriptor, close-on-exec.

    Raises:
        KernelError: the kernel refuses; the hint has the end of the verifier's log.
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
        log_lines = log.value.decode("utf-8", "replace").strip().splitlines()
        raise KernelError(
            first.message, first.errno, hint="; ".join(log_lines[-4:]) or first.hint
        ) from None


def create_array(entries: int, name: str) -> int:
    """Create an array map of 32-bit numbers, all 0, which programs and user space can write.

    Returns:
        Its file descriptor, close-on-exec.

    Raises:
        KernelError, Unsupported: the kernel refuses.
    """
    return _create(syscall.ARRAY, entries, name)


def create_program_array(program: int, name: str) -> int:
    """Create an array map whose one entry is a program, for tail calls.

    The kernel empties it when its last descriptor is closed, even if programs use the map: only a
    descriptor is a user's reference (kernel/bpf/syscall.c, bpf_map_put_uref).

    Args:
        program: a descriptor of the program.
        name: of the map.

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
    """Create a map of 32-bit values by 32-bit keys, return its descriptor. Raises KernelError."""
    _allow_memory()
    # map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name
    attr = struct.pack("=IIIIIII", kind, 4, 4, entries, 0, 0, 0) + name.encode()[:15]
    return syscall.syscall(syscall.MAP_CREATE, attr, f"create BPF map {name}")


def _allow_memory() -> None:
    """Lift the limit of locked memory, which counts BPF objects before Linux 5.11."""
    with contextlib.suppress(OSError, ValueError):
        unlimited = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (unlimited, unlimited))


def link_tcx_first(program: int, ifindex: int, attach_type: int) -> int:
    """Attach a program by a tcx link, before all programs at the hook.

    Args:
        program: a descriptor of a sched_cls program.
        ifindex: of a device in the calling thread's network namespace.
        attach_type: syscall.TCX_INGRESS or syscall.TCX_EGRESS.

    Returns:
        The link's descriptor: closing its last copy detaches the program.

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
