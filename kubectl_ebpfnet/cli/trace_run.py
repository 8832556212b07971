"""Run `trace`: follow what nodes tell, and explain it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.cli.trace_plan import Limits, Plan
from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.events import Layers
from kubectl_ebpfnet.model.evidence import Bundle, Record, bundle_of, node_place
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.tracing import TraceRequest
from kubectl_ebpfnet.model.trace import Sighting, Trace

if TYPE_CHECKING:
    from kubectl_ebpfnet.active.trace import NodeLine, Sessions
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.explain.trace.answer import Told

LINGER_SECONDS = 0.5
"""How long to look on after the last packet's outcome, for what is still on its way."""
_READY_SECONDS = 15.0
_HELD_SECONDS = 0.3
"""Longer than a line takes from a node to here, and shorter than a person notices."""
OnSighting = Callable[[Sighting, int, str], object]
"""Takes a sighting, the number of its packet, and what that is."""


def watch(
    gatherer: Gatherer,
    plan: Plan,
    bundle: Bundle,
    limits: Limits,
    on_sighting: OnSighting,
    progress: Progress,
) -> tuple[Trace, Bundle]:
    """Watch until the limits or an interrupt; return the answer, and all records."""
    from kubectl_ebpfnet.active.trace import Sessions, containers_on
    from kubectl_ebpfnet.collect.ask.unasked import unavailable_record

    told = _nothing_told(bundle)

    def shown(sighting: Sighting, packet: int, what: str) -> None:
        progress.show("")
        on_sighting(sighting, packet, what)

    progress.show(f"node pods on {', '.join(plan.nodes)}")
    containers, told.problems = containers_on(gatherer.answerers, plan.nodes, gatherer.deadline)
    records: list[Record] = [
        unavailable_record(node_place(node), q.TRACE.node_argv, why)
        for node, why in told.problems.items()
    ]
    if containers:
        progress.show("loading BPF programs")
        with Sessions(gatherer.session, containers, plan.requests) as sessions:
            held = _Held(partial(_follow, told, shown))
            follow = held.take
            try:
                _until_ready(sessions, follow)
                progress.show(f"watching {', '.join(containers)}; Ctrl-C ends it")
                sessions.go()
                _until_done(sessions, follow, held.release, told, limits)
            except KeyboardInterrupt:
                pass  # the end that the user chose: the answer follows
            sessions.stop()
            for each in sessions.lines(_READY_SECONDS):
                follow(each)
            for each in sessions.give_up(f"it told no end within {_READY_SECONDS:g} s"):
                follow(each)
            held.release(everything=True)
            progress.show("")
            records += sessions.records()
    whole = bundle_of([*bundle.records, *records], bundle.source, bundle.note)
    return _answer(told, plan), whole


def from_bundle(plan: Plan, bundle: Bundle, on_sighting: OnSighting) -> Trace:
    """Return the answer from the records of a capture."""
    from kubectl_ebpfnet.active.trace import NodeLine
    from kubectl_ebpfnet.parse import node_side

    told = _nothing_told(bundle)
    held = _Held(partial(_follow, told, on_sighting))
    for node in plan.nodes:
        found = records_of(bundle, node)
        same = [r for r in found if _is_same(plan.requests[node], request_of(r))]
        if not same:
            others = " but of other packets" if found else ""
            told.problems[node] = f"the capture has no trace of it{others}"
            continue
        record = same[-1]
        if record.error:
            told.problems[node] = record.error
        for number, line in enumerate(node_side.facts(record.stdout.read(), record.argv), 1):
            held.take(NodeLine(node, number, line))
    held.release(everything=True)
    return _answer(told, plan)


def _answer(told: Told, plan: Plan) -> Trace:
    from kubectl_ebpfnet.explain.trace.answer import trace_of

    trace = trace_of(told, plan.title, plan.flow, plan.nodes, plan.path)
    return replace(trace, notes=(*plan.notes, *trace.notes))


def records_of(bundle: Bundle, node: str) -> list[Record]:
    """Return the records of traces on a node."""
    argv = q.TRACE.node_argv
    return [each for each in bundle.at(node_place(node)) if each.argv[: len(argv)] == argv]


def request_of(record: Record) -> TraceRequest | None:
    """Return what a trace was asked for; None where its record does not say."""
    try:
        found: TraceRequest = codec.fact(
            record.argv[-1].encode(), TraceRequest, source="the request of a trace"
        )
    except ParseError:
        return None
    return found


def _is_same(wanted: TraceRequest, had: TraceRequest | None) -> bool:
    """Whether a trace was of the packets that are asked about: not every trace of this node is."""
    if had is None or _namespace(wanted) != _namespace(had):
        return False
    return not wanted.filters or wanted.filters[0] in had.filters


def _namespace(request: TraceRequest) -> tuple[object, ...]:
    """Return whose packets are all followed, whatever their flow, and whether drops alone."""
    uid = request.pod.uid if request.pod else ""
    return request.drops_only, request.node_namespace, request.pid, uid


class _Held:
    """Holds what nodes tell for a moment: their lines do not come in the order of their packets."""

    def __init__(self, follow: Callable[[NodeLine], None]) -> None:
        self._follow = follow
        self._layers: dict[str, Layers] = {}
        self._lines: list[tuple[int, float, NodeLine]] = []

    def take(self, each: NodeLine) -> None:
        """Take a line; hand on at once what is of no packet."""
        line = each.line
        if line is not None and line.layers is not None:
            self._layers[each.node] = line.layers
        if line is None or line.packet is None:
            self._follow(each)
            return
        layers = self._layers.get(each.node, Layers(()))
        at = line.packet.time_ns - layers.time_ns + layers.wall_ns
        self._lines.append((at, time.monotonic(), each))

    def release(self, *, everything: bool = False) -> None:
        """Hand on what was held long enough, the oldest packet first."""
        old = time.monotonic() - (0 if everything else _HELD_SECONDS)
        now = [entry for entry in self._lines if entry[1] <= old]
        self._lines = [entry for entry in self._lines if entry[1] > old]
        for _, _, each in sorted(now, key=lambda entry: entry[0]):
            self._follow(each)


def _nothing_told(bundle: Bundle) -> Told:
    from kubectl_ebpfnet.explain.trace.answer import Told, owner_of
    from kubectl_ebpfnet.explain.views.cluster import ClusterView

    return Told.nothing(owner_of(ClusterView(bundle).kube.pods))


def _follow(told: Told, on_sighting: OnSighting, each: NodeLine) -> None:
    if each.problem:
        told.problems[each.node] = each.problem
    if each.line is None:
        return
    sighting = told.feed(each.node, each.line, each.number)
    if sighting is not None:
        number = told.follower.number_of(sighting)
        what = told.follower.packets[number - 1].what if number else ""
        on_sighting(sighting, number, what)


def _until_ready(sessions: Sessions, follow: Callable[[NodeLine], None]) -> None:
    until = time.monotonic() + _READY_SECONDS
    while sessions.running and not sessions.ready and time.monotonic() < until:
        for each in sessions.next_lines(0.2):
            follow(each)
    for each in sessions.not_ready(f"it did not watch within {_READY_SECONDS:g} s"):
        follow(each)


def _until_done(
    sessions: Sessions,
    follow: Callable[[NodeLine], None],
    release: Callable[[], None],
    told: Told,
    limits: Limits,
) -> None:
    """Follow until the limits; then for LINGER_SECONDS more."""
    until = time.monotonic() + limits.seconds
    done = False
    while sessions.running and time.monotonic() < until:
        for each in sessions.next_lines(0.1):
            follow(each)
        release()
        if not done and limits.count is not None and _count(told, limits) >= limits.count:
            done, until = True, min(until, time.monotonic() + LINGER_SECONDS)


def _count(told: Told, limits: Limits) -> int:
    if limits.send:
        return len(told.sent)
    return len(told.follower.packets)
