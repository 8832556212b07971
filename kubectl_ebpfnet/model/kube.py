"""Kubernetes objects, cut down to what a packet's path depends on.

Field meanings: Kubernetes API reference (core/v1, discovery.k8s.io/v1). `span` is where an object
stands in the record that it was read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, fields
from typing import TYPE_CHECKING

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address, Network

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.advertisement import Advertisement
    from kubectl_ebpfnet.model.cilium import CiliumNode, Endpoint, Identity
    from kubectl_ebpfnet.model.egress_policy import EgressPolicy
    from kubectl_ebpfnet.model.policy import CidrGroup, Policy

AGENT_LABEL = ("k8s-app", "cilium")
"""The label of the pods of Cilium's agents, name and value (the agent's DaemonSet)."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a pod or a Service: its type, its status (`True`, `False`, `Unknown`), and
    why."""

    kind: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """A container as its kubelet reports it.

    Attributes:
        id: containerID without the runtime's scheme (`containerd://`), "" before it is created.
        state: `running`, `waiting`, `terminated`, "" when not said.
        reason, message: of the state.
        exit_code: of a terminated container, else None.
        restarts: how often it was restarted.
        init: it is an init container.
    """

    name: str
    id: str
    state: str
    reason: str
    message: str
    exit_code: int | None
    restarts: int
    init: bool


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that a container declares: its number, its protocol (IANA), its name or ""."""

    number: int
    protocol: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """The dnsConfig of a pod: what kubelet adds to its resolv.conf; `ndots` None for none."""

    nameservers: tuple[Address, ...] = ()
    searches: tuple[str, ...] = ()
    ndots: int | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod.

    Two pods of the same object are equal though members after `span` differ: these are for the
    command that asks the pod, and a record has few of them (capture/secrets.py).

    Attributes:
        node: name of its node, "" while it is not scheduled.
        phase: Pending, Running, Succeeded, Failed, Unknown.
        reason: why it is not running (waiting reason of a container, or a condition), or "".
        addresses: its IPs; of the node when host_network.
        ready: the Ready condition is True.
        containers: names, the default container first.
        labels: label → value.
        owner_kind, owner_name: its controller, e.g. ReplicaSet `web-5d4f8`; "" for bare pods.
        uid: metadata.uid.
        deleting: it has a deletionTimestamp.
        status_reason, status_message: of the status itself, e.g. `Evicted`.
        unmet: conditions whose status is not True.
        statuses: of its containers, those of init containers first.
        annotations: name → value.
        image: of its first container.
        host_ports: (port, protocol) of the node that lead to it (hostPort).
        ports: those that its containers declare.
        runtime_class: its RuntimeClass, "" for none: gVisor and Kata have a network stack of their
            own, whose sockets the node's kernel does not have.
        nominated_node: node on which the scheduler makes room for it, "" for none.
        dns_policy: `ClusterFirst`, `Default`, `None`, `ClusterFirstWithHostNet`; "" when not said.
        dns: its dnsConfig.
        host_aliases: lines that kubelet adds to /etc/hosts.
    """

    namespace: str
    name: str
    node: str
    phase: str
    addresses: tuple[Address, ...]
    host_network: bool
    ready: bool
    containers: tuple[str, ...]
    reason: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    owner_kind: str = ""
    owner_name: str = ""
    span: Span = field(default=NOWHERE, compare=False)
    uid: str = field(default="", compare=False)
    deleting: bool = field(default=False, compare=False)
    status_reason: str = field(default="", compare=False)
    status_message: str = field(default="", compare=False)
    unmet: tuple[Condition, ...] = field(default=(), compare=False)
    statuses: tuple[ContainerStatus, ...] = field(default=(), compare=False)
    annotations: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    image: str = field(default="", compare=False)
    nominated_node: str = field(default="", compare=False)
    host_ports: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    ports: tuple[ContainerPort, ...] = field(default=(), compare=False)
    runtime_class: str = field(default="", compare=False)
    dns_policy: str = field(default="", compare=False)
    dns: DnsConfig = field(default=DnsConfig(), compare=False)
    host_aliases: tuple[tuple[Address, tuple[str, ...]], ...] = field(default=(), compare=False)

    @property
    def state(self) -> str:
        """The state as in kubectl's STATUS column: `Running`, `Pending`, `CrashLoopBackOff`,
        `ContainerCreating`, `Terminating`, `Evicted`."""
        if self.deleting:
            return "Terminating"
        for status in self.statuses:
            if status.state == "waiting" and status.reason not in ("", "PodInitializing"):
                return status.reason
            if status.state == "terminated" and status.exit_code != 0:
                return status.reason or "Error"
        for condition in self.unmet:
            if (condition.kind, condition.status) == ("PodScheduled", "False"):
                return condition.reason or "Pending"
        return self.status_reason or self.phase or "Unknown"

    @property
    def serves(self) -> bool:
        """It is Ready, and is not being deleted."""
        return self.ready and not self.deleting

    @property
    def main_statuses(self) -> tuple[ContainerStatus, ...]:
        """The statuses of its containers, without init containers."""
        return tuple(status for status in self.statuses if not status.init)

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the containers that run, so that an exec can start."""
        return tuple(status.name for status in self.main_statuses if status.state == "running")

    def belongs_to(self, kind: str, name: str) -> bool:
        """Tell whether a workload (`Deployment`, `StatefulSet`, …) runs this pod.

        A Deployment's pods belong to a ReplicaSet named `<deployment>-<template hash>`.
        """
        if kind == "Deployment":
            return self.owner_kind == "ReplicaSet" and self.owner_name.rpartition("-")[0] == name
        return (self.owner_kind, self.owner_name) == (kind, name)

    def label(self, key: str) -> str:
        """Return the label's value, "" when it is not set."""
        return dict(self.labels).get(key, "")


_EXCLUDED_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
_LEAVING_TAINT = "ToBeDeletedByClusterAutoscaler"


@dataclass(frozen=True, slots=True)
class Node:
    """A node: name, InternalIPs, ExternalIPs, pod CIDRs and whether it is Ready.

    Attributes:
        reason: why it is not Ready, "" when it is or nothing says.
        unschedulable: it is cordoned; that says nothing about traffic.
        labels: label → value.
        taints: their keys.
        version: the kubelet's, e.g. `v1.31.2`; kube-proxy's is the same or near it.
        kernel: its release, as the kubelet tells it.
        not_ready_since: lastTransitionTime of a Ready condition that is not True, RFC 3339.
    """

    name: str
    internal_addresses: tuple[Address, ...]
    external_addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[Network, ...] = ()
    ready: bool = True
    reason: str = ""
    unschedulable: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    version: str = ""
    kernel: str = ""
    not_ready_since: str = field(default="", compare=False)

    @property
    def not_balanced_to(self) -> str:
        """Why load-balancers outside leave the node out, one sentence; "" when they do not.

        KEP-3458 and the service controller of cloud-provider (controllers/service/controller.go).
        Cordoned nodes are not left out since Kubernetes 1.19.
        """
        if _EXCLUDED_LABEL in dict(self.labels):
            return f"it has the label {_EXCLUDED_LABEL}"
        if _LEAVING_TAINT in self.taints:
            return f"the autoscaler is about to delete it (taint {_LEAVING_TAINT})"
        return ""

    def address(self, version: int) -> Address | None:
        """Return the node's first InternalIP of an IP version, None without one."""
        return next((a for a in self.internal_addresses if a.version == version), None)


NODE_COLUMNS = ("Name", "Internal-IP", "External-IP")
"""Columns of the server's table of nodes that a record keeps."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as a row of the server's table tells it: of its InternalIPs and its ExternalIPs the
    first one alone. Source: Kubernetes pkg/printers/internalversion (printNode).
    """

    name: str
    internal_addresses: tuple[Address, ...]
    external_addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service. `protocol` is an IANA number; `node_port` 0 for none."""

    name: str
    protocol: int
    port: int
    target_port: str
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A Service.

    Attributes:
        cluster_addresses: () for headless ones.
        ingress_addresses: of `status.loadBalancer`.
        ingress_hostnames: the same, for load-balancers that are given by name.
        proxied_addresses: those of ingress_addresses whose ipMode is Proxy (KEP-1860): their
            traffic reaches nodes with another destination, so nodes do not know them.
        source_ranges: `loadBalancerSourceRanges`, () for everybody.
        load_balancer_class: `loadBalancerClass`: only that controller gives it an address; "" for
            the cluster's own.
        traffic_distribution: `PreferClose`, `PreferSameZone`, `PreferSameNode`; "" for none.
        publish_not_ready: endpoints count as ready whatever their pods' condition is.
        annotations: those that were kept (capture/secrets.py): Cilium's.
        conditions: of its status, e.g. what Cilium's LB-IPAM says.
    """

    namespace: str
    name: str
    type: str
    cluster_addresses: tuple[Address, ...]
    ports: tuple[ServicePort, ...]
    external_addresses: tuple[Address, ...] = ()
    ingress_addresses: tuple[Address, ...] = ()
    selector: tuple[tuple[str, str], ...] = ()
    external_traffic_policy: str = ""
    internal_traffic_policy: str = ""
    external_name: str = ""
    health_check_node_port: int = 0
    ingress_hostnames: tuple[str, ...] = ()
    proxied_addresses: tuple[Address, ...] = ()
    source_ranges: tuple[Network, ...] = ()
    load_balancer_class: str = ""
    traffic_distribution: str = ""
    publish_not_ready: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    conditions: tuple[Condition, ...] = ()
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Its cluster, external and ingress addresses."""
        return (*self.cluster_addresses, *self.external_addresses, *self.ingress_addresses)

    @property
    def outside_addresses(self) -> tuple[Address, ...]:
        """The addresses of load-balancers, then external ones, that nodes are sent packets for."""
        known = (*self.ingress_addresses, *self.external_addresses)
        return tuple(each for each in known if each not in self.proxied_addresses)

    @property
    def balancer(self) -> str:
        """The load-balancer that sends to nodes' own ports: its name, or its address where that
        proxies; "" for none."""
        return next(iter((*self.ingress_hostnames, *map(str, self.proxied_addresses))), "")

    def annotation(self, key: str) -> str:
        """Return the annotation's value, "" when it is not set."""
        return dict(self.annotations).get(key, "")


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """One address of an EndpointSlice and one of its ports.

    Attributes:
        namespace, service: whose slice it is.
        port_name: "" for the unnamed port.
        ready, serving, terminating: the endpoint's conditions (nil counts as the API says).
        node: node name, "" when not said.
        pod: name of the target pod, "" when the target is not a pod.
        zones: topology zones whose nodes should use it (`hints`), () for all.
    """

    namespace: str
    service: str
    address: Address
    port_name: str
    protocol: int
    port: int
    ready: bool
    serving: bool
    terminating: bool
    node: str = ""
    pod: str = ""
    zones: tuple[str, ...] = ()
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease of coordination.k8s.io.

    Attributes:
        holder: who holds it, "" for nobody.
        renewed: time of the last renewal (RFC 3339), "" when not said.
        seconds: how long it lasts after that, 0 when not said.
    """

    namespace: str
    name: str
    holder: str
    renewed: str = ""
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class KubeObjects:
    """Every object that was read, by kind.

    Attributes:
        cilium_endpoints: each with the address of its node, None when not said.
        network_policies: of every kind.
        cidr_groups: prefixes that policies call by a name.
        egress_policies: of the egress gateway.
        config_maps: (namespace, name, data).
        service_cidrs: ranges of ClusterIPs (networking.k8s.io, ServiceCIDR).
        advertisements: of Services, by BGP.
        leases: by one of a Service's, a node announces its addresses (L2).
        node_rows: all nodes, of a cluster of which only some Node objects were read.
    """

    pods: tuple[Pod, ...] = ()
    nodes: tuple[Node, ...] = ()
    services: tuple[Service, ...] = ()
    endpoints: tuple[ServiceEndpoint, ...] = ()
    cilium_endpoints: tuple[tuple[Endpoint, Address | None], ...] = ()
    cilium_nodes: tuple[CiliumNode, ...] = ()
    identities: tuple[Identity, ...] = ()
    network_policies: tuple[Policy, ...] = ()
    config_maps: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = ()
    service_cidrs: tuple[Network, ...] = ()
    cidr_groups: tuple[CidrGroup, ...] = ()
    egress_policies: tuple[EgressPolicy, ...] = ()
    leases: tuple[Lease, ...] = ()
    advertisements: tuple[Advertisement, ...] = ()
    node_rows: tuple[NodeRow, ...] = ()

    @classmethod
    def of_all(cls, parts: Sequence[KubeObjects]) -> KubeObjects:
        """Return the objects of all parts, each once."""
        return cls(
            *(
                tuple(dict.fromkeys(one for part in parts for one in getattr(part, f.name)))
                for f in fields(cls)
            )
        )
