"""Who sends the packet: a pod, a process in a node's own network namespace, or a client outside."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.errors import NotFound, UsageError
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup, first_lookup
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.in_capture import in_capture
from kubectl_ebpfnet.explain.views.placed_pod import placed_pod
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import PathRequest, Target
from kubectl_ebpfnet.model.shell import word


@dataclass(frozen=True, slots=True)
class Sender:
    """The source of a request, as it was found.

    Attributes:
        kind: `pod`, `node` or `address`.
        namespace, name: of the object, "" for a client outside.
        pod: None for others than pods, and where it is not recorded.
        node: the node that its packets meet first: its own, or the one by which a client outside
            enters; "" when not known.
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
        """Whether it sends from its node's own network namespace."""
        return self.kind == "node" or (self.pod is not None and self.pod.host_network)

    @property
    def outside(self) -> bool:
        """Whether it is outside of the cluster."""
        return self.kind == "address"

    def first_lookup(self, cluster: ClusterView, protocol: int) -> Lookup:
        """Return where its packet's destination is looked up first.

        Args:
            cluster: the bundle's indexes.
            protocol: IANA number.
        """
        if self.outside:
            return Lookup.DEVICE
        return first_lookup(cluster.node(self.node), self.host_network, protocol)

    def target(self, request: PathRequest, address: Address | None) -> Target:
        """Return the end of the path: the node of a client outside is none of it.

        Args:
            request: has its words.
            address: the one that it sends from.
        """
        node = "" if self.outside else self.node
        return Target(
            request.source, self.kind, self.namespace, self.name, address, None, node, self.note
        )


def sender_of(cluster: ClusterView, request: PathRequest, entry: str = "") -> Sender:
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
        return Sender("address", "", "", None, entry, (request.source_address,))
    if request.source_kind == "node":
        node = cluster.kube_node(name)
        if node is None and name not in cluster.node_names:
            raise NotFound("node", name, hint=in_capture("nodes", cluster.node_names, name))
        if node is not None:
            return Sender("node", "", name, None, name, node.internal_addresses)
        own = sorted(cluster.node(name).own_addresses, key=str)
        return Sender("node", "", name, None, name, tuple(own), "its Node object is not recorded")
    found = placed_pod(cluster, request.source_namespace, request.source_kind, name)
    return Sender(
        "pod", found.namespace, found.name, found.pod, found.node, found.addresses, found.note
    )


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
        source=f"{'pod' if pod.namespace == 'default' else pod.namespace}/{pod.name}",
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
        owners = (s for s in cluster.kube.services if address in s.addresses)
        service = next(owners, None)
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
