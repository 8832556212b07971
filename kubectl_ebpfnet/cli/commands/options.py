"""`options`: list the kubectl flags that every command accepts, as `kubectl options` does."""

from __future__ import annotations

from kubectl_ebpfnet.cli.flags import CONNECTION, VERBOSITY
from kubectl_ebpfnet.cli.help import PROGRAM, CommandText
from kubectl_ebpfnet.cli.terminal import emit

TEXT = CommandText(
    usage="",
    summary="List the kubectl flags that every command accepts.",
    description="They work as in kubectl, before or after the command.",
    examples=(("All flags", "options"),),
)


def run() -> int:
    """Print the table."""
    lines = [f"The following kubectl flags can be passed to any command of {PROGRAM}:", ""]
    for flag in (*CONNECTION, VERBOSITY):
        lines += [f"    {', '.join(flag.spellings)} {flag.metavar}".rstrip(), f"\t{flag.help}", ""]
    emit("\n".join(lines))
    return 0
