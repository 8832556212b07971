"""`flows`: list tracked connections of a pod or node, joined across their translations."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli import arguments, flags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.sources import open_reader
from kubectl_ebpfnet.cli.terminal import Progress, color, emit, emit_repeatedly, width
from kubectl_ebpfnet.render.text.view import View

TEXT = CommandText(
    usage="pod/NAME|node/NAME [--to ADDRESS[:PORT]] [flags]",
    summary="List tracked connections (Cilium CT, NAT, nf_conntrack), one per line.",
    description="""Cilium's conntrack and NAT and nf_conntrack are joined: load-balancing to a
backend (to …) and masquerading (from …) stand in one line. Flows are filtered
on the node; the one of which a packet was seen last stands first. The newest
thousand are shown, and how many more there are. Cilium counts packets where
bpf-conntrack-accounting is on, netfilter where nf_conntrack_acct is. Exit code
4: the tables that would have the connections could not be read.""",
    examples=(
        ("Of a pod", "flows pod/client"),
        ("To an address and port, every 2 seconds", "flows pod/client --to 1.1.1.1:80 -w"),
        ("Of a node, UDP alone, with flags and tables", "flows node/n1 --protocol udp -o wide"),
        ("Of a capture", "flows pod/client --from demo"),
    ),
)


@flags.with_node_flags
def run(
    global_flags: flags.GlobalFlags,
    target: Annotated[str, Argument(metavar="TARGET", help="pod/NAME, deploy/NAME or node/NAME")],
    to: flags.To = "",
    protocol: Annotated[
        str, Option("--protocol", metavar="NAME", help="tcp, udp, sctp or icmp", show_default=False)
    ] = "",
    everything: Annotated[
        bool, Option("--all", help="Show all flows, not the newest thousand alone")
    ] = False,
    watch: flags.Watch = False,
    output: flags.ListOutput = "table",
    capture: flags.Capture = "",
    colored: flags.Color = "auto",
    timeout: flags.Timeout = "30s",
) -> int:
    """List tracked connections."""
    flags.check_list_output(output)
    view = View(width(), color(colored), global_flags.verbosity > 0)
    requested, peers = arguments.pod_or_node(target, "flows"), arguments.peers(to, protocol)
    global_flags = global_flags.within(requested.namespace, requested.text)
    limit = arguments.duration(timeout, "--timeout")
    global_flags = global_flags.watching() if watch else global_flags

    with Progress() as progress, open_reader(capture, global_flags, limit, progress) as read:
        from kubectl_ebpfnet.collect.scope import flows_scope
        from kubectl_ebpfnet.explain.flows import listing as flows
        from kubectl_ebpfnet.render.lists.flows import listing
        from kubectl_ebpfnet.render.lists.listing import render

        def shown() -> tuple[str, bool]:
            evidence = read(
                requested, lambda addresses: flows_scope(addresses, peers, everything=everything)
            )
            bundle, most = evidence.bundle, None if everything else flows.MOST
            found = (
                flows.of_node(evidence.node, bundle, peers, most)
                if requested.kind == "node"
                else flows.of_pod(evidence.namespace, evidence.pod, bundle, peers, most)
            )
            return render(listing(found), bundle, output, view), found.known

        if watch and not capture:
            emit_repeatedly(lambda: shown()[0])
        text, known = shown()
    emit(text)
    return 0 if known else 4
