"""Maps of BPF: by key, and in batches.

Sources: Linux include/uapi/linux/bpf.h (struct bpf_map_info), kernel/bpf/syscall.c, hashtab.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.node.bpf.syscall import (
    ATTR_BYTES,
    MAP_GET_NEXT_KEY,
    MAP_LOOKUP_BATCH,
    MAP_LOOKUP_ELEM,
    PERCPU,
    RDONLY,
    buffer,
    finds,
    info,
    open_pinned,
    pointer,
    syscall,
)


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
        found = finds(MAP_LOOKUP_ELEM, attr, f"look up a key of map {self.info.name}")
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
                ATTR_BYTES,
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
        found = finds(MAP_GET_NEXT_KEY, attr, f"step through map {self.info.name}")
        return after.raw if found else None
