"""`completion`: print a shell's script, or install the program that kubectl asks for completions.

kubectl (1.26 and newer, pkg/cmd/plugin_completion.go) runs `kubectl_complete-ebpfnet` from PATH
with the typed words, and reads `value<TAB>description` lines and Cobra's directive `:N`. pip and
pipx install it with the program; krew links only one executable per plugin (krew issue 812), hence
--install.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli.completion.scripts import SCRIPTS
from kubectl_ebpfnet.cli.flags import GlobalFlags, with_kubectl_flags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.terminal import Progress, emit
from kubectl_ebpfnet.errors import EbpfnetError, UsageError

NAME = "kubectl_complete-ebpfnet"
ASKED = """#!/bin/sh
# Completion of `kubectl ebpfnet`: kubectl runs this with the words so far.
exec kubectl-ebpfnet __complete "$@"
"""
TEXT = CommandText(
    usage="bash|zsh|fish",
    summary="Print the shell completion of kubectl-ebpfnet, or install that of kubectl.",
    description=f"""kubectl's own completion (kubectl completion --help), of 1.26 and newer,
completes `kubectl ebpfnet` too: it asks {NAME}, which pip and
pipx install beside this program. What krew installed needs --install once.
The scripts of this command complete kubectl-ebpfnet, called by that name.""",
    examples=(
        ("In this bash, for kubectl-ebpfnet", "completion bash > ~/.kubectl-ebpfnet.bash"),
        ("With krew: let kubectl complete it", "completion --install"),
    ),
    connects=False,
)


@with_kubectl_flags
def run(
    _flags: GlobalFlags,
    shell: Annotated[str, Argument(metavar="SHELL", help="One of: bash, zsh, fish")] = "",
    install: Annotated[
        bool, Option("--install", help=f"Write ${{KREW_ROOT:-~/.krew}}/bin/{NAME}")
    ] = False,
) -> int:
    """Print a script, or install the program beside krew's plugins."""
    if install:
        return _install()
    if shell not in SCRIPTS:
        what = f"{shell!r}: no such shell" if shell else "completion needs a shell"
        raise UsageError(what, hint=f"one of: {', '.join(SCRIPTS)}; with krew: --install")
    emit(SCRIPTS[shell])
    return 0


def _install() -> int:
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
