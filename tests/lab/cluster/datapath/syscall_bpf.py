"""bpf(2) by ctypes: what iproute2 6.1 and bpftool 7.1 cannot do (tcx links), and map access.

Source: include/uapi/linux/bpf.h (union bpf_attr).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

_NUMBER = {"x86_64": 321, "aarch64": 280}
_libc = ctypes.CDLL(None, use_errno=True)

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT = 0, 1, 2, 3, 4
OBJ_PIN, OBJ_GET, LINK_CREATE = 6, 7, 28
HASH, PERCPU_HASH, LRU_HASH, LPM_TRIE = 1, 5, 9, 11
NO_PREALLOC = 1
TCX_INGRESS, TCX_EGRESS = 46, 47


def bpf(command: int, attr: bytes) -> int:
    """One system call. Raises OSError."""
    buffer = ctypes.create_string_buffer(attr.ljust(128, b"\0"), 128)
    number = _NUMBER[platform.machine()]
    result = _libc.syscall(number, command, buffer, 128)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def pin(fd: int, path: Path) -> None:
    """Pin an object on bpffs."""
    name = ctypes.create_string_buffer(str(path).encode())
    bpf(OBJ_PIN, struct.pack("=QI", _address(name), fd))


def pinned(path: Path) -> int:
    """A file descriptor of a pinned object."""
    name = ctypes.create_string_buffer(str(path).encode())
    return bpf(OBJ_GET, struct.pack("=QI", _address(name), 0))


def create_map(path: Path, kind: int, key: int, value: int, entries: int, flags: int = 0) -> None:
    """Create a map and pin it under its name; nothing when it is there already."""
    if path.exists():
        return
    name = path.name.encode()[:15]
    attr = struct.pack("=IIIIIII16s", kind, key, value, entries, flags, 0, 0, name)
    fd = bpf(MAP_CREATE, attr)
    try:
        pin(fd, path)
    finally:
        os.close(fd)


def link_tcx(program: Path, ifindex: int, attach: int, path: Path) -> None:
    """Attach a pinned program by a tcx link and pin the link."""
    fd = pinned(program)
    try:
        link = bpf(LINK_CREATE, struct.pack("=IIII", fd, ifindex, attach, 0))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pin(link, path)
        finally:
            os.close(link)
    finally:
        os.close(fd)


class Map:
    """A pinned map of known key and value sizes."""

    def __init__(self, path: Path, key: int, value: int) -> None:
        self.fd = pinned(path)
        self.key, self.value = key, value

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def _attr(self, key: object, value: object, flags: int = 0) -> bytes:
        return struct.pack(
            "=IIQQQ",
            self.fd,
            0,
            ctypes.addressof(key),  # type: ignore[arg-type]
            ctypes.addressof(value),  # type: ignore[arg-type]
            flags,
        )

    def put(self, key: bytes, value: bytes) -> None:
        """Write an entry."""
        k, v = (
            ctypes.create_string_buffer(key, self.key),
            ctypes.create_string_buffer(value, self.value),
        )
        bpf(MAP_UPDATE, self._attr(k, v))

    def remove(self, key: bytes) -> None:
        """Delete an entry; nothing when it is not there."""
        k = ctypes.create_string_buffer(key, self.key)
        try:
            # The kernel refuses anything but zeroes behind the last field that it knows.
            bpf(MAP_DELETE, struct.pack("=IIQ", self.fd, 0, ctypes.addressof(k)))
        except FileNotFoundError:
            return

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry; one that goes away meanwhile is left out."""
        key = ctypes.create_string_buffer(self.key)
        value = ctypes.create_string_buffer(self.value)
        after: object = None
        while True:
            at = ctypes.addressof(after) if after is not None else 0  # type: ignore[arg-type]
            try:
                bpf(MAP_NEXT, struct.pack("=IIQQQ", self.fd, 0, at, ctypes.addressof(key), 0))
            except FileNotFoundError:
                return
            try:
                bpf(MAP_LOOKUP, self._attr(key, value))
                yield key.raw, value.raw
            except FileNotFoundError:
                pass
            after = ctypes.create_string_buffer(key.raw, self.key)
