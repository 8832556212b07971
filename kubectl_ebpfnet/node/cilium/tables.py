"""Cilium's smaller maps: ipcache, endpoints, egress gateway, ip-masq.

Sources: Cilium pkg/maps/{ipcache,lxcmap,egressmap,ipmasq};
node/cilium/layout_tables.py. Each function answers one question of model/protocol/questions.py and
raises KernelError when its map is not pinned, has unknown sizes, or may not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from kubectl_ebpfnet.model.cilium import EgressGatewayPolicy, IpcacheEntry, LocalEndpoint
from kubectl_ebpfnet.model.net import Network
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.cilium import layout_tables, pins

T = TypeVar("T")
Layouts = Mapping[tuple[int, int], Callable[[bytes, bytes], T]]

IPCACHE = ("cilium_ipcache_v2", "cilium_ipcache")
ENDPOINTS = ("cilium_lxc",)
NODE_IDS = ("cilium_node_map_v2", "cilium_node_map")
EGRESS4 = ("cilium_egress_gw_policy_v4_v2", "cilium_egress_gw_policy_v4", "cilium_egress_v4")
EGRESS6 = ("cilium_egress_gw_policy_v6",)
MASQ4, MASQ6 = ("cilium_ipmasq_v4",), ("cilium_ipmasq_v6",)


def _newest(names: tuple[str, ...], known: Layouts[T]) -> Iterator[T]:
    """Yield the facts of the first pinned map: an upgrade may leave older ones behind."""
    folder = pins.root()
    name = pins.present(folder, names)[0]
    for fact, key, value in pins.entries(folder, name, known):
        yield fact(key, value)


def _families(
    names4: tuple[str, ...], known4: Layouts[T], names6: tuple[str, ...], known6: Layouts[T]
) -> Iterator[T]:
    """Yield the facts of both IP versions, or of the one whose map is pinned."""
    folder = pins.root()
    pinned = pins.present(folder, names4 + names6)
    for names, known in ((names4, known4), (names6, known6)):
        if any(name in pinned for name in names):
            yield from _newest(names, known)


def ipcache(_: NodeRequest) -> Iterator[IpcacheEntry]:
    """Yield the identity of each prefix, and the node it is behind.

    Up to Cilium 1.10 the encryption key is at the offset of 1.14's node id, in a value of the same
    size; a map of node ids distinguishes them.
    """
    folder = pins.root()
    name = pins.present(folder, IPCACHE)[0]
    with_ids = any(map_name in NODE_IDS for map_name in pins.names(folder))
    for layout, key, value in pins.entries(folder, name, layout_tables.IPCACHE):
        old = not with_ids and not value[layout_tables.KEY_OFFSET]
        offset = layout_tables.KEY_OFFSET_OLD if old else layout_tables.KEY_OFFSET
        yield layout(key, value, offset)


def endpoints(_: NodeRequest) -> Iterator[LocalEndpoint]:
    """Return the addresses of the node and of its pods."""
    return _newest(ENDPOINTS, layout_tables.ENDPOINTS)


def egress(_: NodeRequest) -> Iterator[EgressGatewayPolicy]:
    """Return the policies of the egress gateway."""
    return _families(EGRESS4, layout_tables.EGRESS4, EGRESS6, layout_tables.EGRESS6)


def ipmasq(_: NodeRequest) -> Iterator[Network]:
    """Return the prefixes that are not masqueraded."""
    return _families(MASQ4, layout_tables.MASQ4, MASQ6, layout_tables.MASQ6)
