"""The words of `trace`: what is followed, until when, and how it is shown."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path as File
from typing import TYPE_CHECKING, Annotated

from typer import Option

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.agreement import agreement
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.object_words import shown as shown_word
from kubectl_ebpfnet.cli.path_arguments import Question
from kubectl_ebpfnet.cli.sources import connect, open_capture
from kubectl_ebpfnet.cli.terminal import Progress, emit, view_of, width
from kubectl_ebpfnet.cli.trace_plan import (
    Limits,
    Plan,
    explained,
    plan_of_drops,
    plan_of_path,
    pods_of,
)
from kubectl_ebpfnet.errors import ClusterError, UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.dry_run import DryRun
from kubectl_ebpfnet.model.protocol.tracing import MOST_DATA

if TYPE_CHECKING:
    from kubectl_ebpfnet.cli.arguments import CaptureTarget
    from kubectl_ebpfnet.cli.given_flags import NodeAccessFlags
    from kubectl_ebpfnet.cli.trace_run import Printed
    from kubectl_ebpfnet.collect.ask.access import Mode
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.trace import Notice, Sighting, Trace
    from kubectl_ebpfnet.render.text.view import View
    from kubectl_ebpfnet.render.trace.pcapng import Pcapng

FORMATS = ("table", "wide", "events", "json", "yaml", "html", "pcapng")
_TEMPLATES = ("jsonpath", "jsonpath-as-json", "jsonpath-file")
NAMES = (*FORMATS, *(f"{name}=…" for name in _TEMPLATES))
_EXIT = {"dropped": 3, "unknown": 4}
_MOST = 100_000
_SNAPLEN = 128
_DAY = 24 * 3600.0
_SETUP_SECONDS = 600
"""Of a node pod's life, beside the time of the trace."""

Output = Annotated[
    str, Option("-o", "--output", metavar="FORMAT", help=f"One of: {', '.join(NAMES)}")
]
Send = Annotated[bool, Option("--send", help="Send the packets, from the source")]
Count = Annotated[
    str,
    Option(
        "-c", "--count", metavar="N", show_default=False,
        help="End after so many packets; with --send, send so many (default 1)",
    ),
]  # fmt: skip
Interval = Annotated[str, Option("--interval", metavar="TIME", help="Between two of --send")]
Payload = Annotated[
    str,
    Option(
        "--payload", metavar="TEXT", show_default=False, help="What a datagram of --send carries"
    ),
]  # fmt: skip
For = Annotated[str, Option("--for", metavar="TIME", help="End after so long")]
Drops = Annotated[
    str,
    Option(
        "--drops", metavar="TARGET", show_default=False,
        help="All that pod/NAME or node/NAME loses, in place of a flow",
    ),
]  # fmt: skip
Snaplen = Annotated[
    str,
    Option(
        "--snaplen", metavar="BYTES", show_default=False,
        help="Of each packet, for -o pcapng and --save (default 128 with -o pcapng, at most 256)",
    ),
]  # fmt: skip
Save = Annotated[
    str,
    Option(
        "--save", metavar="FILE", show_default=False,
        help="Write all that was read and seen to a capture, for --from",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class How:
    """How the answer is shown, and where it comes from and goes to."""

    output: str
    view: View
    capture: str
    save: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What is followed: the packets of a question of `path`, or what a pod or node loses."""

    question: Question | None
    lost_by: CaptureTarget | None = None


def asked(question: Question | None, drops: str, given: str) -> Asked:
    """Read what is followed.

    Raises:
        UsageError: both, or neither, or no pod and no node.
    """
    if not drops:
        return Asked(question)
    if given:
        raise UsageError("--drops and a flow: one of them", hint=f"e.g. trace --drops {given}")
    return Asked(None, arguments.pod_or_node(drops, "trace --drops"))


def limits(
    count: str,
    interval: str,
    payload: str,
    seconds: str,
    timeout: str,
    snaplen: str,
    *,
    send: bool,
) -> Limits:
    """Read when it ends, and what is sent. Raises UsageError."""
    if count and not (count.isascii() and count.isdigit() and 0 < int(count[:9]) <= _MOST):
        raise UsageError(
            f"-c {shown_word(count)}: not a number from 1 to {_MOST}", hint="e.g. -c 3"
        )
    if snaplen and not (snaplen.isascii() and snaplen.isdigit() and int(snaplen[:9]) <= MOST_DATA):
        what = f"--snaplen {shown_word(snaplen)}: not a number up to {MOST_DATA}"
        raise UsageError(what, hint="e.g. --snaplen 128")
    number = int(count) if count else 1 if send else None
    between = arguments.duration(interval, "--interval") or 0.0
    arguments.duration(timeout, "--timeout")
    longest = arguments.duration(seconds, "--for") or _DAY
    if send and number:  # all of them, whatever --for says
        longest = max(longest, number * between + 5)
    data = int(snaplen) if snaplen else 0
    return Limits(longest, number, send, between, payload=payload, data=data)


def how(output: str, colored: str, verbosity: int, capture: str, save: str) -> How:
    """Read how the answer is shown. Raises UsageError, BundleError."""
    if output not in FORMATS:
        from kubectl_ebpfnet.render.output.formats import output_format

        output = output_format(output, (*FORMATS, *_TEMPLATES)).word
    if save and capture:
        raise UsageError("--save and --from: what is read is a capture already")
    if output == "pcapng" and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("-o pcapng is no text", hint="… -o pcapng > FILE, or | wireshark -k -i -")
    if save:
        from kubectl_ebpfnet.capture.write import refuse_existing

        refuse_existing(File(save))
    return How(output, view_of(width(), colored, verbosity), capture, save)


def answered(
    what: Asked, until: Limits, shown: How, global_flags: GlobalFlags, timeout: str
) -> int:
    """Follow, print, and return the exit code. Raises EbpfnetError."""
    if shown.output == "pcapng" and not until.data:
        until = replace(until, data=_SNAPLEN)
    sender = what.question.sender if what.question else None
    if sender is not None:
        global_flags = global_flags.within(sender.namespace, sender.text)
    if what.lost_by is not None:
        global_flags = global_flags.within(what.lost_by.namespace, what.lost_by.text)
    printed = _Shown(shown.output, shown.view, until.data)
    with global_flags.progress() as progress:
        if shown.capture:
            trace, bundle = _from_capture(what, shown.capture, global_flags, until, printed)
        else:
            limit = arguments.duration(timeout, "--timeout")
            trace, bundle = _live(what, global_flags, until, printed, progress, limit, shown.save)
    if text := printed.answer(trace, bundle):
        emit(text)
    return _EXIT.get(trace.verdict, 0)


class _Shown:
    """Prints sightings as they come, where the format has them, and the answer."""

    def __init__(self, output: str, view: View, snaplen: int) -> None:
        from kubectl_ebpfnet.render.trace.lines import Lines

        self._output, self._view = output, view
        self._lines = Lines(view, wide=output == "wide")
        self._any = False
        self._pcapng: Pcapng | None = None
        self._snaplen, self._began = snaplen, time.time_ns()

    def sighting(self, sighting: Sighting, packet: int, what: str) -> None:
        """Print a sighting."""
        if self._output == "events":
            from kubectl_ebpfnet.render.trace.document import event_line

            emit(event_line(sighting, packet) + "\n")
        elif self._output == "pcapng":
            self._file().packet(sighting, self._began)
        elif self._output in ("table", "wide"):
            lines = self._lines.of(sighting, packet, what)
            if lines:
                self._any = True
                emit("\n".join(lines) + "\n")

    def notice(self, notice: Notice) -> None:
        """Print a notice of Cilium."""
        if self._output == "events":
            from kubectl_ebpfnet.render.trace.document import notice_line

            emit(notice_line(notice) + "\n")
        elif self._output in ("table", "wide"):
            self._any = True
            emit("\n".join(self._lines.of_notice(notice)) + "\n")

    def _file(self) -> Pcapng:
        if self._pcapng is None:
            from kubectl_ebpfnet.render.trace.pcapng import Pcapng

            self._pcapng = Pcapng(sys.stdout.buffer, self._snaplen)
        return self._pcapng

    def answer(self, trace: Trace, bundle: Bundle) -> str:
        """Return the answer; "" for a stream of events or packets."""
        if self._output == "pcapng":
            self._file()
        if self._output in ("events", "pcapng"):
            return ""
        if self._output == "html":
            from kubectl_ebpfnet.render.trace.page import page

            return page(trace, bundle)
        if self._output not in ("table", "wide"):
            from kubectl_ebpfnet.render.output.formats import document_text, output_format
            from kubectl_ebpfnet.render.trace.document import document

            wanted = output_format(self._output, (*FORMATS, *_TEMPLATES))
            return document_text(wanted, lambda: document(trace, bundle))
        from kubectl_ebpfnet.render.trace.summary import summary

        return ("\n" if self._any else "") + summary(trace, self._view)


def _from_capture(
    what: Asked, capture: str, global_flags: GlobalFlags, until: Limits, printed: _Shown
) -> tuple[Trace, Bundle]:
    from kubectl_ebpfnet.cli.trace_run import from_bundle
    from kubectl_ebpfnet.explain.path import walk
    from kubectl_ebpfnet.explain.trace.filters import backends_of

    if what.question is None:
        raise UsageError("--drops watches a cluster", hint="leave --from out")
    bundle = open_capture(capture)
    namespace = global_flags.namespace or "default"
    path, _ = walk.explained(what.question.request_of("", namespace), bundle)
    plan = plan_of_path(path, replace(until, send=False), backends=backends_of(path, bundle))
    return from_bundle(plan, bundle, printed), bundle


def _live(
    what: Asked,
    global_flags: GlobalFlags,
    until: Limits,
    printed: Printed,
    progress: Progress,
    timeout: float | None,
    save: str,
) -> tuple[Trace, Bundle]:
    from kubectl_ebpfnet.capture.write import write_bundle
    from kubectl_ebpfnet.cli.trace_live import watch
    from kubectl_ebpfnet.collect.ask.access import Mode
    from kubectl_ebpfnet.collect.gatherer import Gatherer

    nodes = global_flags.nodes
    mode = _mode(nodes, send=until.send, drops=what.question is None)
    lifetime = None if nodes.keep else int(until.seconds) + _SETUP_SECONDS
    how = Mode.AGENT if mode is Mode.AGENT else Mode.POD
    global_flags = replace(global_flags, nodes=replace(nodes, mode=how.value, seconds=lifetime))
    with connect(global_flags, progress, reads=False) as (session, access):
        if mode is not Mode.AGENT and not nodes.yes and nodes.dry_run is DryRun.NONE:
            ask = agreement(progress, "--yes loads them")
            if why := ask("load BPF programs on the nodes of this way, from node pods?"):
                raise ClusterError(f"nothing was loaded: {why}")
        with Gatherer(session, access, warn=progress.warn, progress=progress.show) as gatherer:
            gatherer.begin(timeout)
            plan, bundle = _planned(gatherer, what, until)
            if nodes.dry_run is not DryRun.NONE:
                return _would(plan, bundle, progress, nodes.dry_run)
            trace, bundle = watch(gatherer, plan, bundle, until, printed, progress, mode)
            if save:
                write_bundle(save, bundle.records, f"trace of {plan.title}")
            return trace, bundle


def _mode(nodes: NodeAccessFlags, *, send: bool, drops: bool) -> Mode:
    """Return what looks. Raises UsageError."""
    from kubectl_ebpfnet.collect.ask.access import Mode

    mode = nodes.access().mode
    if mode is Mode.NONE:
        raise UsageError("--node-access none: nothing looks", hint="one of: auto, pod, agent")
    if mode is Mode.AGENT and (send or drops):
        what = "--send sends from a node pod" if send else "--drops asks the kernel"
        raise UsageError(f"--node-access agent: {what}", hint="leave one of them out")
    return mode


def _planned(gatherer: Gatherer, what: Asked, until: Limits) -> tuple[Plan, Bundle]:
    namespace = gatherer.session.namespace
    if what.question is None:
        assert what.lost_by is not None, "one of both is asked for"
        return plan_of_drops(gatherer, what.lost_by, namespace, until)
    path, bundle = explained(gatherer, what.question.request_of("", namespace))
    from kubectl_ebpfnet.explain.trace.filters import backends_of

    backends = backends_of(path, bundle)
    return plan_of_path(path, until, pods_of(gatherer, path), backends), bundle


def _would(plan: Plan, bundle: Bundle, progress: Progress, how: DryRun) -> tuple[Trace, Bundle]:
    """Say what would be watched."""
    from kubectl_ebpfnet.explain.trace.answer import Told, owner_of, trace_of

    progress.warn(f"trace on {', '.join(plan.nodes)}{how.suffix}")
    told = Told.nothing(owner_of(()))
    told.problems = dict.fromkeys(plan.nodes, f"--dry-run={how}: nothing is loaded")
    return trace_of(told, plan.title, plan.flow, plan.nodes, plan.path), bundle
