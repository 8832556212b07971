"""Readable names of identities and addresses."""

from __future__ import annotations

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.cilium import RESERVED_IDENTITIES
from kubectl_ebpfnet.model.net import Address

_NOISE = ("k8s:io.cilium.k8s.", "k8s:io.kubernetes.pod.namespace")

_HOSTNAME = "node:kubernetes.io/hostname="
"""Of the identity of a node, with enable-node-selector-labels."""


def identity_text(cluster: ClusterView, identity: int) -> str:
    """Return `identity 2 (world)`, `identity 1395 (app=web)`, or the bare number."""
    name = _identity_name(cluster, identity)
    return f"identity {identity} ({name})" if name else f"identity {identity}"


def identity_name(cluster: ClusterView, identity: int) -> str:
    """Return `world (identity 2)`, `app=web (identity 1395)`, or the bare number."""
    name = _identity_name(cluster, identity)
    return f"{name} (identity {identity})" if name else f"identity {identity}"


def peer_name(cluster: ClusterView, identity: int) -> str:
    """Return `world`, `app=web`, or `identity 1395` where its labels are not known."""
    return _identity_name(cluster, identity) or f"identity {identity}"


def _identity_name(cluster: ClusterView, identity: int) -> str:
    name = RESERVED_IDENTITIES.get(identity, "")
    if name:
        return name
    labels = [
        label.removeprefix("k8s:")
        for label in cluster.identity_labels.get(identity, ())
        if not label.startswith(_NOISE)
    ]
    node = next((label for label in labels if label.startswith(_HOSTNAME)), "")
    if node:
        return f"node {node.removeprefix(_HOSTNAME)}"
    # Up to Cilium 1.13 an identity of a CIDR has a label for each prefix that holds it.
    prefixes = [label for label in labels if label.startswith("cidr:")]
    longest = max(prefixes, key=_length, default="")
    shown = [label for label in labels if label not in prefixes or label == longest]
    return ", ".join(shown[:3])


def _length(label: str) -> int:
    _, _, bits = label.rpartition("/")
    return int(bits) if bits.isascii() and bits.isdigit() and len(bits) < 4 else 0


def address_text(cluster: ClusterView, address: Address) -> str:
    """Return the address with the node or pod that has it."""
    node = cluster.node_of(address)
    if node:
        return f"{address} ({node})"
    pod = cluster.pod_with(address)
    return f"{address} (pod {pod.namespace}/{pod.name})" if pod else str(address)
