"""Who answers for a node: Cilium's agent there, a node pod, or nobody, as --node-access says.

`auto` takes a node pod that an earlier run kept, else Cilium's agent, else it deploys a node pod
and warns of that. A node without an answerer is a record with the reason, so the rest is still
shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

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
"""How long to wait for a node pod to run: its image may have to be pulled first."""


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
        options: of node pods to deploy.
    """

    mode: Mode = Mode.AGENT
    options: NodePodOptions = field(default_factory=NodePodOptions)


BY_AGENT = NodeAccess()
"""Ask agents; deploy nothing."""


@dataclass(frozen=True, slots=True)
class PendingNodePod:
    """A node pod that was created but may not run yet; `NodeAnswerers.wait_for_pod` waits."""

    node: str


class NodeAnswerers:
    """Chooses who answers for each node of one run. Use it in a `with`: node pods that it deploys
    are removed at the end."""

    def __init__(self, session: Session, access: NodeAccess, warn: Callable[[str], object]) -> None:
        """
        Args:
            session: the connection; nothing is sent yet.
            access: how nodes may be asked.
            warn: takes lines that the user must read.
        """
        self._session = session
        self._access = access
        self._warn = warn
        self._deployment: Deployment | None = None
        self._kept_pods: Mapping[str, NodePod] = {}
        self._agents: Mapping[str, Agent] = {}
        self._why_no_agents = ""
        self._deployed_nodes: set[str] = set()
        self._refused: tuple[str, str] | None = None  # why there can be no node pods

    def __enter__(self) -> NodeAnswerers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._deployment is not None:
            self._deployment.__exit__(kind)

    @property
    def looks_for_pods(self) -> bool:
        """Whether existing node pods may answer."""
        return self._access.mode in (Mode.AUTO, Mode.POD)

    @property
    def looks_for_agents(self) -> bool:
        """Whether Cilium's agents may answer."""
        return self._access.mode in (Mode.AUTO, Mode.AGENT)

    def find_pods(self, api: RecordingApi) -> Mapping[str, NodePod]:
        """Return the node pods that earlier runs kept, by node; none where listing is denied."""
        return find_node_pods(api) if self.looks_for_pods else {}

    def set_available(
        self, agents: Mapping[str, Agent], why_no_agents: str, kept_pods: Mapping[str, NodePod]
    ) -> None:
        """Set the existing agents and node pods.

        Args:
            agents: by node.
            why_no_agents: why the agents could not be listed, "" when they were.
            kept_pods: node pods of earlier runs, by node.
        """
        self._agents, self._why_no_agents, self._kept_pods = agents, why_no_agents, kept_pods

    def for_nodes(
        self, nodes: Iterable[str], deadline: Deadline = NO_DEADLINE
    ) -> dict[str, ExecTarget | NodePod | PendingNodePod | Record]:
        """Choose who answers for some nodes; create node pods where needed, without waiting.

        None is created when the deadline is over: the list of agents may then be incomplete.
        """
        answerers = {node: self._existing_answerer(node) for node in nodes}
        podless = [n for n, answerer in answerers.items() if answerer is None]
        podless = [node for node in podless if node not in self._deployed_nodes]
        if podless and deadline.over and self._refused is None:
            reason = f"no node pod: nothing is left of the {deadline} that --timeout allows"
            self._refused = (reason, "")
        elif podless:
            self._deploy(podless)
        return {
            node: self._pending(node) if answerer is None else answerer
            for node, answerer in answerers.items()
        }

    def _existing_answerer(self, node: str) -> ExecTarget | NodePod | Record | None:
        mode = self._access.mode
        if mode is Mode.NONE:
            reason = "--node-access none: nothing on the node was asked"
            return unavailable_record(node_place(node), EXEC, reason)
        if self.looks_for_pods and node in self._kept_pods:
            return self._kept_pods[node]
        if self.looks_for_agents:
            target = agent_target(self._agents, node, self._why_no_agents)
            if isinstance(target, ExecTarget) or mode is Mode.AGENT:
                return target
        return None

    def _pending(self, node: str) -> PendingNodePod | Record:
        if self._refused is None:
            return PendingNodePod(node)
        return unavailable_record(node_place(node), EXEC, *self._refused)

    def _deploy(self, nodes: list[str]) -> None:
        """Create node pods, or keep the reason why none can be created."""
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
            self._deployed_nodes.update(nodes)
        except ClusterError as error:
            reason = f"no node pod: {error_sentence(error, Deadline(None))}"
            self._refused = (reason, missing_permission(error))

    def _why_no_agent(self, nodes: list[str]) -> str:
        if self._why_no_agents:
            return f"Cilium's agents could not be looked for ({self._why_no_agents})"
        states = [self._agents[node].state for node in nodes if node in self._agents]
        return f"Cilium's agent there is {states[0]}" if states else "no Cilium agent runs there"

    def wait_for_pod(self, node: str, deadline: Deadline) -> NodePod:
        """Wait until a pending node pod runs, and return it. Raises ClusterError."""
        assert self._deployment is not None, "for_nodes() has created it"
        left = deadline.left
        return self._deployment.wait(node, POD_SECONDS if left is None else min(POD_SECONDS, left))


def ask_when_running(
    session: Session,
    answerers: NodeAnswerers,
    answerer: NodePod | PendingNodePod,
    questions: Sequence[NodeQuestion],
    deadline: Deadline,
    spool: Callable[[], Spool] = Spool,
) -> list[Record]:
    """Ask a node pod as soon as it runs.

    Args:
        session: the connection.
        answerers: created the node pod.
        answerer: the node pod.
        questions: to ask.
        deadline: of the whole run.
        spool: makes the buffer of one output.

    Returns:
        A record for each question, or for each place when the node pod does not run in time.
    """
    try:
        pod = (
            answerers.wait_for_pod(answerer.node, deadline)
            if isinstance(answerer, PendingNodePod)
            else answerer
        )
    except ClusterError as error:
        reason = f"no node pod: {error_sentence(error, deadline)}"
        places = dict.fromkeys(question.place for question in questions)
        return [
            unavailable_record(place, EXEC, reason, missing_permission(error)) for place in places
        ]
    return ask_node_pod(session, pod.container, questions, deadline, spool)
