"""BPF programs, links and places to attach them, for tests: made with bpf(2), gone with the test.

A program here is `r0 = verdict; exit`, loaded from bytes; `compiled` builds C where BTF matters.
What is made is closed, unmounted or removed by the ExitStack that it is given.

Sources: include/uapi/linux/bpf.h (union bpf_attr, enum bpf_prog_type, bpf_attach_type),
Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

PROG_LOAD, OBJ_PIN, PROG_ATTACH, PROG_DETACH, PROG_TEST_RUN = 5, 6, 8, 9, 10
LINK_CREATE, ENABLE_STATS = 28, 32
SCHED_CLS, XDP, CGROUP_SOCK_ADDR, SK_LOOKUP = 3, 6, 18, 30
INET4_CONNECT, INET6_CONNECT, AT_SK_LOOKUP, AT_XDP = 10, 11, 36, 37
TCX_INGRESS, TCX_EGRESS = 46, 47
ALLOW_MULTI, BEFORE, AFTER, PREORDER = 1 << 1, 1 << 3, 1 << 4, 1 << 6
XDP_GENERIC = 1 << 1

_NUMBER = {"x86_64": 321, "aarch64": 280, "ppc64le": 361, "s390x": 351, "riscv64": 280}
_libc = ctypes.CDLL(None, use_errno=True)
_names = iter(range(1 << 30))


def why_not() -> str:
    """Why there is no kernel to test here; "" when there is one."""
    if not sys.platform.startswith("linux"):
        return "not Linux"
    if os.geteuid() != 0:
        return "not root"
    return "" if shutil.which("ip") else "no iproute2"


def bpf(command: int, attr: bytes) -> int:
    """One system call. Raises OSError."""
    memory = ctypes.create_string_buffer(attr.ljust(160, b"\0"), 160)
    result = int(_libc.syscall(_NUMBER[platform.machine()], command, memory, 160))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf({command}): {os.strerror(code)}")
    return result


def load(stack: ExitStack, type: int, name: str, verdict: int = 0, attach_type: int = 0) -> int:
    """A descriptor of a new program `r0 = verdict; exit`."""
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, verdict, 0x95, 0, 0, 0)
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attr = struct.pack(
        "=IIQQIIQII16sII", type, 2, ctypes.addressof(instructions), ctypes.addressof(licence),
        0, 0, 0, 0, 0, name.encode(), 0, attach_type,
    )  # fmt: skip
    return _kept(stack, bpf(PROG_LOAD, attr))


def link(
    stack: ExitStack, program: int, target: int, attach_type: int, flags: int = 0, near: int = 0
) -> int:
    """A descriptor of a link; what it attaches is gone when it is closed.

    Args:
        program: its descriptor.
        target: an ifindex, or a descriptor of a cgroup or namespace.
        attach_type: of enum bpf_attach_type.
        flags: BEFORE or AFTER the program `near` for tcx, XDP_GENERIC, PREORDER for cgroups.
        near: a program's descriptor.
    """
    attr = struct.pack("=IIIIII", program, target, attach_type, flags, near, 0)
    return _kept(stack, bpf(LINK_CREATE, attr))


def attach(
    stack: ExitStack, program: int, target: int, attach_type: int, flags: int = 0, near: int = 0
) -> None:
    """Attach without a link (BPF_PROG_ATTACH); detached at the end."""
    bpf(PROG_ATTACH, attach_attr(program, target, attach_type, flags, near))
    stack.callback(bpf, PROG_DETACH, struct.pack("=III", target, program, attach_type))


def attach_attr(
    program: int, target: int, attach_type: int, flags: int = 0, near: int = 0
) -> bytes:
    """What BPF_PROG_ATTACH takes."""
    return struct.pack("=IIIIII", target, program, attach_type, flags, 0, near)


def pin(fd: int, path: Path) -> Path:
    """Keep an object alive under a path of a bpffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = ctypes.create_string_buffer(os.fsencode(path))
    bpf(OBJ_PIN, struct.pack("=QII", ctypes.addressof(name), fd, 0))
    return path


def id_of(fd: int) -> int:
    """Id of a program, link or map, as /proc says it."""
    wanted = ("prog_id", "link_id", "map_id")
    said = dict(
        line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    )
    is_link = "link_id" in said
    return int(said["link_id"] if is_link else next(said[one] for one in wanted if one in said))


def run(program: int, times: int) -> None:
    """Let the kernel run a program on an empty frame (BPF_PROG_TEST_RUN)."""
    frame = ctypes.create_string_buffer(64)
    attr = struct.pack(
        "=IIIIQQII", program, 0, 64, 0, ctypes.addressof(frame), 0, times, 0
    )  # fmt: skip
    bpf(PROG_TEST_RUN, attr)


def statistics(stack: ExitStack) -> None:
    """Count runs of all programs until the end (BPF_ENABLE_STATS): no sysctl is touched."""
    _kept(stack, bpf(ENABLE_STATS, struct.pack("=I", 0)))


def bpffs(stack: ExitStack, folder: Path) -> Path:
    """A bpffs of one's own; skips where none can be mounted."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(("mount", "-t", "bpf", "bpf", str(folder)), capture_output=True)
    if done.returncode:
        pytest.skip(f"no bpffs can be mounted: {done.stderr.decode().strip()}")
    stack.callback(subprocess.run, ("umount", "-l", str(folder)), check=True)
    return folder


def cgroup(stack: ExitStack, name: str) -> Path:
    """A new cgroup below the v2 hierarchy's root, for `name/sub` a chain of them.

    Those that are there already are left as they are. Skips where there is no hierarchy.
    """
    path = cgroup_top()
    for step in name.split("/"):
        path = path / step
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            pytest.skip(f"no cgroup can be made: {error}")
        stack.callback(eventually, _remover(path))
    return path


def _remover(path: Path) -> Callable[[], bool]:
    def removed() -> bool:
        try:
            path.rmdir()
        except OSError:  # its last process has not quite ended
            return False
        return True

    return removed


def cgroup_top() -> Path:
    """Where this machine's cgroup v2 hierarchy is mounted; skips where it is not."""
    argv = ("findmnt", "-n", "-t", "cgroup2", "-o", "TARGET")
    said = subprocess.run(argv, capture_output=True, text=True).stdout.split()
    if not said:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    return Path(said[0])


def opened(stack: ExitStack, path: Path | str) -> int:
    """A descriptor of a folder or file."""
    return _kept(stack, os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def network(stack: ExitStack) -> str:
    """A new named network namespace."""
    name = f"ebpfnet-node-{os.getpid()}-{next(_names)}"
    subprocess.run(("ip", "netns", "add", name), check=True)
    stack.callback(subprocess.run, ("ip", "netns", "del", name), check=True)
    return name


def inside(name: str, *argv: str) -> str:
    """What a program prints in a named network namespace. Raises CalledProcessError."""
    whole = ("ip", "netns", "exec", name, *argv)
    return subprocess.run(whole, check=True, capture_output=True, text=True, timeout=60).stdout


def compiled(source: str, folder: Path) -> Path:
    """A BPF object of C source, with BTF; skips where clang or bpftool is missing."""
    for tool in ("clang", "bpftool"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    text, made = folder / "program.c", folder / "program.o"
    text.write_text(source)
    argv = ("clang", "-O2", "-g", "-target", "bpf", "-c", str(text), "-o", str(made))
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return made


def eventually(what: Callable[[], object], seconds: float = 10) -> None:
    """Wait until it is true. Raises AssertionError after the deadline."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


def _kept(stack: ExitStack, fd: int) -> int:
    stack.callback(_close, fd)
    return fd


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return  # a test closed it to see what becomes of it
