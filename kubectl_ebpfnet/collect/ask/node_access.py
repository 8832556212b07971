"""Who answers for a node: Cilium's agent there, a node pod, or nobody, as --node-access says.

`auto` takes what is there: a node pod that an earlier run kept, else Cilium's agent, else it
deploys a node pod, after saying so. What cannot be had is a record with its reason, so the rest is
still shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType

from kubectl_ebpfnet.capture.spool import Spool
from kubectl_ebpfnet.cluster.agents import Agent
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods.deployment import (
    Deployment,
    NodePod,
    NodePodOptions,
    find_node_pods,
)
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.ask.container import (
    EXEC,
    ExecTarget,
    error_sentence,
    missing_permission,
)
from kubectl_ebpfnet.collect.ask.node_pod import NodeQuestion, ask_node_pod
from kubectl_ebpfnet.collect.ask.shell_script import unavailable_record
from kubectl_ebpfnet.collect.ask.targets import agent_target
from kubectl_ebpfnet.collect.pool import NO_DEADLINE, Deadline
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.evidence import Record, node_place

POD_SECONDS = 60.0
"""How long a node pod may take to run: its image may have to be pulled first."""


class Mode(StrEnum):
    """Values of --node-access."""

    AUTO = "auto"
    AGENT = "agent"
    POD = "pod"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class NodeAccess:
    """How nodes may be asked.

    Attributes:
        mode: of --node-access.
        options: of the node pods that may be deployed.
    """

    mode: Mode = Mode.AGENT
    options: NodePodOptions = field(default_factory=NodePodOptions)


BY_AGENT = NodeAccess()
"""Nothing is deployed."""


@dataclass(frozen=True, slots=True)
class PendingNodePod:
    """A node pod that was asked for; `NodeAnswerers.pod` waits for it."""

    node: str


class NodeAnswerers:
    """Who answers for each node of one run. Use it in a `with`: what it deployed goes away then."""

    def __init__(self, session: Session, access: NodeAccess, warn: Callable[[str], object]) -> None:
        """Nothing is asked of the cluster yet."""
        self._session = session
        self._access = access
        self._warn = warn
        self._deployment: Deployment | None = None
        self._kept: Mapping[str, NodePod] = {}
        self._agents: Mapping[str, Agent] = {}
        self._why_no_agents = ""
        self._started: set[str] = set()
        self._refused: tuple[str, str] | None = None  # why there can be no node pods

    def __enter__(self) -> NodeAnswerers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._deployment is not None:
            self._deployment.__exit__(kind, error, trace)

    @property
    def looks_for_pods(self) -> bool:
        """Whether node pods that are there already are of use."""
        return self._access.mode in (Mode.AUTO, Mode.POD)

    @property
    def looks_for_agents(self) -> bool:
        """Whether Cilium's agents are of use."""
        return self._access.mode in (Mode.AUTO, Mode.AGENT)

    def find_pods(self, api: RecordingApi) -> Mapping[str, NodePod]:
        """Node pods that earlier runs kept, by node; none where they may not be listed."""
        return find_node_pods(api) if self.looks_for_pods else {}

    def know(
        self, agents: Mapping[str, Agent], why_no_agents: str, kept: Mapping[str, NodePod]
    ) -> None:
        """Take in what is there."""
        self._agents, self._why_no_agents, self._kept = agents, why_no_agents, kept

    def of(
        self, nodes: Iterable[str], deadline: Deadline = NO_DEADLINE
    ) -> dict[str, ExecTarget | NodePod | PendingNodePod | Record]:
        """Who answers for some nodes; node pods are created, but not waited for.

        None is created when the deadline is over: that no agent is known may be for want of time.
        """
        chosen = {node: self._there(node) for node in nodes}
        wanted = [n for n, answerer in chosen.items() if answerer is None]
        wanted = [node for node in wanted if node not in self._started]
        if wanted and deadline.over and self._refused is None:
            reason = f"no node pod: nothing is left of the {deadline} that --timeout allows"
            self._refused = (reason, "")
        elif wanted:
            self._deploy(wanted)
        return {
            node: self._coming(node) if answerer is None else answerer
            for node, answerer in chosen.items()
        }

    def _there(self, node: str) -> ExecTarget | NodePod | Record | None:
        mode = self._access.mode
        if mode is Mode.NONE:
            reason = "--node-access none: nothing on the node was asked"
            return unavailable_record(node_place(node), EXEC, reason)
        if self.looks_for_pods and node in self._kept:
            return self._kept[node]
        if self.looks_for_agents:
            target = agent_target(self._agents, node, self._why_no_agents)
            if isinstance(target, ExecTarget) or mode is Mode.AGENT:
                return target
        return None

    def _coming(self, node: str) -> PendingNodePod | Record:
        if self._refused is None:
            return PendingNodePod(node)
        return unavailable_record(node_place(node), EXEC, *self._refused)

    def _deploy(self, nodes: list[str]) -> None:
        """Create node pods, or find out why there can be none."""
        if self._refused is not None:
            return
        why = "" if self._access.mode is Mode.POD else f"{self._why_no_agent(nodes)}: "
        image = self._access.options.image
        self._warn(f"{why}deploying a node pod on {', '.join(nodes)} (image {image})")
        try:
            if self._deployment is None:
                deployment = Deployment(self._session, self._access.options, self._warn)
                self._deployment = deployment.__enter__()
            self._deployment.start(nodes)
            self._started.update(nodes)
        except ClusterError as error:
            reason = f"no node pod: {error_sentence(error, Deadline(None))}"
            self._refused = (reason, missing_permission(error))

    def _why_no_agent(self, nodes: list[str]) -> str:
        if self._why_no_agents:
            return f"Cilium's agents could not be looked for ({self._why_no_agents})"
        states = [self._agents[node].state for node in nodes if node in self._agents]
        return f"Cilium's agent there is {states[0]}" if states else "no Cilium agent runs there"

    def pod(self, node: str, deadline: Deadline) -> NodePod:
        """The node pod of a node that is coming, when it runs. Raises ClusterError."""
        assert self._deployment is not None, "of() has asked for it"
        left = deadline.left
        return self._deployment.wait(node, POD_SECONDS if left is None else min(POD_SECONDS, left))


def ask_when_running(
    session: Session,
    answerers: NodeAnswerers,
    answerer: NodePod | PendingNodePod,
    asked: Sequence[NodeQuestion],
    deadline: Deadline,
    spool: Callable[[], Spool] = Spool,
) -> list[Record]:
    """Ask a node pod, waiting for it to run where it is still coming; never raises for it."""
    try:
        pod = (
            answerers.pod(answerer.node, deadline)
            if isinstance(answerer, PendingNodePod)
            else answerer
        )
    except ClusterError as error:
        reason = f"no node pod: {error_sentence(error, deadline)}"
        places = dict.fromkeys(one.place for one in asked)
        return [
            unavailable_record(place, EXEC, reason, missing_permission(error)) for place in places
        ]
    return ask_node_pod(session, pod.container, asked, deadline, spool)
