"""Cilium's agent that is behind Kubernetes: what its map has or lacks against the EndpointSlices,
and what to do about it."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path import commands, unnamed_backend
from kubectl_ebpfnet.explain.path.endings import Arrived, Dropped, Stopped
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.services import find
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.explain.views.settings import setting
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.kube import Service
from kubectl_ebpfnet.model.net import Flow, protocol_name
from kubectl_ebpfnet.model.path import Contradiction, Decides, Fix
from kubectl_ebpfnet.model.shell import word

_ONLY_TYPE = "service.cilium.io/type"
_NODES, _NODE_SELECTOR = "service.cilium.io/node", "service.cilium.io/node-selector"
_LONGEST = 80
"""Characters of a setting that are shown."""
_OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
"""A Service with this label is left to the proxy of that name (KEP-2447; Cilium's
k8s-service-proxy-name)."""


def see_agent(cluster: ClusterView, cause: str, node: str) -> Remedy:
    """Return what to do about an agent that did not write what Kubernetes says.

    Args:
        cluster: the bundle's indexes.
        cause: one sentence.
        node: the agent's.
    """
    agent = cluster.index.agents.get(node)
    command = f"kubectl get pods -A -l k8s-app=cilium {commands.pods_on(node)}"
    if agent is not None:
        command = commands.pod_logs(agent.namespace, agent.name)
        command += " -c cilium-agent --tail 100"
    return Remedy(
        cause,
        Fix(
            f"See why Cilium's agent on {node} is behind: its connection to the API server, "
            "and its log; a restart reads all Services anew.",
            command,
        ),
        f"Pod {agent.namespace}/{agent.name}" if agent is not None else "",
    )


def without_frontend(cluster: ClusterView, service: ServiceAddress, node: str) -> Remedy:
    """Return why Cilium's map has no frontend of a Service that Kubernetes has.

    Args:
        cluster: the bundle's indexes.
        service: as Kubernetes has it.
        node: whose map was read.
    """
    owner = service.owner
    proxy = dict(owner.labels).get(_OTHER_PROXY, "") if owner is not None else ""
    if owner is not None and proxy:
        return Remedy(
            f"{service.owner_title} is left to the proxy {proxy} by its label {_OTHER_PROXY}, so "
            "Cilium has no frontend of it",
            Fix(
                f"Remove the label from Service {owner.name}, or see that {proxy} runs.",
                f"kubectl label service -n {word(owner.namespace)} {word(owner.name)} "
                f"{_OTHER_PROXY}-",
            ),
            f"Service {owner.namespace}/{owner.name}",
        )
    if owner is not None and service.address in owner.proxied_addresses:
        return Remedy(
            f"{service.owner_title} has {service.address} with ipMode Proxy: Cilium leaves it to "
            "the load-balancer that has the address, so nodes send it there",
            Fix(
                "See that the network outside leads it to that load-balancer.",
                f"kubectl get service -n {word(owner.namespace)} {word(owner.name)} -o yaml",
            ),
            f"Service {owner.namespace}/{owner.name}",
        )
    chosen = None if owner is None else _by_annotation(cluster, owner, service, node)
    if chosen is not None:
        return chosen
    cause = f"Cilium's load-balancing map on {node} has no frontend {service.title}"
    return see_agent(cluster, f"{cause}: its agent is behind Kubernetes", node)


def _by_annotation(
    cluster: ClusterView, owner: Service, service: ServiceAddress, node: str
) -> Remedy | None:
    """Return which annotation of a Service keeps a frontend from a node, None for none
    (pkg/annotation: selective exposure of types and on nodes)."""
    own, edit = f"Service {owner.namespace}/{owner.name}", commands.edit_service
    said = edit(owner.namespace, owner.name)
    only = owner.annotation(_ONLY_TYPE)
    if only and only.lower() != service.type.lower():
        return Remedy(
            f"{service.owner_title} has no frontend of type {service.type}: its annotation "
            f"{_ONLY_TYPE} lets Cilium make those of type {only} alone",
            Fix(f"Ask for an address of type {only}, or remove the annotation.", said), own,
        )  # fmt: skip
    selector = owner.annotation(_NODE_SELECTOR)
    value = "" if selector else owner.annotation(_NODES)
    kube_node = cluster.kube_node(node)
    if value and kube_node is not None and dict(kube_node.labels).get(_NODES) != value:
        return Remedy(
            f"{service.owner_title} is for nodes with the label {_NODES}={value} alone (by its "
            f"annotation of that name), and {node} is none",
            Fix(
                f"Enter by a node with that label, or give it to {node}.",
                f"kubectl label node {word(node)} {word(f'{_NODES}={value}')}",
            ),
            own,
        )
    if selector:
        return Remedy(
            f"Cilium's load-balancing map on {node} has no frontend {service.title}: its Service "
            f"chooses nodes by the annotation {_NODE_SELECTOR} ({selector[:_LONGEST]})",
            Fix(f"Enter by a node that it chooses, or let it choose {node}.", said), own,
        )  # fmt: skip
    return None


def _at_other_addresses(cluster: ClusterView, node: NodeView, flow: Flow) -> Remedy | None:
    """Return that Cilium has a node port at other addresses of the node, or by sockets, alone."""
    port = f"{flow.destination_port}/{protocol_name(flow.protocol)}"
    if node.having(q.LB_MAP, (flow.destination, flow.destination_port), "address", "port"):
        return None
    only = setting(cluster, "nodeport-addresses")
    why = f" (nodeport-addresses: {only[:_LONGEST]})" if only else ""
    return Remedy(
        f"Cilium's load-balancing map on {node.name} has node port {port}, and not at "
        f"{flow.destination}{why}",
        Fix(
            "Ask for an address at which Cilium serves node ports: one of its devices, in "
            "nodeport-addresses where that is set.",
            node.in_agent("status --verbose"),
        ),
    )


def lacks_port(cluster: ClusterView, node: NodeView, flow: Flow) -> Remedy | None:
    """Return why Cilium's map has no frontend of a node's port that an object leads to a pod; None
    where it has one, at whatever address, or where that was not read.

    Args:
        cluster: the bundle's indexes.
        node: that the packet came to.
        flow: the packet, for an address of the node.
    """
    table, port = node[q.LB_MAP], flow.destination_port
    if not node.config.kube_proxy_replacement or not table.known or port is None:
        return None
    if flow.destination not in cluster.node_addresses:  # an address that has no node ports
        return None
    if any(f.port == port and f.protocol in (None, flow.protocol) for f in table.facts):
        return _at_other_addresses(cluster, node, flow)
    wanted = (port, flow.protocol)
    for pod in cluster.kube.pods:
        if pod.node == node.name and wanted in pod.host_ports and not pod.host_network:
            cause = (
                f"Cilium's load-balancing map on {node.name} has no frontend of hostPort "
                f"{port}/{protocol_name(flow.protocol)} of pod {pod.namespace}/{pod.name}: its "
                "agent is behind Kubernetes"
            )
            return see_agent(cluster, cause, node.name)
    service = find(cluster, node.name, flow.destination, port, flow.protocol, Lookup.DEVICE)
    if service is None or service.owner is None or service.in_cilium is not False:
        return None
    return without_frontend(cluster, service, node.name)


def note_stale(
    walk: PathBuilder, service: ServiceAddress, backend: Backend, node: str, *, answered: bool
) -> None:
    """Keep in mind that the packet goes to a backend that no EndpointSlice names.

    Args:
        walk: in progress; its last hop balances.
        service: the frontend.
        backend: that is followed.
        node: whose map has it.
        answered: it answered the newest attempt.
    """
    named = ", ".join(kinds.text(end) for end in service.sliced or () if end.ready) or "none"
    remedy = see_agent(
        walk.cluster,
        f"Cilium on {node} sends {service.owner_title} to {kinds.text(backend)}, which no "
        f"EndpointSlice names (ready by these: {named})",
        node,
    )
    walk.stale = remedy
    walk.outdate()  # an answer may be older than the slices
    why = unnamed_backend.why_open(walk.cluster, service, kinds.place(backend), answered=answered)
    if why:
        walk.doubt(f"{remedy.cause}{why}", Decides.DROP, remedy.fix)


def note_not_ready(walk: PathBuilder, service: ServiceAddress, backend: Backend, node: str) -> None:
    """Keep in mind that the packet goes to a backend that the EndpointSlices have as not ready.

    Args:
        walk: in progress; its last hop balances.
        service: the frontend.
        backend: that is followed.
        node: whose map has it.
    """
    cause = (
        f"Cilium on {node} sends {service.owner_title} to {kinds.text(backend)}, which is not "
        "ready by its EndpointSlices"
    )
    walk.stale = remedy = see_agent(walk.cluster, cause, node)
    walk.outdate()
    place = kinds.place(backend)
    serving = any(end.serving for end in service.sliced or () if kinds.place(end) == place)
    if not serving and not unnamed_backend.sockets_read(walk.cluster, service, place):
        walk.doubt(f"{cause}, and its sockets were not read", Decides.DROP, remedy.fix)


def name_cause(walk: PathBuilder) -> None:
    """Name the agent as the cause where a packet is lost, or nobody knows how it goes on, on its
    way to a backend that is gone, or that runs elsewhere; where it arrives, what speaks against it.

    Args:
        walk: has ended.
    """
    stale, end = walk.stale, walk.end
    if stale is not None and isinstance(end, Stopped) and end.fix is None:
        walk.end = replace(end, reason=f"{stale.cause}; {end.reason}", fix=stale.fix)
    if isinstance(end, Arrived):
        against = (Contradiction(stale.cause),) if stale is not None else ()
        walk.contradictions += (*against, *walk.though)
    if stale is None or not isinstance(end, Dropped):
        return
    walk.end = replace(
        end,
        cause=f"{stale.cause}; {end.cause}",
        fix=stale.fix,
        drop=replace(end.drop, object=stale.object),
    )
