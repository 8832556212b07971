"""bpf(2) by ctypes: objects by id or path, attached programs, maps by key and in batches.

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
from kubectl_ebpfnet.model.dataclass import dataclass

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
_ATTR_BYTES = 128
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
        attr = ctypes.create_string_buffer(attr, _ATTR_BYTES)
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


def _finds(command: int, attr: bytes | ctypes.Array[ctypes.c_char], what: str) -> bool:
    """Call bpf(2); return False where the kernel finds no such object or key."""
    result = _called(command, attr)
    if result < 0 and result != -errno.ENOENT:
        raise _refusal(-result, what)
    return result >= 0


def _ids(command: int, what: str) -> Iterator[int]:
    attr = ctypes.create_string_buffer(_ATTR_BYTES)
    while _finds(command, attr, what):
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
    attr_buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES)
    syscall(OBJ_GET_INFO_BY_FD, attr_buffer, "read a BPF object's info")
    length = int(struct.unpack_from("=I", attr_buffer, 4)[0])
    return bytes(memory.raw[:length]).ljust(size, b"\0")


@dataclass(frozen=True, slots=True)
class MapInfo:
    """struct bpf_map_info: sizes in bytes, `max_entries` as the map was made."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


def map_info(fd: int) -> MapInfo:
    """Return the info of a map. Raises KernelError."""
    type_, id_, key, value, most, flags, name = struct.unpack_from("=IIIIII16s", info(fd, 80))
    return MapInfo(type_, id_, key, value, most, flags, name.rstrip(b"\0").decode("latin-1"))


_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")
_cpus: list[int] = []


def possible_cpus() -> int:
    """Return the number of values of a per-CPU map: the possible CPUs."""
    if not _cpus:
        _cpus.append(cpus_of(_POSSIBLE_CPUS.read_text()))
    return _cpus[0]


def cpus_of(text: str) -> int:
    """Return the number of CPUs in a list of the kernel: 4 for `0-3`, 3 for `0,2-3`.

    A per-CPU value has no gap for the CPUs between: it is copied for each possible CPU
    (kernel/bpf/syscall.c bpf_map_value_size: num_possible_cpus(); hashtab.c, arraymap.c).
    """
    ranges = (part.partition("-") for part in text.strip().split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def value_bytes(of_map: MapInfo) -> int:
    """Return the bytes of a look-up: for a per-CPU map a value, rounded up to 8, for each CPU."""
    if of_map.type in PERCPU:
        return (of_map.value_size + 7) // 8 * 8 * possible_cpus()
    return of_map.value_size


class Map:
    """An open map: look up by key, or read in batches. Closes its descriptor on exit.

    Attributes:
        next_bucket: of a hash map that is read in batches: where the next batch begins.
    """

    def __init__(self, fd: int) -> None:
        """Take over a descriptor. Raises KernelError when its info cannot be read."""
        self.fd = fd
        try:
            self.info = map_info(fd)
        except BaseException:
            os.close(fd)
            raise
        self.value_bytes = value_bytes(self.info)
        self.next_bucket = 0

    @classmethod
    def pinned(cls, path: str | Path) -> Map:
        """Open the map pinned at a path, for reading. Raises KernelError, ENOENT without a pin."""
        return cls(open_pinned(path, RDONLY))

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key (in an LPM trie: of the longest prefix), or None."""
        key_memory, value_memory = buffer(key), buffer(self.value_bytes)
        attr = struct.pack("=IIQQQ", self.fd, 0, pointer(key_memory), pointer(value_memory), 0)
        found = _finds(MAP_LOOKUP_ELEM, attr, f"look up a key of map {self.info.name}")
        return value_memory.raw if found else None

    def batches(
        self, batch_size: int = 4096, bucket: int = 0
    ) -> Iterator[tuple[int, memoryview, memoryview]]:
        """Yield all entries, many in a call (BPF_MAP_LOOKUP_BATCH, Linux 5.6).

        Args:
            batch_size: how many at most, where a bucket holds no more.
            bucket: of a hash map, to begin at.

        Yields:
            (count, keys, values), packed side by side; the views are valid until the next step.
            Entries that come or go meanwhile may be missing or repeated, as in every dump.

        Raises:
            Unsupported: this kernel has no batches for this map type; `items` reads one by one.
        """
        keys = buffer(batch_size * self.info.key_size)
        values = buffer(batch_size * self.value_bytes)
        # The kernel's position: a bucket number, or for tries and arrays a key.
        place = buffer(struct.pack("=I", bucket).ljust(self.info.key_size, b"\0"))
        first = True
        while True:
            attr = ctypes.create_string_buffer(
                struct.pack(
                    "=QQQQIIQQ", pointer(place) if bucket or not first else 0, pointer(place),
                    pointer(keys), pointer(values), batch_size, self.fd, 0, 0,
                ),
                _ATTR_BYTES,
            )  # fmt: skip
            last = False
            try:
                syscall(MAP_LOOKUP_BATCH, attr, f"read map {self.info.name} in batches")
            except KernelError as error:
                if error.errno == errno.ENOSPC:  # one bucket holds more than a batch
                    batch_size *= 2
                    keys = buffer(batch_size * self.info.key_size)
                    values = buffer(batch_size * self.value_bytes)
                    continue
                # ENOTSUPP, which has no name in user space; EINVAL before Linux 5.6
                if error.errno == 524 or (first and error.errno == errno.EINVAL):
                    raise Unsupported(error.message, error.errno) from None
                # EINTR: too many keys of a trie went away meanwhile; the dump continues.
                if error.errno not in (errno.ENOENT, errno.EINTR):
                    raise
                last = error.errno == errno.ENOENT
            count = int(struct.unpack_from("=I", attr, 32)[0])
            if count:
                self.next_bucket = int(struct.unpack_from("=I", place)[0])
                yield count, memoryview(keys), memoryview(values)
            if last:
                return
            first = first and not count

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all entries, by batches if the kernel has them, else one by one."""
        key_size, value_size = self.info.key_size, self.value_bytes
        try:
            for count, keys, values in self.batches():
                for n in range(count):
                    yield (
                        bytes(keys[n * key_size : (n + 1) * key_size]),
                        bytes(values[n * value_size : (n + 1) * value_size]),
                    )
            return
        except Unsupported:
            pass
        key = b""
        while (next_key := self._next(key)) is not None:
            key = next_key
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def _next(self, key: bytes) -> bytes | None:
        before, after = buffer(key), buffer(self.info.key_size)
        attr = struct.pack("=IIQQ", self.fd, 0, pointer(before) if key else 0, pointer(after))
        found = _finds(MAP_GET_NEXT_KEY, attr, f"step through map {self.info.name}")
        return after.raw if found else None


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
            _ATTR_BYTES,
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
