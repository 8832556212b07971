"""hostPorts: a port of a pod's own node alone, which another node does not have."""

from __future__ import annotations

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.net import Flow, protocol_name


def elsewhere(cluster: ClusterView, node: str, flow: Flow) -> str:
    """Return whose hostPort a port is, on other nodes alone; "" where it is nobody's.

    Args:
        cluster: the bundle's indexes.
        node: that the packet is for.
        flow: the packet as it comes to the node.
    """
    wanted = (flow.destination_port, flow.protocol)
    pods = [pod for pod in cluster.kube.pods if wanted in pod.host_ports]
    if not pods or any(pod.node == node for pod in pods):
        return ""
    pod = pods[0]
    port = f"{flow.destination_port}/{protocol_name(flow.protocol)}"
    return f"hostPort {port} is of pod {pod.namespace}/{pod.name}, which runs on {pod.node or '?'}"
