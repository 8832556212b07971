"""What `trace` watches, where, and until when."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING

from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, SCTP, Flow
from kubectl_ebpfnet.model.path import HopPlace
from kubectl_ebpfnet.model.protocol.questions import PodNamespace
from kubectl_ebpfnet.model.protocol.tracing import (
    MOST_FILTERS,
    MonitorQuestion,
    SendRequest,
    TraceRequest,
)
from kubectl_ebpfnet.model.request import Further, PathRequest
from kubectl_ebpfnet.parse import kube

if TYPE_CHECKING:
    from kubectl_ebpfnet.cli.arguments import CaptureTarget
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.model.kube import Pod, ServiceEndpoint
    from kubectl_ebpfnet.model.path import Path

MONITOR_WORDS = ("monitor", "-j", "--type", "drop", "--type", "trace", "--type", "policy-verdict")
ANY = {4: ip_address("0.0.0.0"), 6: ip_address("::")}  # noqa: S104
"""The source of a flow where it may be any."""
SPARE_SECONDS = 60
"""A session ends by itself so long after its client should have ended it."""


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
        data: bytes of each packet to tell.
    """

    seconds: float
    count: int | None = None
    send: bool = False
    interval: float = 1.0
    timeout: float = 2.0
    payload: str = ""
    size: int = 56
    data: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is watched where; `notes` say what is not, one sentence each."""

    title: str
    flow: Flow | None
    nodes: tuple[str, ...]
    requests: Mapping[str, TraceRequest]
    path: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def monitor(self) -> MonitorQuestion | None:
        """What Cilium's agents are to tell of these packets; None for drops, whatever the flow."""
        if self.flow is None:
            return None
        filters = [each for request in self.requests.values() for each in request.filters]
        ends = (end for each in filters for end in (each.source, each.destination))
        return MonitorQuestion(MONITOR_WORDS, tuple(dict.fromkeys(str(end) for end in ends if end)))


def plan_of_path(
    path: Path,
    limits: Limits,
    pods: Mapping[tuple[str, str], Pod] = MappingProxyType({}),
    backends: Sequence[ServiceEndpoint] = (),
) -> Plan:
    """Return what is watched of the packets that `path` answers for.

    Args:
        path: what the tables say.
        limits: when it ends, and what is sent.
        pods: those at its ends, as far as they could be read (`pods_of`).
        backends: of the Service that is asked for (`backends_of`).

    Raises:
        ClusterError: neither end has an address, or nothing may be sent.
    """
    from kubectl_ebpfnet.explain.trace.filters import MOST_BACKENDS, filters_of, nodes_of
    from kubectl_ebpfnet.render.path.phrases import ends_of

    notes = []
    if len(backends) > MOST_BACKENDS:
        notes.append(
            f"of {len(backends)} backends {MOST_BACKENDS} are followed: packets of a socket that "
            "took another one are not seen, nor is the node of that"
        )
    backends = backends[:MOST_BACKENDS]
    nodes = nodes_of(path, backends)
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
        send = send_of(first, limits) if limits.send and node == path.source.node else None
        filters = filters_of(path, node, backends)
        if len(filters) > MOST_FILTERS:
            left_out = len(filters) - MOST_FILTERS
            notes.append(f"{node}: {left_out} forms of these packets are not followed")
        requests[node] = TraceRequest(
            filters[:MOST_FILTERS], seconds=limits.seconds + SPARE_SECONDS, send=send,
            sender=sender if send else None, pods=known, data=limits.data,
        )  # fmt: skip
    if limits.send and path.source.node not in requests:
        raise ClusterError("--send: the source is not in the cluster", hint="probe-lb sends so")
    return Plan(ends_of(path), first, nodes, requests, path, tuple(notes))


def send_of(flow: Flow, limits: Limits) -> SendRequest:
    """Return what is sent. Raises ClusterError for a protocol that cannot be."""
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


def plan_of_drops(
    gatherer: Gatherer, target: CaptureTarget, namespace: str, limits: Limits
) -> tuple[Plan, Bundle]:
    """Return what is watched of all that a pod or a node loses, and what was read for it.

    Raises:
        NotFound: it is not there.
        ClusterError: it cannot be read, or has no node.
    """
    from kubectl_ebpfnet.cluster.resolve import find_node, find_pod

    gatherer.look_for_answerers()
    longest = limits.seconds + SPARE_SECONDS
    request = TraceRequest(drops_only=True, seconds=longest, data=limits.data)
    if target.kind == "node":
        node = find_node(gatherer.api, target.name).name
        request = replace(request, node_namespace=True)
        title = f"drops of node/{node}"
    else:
        pod = find_pod(gatherer.api, target.kind, target.name, namespace, gatherer.warn)
        if not pod.node or pod.host_network:
            why = "it is in its node's network namespace" if pod.node else "it has no node"
            hint = f"--drops node/{pod.node}" if pod.node else ""
            raise ClusterError(f"pod {pod.name}: {why}", hint=hint)
        node, own = pod.node, namespace_of(pod)
        request = replace(request, pod=own, pods=(own,))
        title = f"drops of pod/{pod.name}"
    gatherer.find_answerers()
    bundle = gatherer.bundle()
    return Plan(title, None, (node,), {node: request}), bundle
