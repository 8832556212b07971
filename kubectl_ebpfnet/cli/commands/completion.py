"""`completion`: print or install the program that kubectl asks for completions.

kubectl (1.26 and newer, pkg/cmd/plugin_completion.go) runs `kubectl_complete-ebpfnet` from PATH
with the typed words, and reads `value<TAB>description` lines and Cobra's directive `:N`. krew
links only one executable per plugin (krew issue 812), hence --install.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from typer import Option

from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.terminal import Progress, emit
from kubectl_ebpfnet.errors import EbpfnetError

NAME = "kubectl_complete-ebpfnet"
SCRIPT = """#!/bin/sh
# Completion of `kubectl ebpfnet`: kubectl runs this with the words so far.
exec kubectl-ebpfnet __complete "$@" 2>/dev/null
"""
TEXT = CommandText(
    usage="[--install]",
    summary="Print or install shell completion for kubectl ebpfnet.",
    description=f"""kubectl completes the words of a plugin with a program that it finds on PATH:
{NAME}. With kubectl's own completion set up (kubectl
completion --help), nothing else is needed.""",
    examples=(
        ("Install it in krew's bin folder", "completion --install"),
        ("Or save it as an executable file on PATH", f"completion > {NAME}"),
    ),
)


def run(
    install: Annotated[
        bool, Option("--install", help=f"Write it to ${{KREW_ROOT:-~/.krew}}/bin/{NAME}")
    ] = False,
) -> int:
    """Print the script, or install it beside krew's plugins."""
    if not install:
        emit(SCRIPT)
        return 0
    root = os.environ.get("KREW_ROOT") or os.path.expanduser("~/.krew")
    folder = Path(root) / "bin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / f".{NAME}.{os.getpid()}"
        written.write_text(SCRIPT)
        written.chmod(0o755)
        written.replace(folder / NAME)
    except OSError as error:
        raise EbpfnetError(f"cannot write {folder / NAME}: {error.strerror}") from error
    progress = Progress()
    progress.warn(f"written: {folder / NAME}")
    if str(folder) not in os.environ.get("PATH", "").split(os.pathsep):
        progress.warn(f"{folder} is not on PATH: kubectl does not find the completion there")
    return 0
