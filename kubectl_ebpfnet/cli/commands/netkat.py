"""`netkat`: netcat from a node, bypassing its filters and translations."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli import arguments, flags, netkat_arguments, netkat_stdio
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.object_words import is_type
from kubectl_ebpfnet.cli.terminal import emit
from kubectl_ebpfnet.cli.with_flags import with_pod_flags
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dry_run import DryRun

SESSION_SECONDS = 24 * 3600
"""Longest session, except in kept node pods; a pod without a session ends within a minute."""
TEXT = CommandText(
    usage="[flags] node/NAME [netkat options] HOST PORT",
    summary="Netcat from a node, bypassing its netfilter, socket LB and CNI.",
    description="""Words after node/NAME are netkat's: `node/NAME -h` shows its options. There,
--via node/OTHER takes that node's address as next hop, and --pcap writes a file
on this machine. stdin and stdout carry the connection's bytes unchanged.

A node pod is deployed for the session and deleted with it. The exit code is
netkat's: 0, or 1 when the connection failed; 2 usage.""",
    examples=(
        ("An HTTP server, past the node's rules", "netkat node/n1 -N 1.1.1.1 80 < request"),
        ("A LoadBalancer, through another node", "netkat node/n1 --via node/n2 192.0.2.1 80"),
        ("Wait for a client, and show each packet", "netkat node/n1 -l -d 0.0.0.0 8080"),
        ("netkat's own options", "netkat node/n1 -h"),
    ),
    namespace="",
    evidence=False,
)


@with_pod_flags
def run(
    global_flags: flags.GlobalFlags,
    target: Annotated[str, Argument(metavar="NODE", help="node/NAME")],
    words: Annotated[
        list[str] | None, Argument(metavar="…", help="[netkat options] HOST PORT")
    ] = None,
    timeout: Annotated[
        str, Option("--timeout", metavar="TIME", help="How long to wait for the node pod")
    ] = "60s",
) -> int:
    requested = arguments.target(target if "/" in target else f"node/{target}")
    if requested.kind != "node" or is_type(target):
        raise UsageError(f"{target!r}: netkat runs on a node", hint="e.g. node/n1")
    netkat_words = netkat_arguments.read(words or [])
    if netkat_words is None:
        emit(netkat_arguments.HELP)
        return 0
    limit = arguments.duration(timeout, "--timeout")
    connection = global_flags.connection(within=limit)
    seconds = None if global_flags.nodes.keep else SESSION_SECONDS
    access = replace(global_flags.nodes, mode="pod", seconds=seconds).access()
    from kubectl_ebpfnet.active import netkat
    from kubectl_ebpfnet.cluster.client.session import Session
    from kubectl_ebpfnet.collect.deadline import Deadline

    deadline, pcap = Deadline(limit), netkat_words.pcap if access.dry_run is DryRun.NONE else ""
    with contextlib.ExitStack() as stack:
        streams = stack.enter_context(netkat_stdio.open_streams(pcap))
        progress = stack.enter_context(global_flags.progress())
        session = stack.enter_context(Session.open(connection))
        netkat.check_node(session, requested.name)
        version = netkat_words.request.ip_version
        via = netkat.next_hop(session, netkat_words.via, version) if netkat_words.via else ""
        sent = netkat_words.for_node(via, terminal=sys.stdin is not None and sys.stdin.isatty())
        return netkat.run(
            session, access, requested.name, sent, streams,
            timeout=deadline.left, warn=progress.warn, progress=progress.show,
        )  # fmt: skip
