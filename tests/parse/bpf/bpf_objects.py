"""Loads BPF programs, attaches and pins them, with nothing but bpf(2).

Run inside a network namespace: `python bpf_objects.py BPFFS CGROUP DEVICE…`. The programs do
nothing (`r0 = verdict; exit`); their names, attach types and pins are Cilium's. What is pinned
stays until the bpffs is unmounted.

Sources: include/uapi/linux/bpf.h (union bpf_attr, enum bpf_prog_type, enum bpf_attach_type),
Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys
from pathlib import Path

_NR_BPF = {"x86_64": 321, "aarch64": 280, "ppc64le": 361, "s390x": 351, "riscv64": 280}
_PROG_LOAD, _OBJ_PIN, _LINK_CREATE = 5, 6, 28
_SCHED_CLS, _XDP, _CGROUP_SOCK_ADDR, _SK_LOOKUP = 3, 6, 18, 30
_INET4_CONNECT, _ATTACH_SK_LOOKUP, _ATTACH_XDP, TCX_INGRESS, TCX_EGRESS = 10, 36, 37, 46, 47
_ATTR_BYTES = 160


def _bpf(command: int, attr: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attr.ljust(_ATTR_BYTES, b"\0"), _ATTR_BYTES)
    result: int = libc.syscall(_NR_BPF[platform.machine()], command, buffer, _ATTR_BYTES)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf({command}): {os.strerror(number)}")
    return result


def load(program_type: int, name: str, verdict: int = 0, attach_type: int = 0) -> int:
    """The file descriptor of a new program `r0 = verdict; exit`."""
    code = struct.pack("<BBhi", 0xB7, 0, 0, verdict) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attr = struct.pack(
        "<IIQQIIQII16sII",
        program_type,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        name.encode(),
        0,
        attach_type,
    )
    return _bpf(_PROG_LOAD, attr)


def pin(descriptor: int, path: Path) -> None:
    """Keep the object alive under this path of a bpffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(_OBJ_PIN, struct.pack("<QII", ctypes.addressof(name), descriptor, 0))


def link(program: int, target: int, attach_type: int) -> int:
    """The file descriptor of a link that attaches a program to an ifindex or a descriptor."""
    return _bpf(_LINK_CREATE, struct.pack("<IIII", program, target, attach_type, 0))


def main(bpffs: Path, cgroup: Path, host: str, lxc: str) -> None:
    """Everything that Cilium attaches, once, and one link that is not Cilium's."""
    cilium = bpffs / "cilium"
    host_index, lxc_index = socket.if_nametoindex(host), socket.if_nametoindex(lxc)
    pin(load(_SCHED_CLS, "cil_from_contai"), bpffs / "pinned" / "cls")
    pin(load(_XDP, "cil_xdp_entry", 2), bpffs / "pinned" / "xdp")
    for attach_type, name in ((TCX_INGRESS, "cil_to_host"), (TCX_EGRESS, "cil_from_host")):
        made = link(load(_SCHED_CLS, name), host_index, attach_type)
        pin(made, cilium / "devices" / host / "links" / name)
    made = link(load(_SCHED_CLS, "cil_from_contai"), lxc_index, TCX_INGRESS)
    pin(made, cilium / "endpoints" / "448" / "links" / "cil_from_container")
    pin(link(load(_SCHED_CLS, "other"), lxc_index, TCX_INGRESS), bpffs / "pinned" / "other")
    made = link(load(_XDP, "cil_xdp_entry", 2, _ATTACH_XDP), lxc_index, _ATTACH_XDP)
    pin(made, cilium / "devices" / lxc / "links" / "cil_xdp_entry")
    with open("/proc/self/ns/net", "rb") as namespace:
        program = load(_SK_LOOKUP, "sk_lookup", 1, _ATTACH_SK_LOOKUP)
        made = link(program, namespace.fileno(), _ATTACH_SK_LOOKUP)
    pin(made, bpffs / "pinned" / "sk_lookup")
    directory = os.open(cgroup, os.O_DIRECTORY)
    program = load(_CGROUP_SOCK_ADDR, "cil_sock4_conne", 1, _INET4_CONNECT)
    made = link(program, directory, _INET4_CONNECT)
    pin(made, cilium / "socketlb" / "links" / "cgroup" / "cil_sock4_connect")
    os.close(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
