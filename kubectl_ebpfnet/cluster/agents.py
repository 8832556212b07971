"""Find Cilium's agent on each node, and its state.

Facts: the agent's DaemonSet (install/kubernetes/cilium/templates/cilium-agent/daemonset.yaml)
labels its pods `k8s-app: cilium` and names the container `cilium-agent`. Installers put it into
kube-system, some into cilium or cilium-system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_ebpfnet.cluster.client.api import Api, Object, Objects
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.resolve import is_ready, name_of, state_of
from kubectl_ebpfnet.errors import Forbidden, ParseError
from kubectl_ebpfnet.model.untrusted import integer

LABEL = "k8s-app=cilium"
CONTAINER = "cilium-agent"
NAMESPACES = ("kube-system", "cilium", "cilium-system")
"""Where to look when the user may not list pods everywhere."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Cilium's agent on one node.

    Attributes:
        node: the node's name.
        container: the container to exec into.
        phase: phase of the pod.
        ready: the pod is Ready, so the agent answers.
        state: `Running`, or the reason why the pod does not run, e.g. `CrashLoopBackOff`.
        restarts: restart count of the agent's container.
        running: the container runs, ready or not, so an exec can start.
    """

    node: str
    container: Container
    phase: str
    ready: bool
    state: str
    restarts: int
    running: bool


def find_agents(api: Api) -> Mapping[str, Agent]:
    """Return Cilium's agents by node name, {} without Cilium.

    A node may have two agents during a rollout; the better one counts.

    Raises:
        Forbidden: pods can be listed neither in all namespaces nor in Cilium's usual ones.
        ClusterError: the API server refused otherwise, or cannot be reached.
    """
    agents: dict[str, Agent] = {}
    for pod in sorted(_agent_pods(api), key=name_of):
        agent = _agent(pod)
        if agent is None:
            continue
        known = agents.get(agent.node)
        if known is None or _rank(agent) > _rank(known):
            agents[agent.node] = agent
    return agents


def _agent_pods(api: Api) -> Objects:
    try:
        return api.pods(label_selector=LABEL)
    except Forbidden as everywhere:
        pods: Objects = []
        allowed = False
        for namespace in NAMESPACES:
            try:
                pods += api.pods(namespace, label_selector=LABEL)
                allowed = True
            except Forbidden:
                continue
        if not allowed:
            raise everywhere from None
        return pods


def _agent(pod: Object) -> Agent | None:
    spec, status = _part(pod, "spec"), _part(pod, "status")
    metadata = _part(pod, "metadata")
    node = str(spec.get("nodeName") or "")
    names = [str(c.get("name")) for c in spec.get("containers") or []]
    if not node or not names:
        return None  # not scheduled yet
    name = CONTAINER if CONTAINER in names else names[0]
    container: dict[str, Any] = next(
        (c for c in status.get("containerStatuses") or [] if c.get("name") == name), {}
    )
    return Agent(
        node=node,
        container=Container(str(metadata.get("namespace", "")), name_of(pod), name),
        phase=str(status.get("phase") or "Unknown"),
        ready=is_ready(pod),
        state=state_of(pod),
        restarts=_count(container.get("restartCount")),
        running="running" in (container.get("state") or {}),
    )


def _count(value: object) -> int:
    try:
        return integer(value, "restartCount")
    except ParseError:
        return 0


def _rank(agent: Agent) -> tuple[bool, bool, bool]:
    return agent.ready, agent.running, agent.state != "Terminating"


def _part(pod: Object, key: str) -> Object:
    value = pod.get(key)
    return value if isinstance(value, dict) else {}
