"""`completion`: print a script for a shell, or install the program that kubectl asks."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli.completion.install import NAME, install_program
from kubectl_ebpfnet.cli.completion.scripts import SCRIPTS
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.terminal import emit
from kubectl_ebpfnet.cli.with_flags import with_kubectl_flags
from kubectl_ebpfnet.errors import UsageError

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
        return install_program()
    if shell not in SCRIPTS:
        what = f"{shell!r}: no such shell" if shell else "completion needs a shell"
        raise UsageError(what, hint=f"one of: {', '.join(SCRIPTS)}; with krew: --install")
    emit(SCRIPTS[shell])
    return 0
