"""The ends of a packet, as a bundle has them: what `explain/policy/evaluate.py` takes.

The labels of an identity are read where they are: in the agent's list of endpoints, the
CiliumEndpoint of the pod, the CiliumIdentity; those of reserved identities are known. An address
outside of the cluster is matched by rules itself: a rule's prefix is in the ipcache, so the
identity of the address is that of this prefix or of a longer one.

Sources: Cilium pkg/identity/numericidentity.go, pkg/policy.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.policy import WORLD_IDENTITIES, Remote
from kubectl_ebpfnet.explain.path.stages import policy_map
from kubectl_ebpfnet.explain.path.stages.policy_settings import denied
from kubectl_ebpfnet.explain.policy.party import Party
from kubectl_ebpfnet.explain.views import lists
from kubectl_ebpfnet.explain.views.cluster import (
    NODE_IDENTITIES,
    REMOTE_NODE_IDENTITIES,
    ClusterView,
)
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.explain.views.settings import setting
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import HOST, RESERVED_IDENTITIES
from kubectl_ebpfnet.model.kube import Node
from kubectl_ebpfnet.model.net import Address

KUBE_APISERVER = 7
_OPEN_OUTSIDE = frozenset(
    {"reserved:kube-apiserver", "reserved:world-ipv4", "reserved:world-ipv6", "reserved:ingress",
     "fqdn:", "cidr:", "cidrgroup:"}
)  # fmt: skip
"""Labels that an address outside of the cluster may have besides."""
_NODES = "reserved:host", "reserved:remote-node"


def subject(cluster: ClusterView, node: NodeView, endpoint_id: int) -> Party:
    """Return the endpoint that policies may select.

    Args:
        cluster: has the CiliumEndpoints and identities.
        node: of the endpoint.
        endpoint_id: its id there.
    """
    if policy_map.host_endpoint(node) == endpoint_id:
        return _host(cluster, node, endpoint_id)
    namespace, name, labels = _described(cluster, node, endpoint_id)
    pod = cluster.pod(namespace, name)
    if labels:
        return Party(frozenset(labels), ports=pod.ports if pod else None, namespace=namespace)
    why = f"the labels of endpoint {endpoint_id} were not read{denied(cluster, 'ciliumendpoints')}"
    return Party(frozenset(), frozenset({"*"}), why, namespace=namespace)


def title(cluster: ClusterView, node: NodeView, endpoint_id: int) -> str:
    """Return `pod shop/web`, `node worker-1`, or `endpoint 12`."""
    if policy_map.host_endpoint(node) == endpoint_id:
        return f"node {node.name}"
    namespace, name, _ = _described(cluster, node, endpoint_id)
    return f"pod {namespace}/{name}" if name else f"endpoint {endpoint_id}"


def _described(
    cluster: ClusterView, node: NodeView, endpoint_id: int
) -> tuple[str, str, tuple[str, ...]]:
    """Return namespace and name of an endpoint's pod, and its labels."""
    agents = policy_map.endpoint(node, endpoint_id)
    if agents is not None and agents.labels:
        return agents.namespace, agents.pod, agents.labels
    own = cluster.kube_node(node.name)
    addresses = own.internal_addresses if own else ()
    for endpoint, at in cluster.index.cilium_endpoints_numbered(endpoint_id):
        if (at in addresses or not addresses) and endpoint.labels:
            return endpoint.namespace, endpoint.pod, endpoint.labels
    for row in node.having(q.ENDPOINT_MAP, endpoint_id, "endpoint_id"):
        pod = cluster.pod_with(row.address)
        labels = cluster.identity_labels.get(row.identity or 0, ())
        namespace, name = (pod.namespace, pod.name) if pod is not None else ("", "")
        return namespace or _namespace_of(labels), name, labels
    return "", "", ()


def _namespace_of(labels: tuple[str, ...]) -> str:
    prefix = "k8s:io.kubernetes.pod.namespace="
    return next((one.removeprefix(prefix) for one in labels if one.startswith(prefix)), "")


def _host(cluster: ClusterView, node: NodeView, endpoint_id: int) -> Party:
    """Return the endpoint that stands for a node: it has the labels of its Node object, but for
    those that Cilium's filter of labels leaves out (below kubernetes.io, most of them)."""
    agents = policy_map.endpoint(node, endpoint_id)
    if agents is not None and agents.labels:
        return Party(frozenset(agents.labels))
    own = cluster.kube_node(node.name)
    if own is None:
        why = f"the labels of node {node.name} were not read{denied(cluster, 'nodes')}"
        return Party(frozenset({"reserved:host"}), frozenset({"k8s:"}), why)
    sure = {f"k8s:{key}={value}" for key, value in own.labels if "kubernetes.io" not in key}
    open_ = {f"k8s:{key}" for key, _ in own.labels if "kubernetes.io" in key}
    why = "which labels of a node below kubernetes.io Cilium takes is in the agent's list alone"
    return Party(frozenset({"reserved:host", *sure}), frozenset(open_), why)


def remote(cluster: ClusterView, node: NodeView, other: Remote) -> Party:
    """Return the other end of a packet.

    Args:
        cluster: has labels and pods.
        node: whose policies are asked: nodes number the identities of CIDRs for themselves.
        other: as the policy map names it.
    """
    identity, address = other.identity, other.address
    if not identity:  # 0 is “unknown”
        why = "the identity of the other end is not known"
        return Party(frozenset(), frozenset({"*"}), why, address)
    pod = cluster.pod_with(address) if address is not None else None
    if identity in NODE_IDENTITIES or identity in WORLD_IDENTITIES:
        return _outside(node, identity, address)
    if identity in RESERVED_IDENTITIES or identity in REMOTE_NODE_IDENTITIES:
        return _reserved(cluster, node, identity, address)
    labels = other.labels or frozenset(cluster.identity_labels.get(identity, ()))
    if labels:
        return Party(labels, address=address, outside=False, ports=pod.ports if pod else None)
    where = pod.namespace if pod is not None else ""
    why = f"the labels of identity {identity} were not read"
    why += denied(cluster, "ciliumendpoints", where) or denied(cluster, "ciliumidentities")
    return Party(frozenset(), frozenset({"*"}), why, address, False)


def at_address(cluster: ClusterView, address: Address) -> Party:
    """Return an end by its address alone, where no agent says its identity."""
    pod = cluster.pod_with(address)
    if pod is not None:
        known = cluster.index.cilium_endpoint(pod.namespace, pod.name)
        labels = known.labels if known is not None else ()
        why = f"the labels of pod {pod.namespace}/{pod.name} were not read"
        why += denied(cluster, "ciliumendpoints", pod.namespace)
        open_ = frozenset() if labels else frozenset({"*"})
        return Party(frozenset(labels), open_, why, address, False, pod.ports, pod.namespace)
    why = f"which identity {address} has was not read"
    if cluster.in_cluster(address) or lists.of_nodes(cluster) is None:
        return Party(frozenset(), frozenset({"*"}), why, address)
    return Party(frozenset({"reserved:world"}), _OPEN_OUTSIDE, why, address, True)


def _outside(node: NodeView, identity: int, address: Address | None) -> Party:
    if identity in WORLD_IDENTITIES:
        own = f"reserved:{RESERVED_IDENTITIES[identity]}"
        return Party(frozenset({own}), address=address, outside=True)
    listed = next((one.labels for one in node.having(q.IDENTITIES, identity, "id")), ())
    if listed:
        return Party(frozenset(listed), address=address, outside=True)
    show = node.cilium(f"identity get {identity}")
    why = f"the labels of identity {identity} are in the agent alone (`{show}`)"
    return Party(frozenset({"reserved:world"}), _OPEN_OUTSIDE, why, address, True)


def _reserved(
    cluster: ClusterView, node: NodeView, identity: int, address: Address | None
) -> Party:
    listed = next((one.labels for one in node.having(q.IDENTITIES, identity, "id")), ())
    if listed:
        return Party(frozenset(listed), address=address, outside=False)
    if identity in REMOTE_NODE_IDENTITIES:
        labels, open_ = {"reserved:remote-node"}, {"reserved:kube-apiserver"}
    elif identity == KUBE_APISERVER:
        labels, open_ = {"reserved:remote-node", "reserved:kube-apiserver"}, set()
    else:
        labels = {f"reserved:{RESERVED_IDENTITIES[identity]}"}
        open_ = {"reserved:kube-apiserver"} if identity == HOST else set()
    why = f"whether the API server is on {node.name} is in the agent's identities alone"
    if labels & set(_NODES):
        own = _node_with(cluster, node, identity, address)
        by_label = setting(cluster, "enable-node-selector-labels") == "true"
        if own is None or (identity not in REMOTE_NODE_IDENTITIES and not by_label):
            open_ |= {"node:"} if by_label or identity in REMOTE_NODE_IDENTITIES else set()
        else:
            labels |= {f"node:{key}={value}" for key, value in own.labels}
    return Party(frozenset(labels), frozenset(open_), why, address, False)


def _node_with(
    cluster: ClusterView, node: NodeView, identity: int, address: Address | None
) -> Node | None:
    if identity == HOST:
        return cluster.kube_node(node.name)
    return cluster.kube_node(cluster.node_of(address)) if address is not None else None
