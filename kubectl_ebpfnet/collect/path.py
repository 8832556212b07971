"""Collect the records of a live `path`: ask the API server, then the places the packet passes.

    1  the API server: source, destination, agents, nodes, settings, policies; side by side
    2  the source pod and its node; the nodes at the far end as soon as they are known. Cilium's
       agent or a node pod answers for a node (ask/node_access.py), an exec or the node pod for
       the source pod

Only a missing source, or a missing object as destination, can end the run; every other failure is a
record with its reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from functools import partial
from typing import TypeVar, cast

from kubectl_ebpfnet.capture.open import now
from kubectl_ebpfnet.cluster.agents import Agent, find_agents
from kubectl_ebpfnet.cluster.client.api import CILIUM, Object, Objects
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods.deployment import NodePod
from kubectl_ebpfnet.cluster.resolve import Kind, TargetRef, name_of, resolve
from kubectl_ebpfnet.collect import tasks
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.ask.container import EXEC, ExecTarget, ask, error_sentence
from kubectl_ebpfnet.collect.ask.node_access import (
    BY_AGENT,
    NodeAccess,
    NodeAnswerers,
    PendingNodePod,
    ask_when_running,
)
from kubectl_ebpfnet.collect.ask.node_pod import NodeQuestion
from kubectl_ebpfnet.collect.ask.shell_script import ShellQuestion, unavailable_record
from kubectl_ebpfnet.collect.ask.targets import (
    addresses_of,
    namespace_in_kernel,
    namespace_of,
    node_of,
    pod_target,
    shares_node,
)
from kubectl_ebpfnet.collect.destination import FarEnd, far_end_of_address, far_end_of_object
from kubectl_ebpfnet.collect.pool import Deadline, Pool
from kubectl_ebpfnet.collect.tasks import PacketHints
from kubectl_ebpfnet.errors import ApiUnreachable, ClusterError, ParseError
from kubectl_ebpfnet.model.evidence import (
    CLIENT,
    Bundle,
    InMemory,
    Place,
    Record,
    agent_place,
    bundle_of,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import PathRequest
from kubectl_ebpfnet.model.untrusted import address

T = TypeVar("T")
Notify = Callable[[str], object]

FAR_NODES = 3
"""How many nodes of the far end are asked."""
SYSTEM = "kube-system"
CONFIG = "cilium-config"
_GRACE_SECONDS = 1.0  # an exec that the deadline ended still hands over what it had


def collect_path(
    session: Session,
    request: PathRequest,
    *,
    access: NodeAccess = BY_AGENT,
    timeout: float | None = None,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> tuple[PathRequest, Bundle]:
    """Collect every record that can explain the path of one packet.

    Args:
        session: the connection.
        request: the packet; its source may be a workload, which is resolved to a pod.
        access: how nodes may be asked; node pods that it deploys are removed at the end.
        timeout: seconds for the whole run; late answers are left out.
        warn: takes lines that the user must read, e.g. which pod was taken for a workload.
        progress: takes a line about the current step. Both are called from this thread.

    Returns:
        The request with a pod as its source, and the bundle.

    Raises:
        NotFound: the source, or the object that is the destination, is not there.
        ClusterError: the API server cannot be reached, or does not let this user read the source
            or the destination.
    """
    with NodeAnswerers(session, access, warn) as answerers:
        return _Run(session, request, answerers, Deadline(timeout), warn, progress).run()


class _Run:
    """One run, with the calls that it started. Its methods run in the caller's thread."""

    def __init__(
        self,
        session: Session,
        request: PathRequest,
        answerers: NodeAnswerers,
        deadline: Deadline,
        warn: Notify,
        progress: Notify,
    ) -> None:
        self.session = session
        self.request = request
        self.answerers = answerers
        self.deadline = deadline
        self.warn = warn
        self.progress = progress
        self.api = RecordingApi(session)
        self.pool = Pool()
        self.background: list[Future[object]] = []
        self.pending: list[tuple[Place, Future[list[Record]]]] = []
        self.records: list[Record] = []
        self.asked_nodes: set[str] = set()
        self.agents: Mapping[str, Agent] = {}

    def run(self) -> tuple[PathRequest, Bundle]:
        """Ask the API server, then the places."""
        request, api = self.request, self.api
        self.progress("asking the API server")
        lines: list[str] = []  # warnings of a thread, printed below
        source = self.pool.start(lambda: _source(api, request, lines.append))
        answerers = self.answerers
        agents = self.pool.start(lambda: find_agents(api) if answerers.looks_for_agents else {})
        kept_pods = self.pool.start(lambda: answerers.find_pods(api))
        nodes = self.pool.start(api.nodes)
        cilium_nodes = self.pool.start(lambda: api.cilium("ciliumnodes"))
        config = self.pool.start(lambda: api.config_map(SYSTEM, CONFIG))
        end = self.pool.start(lambda: far_end_of_object(api, request))
        self._start_in_background(_policies(api, request))
        address = request.destination_address
        owner = self.pool.start(lambda: self._owner(address, nodes)) if address else None

        pod = self._needed(source)
        for line in lines:
            self.warn(line)
        far_end = self._needed(end)
        listed = self._tried(agents)
        self.agents = listed[0] or {}
        answerers.set_available(self.agents, listed[1], self._tried(kept_pods)[0] or {})
        known_nodes, _ = self._tried(cilium_nodes)
        versions = frozenset((address.version,)) if address else far_end.versions
        packet = _packet_hints(pod, request, versions, far_end, bool(known_nodes))

        self.progress(f"asking pod {namespace_of(pod)}/{name_of(pod)} and its node")
        lookups = self._ask_source(pod, packet)
        self._ask_far(far_end, packet)
        self._start_in_background(self._endpoints([pod]))
        if self._tried(config)[0] is None:
            self._start_in_background([self._config_elsewhere])
        if lookups:
            resolved = self._resolved(lookups)
            owner = self.pool.start(lambda: self._owner(resolved, nodes)) if resolved else None
        if owner is not None:
            self._ask_far(self._tried(owner)[0] or FarEnd(), packet)
        self._gather()
        return _with_pod(request, pod), bundle_of([*api.take(), *self.records])

    # --- waiting --------------------------------------------------------------------------------

    def _needed(self, future: Future[T]) -> T:
        """Return the result of a call that the run needs. Raises ClusterError."""
        try:
            return future.result(self.deadline.left)
        except NotDone:
            raise ApiUnreachable(
                f"no answer from {self.session.server} within {self.deadline}",
                hint="--timeout allows more",
            ) from None

    def _tried(self, future: Future[T]) -> tuple[T | None, str]:
        """Return the result of a call, or None and the reason, which the call's record has too."""
        try:
            return future.result(self.deadline.left), ""
        except NotDone:
            return None, f"no answer within {self.deadline}"
        except ClusterError as error:
            return None, error_sentence(error, self.deadline)

    def _gather(self) -> None:
        """Wait for every call that was started."""
        for count, (place, future) in enumerate(self.pending):
            self.progress(f"waiting for {place} ({len(self.pending) - count} to go)")
            left = self.deadline.left
            try:
                self.records += future.result(None if left is None else left + _GRACE_SECONDS)
            except NotDone:
                reason = f"no answer within the {self.deadline} that --timeout allows"
                self.records.append(unavailable_record(place, EXEC, reason))
        for other in self.background:
            self._tried(other)

    # --- asking ---------------------------------------------------------------------------------

    def _start_in_background(self, calls: Iterable[Callable[[], object]]) -> None:
        self.background += [self.pool.start(call) for call in calls]

    def _start(self, target: ExecTarget, questions: list[ShellQuestion]) -> Future[list[Record]]:
        future = self.pool.start(lambda: ask(self.session, target, questions, self.deadline))
        self.pending.append((target.place, future))
        return future

    def _ask_source(self, pod: Object, packet: PacketHints) -> list[Future[list[Record]]]:
        """Ask the source pod and its node; return the look-ups of a DNS name."""
        lookups: list[Future[list[Record]]] = []
        name, node = self.request.destination_name, node_of(pod)
        answerer = self.answerers.for_nodes([node], self.deadline)[node] if node else None
        by_node = isinstance(answerer, (NodePod, PendingNodePod)) and not shares_node(pod)
        target = pod_target(pod)
        if isinstance(target, Record):
            if not by_node:
                self.records.append(target)
        else:
            if not shares_node(pod) and not by_node:
                self._start(target, tasks.shell_questions(tasks.POD_TASKS, packet))
            if packet.by_name:
                lookups.append(self._start(target, [tasks.name_lookup(name)]))
        if packet.by_name:
            lookup = self.pool.start(lambda: [resolve_locally(name)])
            lookups.append(lookup)
            self.pending.append((CLIENT, lookup))
        if answerer is not None:
            pod_questions = _pod_namespace_questions(pod, packet) if by_node else []
            self._ask_node(node, answerer, packet, pod_questions)
        return lookups

    def _ask_far(self, far_end: FarEnd, packet: PacketHints) -> None:
        """Ask the nodes of the far end, at most FAR_NODES of them."""
        self._start_in_background(self._endpoints(far_end.pods[:FAR_NODES]))
        others = [node for node in dict.fromkeys(far_end.nodes) if node not in self.asked_nodes]
        for node, answerer in self.answerers.for_nodes(others[:FAR_NODES], self.deadline).items():
            self._ask_node(node, answerer, packet)
        reason = f"not asked: the far end is on {len(others)} nodes, {FAR_NODES} of them are asked"
        self.records += [
            unavailable_record(agent_place(node), EXEC, reason) for node in others[FAR_NODES:]
        ]

    def _ask_node(
        self,
        node: str,
        answerer: ExecTarget | NodePod | PendingNodePod | Record,
        packet: PacketHints,
        pod_questions: Sequence[NodeQuestion] = (),
    ) -> None:
        """Ask a node; `pod_questions` are about the source pod, for a node pod to answer."""
        self.asked_nodes.add(node)
        if isinstance(answerer, Record):
            self.records.append(answerer)
        elif isinstance(answerer, ExecTarget):
            for lane in tasks.agent_lanes(packet):
                self._start(answerer, lane)
        else:
            place = node_place(node)
            questions = [
                *pod_questions,
                *tasks.node_pod_questions(tasks.NODE_POD_TASKS, packet, place),
            ]
            call = partial(
                ask_when_running, self.session, self.answerers, answerer, questions, self.deadline
            )
            self.pending.append((place, self.pool.start(call)))

    # --- further reads of the API server ----------------------------------------------------------

    def _owner(self, address: Address, nodes: Future[Objects]) -> FarEnd:
        known_nodes = self._tried(nodes)[0] or []
        return far_end_of_address(self.api, address, known_nodes, self.request.port)

    def _endpoints(self, pods: Objects) -> list[Callable[[], object]]:
        """Return calls that read the CiliumEndpoints of pods."""
        paths = [
            f"{CILIUM}/namespaces/{namespace_of(pod)}/ciliumendpoints/{name_of(pod)}"
            for pod in pods
            if not shares_node(pod)
        ]
        return [lambda path=path: self.api.get(path) for path in paths]  # type: ignore[misc]

    def _config_elsewhere(self) -> None:
        """Read the settings of a Cilium outside of kube-system."""
        for namespace in {agent.container.namespace for agent in self.agents.values()} - {SYSTEM}:
            self.api.config_map(namespace, CONFIG)

    def _resolved(self, lookups: list[Future[list[Record]]]) -> Address | None:
        """Return the first address of the destination's name; the pod's look-up comes before this
        machine's."""
        for future in lookups:
            for record in self._tried(future)[0] or []:
                for line in record.beginning.decode("utf-8", "replace").splitlines():
                    try:
                        return address(line.split(" ", 1)[0].strip(), "a look-up")
                    except ParseError:
                        continue
        return None


def resolve_locally(name: str) -> Record:
    """Resolve a name by this machine's resolver, into a record with one address a line."""
    import socket

    argv = ("resolve", name)
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return unavailable_record(CLIENT, argv, f"{name} does not resolve here: {error}")
    lines = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    text = "".join(f"{address}\n" for address in lines)
    return Record(0, CLIENT, argv, 0, InMemory(text.encode()), b"", now())


def _source(api: RecordingApi, request: PathRequest, warn: Notify) -> Object:
    ref = TargetRef(cast(Kind, request.source_kind.lower()), request.source_name)
    return resolve(api, ref, request.source_namespace, warn)


def _policies(api: RecordingApi, request: PathRequest) -> list[Callable[[], object]]:
    """Return calls that read the policies which may allow or deny the packet."""
    namespaces = {request.source_namespace, request.destination_namespace} - {""}
    calls: list[Callable[[], object]] = [lambda: api.cilium("ciliumclusterwidenetworkpolicies")]
    for namespace in sorted(namespaces):
        path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
        calls += [
            lambda ns=namespace: api.cilium("ciliumnetworkpolicies", ns),  # type: ignore[misc]
            lambda path=path: api.list(path),  # type: ignore[misc]
        ]
    return calls


def _packet_hints(
    pod: Object, request: PathRequest, versions: frozenset[int], far_end: FarEnd, knows_nodes: bool
) -> PacketHints:
    own = frozenset(address.version for address in addresses_of(pod))
    destinations = [request.destination_address] if request.destination_address else []
    destinations += [*far_end.frontends]
    destinations += [address for pod in far_end.pods for address in addresses_of(pod)]
    return PacketHints(
        addresses=addresses_of(pod),
        versions=(versions & own) or versions or own or frozenset((4, 6)),
        by_name=request.destination_kind == "name",
        leaves=far_end.leaves,
        knows_nodes=knows_nodes,
        destinations=tuple(dict.fromkeys(destinations)),
    )


def _pod_namespace_questions(pod: Object, packet: PacketHints) -> list[NodeQuestion]:
    """Return the questions to a node pod about the network namespace of a pod."""
    place = pod_place(namespace_of(pod), name_of(pod))
    netns = namespace_in_kernel(pod)
    node = node_place(node_of(pod))
    return [
        *tasks.node_pod_questions(tasks.POD_BY_NODE_TASKS, packet, place, netns),
        *tasks.route_lookups(packet, place, node, netns),
    ]


def _with_pod(request: PathRequest, pod: Object) -> PathRequest:
    name = name_of(pod)
    return dataclasses.replace(request, source_kind="pod", source_name=name, source=f"pod/{name}")
