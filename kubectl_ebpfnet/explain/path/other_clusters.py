"""Other clusters of a clustermesh: whose pod an address is, by its security identity.

Source: Cilium pkg/identity/numericidentity.go: bits 16 to 23 of a pod's identity are its cluster's
id (with max-connected-clusters 511 one bit more, taken from the lower ones).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Fix

_FIRST, _END = 256, 1 << 24
"""Identities of pods: below are reserved ones, above those that a node gives for itself."""


def cluster_of(node: NodeView, address: Address) -> int | None:
    """Return the id of the cluster of an address's pod where that is another one, else None.

    Args:
        node: whose ipcache is read.
        address: of a pod.
    """
    entry = node.ipcache_of(address)
    own = _own_ids(node)
    if entry is None or not _FIRST <= entry.identity < _END or not own:
        return None
    found = entry.identity >> 16
    return None if found in own else found


def overlap(node: NodeView, address: Address, title: str) -> Remedy | None:
    """Return that another cluster of the clustermesh has the address of a pod of this one, None
    where none has: the ipcache has one entry for both.

    Args:
        node: whose ipcache it is.
        address: of the pod.
        title: what the ipcache says instead, one sentence.
    """
    other = cluster_of(node, address)
    if other is None:
        return None
    cause = f"{title}: by its identity, {address} is a pod of cluster {other} of the clustermesh"
    fix = Fix(
        "Give each cluster of the clustermesh prefixes of pods of its own: an ipcache knows one "
        "pod by an address.",
        node.in_agent("bpf ipcache list"),
    )
    return Remedy(cause, fix)


def _own_ids(node: NodeView) -> set[int]:
    """Return the cluster ids of the node's own endpoints."""
    identities = [each.identity for each in node[q.ENDPOINTS].facts]
    identities += [row.identity or 0 for row in node[q.ENDPOINT_MAP].facts]
    return {each >> 16 for each in identities if _FIRST <= each < _END}
