"""Who answers for pods and nodes by exec, or a record with the reason why nobody does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubectl_ebpfnet.cluster.agents import Agent
from kubectl_ebpfnet.cluster.client.api import Object
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.resolve import name_of, state_of
from kubectl_ebpfnet.collect.ask.container import EXEC, AgentExec, PodExec
from kubectl_ebpfnet.collect.ask.shell_script import unavailable_record
from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.evidence import Record, agent_place, pod_place
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import PodNamespace

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def part(value: Object, *keys: str) -> Any:
    """Return a member of nested objects, {} where one of the keys is missing or is no object."""
    found: Any = value
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if found is not None else {}


def namespace_of(value: Object) -> str:
    """Return metadata.namespace, or ""."""
    return str(part(value, "metadata", "namespace") or "")


def node_of(pod: Object) -> str:
    """Return the pod's node, "" while it has none."""
    return str(part(pod, "spec", "nodeName") or "")


def shares_node(pod: Object) -> bool:
    """Tell whether the pod uses its node's network namespace."""
    return part(pod, "spec", "hostNetwork") is True


def addresses_of(pod: Object) -> tuple[Address, ...]:
    """Return the pod's addresses."""
    words = [entry.get("ip") for entry in part(pod, "status", "podIPs") or []]
    words = words or [part(pod, "status", "podIP")]
    return json_members.addresses(words)


def namespace_in_kernel(pod: Object) -> PodNamespace:
    """Return the ids by which the node side finds the pod's network namespace."""
    statuses = part(pod, "status", "containerStatuses") or []
    ids = (str(part(entry, "containerID") or "").rpartition("//")[2] for entry in statuses)
    return PodNamespace(str(part(pod, "metadata", "uid") or ""), tuple(id_ for id_ in ids if id_))


def pod_answerer(session: Session, pod: Object) -> PodExec | Record:
    """Return who answers for a pod, or the record with the reason why nobody does.

    Prefer kubectl's default container, then the first container that runs.
    """
    namespace, name = namespace_of(pod), name_of(pod)
    place = pod_place(namespace, name)
    names = [str(c.get("name")) for c in part(pod, "spec", "containers") or []]
    running = [
        str(c.get("name"))
        for c in part(pod, "status", "containerStatuses") or []
        if "running" in part(c, "state")
    ]
    chosen = part(pod, "metadata", "annotations").get(_DEFAULT_CONTAINER)
    order = [name for name in (chosen, *names) if name in running]
    if not order:
        return unavailable_record(place, EXEC, f"no container of it runs: {state_of(pod)}")
    return PodExec(session, place, Container(namespace, name, order[0]))


def agent_answerer(
    session: Session, agents: Mapping[str, Agent], node: str, why_none: str
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
        why = (
            f"no Cilium agent on node {node}" if agents else "no Cilium agent runs in this cluster"
        )
        if why_none:
            why = f"Cilium's agents could not be looked for: {why_none}"
        return unavailable_record(place, EXEC, why)
    if not agent.running:
        times = f", restarted {agent.restarts} times" if agent.restarts else ""
        why = f"the agent {agent.container} does not run: {agent.state}{times}"
        return unavailable_record(place, EXEC, why)
    return AgentExec(session, place, agent.container)
