"""Find Cilium's agent on each node, and its state.

Facts: the agent's DaemonSet (install/kubernetes/cilium/templates/cilium-agent/daemonset.yaml)
labels its pods `k8s-app: cilium` and names the container `cilium-agent`. Installers put it into
kube-system, some into cilium or cilium-system.
"""

from __future__ import annotations

from collections.abc import Mapping

from kubectl_ebpfnet.cluster.client.api import PAGE, Api, Objects
from kubectl_ebpfnet.errors import Forbidden
from kubectl_ebpfnet.model.kube import AGENT_LABEL, Pod
from kubectl_ebpfnet.parse import kube

LABEL = "=".join(AGENT_LABEL)
CONTAINER = "cilium-agent"
NAMESPACES = ("kube-system", "cilium", "cilium-system")
"""Where to look when the user may not list pods everywhere."""


FEW = 50
"""Agents that a command which asks a few nodes lists: where there are more, it looks for those of
its nodes. 2,000 of them are 30 MB."""


def find_agents(api: Api, node: str = "", *, few: bool = False) -> Mapping[str, Pod]:
    """Return the pods of Cilium's agents by node name, {} without Cilium.

    A node may have two agents during a rollout; the better one counts.

    Args:
        api: the API server.
        node: whose agent is wanted, "" for all.
        few: return those of one page, of FEW and one more.

    Raises:
        Forbidden: pods can be listed neither in all namespaces nor in Cilium's usual ones.
        ClusterError: the API server refused otherwise, or cannot be reached.
    """
    pods = [kube.pod(each) for each in _agent_pods(api, node, few)]
    scheduled = sorted((pod for pod in pods if pod.node and pod.containers), key=lambda p: p.name)
    agents: dict[str, Pod] = {}
    for pod in scheduled:
        known = agents.get(pod.node)
        if known is None or _rank(pod) > _rank(known):
            agents[pod.node] = pod
    return agents


def container_of(agent: Pod) -> str:
    """Return the name of the agent's container."""
    return CONTAINER if CONTAINER in agent.containers else agent.containers[0]


def _agent_pods(api: Api, node: str, few: bool) -> Objects:
    def listed(namespace: str = "") -> Objects:
        where = f"spec.nodeName={node}" if node else ""
        limit = FEW + 1 if few else PAGE
        return api.pods(
            namespace, label_selector=LABEL, field_selector=where, limit=limit, first_page=few
        )

    try:
        return listed()
    except Forbidden as everywhere:
        pods: Objects = []
        allowed = False
        for namespace in NAMESPACES:
            try:
                pods += listed(namespace)
                allowed = True
            except Forbidden:
                continue
        if not allowed:
            raise everywhere from None
        return pods


def _rank(agent: Pod) -> tuple[bool, bool, bool]:
    return agent.serves, container_of(agent) in agent.running, not agent.deleting
