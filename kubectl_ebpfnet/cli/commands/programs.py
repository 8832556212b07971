"""`programs`: list every BPF program that acts on a pod or a node."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from kubectl_ebpfnet.cli import arguments, flags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.sources import open_reader
from kubectl_ebpfnet.cli.terminal import Progress, color, emit, width
from kubectl_ebpfnet.render.text.view import View

TEXT = CommandText(
    usage="pod/NAME|node/NAME [flags]",
    summary="Show every BPF program that acts on a pod or a node.",
    description="""One line per program, by device and hook; programs of one hook (#) in the order
in which the kernel runs them: XDP, tcx, clsact at ingress, tcx, clsact at
egress. Then programs at cgroups (socket load-balancing) and at sk_lookup.
Cilium's programs are described by name. Only a node pod (--node-access pod)
sees a pod's own network namespace and cgroups. Exit code 4: no program was
found, and what would name them could not be read.""",
    examples=(
        ("Of a pod: its own, and those at the host side of its device", "programs pod/client"),
        ("Of a node, with run statistics, maps and pins", "programs node/n1 -o wide"),
        ("Through a node pod, which sees every attach type", "programs node/n1 --node-access pod"),
        ("Of a capture", "programs pod/client --from demo"),
    ),
)


@flags.with_node_flags
def run(
    global_flags: flags.GlobalFlags,
    target: Annotated[str, Argument(metavar="TARGET", help="pod/NAME, deploy/NAME or node/NAME")],
    output: flags.ListOutput = "table",
    capture: flags.Capture = "",
    colored: flags.Color = "auto",
    timeout: flags.Timeout = "30s",
) -> int:
    """Show every BPF program that acts on a pod or a node."""
    flags.check_list_output(output)
    view = View(width(), color(colored), global_flags.verbosity > 0)
    requested = arguments.pod_or_node(target, "programs")
    global_flags = global_flags.within(requested.namespace, requested.text)
    limit = arguments.duration(timeout, "--timeout")
    with Progress() as progress, open_reader(capture, global_flags, limit, progress) as read:
        from kubectl_ebpfnet.collect.scope import Scope
        from kubectl_ebpfnet.model.fact import Need

        evidence = read(requested, lambda _: Scope(Need.PROGRAMS))
        from kubectl_ebpfnet.explain.programs import listing as program_list
        from kubectl_ebpfnet.render.lists.listing import render
        from kubectl_ebpfnet.render.lists.programs import listing

        found = (
            program_list.of_node(evidence.node, evidence.bundle)
            if requested.kind == "node"
            else program_list.of_pod(evidence.namespace, evidence.pod, evidence.bundle)
        )
        text = render(listing(found), evidence.bundle, output, view)
    emit(text)
    return 0 if found.known else 4
