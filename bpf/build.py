"""Compile bpf/*.bpf.c into kubectl_ebpfnet/node/bpf/built/, the same bytes wherever it is done.

python bpf/build.py      make and setup.py call it too

It needs clang, llvm-strip and the headers of libbpf (Debian: clang, llvm, libbpf-dev). Where they
are missing it says so, leaves what is there, and the commands that load these programs will say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILT = HERE.parent / "kubectl_ebpfnet/node/bpf/built"
_HEADERS = Path("/usr/include/bpf/bpf_helpers.h")
_FLAGS = ("-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror")


def missing() -> str:
    """Return what is not here of what compiles, "" where nothing is missing."""
    lacking = [name for name in ("clang", "llvm-strip") if shutil.which(name) is None]
    if not _HEADERS.exists():
        lacking.append(str(_HEADERS))
    return ", ".join(lacking)


def build(to: Path = BUILT) -> str:
    """Compile each object into a folder.

    Returns:
        Why nothing was compiled, "" where all was.

    Raises:
        subprocess.CalledProcessError: a source is wrong.
    """
    if lacking := missing():
        return (
            f"BPF programs are not compiled: {lacking} is missing (Debian: clang llvm libbpf-dev)"
        )
    to.mkdir(exist_ok=True)
    for source in sorted(HERE.glob("*.bpf.c")):
        made = to / source.with_suffix(".o").name
        new = made.with_suffix(f".{os.getpid()}")
        # Names relative to here: nothing in the object tells where it was built.
        prefix = f"-ffile-prefix-map={HERE}=."
        subprocess.run(
            ("clang", *_FLAGS, prefix, "-c", source.name, "-o", str(new)), cwd=HERE, check=True
        )
        subprocess.run(("llvm-strip", "--strip-debug", str(new)), check=True)
        new.rename(made)
    return ""


if __name__ == "__main__":
    from libraries import fetch

    for problem in (build(), fetch()):
        if problem:
            print(problem, file=sys.stderr)
