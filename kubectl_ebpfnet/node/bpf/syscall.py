"""bpf(2) by ctypes: objects by id or path, attached programs; maps are in maps.py.

Sources: Linux include/uapi/linux/bpf.h (union bpf_attr, struct bpf_prog_info, bpf_map_info,
bpf_link_info), bpf(2). The numbers are of that header. libbpf is not used: its binding would be
larger than the handful of commands.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError, Unsupported

# enum bpf_cmd
MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_GET_NEXT_KEY = 0, 1, 2, 4
PROG_LOAD, OBJ_PIN, OBJ_GET = 5, 6, 7
PROG_GET_NEXT_ID, PROG_GET_FD_BY_ID = 11, 13
OBJ_GET_INFO_BY_FD, PROG_QUERY = 15, 16
MAP_LOOKUP_BATCH = 24
LINK_CREATE, LINK_GET_FD_BY_ID, LINK_GET_NEXT_ID = 28, 30, 31

# enum bpf_map_type, the types in use here
HASH, ARRAY, PROG_ARRAY, PERCPU_HASH, PERCPU_ARRAY = 1, 2, 3, 5, 6
LRU_HASH, LRU_PERCPU_HASH = 9, 10
PERCPU = frozenset({PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH})

_SYSCALL = {"x86_64": 321, "aarch64": 280, "ppc64le": 361, "s390x": 351, "riscv64": 280}
_MACHINE = platform.machine()
ATTR_BYTES = 128
"""Of union bpf_attr: room for what a kernel of today writes."""
_libc = ctypes.CDLL(None, use_errno=True)


def syscall(command: int, attr: bytes | ctypes.Array[ctypes.c_char], what: str) -> int:
    """Call bpf(2).

    Args:
        command: of enum bpf_cmd.
        attr: the head of union bpf_attr; a buffer if the kernel writes into it.
        what: the attempt, for the error, e.g. "open map /sys/fs/bpf/x".

    Returns:
        A file descriptor, or 0.

    Raises:
        Unsupported: EINVAL of a command or attach type that this kernel does not know, ENOSYS.
        KernelError: anything else, with its errno.
    """
    result = _called(command, attr)
    if result < 0:
        raise _refusal(-result, what)
    return result


def _called(command: int, attr: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Return what the system call returns, of an error the negative errno. Raises Unsupported."""
    number = _SYSCALL.get(_MACHINE)
    if number is None:
        raise Unsupported(f"bpf(2) has no known number on {_MACHINE}")
    if isinstance(attr, bytes):
        attr = ctypes.create_string_buffer(attr, ATTR_BYTES)
    result = int(_libc.syscall(number, command, attr, len(attr)))
    return result if result >= 0 else -ctypes.get_errno()


def _refusal(code: int, what: str) -> KernelError:
    words = f"{what}: {os.strerror(code)}"
    if code in (errno.ENOSYS, errno.EOPNOTSUPP):
        return Unsupported(f"{words}: this kernel has no bpf(2) for it", code)
    hint = ""
    if code in (errno.EPERM, errno.EACCES):
        # For objects by id; CAP_BPF suffices only for own programs and for pinned maps.
        hint = "CAP_SYS_ADMIN allows it"
    return KernelError(words, code, hint=hint)


def buffer(size_or_bytes: int | bytes) -> ctypes.Array[ctypes.c_char]:
    """Return memory that the kernel can read and write."""
    if isinstance(size_or_bytes, bytes):
        return ctypes.create_string_buffer(size_or_bytes, max(1, len(size_or_bytes)))
    return ctypes.create_string_buffer(max(1, size_or_bytes))


def pointer(memory: ctypes.Array[ctypes.c_char]) -> int:
    """Return the address of memory, for union bpf_attr."""
    return ctypes.addressof(memory)


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close a file descriptor at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


RDONLY = 8
"""BPF_F_RDONLY: a descriptor that cannot change the map (Linux 4.15)."""


def open_pinned(path: str | Path, flags: int = 0) -> int:
    """Open an object that is pinned on bpffs.

    Args:
        path: of the pin.
        flags: RDONLY for maps that are only read; 0 for links and programs.

    Raises:
        KernelError: ENOENT when there is no such pin.
    """
    name = buffer(os.fsencode(path) + b"\0")
    return syscall(OBJ_GET, struct.pack("=QII", pointer(name), 0, flags), f"open {path}")


def open_program(id: int) -> int:
    """Open a program by id. Raises KernelError, ENOENT when it is gone."""
    return syscall(PROG_GET_FD_BY_ID, struct.pack("=III", id, 0, 0), f"open program {id}")


def open_link(id: int) -> int:
    """Open a bpf_link by id. Raises KernelError, ENOENT when it is gone."""
    return syscall(LINK_GET_FD_BY_ID, struct.pack("=III", id, 0, 0), f"open bpf_link {id}")


def finds(command: int, attr: bytes | ctypes.Array[ctypes.c_char], what: str) -> bool:
    """Call bpf(2); return False where the kernel finds no such object or key."""
    result = _called(command, attr)
    if result < 0 and result != -errno.ENOENT:
        raise _refusal(-result, what)
    return result >= 0


def _ids(command: int, what: str) -> Iterator[int]:
    attr = ctypes.create_string_buffer(ATTR_BYTES)
    while finds(command, attr, what):
        last = int(struct.unpack_from("=I", attr, 4)[0])
        yield last
        struct.pack_into("=III", attr, 0, last, 0, 0)


def program_ids() -> Iterator[int]:
    """Yield the ids of all loaded programs of the machine, rising. Raises KernelError (EPERM)."""
    return _ids(PROG_GET_NEXT_ID, "list programs")


def link_ids() -> Iterator[int]:
    """Yield the ids of all bpf_links of the machine, rising. Raises KernelError (EPERM)."""
    return _ids(LINK_GET_NEXT_ID, "list bpf_links")


def info(fd: int, size: int, head: bytes = b"") -> bytes:
    """Return struct bpf_*_info of an object, zero where this kernel knows less.

    Args:
        fd: of a program, map or link.
        size: bytes to read.
        head: initial bytes for the kernel (lengths and pointers of arrays to fill).
    """
    memory = buffer(head.ljust(size, b"\0"))
    attr = struct.pack("=IIQ", fd, size, pointer(memory))
    attr_buffer = ctypes.create_string_buffer(attr, ATTR_BYTES)
    syscall(OBJ_GET_INFO_BY_FD, attr_buffer, "read a BPF object's info")
    length = int(struct.unpack_from("=I", attr_buffer, 4)[0])
    return bytes(memory.raw[:length]).ljust(size, b"\0")


def query(target: int, attach_type: int, flags: int = 0) -> list[tuple[int, int]]:
    """Return the programs at a hook, in the order in which they run (BPF_PROG_QUERY).

    Args:
        target: ifindex for tcx and netkit, else a descriptor of a cgroup or netns.
        attach_type: of enum bpf_attach_type.
        flags: BPF_F_QUERY_EFFECTIVE for cgroups.

    Returns:
        (program id, link id) for each; link id 0 without a bpf_link, or before Linux 6.6.

    Raises:
        Unsupported: the kernel does not know this attach type.
        KernelError: anything else.
    """
    capacity = 64
    while True:
        programs, program_flags = buffer(4 * capacity), buffer(4 * capacity)
        links, link_flags = buffer(4 * capacity), buffer(4 * capacity)
        cgroup = flags or attach_type not in MULTI_PROGRAM
        attr = ctypes.create_string_buffer(
            struct.pack(
                "=IIIIQIIQQQQ", target, attach_type, flags, 0, pointer(programs), capacity, 0,
                0 if cgroup else pointer(program_flags),
                0 if cgroup else pointer(links),
                0 if cgroup else pointer(link_flags), 0,
            ),
            ATTR_BYTES,
        )  # fmt: skip
        try:
            syscall(PROG_QUERY, attr, f"ask for programs of attach type {attach_type}")
        except KernelError as error:
            if error.errno == errno.ENOSPC:
                capacity *= 4
                continue
            if error.errno == errno.ENOENT:
                return []
            if error.errno == errno.EINVAL:
                raise Unsupported(
                    f"this kernel does not know BPF attach type {attach_type}", errno.EINVAL
                ) from None
            raise
        count = int(struct.unpack_from("=I", attr, 24)[0])
        return [
            (
                struct.unpack_from("=I", programs, 4 * n)[0],
                struct.unpack_from("=I", links, 4 * n)[0],
            )
            for n in range(count)
        ]


# enum bpf_attach_type, those of bpf_mprog (tcx since 6.6, netkit since 6.7)
TCX_INGRESS, TCX_EGRESS, NETKIT_PRIMARY, NETKIT_PEER = 46, 47, 54, 55
SK_LOOKUP = 36
MULTI_PROGRAM = frozenset({TCX_INGRESS, TCX_EGRESS, NETKIT_PRIMARY, NETKIT_PEER})
