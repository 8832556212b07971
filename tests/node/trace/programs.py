"""Compile BPF programs for tests."""

from __future__ import annotations

import ctypes
import json
import platform
import subprocess
from pathlib import Path

from bpf import build
from kubectl_ebpfnet.node.trace.packets import PROGRAMS

_SOURCE = Path(__file__).with_name("programs.bpf.c")


def why_not() -> str:
    """Why no program can be compiled or loaded here, "" when it can."""
    if lacking := build.missing():
        return f"no {lacking}"
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        return "no libbpf.so.1"
    return ""


def compiled(folder: Path) -> str:
    """The path of programs.bpf.c, compiled; our own objects are compiled too."""
    build.build()
    made = folder / "programs.o"
    compile_to(_SOURCE, made)
    return str(made)


def compile_to(source: Path, made: Path, *, ours: bool = False) -> None:
    """Compile a source; `ours` includes bpf/kernel.h in place of the kernel's headers."""
    headers = build.HERE if ours else f"/usr/include/{platform.machine()}-linux-gnu"
    argv = ("clang", "-target", "bpf", "-O2", "-g", f"-I{headers}", "-c", source, "-o", made)
    subprocess.run(argv, check=True)


def loaded() -> set[int]:
    """Ids of loaded programs with the names of ours, by bpftool."""
    argv = ("bpftool", "-j", "prog", "show")
    printed = subprocess.run(argv, capture_output=True, check=True).stdout
    shown = [each for each in json.loads(printed) if each["type"] == "tracing"]
    return {each["id"] for each in shown if each.get("name") in PROGRAMS}
