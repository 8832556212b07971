"""Whether somebody answers at a backend that a Service has lost and a load-balancer still has.

A listener that nobody read is presumed where an object leads packets to it (stages/listener.py).
Behind a load-balancer that no EndpointSlice agrees with, its own entry is no such object: the port
may be of another Service, or of a pod that has the address now.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.backends import Place
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.views import lists
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import SCTP, TCP, UDP

_SOCKETS = {TCP: q.TCP_LISTENERS, UDP: q.UDP_SOCKETS, SCTP: q.SCTP_ENDPOINTS}


def why_open(
    cluster: ClusterView, service: ServiceAddress, place: Place, *, answered: bool = False
) -> str:
    """Return why nobody may answer at a backend that no EndpointSlice of its Service names.

    Args:
        cluster: the bundle's indexes.
        service: the frontend.
        place: the backend.
        answered: it answered the newest attempt.

    Returns:
        A clause that goes on after the backend, "" where a socket decides it, or something else
        than the load-balancer says that the pod listens there.
    """
    pod = cluster.pod_with(place[0])
    if pod is None:
        every = lists.read(cluster, "pods") is not None
        return " and no pod has" if every else " and no pod has that was read"
    name = f"pod {pod.namespace}/{pod.name}"
    if not _selected(service, pod):
        return f": {name} has that address, and is none that {service.owner_title} selects"
    if answered or sockets_read(cluster, service, place) or _declared(cluster, service, pod, place):
        return ""
    return (
        f", and whether {name} listens there is not known: no container declares the port, and its "
        "sockets were not read"
    )


def sockets_read(cluster: ClusterView, service: ServiceAddress, place: Place) -> bool:
    """Tell whether the sockets of a backend's pod were read: they decide where a packet ends."""
    pod, fact = cluster.pod_with(place[0]), _SOCKETS.get(service.protocol)
    if pod is None or fact is None:
        return False
    return cluster.pod_netns(pod.namespace, pod.name)[fact].known


def _selected(service: ServiceAddress, pod: Pod) -> bool:
    """Tell whether a pod may be the Service's, by its selector."""
    owner = service.owner
    if owner is None or not owner.selector or not pod.labels:
        return True
    return pod.namespace == owner.namespace and set(owner.selector) <= set(pod.labels)


def _declared(cluster: ClusterView, service: ServiceAddress, pod: Pod, place: Place) -> bool:
    """Tell whether a container declares the port, or an EndpointSlice of any Service names it."""
    wanted = (place[1], service.protocol)
    return any((port.number, port.protocol) == wanted for port in pod.ports) or any(
        (end.address, end.port, end.protocol) == (*place, service.protocol)
        for end in cluster.kube.endpoints
    )
