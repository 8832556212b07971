"""Follow, and print what is seen and the answer of `trace`."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli import arguments, trace_process
from kubectl_ebpfnet.cli.agreement import agreement
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.sources import connect, open_capture
from kubectl_ebpfnet.cli.terminal import Progress, emit, emit_bytes
from kubectl_ebpfnet.cli.trace_arguments import FORMATS, TEMPLATES, Asked, How
from kubectl_ebpfnet.cli.trace_plan import (
    Limits,
    Plan,
    explained,
    plan_of_drops,
    plan_of_path,
    pods_of,
)
from kubectl_ebpfnet.errors import ClusterError, UsageError
from kubectl_ebpfnet.model.dry_run import DryRun

if TYPE_CHECKING:
    from kubectl_ebpfnet.cli.given_flags import NodeAccessFlags
    from kubectl_ebpfnet.cli.trace_run import Printed
    from kubectl_ebpfnet.collect.ask.access import Mode
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.trace import Notice, Sighting, Trace
    from kubectl_ebpfnet.render.text.view import View
    from kubectl_ebpfnet.render.trace.pcapng import Pcapng


_EXIT = {"dropped": 3, "unknown": 4}
_SNAPLEN = 128
_SETUP_SECONDS = 600
"""Of a node pod's life, beside the time of the trace."""


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
        if printed.without_bytes:
            lacking = f"{printed.without_bytes} places of packets are left out, without bytes"
            progress.warn(f"{lacking}; --snaplen has them kept")
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
        self._snaplen, self._began = snaplen, 0
        self.without_bytes = 0
        """Places of packets that -o pcapng leaves out, since no bytes were told."""

    def began(self, wall_ns: int) -> None:
        """Take the wall clock of second 0; begin the file, for whom reads it live."""
        self._began = wall_ns
        if self._output == "pcapng":
            self._blocks()

    def sighting(self, sighting: Sighting, packet: int, what: str) -> None:
        """Print a sighting."""
        if self._output == "events":
            from kubectl_ebpfnet.render.trace.document import event_line

            emit(event_line(sighting, packet) + "\n")
        elif self._output == "pcapng":
            blocks = self._blocks().packet(sighting, self._began)
            self.without_bytes += not blocks
            emit_bytes(BytesIO(blocks))
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

    def _blocks(self) -> Pcapng:
        if self._pcapng is None:
            from kubectl_ebpfnet.render.trace.pcapng import HEADER, Pcapng

            self._pcapng = Pcapng(self._snaplen)
            emit_bytes(BytesIO(HEADER))
        return self._pcapng

    def answer(self, trace: Trace, bundle: Bundle) -> str:
        """Return the answer; "" for a stream of events or packets."""
        if self._output == "pcapng":
            self._blocks()
        if self._output in ("events", "pcapng"):
            return ""
        if self._output == "html":
            from kubectl_ebpfnet.render.trace.page import page

            return page(trace, bundle)
        if self._output not in ("table", "wide"):
            from kubectl_ebpfnet.render.output.formats import document_text, output_format
            from kubectl_ebpfnet.render.trace.document import document

            wanted = output_format(self._output, (*FORMATS, *TEMPLATES))
            return document_text(wanted, lambda: document(trace, bundle))
        from kubectl_ebpfnet.render.trace.summary import summary

        return ("\n" if self._any else "") + summary(trace, self._view)


def _from_capture(
    what: Asked, capture: str, global_flags: GlobalFlags, until: Limits, printed: _Shown
) -> tuple[Trace, Bundle]:
    from kubectl_ebpfnet.cli.trace_run import from_bundle
    from kubectl_ebpfnet.explain.path import walk
    from kubectl_ebpfnet.explain.trace.filters import backends_of

    bundle = open_capture(capture)
    if what.question is None:
        return _kept(what, bundle, printed), bundle
    namespace = global_flags.namespace or "default"
    path, _ = walk.explained(what.question.request_of("", namespace), bundle)
    plan = plan_of_path(path, replace(until, send=False), backends=backends_of(path, bundle))
    return from_bundle(plan, bundle, printed), bundle


def _kept(what: Asked, bundle: Bundle, printed: _Shown) -> Trace:
    """Return the answer of what --save kept, of drops or of a process. Raises UsageError."""
    from kubectl_ebpfnet.cli.trace_run import from_bundle, kept_plan

    if what.lost_by is not None:
        kind = "node" if what.lost_by.kind == "node" else "pod"
        title = f"drops of {kind}/{what.lost_by.name}"
    else:
        assert what.process is not None, "one of all is asked for"
        title = what.process.text
    plan = kept_plan(bundle, title)
    if plan is None:
        raise UsageError(f"{title}: the capture has no such trace", hint="it was made with --save")
    return from_bundle(plan, bundle, printed)


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
    mode = _mode(nodes, send=until.send, drops=what.lost_by is not None)
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
    if what.process is not None:
        return trace_process.plan(gatherer, what.process, namespace, until)
    if what.question is None:
        assert what.lost_by is not None, "one of all is asked for"
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
