"""The stack that the programs need, as the oldest kernels count it: no kernel is needed, llvm is.

Linux before 6.8 counts each frame in steps of 32 bytes, newer ones in steps of 16; the frames of a
chain of calls may have 512 together (kernel/bpf/verifier.c, check_max_stack_depth). So the kernel
of the machine that runs the tests may take what the others refuse.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kubectl_ebpfnet.node.bpf.libbpf import BUILT

_MOST, _STEP = 512, 32
_OBJECTS = sorted(BUILT.glob("*.bpf.o"))
_LABEL = re.compile(r"([0-9a-f]+) <(\w+)>:")
_CALL = re.compile(r"\s+(\d+):\s+85 10 00 00 (?:\w\w ?){4}\s+call (-?\d+)")  # BPF_PSEUDO_CALL
_ON_STACK = re.compile(r"r10 - (\d+)|r\d+ \+= -(\d+)")

pytestmark = pytest.mark.skipif(
    shutil.which("llvm-objdump") is None or not _OBJECTS, reason="no llvm-objdump, or no objects"
)


def _read(path: Path) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Return the frame of each function, and which ones it calls."""
    argv = ("llvm-objdump", "--disassemble", "--no-print-imm-hex", str(path))
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    frames: dict[str, int] = {}
    places: dict[str, set[int]] = {}
    begins: dict[int, str] = {}  # in .text, by instruction
    in_text, function = False, ""
    for line in shown.splitlines():
        if line.startswith("Disassembly of section "):
            in_text = line.endswith(" .text:")
        elif label := _LABEL.match(line):
            if label[2].startswith("LBB"):
                continue
            function = label[2]
            frames[function], places[function] = 0, set()
            if in_text:
                begins[int(label[1], 16) // 8] = function
        elif call := _CALL.match(line):
            # Within .text from the next instruction, from elsewhere (relocated) from its begin.
            places[function].add(int(call[2]) + 1 + (int(call[1]) if in_text else 0))
        for found in _ON_STACK.findall(line):
            size = int(found[0] or found[1])
            frames[function] = max(frames[function], size if size <= _MOST else 0)
    return frames, {name: {begins[place] for place in at} for name, at in places.items()}


def _deepest(name: str, frames: dict[str, int], calls: dict[str, set[str]]) -> int:
    below = (_deepest(each, frames, calls) for each in calls[name])
    return -(-max(frames[name], 1) // _STEP) * _STEP + max(below, default=0)


@pytest.mark.parametrize("path", _OBJECTS, ids=lambda path: path.name)
def test_every_kernel_has_room_for_the_stack(path: Path) -> None:
    frames, calls = _read(path)
    assert any(calls.values())
    assert {name: size for name in frames if (size := _deepest(name, frames, calls)) > _MOST} == {}
