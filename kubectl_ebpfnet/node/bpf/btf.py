"""Full function names of programs from their BTF, which the kernel's own names cut at 15 letters.

Sources: include/uapi/linux/btf.h (struct btf_header, btf_type), include/uapi/linux/bpf.h (struct
bpf_btf_info), Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.bpf import syscall

_BTF_GET_FD_BY_ID = 19  # of enum bpf_cmd
_MAGIC = 0xEB9F
_FUNC = 12
# Bytes after a type's first 12: (fixed, for each member), by BTF_KIND_*.
_EXTRA_BYTES = {
    1: (4, 0),  # INT
    3: (12, 0),  # ARRAY
    4: (0, 12),  # STRUCT
    5: (0, 12),  # UNION
    6: (0, 8),  # ENUM
    13: (0, 8),  # FUNC_PROTO
    14: (4, 0),  # VAR
    15: (0, 12),  # DATASEC
    17: (4, 0),  # DECL_TAG
    19: (0, 12),  # ENUM64
}
_NO_EXTRA_BYTES = (0, 0)


class FunctionNames:
    """Names of functions by BTF id and type id.

    Cilium loads the same object for each endpoint, and the kernel keeps a BTF for each; so equal
    blobs are parsed once.
    """

    def __init__(self) -> None:
        self._by_id: dict[int, dict[int, str]] = {}
        self._by_bytes: dict[bytes, dict[int, str]] = {}
        self._buffer = syscall.buffer(1 << 17)

    def name(self, btf_id: int, type_id: int) -> str:
        """Return a function's name, "" if the BTF cannot be read or has no such function."""
        if btf_id not in self._by_id:
            try:
                blob = self._read(btf_id)
            except KernelError:
                blob = b""
            if blob not in self._by_bytes:
                self._by_bytes[blob] = functions(blob)
            self._by_id[btf_id] = self._by_bytes[blob]
        return self._by_id[btf_id].get(type_id, "")

    def _read(self, btf_id: int) -> bytes:
        attr = struct.pack("=III", btf_id, 0, 0)
        with syscall.closing(syscall.syscall(_BTF_GET_FD_BY_ID, attr, f"open BTF {btf_id}")) as fd:
            while True:
                head = struct.pack("=QI", syscall.pointer(self._buffer), len(self._buffer))
                (size,) = struct.unpack_from("=I", syscall.info(fd, 32, head), 8)
                if size <= len(self._buffer):
                    return bytes(memoryview(self._buffer)[:size])
                self._buffer = syscall.buffer(size)


def functions(btf: bytes) -> dict[int, str]:
    """Return the names of functions in a BTF blob by type id; {} for a malformed blob."""
    found: dict[int, str] = {}
    try:
        magic, _, _, header, types, length, strings, _ = struct.unpack_from("=HBBIIIII", btf)
        if magic != _MAGIC:
            return found
        at, end, type_id = header + types, header + types + length, 0
        while at < end:
            name, info = struct.unpack_from("=II", btf, at)
            kind, members, type_id = info >> 24 & 0x1F, info & 0xFFFF, type_id + 1
            if kind == _FUNC:
                start = header + strings + name
                found[type_id] = btf[start : btf.index(b"\0", start)].decode("utf-8", "replace")
            fixed_bytes, member_bytes = _EXTRA_BYTES.get(kind, _NO_EXTRA_BYTES)
            at += 12 + fixed_bytes + member_bytes * members
    except (struct.error, ValueError):
        return {}
    return found
