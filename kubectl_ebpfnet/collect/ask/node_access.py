"""Who answers for a node: Cilium's agent there, a node pod, or nobody, as --node-access says.

`auto` takes a node pod that is there, else Cilium's agent, else it deploys a node pod, if the user
agrees. A node without an answerer is a record with the reason, so the rest is still
shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from kubectl_ebpfnet.cluster.agents import FEW
from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods.deployment import Deployment
from kubectl_ebpfnet.cluster.nodepods.kept import NodePod
from kubectl_ebpfnet.cluster.nodepods.nodes import why_no_node_pods
from kubectl_ebpfnet.cluster.nodepods.rehearsal import rehearse
from kubectl_ebpfnet.cluster.nodepods.rights import check_rights
from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.collect.ask.container import AgentExec
from kubectl_ebpfnet.collect.ask.node_pod import NodePodExec
from kubectl_ebpfnet.collect.ask.targets import agent_answerer
from kubectl_ebpfnet.collect.ask.unasked import (
    EXEC,
    error_sentence,
    missing_permission,
    unavailable_record,
)
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import ApiError, ApiUnreachable, ClusterError
from kubectl_ebpfnet.model.dry_run import DryRun
from kubectl_ebpfnet.model.evidence import NOBODY_ASKED, Record, node_place
from kubectl_ebpfnet.model.kube import Pod

POD_SECONDS = 60.0
"""How long to wait for a node pod to run: its image may have to be pulled first."""


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
        self._agents: Mapping[str, Pod] = {}
        self._agent_on: Callable[[str], Mapping[str, Pod]] | None = None
        self._why_no_agents = ""
        self._deployed_nodes: set[str] = set()
        self._refused: tuple[str, str] | None = None  # why there can be no node pods
        self._unfit: dict[str, str] = {}  # node → why no node pod can start there
        self._advised = {""}
        self._passing = False  # the next look of a watch may deploy what this one could not

    def __enter__(self) -> NodeAnswerers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._deployment is not None:
            self._deployment.__exit__(kind)

    @property
    def kept_nodes(self) -> tuple[str, ...]:
        """Names of nodes with a node pod that is there: installed, or kept by an earlier run."""
        return tuple(self._kept_pods)

    def set_available(
        self,
        agents: Mapping[str, Pod],
        why_no_agents: str,
        kept_pods: Mapping[str, NodePod],
        agent_on: Callable[[str], Mapping[str, Pod]] | None = None,
    ) -> None:
        """Set the existing agents and node pods, at the beginning of each look: what failed for a
        moment in the last one is tried again, and a node pod that ended then is deployed anew.

        Args:
            agents: by node.
            why_no_agents: why the agents could not be listed, "" when they were.
            kept_pods: node pods that are there, by node.
            agent_on: looks for the agent of a node that is not among `agents`, where these are a
                page of many.
        """
        self._agents, self._why_no_agents, self._kept_pods = agents, why_no_agents, kept_pods
        self._unfit = {}
        # During a rollout a node may have two of them.
        self._agent_on = agent_on if len(agents) > FEW // 2 else None
        if self._passing:
            self._refused, self._passing = None, False
        if self._deployment is not None:
            lost = self._deployment.lost
            self._deployed_nodes = {node for node in self._deployed_nodes if not lost(node)}

    def forget_kept(self, node: str) -> None:
        """Choose the node pod that was there on a node no more, and say so."""
        self._kept_pods = {name: pod for name, pod in self._kept_pods.items() if name != node}
        self._warn(f"the node pod that is on {node} does not answer: it may have ended")

    def for_nodes(
        self, nodes: Iterable[str], deadline: Deadline, mode: Mode | None = None
    ) -> dict[str, AgentExec | NodePodExec | Record]:
        """Choose who answers for some nodes; create node pods where needed, without waiting.

        None is created when the deadline is over: the list of agents may then be incomplete.

        Args:
            nodes: names.
            deadline: of the whole run.
            mode: instead of that of --node-access.
        """
        mode = mode or self._access.mode
        answerers = {node: self._existing_answerer(node, mode) for node in nodes}
        podless = [n for n, answerer in answerers.items() if answerer is None]
        podless = [node for node in podless if node not in self._deployed_nodes]
        refused = (deadline.missed("no node pod"), "") if deadline.over else None
        if refused is None:
            podless = self._fit(podless, deadline)
        if podless and refused is None:
            why = "" if mode is Mode.POD else self._why_no_agent(podless)
            refused = self._deploy(podless, why, deadline)
        return {
            node: self._new_pod(node, refused) if answerer is None else answerer
            for node, answerer in answerers.items()
        }

    def instead_of_agent(self, node: str, deadline: Deadline) -> NodePodExec | Record | None:
        """Return who answers for a node whose agent turned out not to answer: a node pod that is
        created now, or the record with the reason why there is none; None where --node-access
        takes agents alone, or no time is left.

        Args:
            node: its name.
            deadline: of the whole run.
        """
        if self._access.mode is not Mode.AUTO or deadline.over:
            return None
        refused = None
        if node not in self._deployed_nodes and self._fit([node], deadline):
            refused = self._deploy([node], f"Cilium's agent on {node} does not answer", deadline)
        return self._new_pod(node, refused)

    def _existing_answerer(self, node: str, mode: Mode) -> AgentExec | NodePodExec | Record | None:
        if mode is Mode.NONE:
            return unavailable_record(node_place(node), EXEC, NOBODY_ASKED)
        kept = self._kept_pods.get(node) if mode is not Mode.AGENT else None
        if kept is not None:
            return NodePodExec(self._session, node_place(node), lambda _: kept)
        if mode is not Mode.POD:
            if self._agent_on is not None and node not in self._agents:
                self._agents = {**self._agents, **self._agent_on(node)}
            found = agent_answerer(self._session, self._agents, node, self._why_no_agents)
            if isinstance(found, AgentExec) or mode is Mode.AGENT:
                return found
        return None

    def _new_pod(self, node: str, refused: tuple[str, str] | None) -> NodePodExec | Record:
        if node not in self._deployed_nodes:
            refused = (self._unfit[node], "") if node in self._unfit else refused
            if refused is not None:
                return unavailable_record(node_place(node), EXEC, *refused)
        waits = partial(self._wait, node)
        return NodePodExec(self._session, node_place(node), waits, self._advise)

    def _fit(self, nodes: list[str], deadline: Deadline) -> list[str]:
        """Return those of some nodes that may take a node pod: no other is worth a question."""
        if nodes and self._refused is None:
            self._unfit |= why_no_node_pods(Api(self._session), nodes, deadline.left)
        return [node for node in nodes if node not in self._unfit]

    def _deploy(self, nodes: list[str], why: str, deadline: Deadline) -> tuple[str, str] | None:
        """Create node pods; return the reason why none can be created, and the missing right.

        Args:
            nodes: names.
            why: what the user is told before, "" for nothing.
            deadline: of the whole run.
        """
        if self._refused is not None:
            return self._refused
        how = self._access.dry_run
        try:
            if how is not DryRun.NONE:
                api, options = Api(self._session), self._access.options
                for line in rehearse(api, nodes, options, how, deadline.left):
                    self._warn(line)
                return f"--dry-run={how}: no node pod is deployed", ""
            lead = f"{why}: " if why else ""
            what = f"a node pod on {', '.join(nodes)} (image {self._access.options.image})"
            if self._deployment is None:
                check_rights(Api(self._session), deadline.left)
                self._refused = self._refusal(f"{lead}deploy {what} for this run?", deadline)
                if self._refused is not None:
                    return self._refused
                deployment = Deployment(self._session, self._access.options, self._warn)
                self._deployment = deployment.__enter__()
            self._warn(f"{lead}deploying {what}")
            self._deployment.start(nodes, deadline.left)
            self._deployed_nodes.update(nodes)
        except ClusterError as error:
            reason = f"no node pod: {error_sentence(error, deadline)}"
            self._refused = (reason, missing_permission(error))
            self._passing = _passes(error)
        return self._refused

    def _refusal(self, question: str, deadline: Deadline) -> tuple[str, str] | None:
        """Ask whether node pods may be deployed, where --node-access does not say so."""
        if self._access.agree is None or self._access.mode is not Mode.AUTO:
            return None
        asked = time.monotonic()
        reason = self._access.agree(question)
        deadline.pause(time.monotonic() - asked)
        return (f"no node pod: {reason}", "") if reason else None

    def _why_no_agent(self, nodes: list[str]) -> str:
        if self._why_no_agents:
            return f"Cilium's agents could not be looked for ({self._why_no_agents})"
        states = [self._agents[node].state for node in nodes if node in self._agents]
        return f"Cilium's agent there is {states[0]}" if states else "no Cilium agent runs there"

    def _advise(self, hint: str) -> None:
        """Say what to do, once a run: nodes often lack the same."""
        if hint not in self._advised:
            self._advised.add(hint)
            self._warn(f"hint: {hint}")

    def _wait(self, node: str, deadline: Deadline) -> NodePod:
        assert self._deployment is not None, "for_nodes() has created it"
        left = deadline.left
        return self._deployment.wait(node, POD_SECONDS if left is None else min(POD_SECONDS, left))


def _passes(error: ClusterError) -> bool:
    """Tell whether an error says nothing of the next try: no answer, a server that is busy."""
    if isinstance(error, ApiError):
        return error.status == 429 or error.status >= 500
    return isinstance(error, ApiUnreachable)
