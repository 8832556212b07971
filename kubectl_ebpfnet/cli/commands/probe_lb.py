"""`probe-lb`: whether clients outside the cluster are answered at each node of a LoadBalancer."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli import flags, probe_arguments
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.terminal import Progress, color, emit, emit_repeatedly, width
from kubectl_ebpfnet.render.text.view import View

TEXT = CommandText(
    usage="SERVICE [flags]",
    summary="Probe a LoadBalancer through every node, as an external client would.",
    description="""netkat on another node sends to the Service's address with the probed node as
next hop, so that the node treats the packet as external traffic. Each result is
compared with what externalTrafficPolicy, the ready endpoints and the node call
for. Node pods are deployed on the senders and deleted at the end.

Exit code 0; with --exit-code, 3 for a mismatch and 4 for unknown.""",
    examples=(
        ("Every address and port, through every node", "probe-lb svc/web-lb"),
        ("Expected results, nothing sent", "probe-lb svc/web-lb --dry-run"),
        ("Some nodes, and their node ports too", "probe-lb web-lb --nodes zone=a --node-port"),
        ("During a rollout, for a script at its end", "probe-lb web-lb -w --exit-code"),
    ),
)


@flags.with_node_flags
def run(
    given: flags.GlobalFlags,
    service: Annotated[str, Argument(metavar="SERVICE", help="svc/NAME or NAME")],
    port: Annotated[str, Option("--port", metavar="PORT", help="Number or name; else all")] = "",
    nodes: Annotated[str, Option("--nodes", metavar="SELECTOR", help="Selector of nodes")] = "",
    sender: Annotated[str, Option("--from", metavar="node/NAME", help="The sending node")] = "",
    protocol: Annotated[str, Option("--protocol", metavar="NAME", help="tcp or udp")] = "",
    wait: Annotated[str, Option("--wait", metavar="TIME", help="Timeout of one attempt")] = "5s",
    http_path: Annotated[
        str, Option("--http-path", metavar="PATH", help="HTTP path to request; '' for none")
    ] = "/clientip",
    attempts: Annotated[int, Option("--attempts", metavar="N", help="Per probe, 1 to 100")] = 1,
    node_port: Annotated[bool, Option("--node-port", help="Probe the node ports too")] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show expected results; send nothing")
    ] = False,
    both: Annotated[
        bool, Option("--verify-policies", help="Probe a copy of the Service per policy")
    ] = False,
    exit_code: Annotated[bool, Option("--exit-code", help="3 mismatch, 4 unknown")] = False,
    watch: flags.Watch = False,
    output: flags.ListOutput = "table",
    colored: flags.Color = "auto",
) -> int:
    """Probe a LoadBalancer through every node."""
    flags.check_list_output(output)
    view = View(width(), color(colored), given.verbosity > 0)
    asked = probe_arguments.ProbeFlags(
        service, port, nodes, sender, protocol, wait, http_path, attempts, node_port
    )
    given = given.watching() if watch else given
    with (
        Progress() as progress,
        probe_arguments.prober(asked, given, dry_run, both, progress) as probe,
    ):
        if watch and not dry_run:
            emit_repeatedly(probe_arguments.watched(probe, output, view), seconds=5)
        reports = probe()
        text = probe_arguments.text_of(reports, output, view)
    emit(text)
    return (
        probe_arguments.EXIT_CODES[probe_arguments.worst(reports)]
        if exit_code and not dry_run
        else 0
    )
