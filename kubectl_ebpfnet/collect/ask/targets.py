"""Who answers for pods and nodes by exec, or a record with the reason why nobody does."""

from __future__ import annotations

from collections.abc import Mapping

from kubectl_ebpfnet.cluster.agents import container_of
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.collect.ask.container import AgentExec, PodExec
from kubectl_ebpfnet.collect.ask.unasked import EXEC, unavailable_record
from kubectl_ebpfnet.model.evidence import Record, agent_place, pod_place
from kubectl_ebpfnet.model.kube import Pod


def pod_answerer(session: Session, pod: Pod, *, by_shell: bool = False) -> PodExec | Record:
    """Return who answers for a pod, or the record with the reason why nobody does.

    Prefer kubectl's default container, then the first container that runs.

    Args:
        session: the connection.
        pod: the pod.
        by_shell: as of PodExec.
    """
    place = pod_place(pod.namespace, pod.name)
    name = next((name for name in pod.containers if name in pod.running), None)
    if name is None:
        return unavailable_record(place, EXEC, f"no container of it runs: {pod.state}")
    return PodExec(session, place, Container(pod.namespace, pod.name, name), by_shell)


def agent_answerer(
    session: Session, agents: Mapping[str, Pod], node: str, why_none: str
) -> AgentExec | Record:
    """Return who answers for a node by its agent, or the record with the reason why nobody does.

    Args:
        session: the connection.
        agents: by node.
        node: name of the node.
        why_none: why the agents could not be listed, "" when they were.
    """
    place = agent_place(node)
    agent = agents.get(node)
    if agent is None:
        why = f"no Cilium agent on {node}" if agents else "no Cilium agent runs in this cluster"
        if why_none:
            why = f"Cilium's agents could not be looked for: {why_none}"
        return unavailable_record(place, EXEC, why)
    container = Container(agent.namespace, agent.name, container_of(agent))
    if container.name not in agent.running:
        restarts = sum(s.restarts for s in agent.main_statuses if s.name == container.name)
        times = f", restarted {restarts} times" if restarts else ""
        why = f"the agent {container} does not run: {agent.state}{times}"
        return unavailable_record(place, EXEC, why)
    return AgentExec(session, place, container)
