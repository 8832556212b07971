"""Other clusters of a clustermesh: whose pod an address is, by its security identity.

Source: Cilium pkg/identity/numericidentity.go: bits 16 to 23 of a pod's identity are its cluster's
id (with max-connected-clusters 511 one bit more, taken from the lower ones).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import Address

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


def _own_ids(node: NodeView) -> set[int]:
    """Return the cluster ids of the node's own endpoints."""
    identities = [each.identity for each in node[q.ENDPOINTS].facts]
    identities += [row.identity or 0 for row in node[q.ENDPOINT_MAP].facts]
    return {each >> 16 for each in identities if _FIRST <= each < _END}
