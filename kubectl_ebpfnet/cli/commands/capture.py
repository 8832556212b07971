"""`capture`: what a cluster says, into a file for --from."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli import arguments, flags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.terminal import Progress

TEXT = CommandText(
    usage="-f FILE [pod/NAME …] [node/NAME …] [flags]",
    summary="Record what a cluster says into a file, for --from.",
    description="""The file holds all that `path` would ask of these places, for any destination:
what was asked, when, and what was said. Secrets and environment variables are
never in it. Without a place, every node is recorded.""",
    examples=(
        ("Two pods and their nodes", "capture -f case.zip pod/client pod/web"),
        ("A node, with addresses and names replaced", "capture -f case.zip node/n1 --redact"),
        ("Then, anywhere", "path pod/client 1.1.1.1:80 --from case.zip"),
    ),
)


@flags.with_node_flags
def run(
    given: flags.GlobalFlags,
    places: Annotated[
        list[str] | None, Argument(metavar="PLACE", help="pod/NAME, deploy/NAME or node/NAME")
    ] = None,
    file: Annotated[
        str, Option("-f", "--file", metavar="FILE", help="File to write", show_default=False)
    ] = ...,  # type: ignore[assignment]
    redact: Annotated[
        bool, Option("--redact", help="Replace addresses and names, each always by the same")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace FILE if it is there")] = False,
    timeout: flags.Timeout = "2m",
) -> int:
    """Record what a cluster says."""
    wanted = [arguments.place(word) for word in places or ()]
    limit = arguments.duration(timeout, "--timeout")
    connection = given.connection()
    access = given.nodes.access()
    from kubectl_ebpfnet.cluster.client.session import Session
    from kubectl_ebpfnet.collect.capture import capture

    with Progress() as talk:
        talk.progress("connecting")
        with Session.open(connection) as session:
            count = capture(
                session,
                wanted,
                file,
                redact=redact,
                overwrite=force,
                access=access,
                timeout=limit,
                say=talk.say,
                progress=talk.progress,
            )
        talk.say(f"{file}: {count} records")
    return 0
