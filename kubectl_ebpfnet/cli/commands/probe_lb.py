"""`probe-lb`: probe a LoadBalancer through each node as an external client would."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli import flags, probe_arguments
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.terminal import emit, view_of, width
from kubectl_ebpfnet.cli.watching import emit_repeatedly
from kubectl_ebpfnet.cli.with_flags import with_probe_flags
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dry_run import DryRun

TEXT = CommandText(
    usage="SERVICE [flags]",
    summary="Probe a LoadBalancer through every node, as an external client would.",
    description="""netkat on another node sends to the Service's address with the probed node as
next hop, so that the node treats the packet as external traffic. Each result is
compared with what externalTrafficPolicy, the ready endpoints and the node call
for. Node pods are deployed on the senders and deleted at the end. A capture
holds no probes: with --from, the expected results are shown.

Exit codes: 0 probed, 1 error, as where no node pod could send, 2 usage, 4 not
known of any node; with --exit-code, 3 for a mismatch and 4 for unknown.""",
    examples=(
        ("Expected results, of a recorded cluster", "probe-lb svc/web-lb-local --from demo"),
        ("Every address and port, through every node", "probe-lb svc/web-lb"),
        ("Expected results, nothing sent", "probe-lb svc/web-lb --dry-run=client"),
        ("Some nodes, and their node ports too", "probe-lb web-lb --nodes zone=a --node-port"),
        ("During a rollout, for a script at its end", "probe-lb web-lb -w --exit-code"),
    ),
    namespace="Namespace of the Service",
)


@with_probe_flags
def run(
    global_flags: flags.GlobalFlags,
    service: Annotated[str, Argument(metavar="SERVICE", help="svc/NAME or NAME")],
    port: Annotated[str, Option("--port", metavar="PORT", help="Number or name; else all")] = "",
    nodes: Annotated[str, Option("--nodes", metavar="SELECTOR", help="Selector of nodes")] = "",
    from_node: Annotated[str, Option("--from-node", metavar="NAME", help="The sending node")] = "",
    capture: flags.Capture = "",
    protocol: Annotated[str, Option("--protocol", metavar="NAME", help="One of: tcp, udp")] = "",
    wait: Annotated[str, Option("--wait", metavar="TIME", help="Timeout of one attempt")] = "5s",
    http_path: Annotated[
        str, Option("--http-path", metavar="PATH", help="HTTP path to request; '' for none")
    ] = "/clientip",
    attempts: Annotated[int, Option("--attempts", metavar="N", help="Per probe, 1 to 100")] = 1,
    node_port: Annotated[bool, Option("--node-port", help="Probe the node ports too")] = False,
    verify_policies: Annotated[
        bool, Option("--verify-policies", help="Probe a copy of the Service per policy")
    ] = False,
    exit_code: Annotated[bool, Option("--exit-code", help="3 mismatch, 4 unknown")] = False,
    watch: flags.Watch = False,
    output: flags.ProbeOutput = "table",
    colored: flags.Color = "auto",
) -> int:
    """Probe a LoadBalancer through every node."""
    output = flags.report_output(output, "html")
    if watch and output == "html":
        raise UsageError("-o html is one page of one run", hint="leave out -w")
    view = view_of(width(), colored, global_flags.verbosity)
    probe_flags = probe_arguments.ProbeFlags(
        service, port, nodes, from_node, protocol, wait, http_path, attempts, node_port
    )
    global_flags = global_flags.watching() if watch else global_flags
    dry_run = bool(capture) or global_flags.nodes.dry_run is not DryRun.NONE
    prober = probe_arguments.prober(probe_flags, global_flags, capture, verify_policies)
    with prober as probe:
        if watch and not dry_run:
            emit_repeatedly(probe_arguments.render_watched(probe, output, view), seconds=5)
        reports = probe()
        text = probe_arguments.render_reports(reports, output, view)
    emit(text)
    return probe_arguments.exit_code(reports, asked=exit_code, dry_run=dry_run)
