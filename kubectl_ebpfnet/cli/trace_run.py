"""Run `trace`: choose nodes and filters, follow what they tell, and explain it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import Layers
from kubectl_ebpfnet.model.evidence import Bundle, Record, bundle_of, node_place
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, SCTP, Flow
from kubectl_ebpfnet.model.path import HopPlace
from kubectl_ebpfnet.model.protocol.questions import PodNamespace
from kubectl_ebpfnet.model.protocol.tracing import SendRequest, TraceRequest
from kubectl_ebpfnet.model.request import Further, PathRequest
from kubectl_ebpfnet.model.trace import Sighting, Trace
from kubectl_ebpfnet.parse import kube

if TYPE_CHECKING:
    from kubectl_ebpfnet.active.trace import NodeLine, Sessions
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.explain.trace.answer import Told
    from kubectl_ebpfnet.model.kube import Pod
    from kubectl_ebpfnet.model.path import Path

LINGER_SECONDS = 0.5
"""How long to look on after the last packet's outcome, for what is still on its way."""
_READY_SECONDS = 15.0
_HELD_SECONDS = 0.3
"""Longer than a line takes from a node to here, and shorter than a person notices."""
OnSighting = Callable[[Sighting, int, str], object]
"""Takes a sighting, the number of its packet, and what that is."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a trace ends: whichever comes first.

    Attributes:
        seconds: after it began to watch.
        count: packets of which the fate is known; None for no such limit. Of --send, how many are
            sent.
        interval, timeout: of --send, seconds.
        send: packets are sent.
        payload, size: of them.
    """

    seconds: float
    count: int | None = None
    send: bool = False
    interval: float = 1.0
    timeout: float = 2.0
    payload: str = ""
    size: int = 56


@dataclass(frozen=True, slots=True)
class Plan:
    """What is watched where."""

    title: str
    flow: Flow | None
    nodes: tuple[str, ...]
    requests: Mapping[str, TraceRequest]
    path: Path | None = None


def plan_of_path(
    path: Path, limits: Limits, pods: Mapping[tuple[str, str], Pod] = MappingProxyType({})
) -> Plan:
    """Return what is watched of the packets that `path` answers for.

    Args:
        path: what the tables say.
        limits: when it ends, and what is sent.
        pods: those at its ends, as far as they could be read (`pods_of`).

    Raises:
        ClusterError: neither end has an address, or nothing may be sent.
    """
    from kubectl_ebpfnet.explain.trace.filters import filters_of, nodes_of
    from kubectl_ebpfnet.render.path.phrases import ends_of

    nodes = nodes_of(path)
    if not nodes or not path.hops:
        raise ClusterError(f"{path.source.text}: its node is not known, so nothing can be watched")
    first = path.hops[0].packet.flow
    sender = None
    if limits.send and path.source.kind == "pod":
        pod = pods.get((path.source.namespace, path.source.name))
        if pod is None:
            raise ClusterError(f"{path.source.text}: it could not be read, so nothing is sent")
        sender = None if pod.host_network else namespace_of(pod)
    known = tuple(namespace_of(pod) for pod in pods.values() if not pod.host_network)
    requests = {}
    for node in nodes:
        send = _send(first, limits) if limits.send and node == path.source.node else None
        requests[node] = TraceRequest(
            filters_of(path, node), seconds=limits.seconds + 60, send=send,
            sender=sender if send else None, pods=known,
        )  # fmt: skip
    if limits.send and path.source.node not in requests:
        raise ClusterError("--send: the source is not in the cluster", hint="probe-lb sends so")
    return Plan(ends_of(path), first, nodes, requests, path)


def _send(flow: Flow, limits: Limits) -> SendRequest:
    if flow.protocol == SCTP:
        raise ClusterError("--send does not speak SCTP", hint="--protocol tcp, udp or icmp")
    echo = flow.protocol in (ICMP, ICMPV6)
    return SendRequest(
        flow.protocol, flow.destination, None if echo else flow.destination_port,
        limits.count or 1, limits.interval, limits.size, limits.payload, limits.timeout,
    )  # fmt: skip


def pods_of(gatherer: Gatherer, path: Path) -> dict[tuple[str, str], Pod]:
    """Return the pods of the way, with their containers' ids, which records leave out."""
    ends = (path.source, path.destination)
    names = {(end.namespace, end.name) for end in ends if end.kind == "pod"}
    passed = (hop.where.partition("/") for hop in path.hops if hop.place is HopPlace.POD)
    names |= {(namespace, name) for namespace, _, name in passed}
    found: dict[tuple[str, str], Pod] = {}
    for key in sorted(names):
        with contextlib.suppress(ClusterError):
            found[key] = kube.pod(gatherer.api.pod(*key))
    return found


def namespace_of(pod: Pod) -> PodNamespace:
    """Return how a pod's network namespace is found on its node."""
    ids = (status.id for status in pod.main_statuses)
    return PodNamespace(pod.uid, tuple(id_ for id_ in ids if id_))


def explained(gatherer: Gatherer, request: PathRequest) -> tuple[Path, Bundle]:
    """Return what the tables say, and what it was explained from."""
    from kubectl_ebpfnet.collect.path import look
    from kubectl_ebpfnet.explain.path import walk

    paths: list[Path] = []

    def further(asked: PathRequest, bundle: Bundle) -> Further:
        path, more = walk.explained(asked, bundle)
        paths[:] = [path]
        return more

    _, bundle = look(gatherer, request, further=further)
    return paths[0], bundle


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
    from kubectl_ebpfnet.explain.trace.answer import trace_of

    told = _nothing_told(bundle)
    progress.show(f"node pods on {', '.join(plan.nodes)}")
    containers, told.problems = containers_on(gatherer.answerers, plan.nodes, gatherer.deadline)
    records: list[Record] = []
    if containers:
        progress.show("loading BPF programs")
        with Sessions(gatherer.session, containers, plan.requests) as sessions:
            held = _Held(partial(_follow, told, on_sighting))
            follow = held.take
            try:
                _until_ready(sessions, follow)
                progress.show("")
                sessions.go()
                _until_done(sessions, follow, held.release, told, limits)
            except KeyboardInterrupt:
                pass  # the end that the user chose: the answer follows
            sessions.stop()
            for each in sessions.lines(_READY_SECONDS):
                follow(each)
            held.release(everything=True)
            records = sessions.records()
    whole = bundle_of([*bundle.records, *records], bundle.source, bundle.note)
    return trace_of(told, plan.title, plan.flow, plan.nodes, plan.path), whole


def from_bundle(plan: Plan, bundle: Bundle, on_sighting: OnSighting) -> Trace:
    """Return the answer from the records of a capture."""
    from kubectl_ebpfnet.active.trace import NodeLine
    from kubectl_ebpfnet.explain.trace.answer import trace_of
    from kubectl_ebpfnet.parse import node_side

    told = _nothing_told(bundle)
    held = _Held(partial(_follow, told, on_sighting))
    argv = q.TRACE.node_argv
    for node in plan.nodes:
        found = [r for r in bundle.at(node_place(node)) if r.argv[:2] == argv[:2]]
        if not found:
            told.problems[node] = "the capture has no trace of it"
            continue
        record = found[-1]
        if record.error:
            told.problems[node] = record.error
        for number, line in enumerate(node_side.facts(record.stdout.read(), record.argv), 1):
            held.take(NodeLine(node, number, line))
    held.release(everything=True)
    return trace_of(told, plan.title, plan.flow, plan.nodes, plan.path)


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


EXIT = {"dropped": 3, "unknown": 4}
"""Verdict → exit code, as of path."""
