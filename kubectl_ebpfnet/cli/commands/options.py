"""`options`: list the kubectl flags that every command accepts, as `kubectl options` does."""

from __future__ import annotations

from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.help import PROGRAM, CommandText
from kubectl_ebpfnet.cli.kubectl_flags import CONNECTION, NO_EFFECT, VERBOSITY
from kubectl_ebpfnet.cli.terminal import emit
from kubectl_ebpfnet.cli.with_flags import with_kubectl_flags

TEXT = CommandText(
    usage="",
    summary="List the kubectl flags that every command accepts.",
    description="""They work as in kubectl, before or after the command.

Levels of -v, each with what is below it: 1 (a bare -v) shows the evidence; 6
logs HTTP requests on stderr, as kubectl does, 7 with their headers, 8 with the
first 1024 characters of bodies, 9 with 10240 and with tracebacks of errors in
this program. Tokens, passwords, cookies, Secrets and environment variables are
never logged.""",
    examples=(("All flags", "options"),),
    connects=False,
)


@with_kubectl_flags
def run(_flags: GlobalFlags) -> int:
    """Print the table."""
    lines = [f"The following kubectl flags can be passed to any command of {PROGRAM}:", ""]
    for flag in (*CONNECTION, VERBOSITY):
        lines += [f"    {', '.join(flag.spellings)} {flag.metavar}".rstrip(), f"\t{flag.help}", ""]
    lines += ["These have no effect here; a line on stderr says so:", ""]
    for name, (metavar, why) in NO_EFFECT.items():
        lines += [f"    {name} {metavar}".rstrip(), f"\tNo effect: {why}", ""]
    emit("\n".join(lines))
    return 0
