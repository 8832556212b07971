"""Turn what nodes and agents told of packets into the answer of `trace`: of a capture, and what
trace_live.py shares with that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Protocol

from kubectl_ebpfnet.active.trace import NodeLine
from kubectl_ebpfnet.cli.trace_plan import ANY, MONITOR_WORDS, Plan
from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.trace.answer import Told, owner_of, trace_of
from kubectl_ebpfnet.explain.trace.notices import Notices
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.names import peer_name
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.events import Layers
from kubectl_ebpfnet.model.evidence import Bundle, Record, agent_place, node_place
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.tracing import TraceRequest
from kubectl_ebpfnet.model.trace import Notice, Sighting, Trace
from kubectl_ebpfnet.parse import node_side
from kubectl_ebpfnet.parse.cilium.monitor import event

_HELD_SECONDS = 0.3
"""Longer than a line takes from a node to here, and shorter than a person notices."""


class Printed(Protocol):
    """Takes what is seen, as it comes."""

    def began(self, wall_ns: int, /) -> None:
        """Take the wall clock of second 0: a node watches."""

    def sighting(self, sighting: Sighting, packet: int, what: str, /) -> None:
        """Take a sighting, the number of its packet, and what that is."""

    def notice(self, notice: Notice, /) -> None:
        """Take a notice of Cilium."""


def from_bundle(plan: Plan, bundle: Bundle, printed: Printed) -> Trace:
    """Return the answer from the records of a capture."""
    told = nothing_told(bundle, plan)
    held = Held(partial(follow, told, printed))
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
    for node, monitor in _monitors(plan, bundle):
        told.unread[node] = monitor.error
        for number, text in enumerate(monitor.stdout.read().splitlines(), 1):
            notice = notice_in(told, node, text, 0.0, number)
            if notice is not None:
                printed.notice(notice)
    return answer_of(told, plan)


def _monitors(plan: Plan, bundle: Bundle) -> Iterator[tuple[str, Record]]:
    """Yield the records of agents' monitors, each with its node."""
    for node in plan.nodes if plan.monitor is not None else ():
        record = bundle.record(agent_place(node), ("cilium-dbg", *MONITOR_WORDS))
        if record is not None:
            yield node, record


def answer_of(told: Told, plan: Plan) -> Trace:
    trace = trace_of(told, plan.title, plan.flow, plan.nodes, plan.path)
    return replace(trace, notes=(*plan.notes, *trace.notes))


def kept_plan(bundle: Bundle, title: str) -> Plan | None:
    """Return what a trace watched that --save kept, where it is not of `path`'s packets; None where
    the capture is of another one. Its note says of what it is."""
    if bundle.note != f"trace of {title}":
        return None
    requests = {
        record.place.node: request
        for record in bundle.records
        if record.argv[: len(q.TRACE.node_argv)] == q.TRACE.node_argv
        and (request := request_of(record)) is not None
    }
    if not requests:
        return None
    first = next(iter(requests.values()))
    flow = None
    if first.filters and (to := first.filters[0]).destination is not None:
        source = to.source or ANY[to.destination.version]
        flow = Flow(to.protocol, source, None, to.destination, to.destination_port)
    return Plan(title, flow, tuple(requests), requests)


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


class Held:
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


def nothing_told(bundle: Bundle, plan: Plan) -> Told:
    cluster = ClusterView(bundle)

    def named(identity: int, label: str) -> str:
        return label or peer_name(cluster, identity)

    filters = {node: request.filters for node, request in plan.requests.items()}
    return Told.nothing(owner_of(cluster.kube.pods), Notices(filters, named))


def notice_in(told: Told, node: str, line: bytes, seconds: float, number: int) -> Notice | None:
    """Take a line of a monitor; return what it says of a packet that is followed."""
    try:
        found = event(line, number)
    except ParseError:  # a half line of an agent that ended
        return None
    if found is None:
        return None
    return told.notices.feed(node, found, seconds, number, told.follower.tuples)


def follow(told: Told, printed: Printed, each: NodeLine) -> None:
    if each.problem:
        told.problems[each.node] = each.problem
    if each.line is None:
        return
    sighting = told.feed(each.node, each.line, each.number)
    if each.line.layers is not None:
        printed.began(told.follower.wall_ns)
    if sighting is not None:
        number = told.follower.number_of(sighting)
        what = told.follower.packets[number - 1].what if number else ""
        printed.sighting(sighting, number, what)
