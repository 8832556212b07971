"""`programs`: list every BPF program that acts on a pod or a node."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from kubectl_ebpfnet.cli import arguments, flags
from kubectl_ebpfnet.cli import list_arguments as lists
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.sources import open_reader
from kubectl_ebpfnet.cli.terminal import emit, view_of, width
from kubectl_ebpfnet.cli.with_flags import with_node_flags

TEXT = CommandText(
    usage="TARGET|-l SELECTOR|-A [flags]",
    summary="Show every BPF program that acts on a pod or a node.",
    description="""One line per program, by device and hook; programs of one hook (#) in the order
in which the kernel runs them: XDP, tcx, clsact at ingress, tcx, clsact at
egress. Then programs at cgroups and at sk_lookup; those of socket
load-balancing are one line. Cilium's programs are described by name. Only a
node pod (--node-access pod) sees a pod's own network namespace and cgroups.
Exit code 4: no program was found, and what would name them could not be read.""",
    examples=(
        ("Of a recorded cluster, without one", "programs pod/client --from demo"),
        ("Of a pod: its own, and those at the host side of its device", "programs pod/client"),
        ("Of a node, with run statistics, maps and pins", "programs node/n1 -o wide"),
        ("Through a node pod, which sees every attach type", "programs node/n1 --node-access pod"),
        ("Ids alone, for bpftool", "programs node/n1 -o name"),
    ),
)


@with_node_flags
def run(
    global_flags: flags.GlobalFlags,
    target: lists.Target = "",
    everything: Annotated[
        bool, Option("--all", help="Show each program of socket load-balancing")
    ] = False,
    everywhere: lists.AllNamespaces = False,
    selector: lists.Selector = "",
    output: lists.Output = "table",
    sort_by: lists.SortBy = "",
    no_headers: lists.NoHeaders = False,
    capture: flags.Capture = "",
    colored: flags.Color = "auto",
    timeout: flags.Timeout = "30s",
) -> int:
    """Show every BPF program that acts on a pod or a node."""
    view = view_of(width(), colored, global_flags.verbosity)
    printed = lists.list_flags(output, sort_by, no_headers, view)
    wanted = lists.requested(target, everywhere, selector, "programs")
    global_flags = wanted.within(global_flags)
    limit = arguments.duration(timeout, "--timeout")
    with (
        global_flags.progress() as progress,
        open_reader(capture, global_flags, limit, progress) as reader,
    ):
        from kubectl_ebpfnet.cli.list_questions import programs

        listing, bundle, known = programs(reader, wanted, unfold=everything)
        text = printed.text(listing, bundle)
    emit(text)
    printed.say_beside(listing, bundle, progress)
    return 0 if known else 4
