"""Who sends, and where it is; a pod of a bundle by its name: one way to find it, for every command
that reads one.

A capture that somebody made by hand may have a pod's outputs and no Pod object: then its addresses
are those of its own devices, and its node is the only one of the capture.
"""

from __future__ import annotations

from kubectl_ebpfnet.errors import NotFound
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.in_capture import in_capture
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import PlaceKind, pod_place
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Address


@dataclass(frozen=True, slots=True)
class Placed:
    """A pod, a node or a client outside, and where it is.

    Attributes:
        kind: `pod`, `node` or `address`.
        namespace, name: of the object, "" for a client outside; for a workload, of the pod that
            stands for it.
        pod: its object, None for others than pods, and where it is not recorded.
        node: name of its node, or of the one by which a client outside enters; "" when not known.
        addresses: its own, of both IP versions.
        note: how it was found, one sentence; "" when there is nothing to say.
    """

    kind: str
    namespace: str
    name: str
    pod: Pod | None
    node: str
    addresses: tuple[Address, ...]
    note: str = ""

    @property
    def host_network(self) -> bool:
        """Whether it is in its node's own network namespace."""
        return self.kind == "node" or (self.pod is not None and self.pod.host_network)

    @property
    def outside(self) -> bool:
        """Whether it is outside of the cluster."""
        return self.kind == "address"


def placed_pod(cluster: ClusterView, namespace: str, kind: str, name: str) -> Placed:
    """Find a pod, or a pod of a workload.

    Args:
        cluster: the bundle's indexes.
        namespace: of the object.
        kind: `pod`, or a workload's: `Deployment`, ….
        name: of the object.

    Raises:
        NotFound: the bundle does not know it; the hint lists the pods that it knows.
    """
    if kind != "pod":
        pods = [
            pod
            for pod in cluster.kube.pods
            if pod.namespace == namespace and pod.belongs_to(kind, name)
        ]
        if not pods:
            raise NotFound(
                kind.lower(), name, namespace, hint=pods_in_capture(cluster, namespace, name)
            )
        best = min(pods, key=lambda pod: (not pod.ready, pod.name))
        which = f"one of {len(pods)} pods" if len(pods) > 1 else "the one pod"
        note = f"{which} of {kind} {name}"
        return Placed("pod", namespace, best.name, best, best.node, best.addresses, note)
    pod = cluster.pod(namespace, name)
    if pod is not None:
        return Placed("pod", namespace, name, pod, pod.node, pod.addresses)
    if not cluster.bundle.at(pod_place(namespace, name)):
        raise NotFound("pod", name, namespace, hint=pods_in_capture(cluster, namespace, name))
    addresses = cluster.pod_netns(namespace, name).own_addresses
    note = "its Pod object is not recorded"
    return Placed("pod", namespace, name, None, cluster.only_node, addresses, note)


def pods_in_capture(cluster: ClusterView, namespace: str, name: str) -> str:
    """Return a hint that lists the pods of a capture which lacks one."""
    if name in cluster.node_names:
        return f"did you mean node/{name}?"
    names = [f"{pod.namespace}/{pod.name}" for pod in cluster.kube.pods]
    names += [f"{p.namespace}/{p.pod}" for p in cluster.bundle.places(PlaceKind.POD)]
    return in_capture("pods", names, f"{namespace}/{name}")
