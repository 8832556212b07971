"""`cleanup`: delete the leftovers of runs with node pods."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli import dry_run as dry_runs
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.removal import left_alone, nothing_left, removed
from kubectl_ebpfnet.cli.terminal import emit
from kubectl_ebpfnet.cli.with_flags import with_kubectl_flags
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dry_run import DryRun

SCHEMA = "ebpfnet.dev/cleanup/v1"
FORMATS = ("text", "json", "yaml")
TEXT = CommandText(
    usage="[NAMESPACE …] [--dry-run=client] [--yes] [flags]",
    summary="Delete leftover node pods and namespaces.",
    description="""A run that deploys node pods deletes them when it ends. Objects that a killed
run or --keep left behind are found by their labels in every namespace, deleted
and listed. Whatever a run may still use, since its time is not over, is deleted
after a question on the terminal, with --yes, or when its NAMESPACE is given.
Installed node pods (see node-pods) stay.

Exit codes: 0 nothing is left, 1 something was not removed, 2 usage.""",
    examples=(
        ("List leftovers, delete nothing", "cleanup --dry-run=client"),
        ("Delete those of runs that are over, ask about others", "cleanup"),
        ("Delete all of them, kept node pods and runs in progress too", "cleanup --yes"),
        ("Delete those of one run", "cleanup ebpfnet-0a1b2c3d"),
    ),
    namespace="",
    evidence=False,
)


@with_kubectl_flags
def run(
    global_flags: GlobalFlags,
    namespaces: Annotated[
        list[str] | None, Argument(metavar="NAMESPACE", help="Of one run; default: all runs")
    ] = None,
    dry_run: Annotated[
        str | None, Option("--dry-run", metavar="HOW", help=dry_runs.HELP, show_default=False)
    ] = None,
    yes: Annotated[
        bool, Option("-y", "--yes", help="Delete what a run may still use, too; do not ask")
    ] = False,
    output: Annotated[
        str, Option("-o", "--output", metavar="FORMAT", help="One of: text, json, yaml")
    ] = "text",
) -> int:
    """Delete leftover node pods and namespaces."""
    if output not in FORMATS:
        raise UsageError(f"-o {output!r}: no such format", hint=f"one of: {', '.join(FORMATS)}")
    connection, how = global_flags.connection(), dry_runs.dry_run(dry_run)
    from kubectl_ebpfnet.cluster.client.session import Session
    from kubectl_ebpfnet.render.lists.leftovers import line
    from kubectl_ebpfnet.render.text.documents import safe_json, safe_yaml

    rows, named = [], set(namespaces or ())
    with global_flags.progress() as progress, Session.open(connection) as session:
        for title, row in removed(session, named, progress, dry_run=how, yes=yes):
            rows.append(row)
            if output == "text":
                emit(line(title, row, dry_run=how))
        if output == "text":
            emit("".join(nothing_left(rows, sorted(named))))
        for note in left_alone(session):
            progress.warn(note)
    if output != "text":
        document = {"schema": SCHEMA, "dry_run": how is not DryRun.NONE, "items": rows}
        emit((safe_json if output == "json" else safe_yaml)(document))
    return 1 if any(row["error"] for row in rows) else 0
