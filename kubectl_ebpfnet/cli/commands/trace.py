"""`trace`: the packets themselves, at every place that they pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from typer import Option

from kubectl_ebpfnet.cli import arguments, flags, path_arguments
from kubectl_ebpfnet.cli.agreement import agreement
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.object_words import shown
from kubectl_ebpfnet.cli.sources import connect, open_capture
from kubectl_ebpfnet.cli.terminal import Progress, emit, width
from kubectl_ebpfnet.cli.terminal import view_of as terminal_view
from kubectl_ebpfnet.cli.with_flags import with_trace_flags
from kubectl_ebpfnet.errors import ClusterError, UsageError
from kubectl_ebpfnet.model.dry_run import DryRun

if TYPE_CHECKING:
    from kubectl_ebpfnet.cli.trace_run import Limits, OnSighting, Plan
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.trace import Sighting, Trace
    from kubectl_ebpfnet.render.text.view import View

_FORMATS = ("table", "wide", "events", "json", "yaml")
_SECONDS = "30s"
_MOST = 100_000
TEXT = CommandText(
    usage="SOURCE DESTINATION[:PORT][/PROTOCOL] [flags]",
    summary="Follow packets as they pass, on every node of their way.",
    description="""A line for each place that a packet of this flow, or an answer, passes: through
namespaces, devices, translation and tunnels, on every node that `path` says it
passes; where it is dropped, the kernel's reason and function. At the end the
verdict, what was seen of path's hops, and where reality left the tables.

--send sends the packets itself, from the pod's network namespace; the pod's
image needs nothing. Otherwise the trace waits for the pod's own.

BPF programs are loaded on these nodes for the time of the trace, from node
pods, and are gone with it. You are asked before. Ctrl-C ends it.

Exit codes: 0 delivered, reachable or leaves, 1 error, 2 usage, 3 dropped,
4 unknown, or events were lost.""",
    examples=(
        ("Send a TCP SYN, and follow it and its answer", "trace pod/client 1.1.1.1:80 --send"),
        ("Three pings to a Service's pod", "trace pod/client pod/web --send -c 3 --protocol icmp"),
        ("What the pod itself sends, for a minute", "trace pod/client svc/web:80 --for 1m"),
        ("Each event as a line of JSON", "trace pod/client 1.1.1.1:80 --send -o events"),
    ),
    namespace="Namespace of the source",
    evidence=False,
)


@with_trace_flags
def run(
    global_flags: flags.GlobalFlags,
    source: flags.Source = "",
    destination: flags.Destination = "",
    output: Annotated[
        str, Option("-o", "--output", metavar="FORMAT", help=f"One of: {', '.join(_FORMATS)}")
    ] = "table",
    send: Annotated[bool, Option("--send", help="Send the packets, from the source")] = False,
    count: Annotated[
        str,
        Option(
            "-c",
            "--count",
            metavar="N",
            help="End after so many packets; with --send, send so many (default 1)",
            show_default=False,
        ),
    ] = "",
    interval: Annotated[
        str, Option("--interval", metavar="TIME", help="Of --send: between two packets")
    ] = "1s",
    payload: Annotated[
        str,
        Option(
            "--payload",
            metavar="TEXT",
            help="Of --send: what a UDP datagram carries",
            show_default=False,
        ),
    ] = "",
    seconds: Annotated[str, Option("--for", metavar="TIME", help="End after so long")] = _SECONDS,
    protocol: flags.Protocol = "",
    ipv4: flags.Ipv4 = False,
    ipv6: flags.Ipv6 = False,
    to_namespace: flags.ToNamespace = "",
    capture: flags.Capture = "",
    save: Annotated[
        str,
        Option(
            "--save",
            metavar="FILE",
            help="Write everything that was read and seen to a capture, for --from",
            show_default=False,
        ),
    ] = "",
    colored: flags.Color = "auto",
    timeout: flags.Timeout = "60s",
) -> int:
    """Follow packets as they pass."""
    from kubectl_ebpfnet.cli.trace_run import Limits

    if output not in _FORMATS:
        raise UsageError(f"-o {output!r}: no such format", hint=f"one of: {', '.join(_FORMATS)}")
    if count and not (count.isascii() and count.isdigit() and 0 < int(count[:9]) <= _MOST):
        raise UsageError(f"-c {shown(count)}: not a number from 1 to {_MOST}", hint="e.g. -c 3")
    asked = path_arguments.question(
        source, destination, protocol, to_namespace, ipv4=ipv4, ipv6=ipv6, size="", via="",
        selector="", all_pods=False,
    )  # fmt: skip
    limits = Limits(
        arguments.duration(seconds, "--for") or 24 * 3600.0,
        int(count) if count else 1 if send else None,
        send, arguments.duration(interval, "--interval") or 0.0,
        payload=payload,
    )  # fmt: skip
    view = terminal_view(width(), colored, global_flags.verbosity)
    printed = _Shown(output, view)
    if asked.sender is not None:
        global_flags = global_flags.within(asked.sender.namespace, asked.sender.text)
    with global_flags.progress() as progress:
        if capture:
            trace, bundle = _from_capture(asked, capture, global_flags, limits, printed.sighting)
        else:
            trace, bundle = _live(
                asked, global_flags, limits, printed.sighting, progress,
                arguments.duration(timeout, "--timeout"), save,
            )  # fmt: skip
    emit(printed.answer(trace, bundle))
    from kubectl_ebpfnet.cli.trace_run import EXIT

    return EXIT.get(trace.verdict, 0)


class _Shown:
    """Prints sightings as they come, where the format has them, and the answer."""

    def __init__(self, output: str, view: View) -> None:
        from kubectl_ebpfnet.render.trace.lines import Lines

        self._output, self._view = output, view
        self._lines = Lines(view, wide=output == "wide")

    def sighting(self, sighting: Sighting, packet: int, what: str) -> None:
        """Print a sighting."""
        if self._output == "events":
            from kubectl_ebpfnet.render.trace.document import event_line

            emit(event_line(sighting, packet) + "\n")
        elif self._output in ("table", "wide"):
            lines = self._lines.of(sighting, packet, what)
            if lines:
                emit("\n".join(lines) + "\n")

    def answer(self, trace: Trace, bundle: Bundle) -> str:
        """Return the answer; "" for a stream of events."""
        if self._output == "events":
            return ""
        if self._output in ("json", "yaml"):
            from kubectl_ebpfnet.render.text.documents import safe_text
            from kubectl_ebpfnet.render.trace.document import document

            return safe_text(document(trace, bundle), self._output)
        from kubectl_ebpfnet.render.trace.summary import summary

        return "\n" + summary(trace, self._view)


def _from_capture(
    asked: path_arguments.Question,
    capture: str,
    global_flags: flags.GlobalFlags,
    limits: Limits,
    on_sighting: OnSighting,
) -> tuple[Trace, Bundle]:
    from kubectl_ebpfnet.cli.trace_run import from_bundle, plan_of_path
    from kubectl_ebpfnet.explain.path import walk

    bundle = open_capture(capture)
    path, _ = walk.explained(asked.request_of("", global_flags.namespace or "default"), bundle)
    plan = plan_of_path(path, replace(limits, send=False))
    return from_bundle(plan, bundle, on_sighting), bundle


def _live(
    asked: path_arguments.Question,
    global_flags: flags.GlobalFlags,
    limits: Limits,
    on_sighting: OnSighting,
    progress: Progress,
    timeout: float | None,
    save: str,
) -> tuple[Trace, Bundle]:
    from pathlib import Path as File

    from kubectl_ebpfnet.capture.write import refuse_existing, write_bundle
    from kubectl_ebpfnet.cli.trace_run import explained, plan_of_path, pods_of, watch
    from kubectl_ebpfnet.collect.gatherer import Gatherer

    if save:
        refuse_existing(File(save))
    nodes = global_flags.nodes
    global_flags = replace(global_flags, nodes=replace(nodes, mode="pod"))
    with connect(global_flags, progress, reads=False) as (session, access):
        if not nodes.yes and nodes.dry_run is DryRun.NONE:
            ask = agreement(progress, "--yes loads them")
            question = "load BPF programs on the nodes of this way, from node pods?"
            if why := ask(question):
                raise ClusterError(f"nothing was loaded: {why}")
        with Gatherer(session, access, warn=progress.warn, progress=progress.show) as gatherer:
            gatherer.begin(timeout)
            path, bundle = explained(gatherer, asked.request_of("", session.namespace))
            plan = plan_of_path(path, limits, pods_of(gatherer, path))
            if nodes.dry_run is not DryRun.NONE:
                return _would(plan, bundle, progress, nodes.dry_run)
            trace, bundle = watch(gatherer, plan, bundle, limits, on_sighting, progress)
            if save:
                write_bundle(save, bundle.records, f"trace of {plan.title}")
            return trace, bundle


def _would(plan: Plan, bundle: Bundle, progress: Progress, how: DryRun) -> tuple[Trace, Bundle]:
    """Say what would be watched."""
    from kubectl_ebpfnet.explain.trace.answer import Told, owner_of, trace_of

    progress.warn(f"trace on {', '.join(plan.nodes)}{how.suffix}")
    told = Told.nothing(owner_of(()))
    told.problems = dict.fromkeys(plan.nodes, f"--dry-run={how}: nothing is loaded")
    return trace_of(told, plan.title, plan.flow, plan.nodes, plan.path), bundle
