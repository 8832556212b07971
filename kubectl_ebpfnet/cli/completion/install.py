"""Install the program that kubectl asks for completions, beside krew's plugins.

kubectl (1.26 and newer, pkg/cmd/plugin_completion.go) runs `kubectl_complete-ebpfnet` from PATH
with the typed words, and reads `value<TAB>description` lines and Cobra's directive `:N`. pip and
pipx install it with the program; krew links only one executable per plugin (krew issue 812).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import EbpfnetError

NAME = "kubectl_complete-ebpfnet"
ASKED = """#!/bin/sh
# Completion of `kubectl ebpfnet`: kubectl runs this with the words so far.
exec kubectl-ebpfnet __complete "$@"
"""
"""The program, where a script is one; the archive that krew unpacks has it too."""


def install_program() -> int:
    """Write the program into krew's folder of programs; return the exit code.

    Raises:
        EbpfnetError: it cannot be written, or would not run there.
    """
    if sys.platform == "win32":  # there kubectl runs no script: the wheel and the archive have both
        raise EbpfnetError(
            f"{NAME} cannot be installed by itself on Windows",
            hint=f"put the folder of {NAME}.exe on PATH: it stands beside kubectl-ebpfnet.exe",
        )
    root = os.environ.get("KREW_ROOT") or os.path.expanduser("~/.krew")
    folder = Path(root) / "bin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / f".{NAME}.{os.getpid()}"
        written.write_text(ASKED)
        written.chmod(0o755)
        written.replace(folder / NAME)
    except OSError as error:
        raise EbpfnetError(f"cannot write {folder / NAME}: {error.strerror}") from error
    progress = Progress()
    progress.warn(f"written: {folder / NAME}")
    if str(folder) not in os.environ.get("PATH", "").split(os.pathsep):
        progress.warn(f"{folder} is not on PATH: kubectl does not find the completion there")
    return 0
