"""`capture`: record a cluster's state in a file for --from."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli import arguments, capture_file, flags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.positional import typed_names
from kubectl_ebpfnet.cli.sources import connect
from kubectl_ebpfnet.cli.with_flags import with_node_flags

TEXT = CommandText(
    usage="[pod/NAME …] [node/NAME …] [-o FILE] [flags]",
    summary="Record a cluster's state in a file, for --from.",
    description="""The file holds every output that `path` reads from these pods and nodes, for any
destination: the command, the time and the output. Secrets and environment
variables never enter it. Without a TARGET, every node is recorded. The kernel's
own look-ups, by node pods, are for packets between these pods and --to.""",
    examples=(
        ("Two pods and their nodes", "capture pod/client pod/web -o case.zip"),
        ("A pod, a Service and its nodes", "capture pod/client --to svc/web"),
        ("A node, with addresses and names anonymised", "capture node/n1 --redact -o case.zip"),
        ("To another machine", "capture pod/client -o - | ssh jump 'cat > case.zip'"),
        ("Then, anywhere", "path pod/client 1.1.1.1:80 --from case.zip"),
    ),
    namespace="Namespace of the pods and of --to",
    evidence=False,
)
Place = Argument(metavar="TARGET", help="pod/NAME, deploy/NAME or node/NAME")
File = Option(
    "-o", "--output", metavar="FILE", show_default=False,
    help="File to write, - for stdout (default: CONTEXT-DATE-TIME.zip)",
)  # fmt: skip


@with_node_flags
def run(
    global_flags: flags.GlobalFlags,
    words: Annotated[list[str] | None, Place] = None,
    output: Annotated[str, File] = "",
    file: Annotated[str, Option("-f", "--file", metavar="FILE", hidden=True)] = "",
    to: Annotated[
        list[str] | None,
        Option("--to", metavar="DEST", help="Also record a destination's nodes and the way to it"),
    ] = None,
    redact: Annotated[
        bool, Option("--redact", help="Anonymise addresses and names consistently")
    ] = False,
    force: Annotated[bool, Option("--force", help="Overwrite FILE if it exists")] = False,
    timeout: flags.Timeout = "2m",
) -> int:
    """Record a cluster's state."""
    targets = [arguments.pod_or_node(word, "capture") for word in typed_names(words or ())]
    for target in targets:
        global_flags = global_flags.within(target.namespace, target.text)
    destinations = [arguments.destination(word) for word in to or ()]
    limit = arguments.duration(timeout, "--timeout")
    name = capture_file.given(output, file)
    with global_flags.progress() as progress, connect(global_flags, progress) as (session, access):
        from kubectl_ebpfnet.collect.capture import capture

        name = name or capture_file.default_name(session.context, redact=redact)
        with capture_file.opened(name) as target_file:
            count = capture(
                session, targets, target_file, destinations=destinations, redact=redact,
                overwrite=force, access=access, timeout=limit,
                warn=progress.warn, progress=progress.show,
            )  # fmt: skip
            size = capture_file.size_of(target_file)
        reader = capture_file.reader(targets, to or (), session.namespace, redact=redact)
        progress.warn(capture_file.summary(name, count, size, reader))
    return 0
