"""Find Cilium's agent on each node, and its state.

Facts: the agent's DaemonSet (install/kubernetes/cilium/templates/cilium-agent/daemonset.yaml)
labels its pods `k8s-app: cilium` and names the container `cilium-agent`. Installers put it into
kube-system, some into cilium or cilium-system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubectl_ebpfnet.cluster.client.api import Api, Objects
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.errors import Forbidden
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.parse import kube

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
        ready: the pod is Ready, so the agent answers.
        state: `Running`, or the reason why the pod does not run, e.g. `CrashLoopBackOff`.
        restarts: restart count of the agent's container.
        running: the container runs, ready or not, so an exec can start.
    """

    node: str
    container: Container
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
    for pod in sorted(map(kube.pod, _agent_pods(api)), key=lambda pod: pod.name):
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


def _agent(pod: Pod) -> Agent | None:
    if not pod.node or not pod.containers:
        return None  # not scheduled yet
    name = CONTAINER if CONTAINER in pod.containers else pod.containers[0]
    restarts = [status.restarts for status in pod.main_statuses if status.name == name]
    return Agent(
        node=pod.node,
        container=Container(pod.namespace, pod.name, name),
        ready=pod.serves,
        state=pod.state,
        restarts=restarts[0] if restarts else 0,
        running=name in pod.running,
    )


def _rank(agent: Agent) -> tuple[bool, bool, bool]:
    return agent.ready, agent.running, agent.state != "Terminating"
