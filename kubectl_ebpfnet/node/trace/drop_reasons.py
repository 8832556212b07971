"""Names of this kernel's reasons for drops, from its own BTF.

Sources: include/net/dropreason-core.h (enum skb_drop_reason; the upper 16 bits are a subsystem's,
whose reasons have an enum of their own), libbpf's btf.h, Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import ctypes
import struct

from kubectl_ebpfnet.node.bpf import libbpf

_ENUM = 6  # BTF_KIND_ENUM
_SUBSYSTEM = 16  # bits below


def names() -> dict[int, str]:
    """Return the kernel's names without their prefix, by number; {} where it has none (5.17)."""
    library = libbpf.library()
    btf = library.btf__load_vmlinux_btf()
    if not btf:
        libbpf.printed()
        return {}
    try:
        found = library.btf__find_by_name_kind(btf, b"skb_drop_reason", _ENUM)
        if found < 0:
            return {}
        at = library.btf__type_by_id(btf, found)
        # struct btf_type: name, info (members in the lower 16 bits), size; then (name, value)s.
        (info,) = struct.unpack_from("=I", ctypes.string_at(at, 12), 4)
        members = ctypes.string_at(at + 12, (info & 0xFFFF) * 8)
        return {
            value: _name(library.btf__name_by_offset(btf, offset))
            for offset, value in struct.iter_unpack("=II", members)
        }
    finally:
        library.btf__free(btf)


def _name(name: bytes | None) -> str:
    text = (name or b"").decode("ascii", "replace")
    return text.removeprefix("SKB_").removeprefix("DROP_REASON_")


def name(number: int, known: dict[int, str]) -> str:
    """Return the name of a reason; "" for 0, which kernels before 5.17 tell of every drop.

    Args:
        number: of enum skb_drop_reason, or a subsystem's.
        known: what `names` returned.
    """
    if number == 0:
        return ""
    if number in known:
        return known[number]
    if number >> _SUBSYSTEM:
        return f"subsystem {number >> _SUBSYSTEM}, reason {number & 0xFFFF}"
    return f"reason {number}"
