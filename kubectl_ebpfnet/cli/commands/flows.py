"""`flows`: list tracked connections of a pod or node, joined across their translations."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from kubectl_ebpfnet.cli import arguments, flags
from kubectl_ebpfnet.cli import list_arguments as lists
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.sources import open_reader
from kubectl_ebpfnet.cli.terminal import emit, view_of, width
from kubectl_ebpfnet.cli.watching import emit_repeatedly
from kubectl_ebpfnet.cli.with_flags import with_node_flags

TEXT = CommandText(
    usage="TARGET|-l SELECTOR|-A [--to PEER[:PORT]] [flags]",
    summary="List tracked connections (Cilium CT, NAT, nf_conntrack), one per line.",
    description="""Cilium's conntrack and NAT and nf_conntrack are joined: load-balancing to a
backend (to …) and masquerading (from …) stand in one line, with one state for
all tables (docs/lists.md). Flows are filtered on the node; the one of which a
packet was seen last stands first. Of those that are not closed or expired the
newest thousand are shown; stderr says how many others there are. Cilium counts
packets where bpf-conntrack-accounting is on, netfilter where nf_conntrack_acct
is. Exit code 4: the tables that would have the connections could not be read.""",
    examples=(
        ("Of a recorded cluster, without one", "flows pod/client --all --from demo"),
        ("Of a pod", "flows pod/client"),
        ("To a Service or its backends, every 2 seconds", "flows pod/client --to svc/web -w"),
        ("Of a node, UDP alone, with flags and tables", "flows node/n1 --protocol udp -o wide"),
        ("Of all pods with a label, closed ones too", "flows -l app=web --all"),
        ("For a script", "flows pod/client -o jsonpath='{.items[*].flow.destination}'"),
    ),
)


@with_node_flags
def run(
    global_flags: flags.GlobalFlags,
    target: lists.Target = "",
    to: lists.To = "",
    protocol: flags.FlowProtocol = "",
    everything: Annotated[
        bool, Option("--all", help="Show closed flows too, and not the newest thousand alone")
    ] = False,
    everywhere: lists.AllNamespaces = False,
    selector: lists.Selector = "",
    watch: flags.Watch = False,
    output: lists.Output = "table",
    sort_by: lists.SortBy = "",
    no_headers: lists.NoHeaders = False,
    capture: flags.Capture = "",
    colored: flags.Color = "auto",
    timeout: flags.Timeout = "30s",
) -> int:
    view = view_of(width(), colored, global_flags.verbosity)
    printed = lists.list_flags(output, sort_by, no_headers, view)
    wanted = lists.requested(target, everywhere, selector, "flows")
    peers_of = lists.peers_of(to, protocol)
    global_flags = wanted.within(global_flags)
    limit = arguments.duration(timeout, "--timeout")
    global_flags = global_flags.watching() if watch else global_flags

    with (
        global_flags.progress() as progress,
        open_reader(capture, global_flags, limit, progress) as reader,
    ):
        from kubectl_ebpfnet.cli.list_questions import flows

        peers = peers_of(reader)
        if watch and not capture:
            emit_repeatedly(
                lambda: printed.watched(*flows(reader, wanted, peers, everything=everything)[:2])
            )
        listing, bundle, known = flows(reader, wanted, peers, everything=everything)
        text = printed.text(listing, bundle)
    emit(text)
    printed.say_beside(listing, bundle, progress)
    return 0 if known else 4
