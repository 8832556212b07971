"""Who sends the packet: a pod, a process in a node's own network namespace, or a client outside."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.errors import NotFound, UsageError
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup, first_lookup
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.in_capture import in_capture
from kubectl_ebpfnet.explain.views.placed import Placed, placed_pod
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import PathRequest, Target
from kubectl_ebpfnet.model.shell import word


def first_lookup_of(cluster: ClusterView, sender: Placed, protocol: int) -> Lookup:
    """Return where the destination of a sender's packet is looked up first.

    Args:
        cluster: the bundle's indexes.
        sender: of the packet.
        protocol: IANA number.
    """
    if sender.outside:
        return Lookup.DEVICE
    return first_lookup(cluster.node(sender.node), sender.host_network, protocol)


def as_target(sender: Placed, request: PathRequest, address: Address | None) -> Target:
    """Return a sender as the end of a path: the node of a client outside is none of it.

    Args:
        sender: of the packet.
        request: has its words.
        address: the one that it sends from.
    """
    node = "" if sender.outside else sender.node
    return Target(
        request.source, sender.kind, sender.namespace, sender.name, address, None, node, sender.note
    )


def sender_of(cluster: ClusterView, request: PathRequest, entry: str = "") -> Placed:
    """Find who sends the packet of a request.

    Args:
        cluster: the bundle's indexes.
        request: names the source.
        entry: the node by which a client outside enters.

    Raises:
        NotFound: the bundle does not know the pod or node.
        UsageError: the address of a client outside is one of the cluster's own.
    """
    name = request.source_name
    if request.source_address is not None:
        check_outside(cluster, request.source_address)
        return Placed("address", "", "", None, entry, (request.source_address,))
    if request.source_kind == "node":
        node = cluster.kube_node(name)
        if node is None and name not in cluster.node_names:
            raise NotFound("node", name, hint=in_capture("nodes", cluster.node_names, name))
        if node is not None:
            return Placed("node", "", name, None, name, node.internal_addresses)
        own = sorted(cluster.node(name).own_addresses, key=str)
        return Placed("node", "", name, None, name, tuple(own), "its Node object is not recorded")
    return placed_pod(cluster, request.source_namespace, request.source_kind, name)


def from_its_pod(cluster: ClusterView, request: PathRequest) -> PathRequest:
    """Return the request of the pod that has the address of a client outside; the request itself
    where no pod has it, or where the client is said to enter by a node."""
    address = request.source_address
    pod = cluster.pod_with(address) if address is not None and not request.via else None
    return request if pod is None or address is None else of_pod(request, pod, address)


def of_pod(request: PathRequest, pod: Pod, address: Address) -> PathRequest:
    """Return a request with a pod as its source, in place of the address that it has."""
    return replace(
        request,
        source_kind="pod",
        source_namespace=pod.namespace,
        source_name=pod.name,
        source_address=None,
        ip_version=request.ip_version or address.version,
    )


def check_outside(cluster: ClusterView, address: Address) -> None:
    """Refuse the address of a client outside that is the cluster's own.

    Raises:
        UsageError: a pod, a node or a Service has it; the hint says how to ask for these.
    """
    pod = cluster.pod_with(address)
    if pod is not None:
        who, hint = (
            f"pod {pod.namespace}/{pod.name}",
            f"path -n {word(pod.namespace)} pod/{word(pod.name)} …",
        )
    elif node := cluster.owner_of(address):
        who, hint = f"node {node}", f"path node/{node} …"
    else:
        service = next(iter(cluster.index.services_with(address)), None)
        if service is None:
            _check_prefixes(cluster, address)
            return
        who = f"svc {service.namespace}/{service.name}"
        hint = "packets come from its pods: path pod/NAME …"
    raise UsageError(f"{address} is no client outside: {who} has it", hint=hint)


def _check_prefixes(cluster: ClusterView, address: Address) -> None:
    """Refuse the address of a pod that is not known."""
    cidr = next((cidr for cidr in cluster.pod_cidrs if address in cidr), None)
    if cidr is not None:
        raise UsageError(
            f"{address} is no client outside: it is in the pod CIDR {cidr}, and no pod is known to "
            "have it",
            hint="name the pod: path pod/NAME …",
        )
