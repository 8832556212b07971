"""Cilium's smaller maps, straight from the kernel: ipcache, endpoints, egress gateway, ip-masq.

Sources: Cilium pkg/maps/{ipcache,lxcmap,egressmap,ipmasq};
kubectl_ebpfnet/node/cilium/layout_tables.py. Each function answers one question of
kubectl_ebpfnet/model/protocol/questions.py and raises KernelError when its map is not pinned, is
of unknown sizes, or may not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from kubectl_ebpfnet.model.cilium import (
    EgressGatewayPolicy,
    IpcacheEntry,
    LocalEndpoint,
)
from kubectl_ebpfnet.model.net import Network
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.cilium import layout_tables, pins

T = TypeVar("T")
Layouts = Mapping[tuple[int, int], Callable[[bytes, bytes], T]]

IPCACHE = ("cilium_ipcache_v2", "cilium_ipcache")
ENDPOINTS = ("cilium_lxc",)
NODE_IDS = ("cilium_node_map_v2", "cilium_node_map")
EGRESS4 = ("cilium_egress_gw_policy_v4_v2", "cilium_egress_gw_policy_v4")
EGRESS6 = ("cilium_egress_gw_policy_v6",)
MASQ4, MASQ6 = ("cilium_ipmasq_v4",), ("cilium_ipmasq_v6",)


def _newest(names: tuple[str, ...], known: Layouts[T]) -> Iterator[T]:
    """Facts of the first of the maps that is pinned: an upgrade may leave the older ones behind."""
    folder = pins.root()
    name = pins.present(folder, names)[0]
    for fact, key, value in pins.entries(folder, name, known):
        yield fact(key, value)


def _families(
    names4: tuple[str, ...], known4: Layouts[T], names6: tuple[str, ...], known6: Layouts[T]
) -> Iterator[T]:
    """Facts of both families; of one where only that is pinned."""
    folder = pins.root()
    here = pins.present(folder, names4 + names6)
    for names, known in ((names4, known4), (names6, known6)):
        if any(name in here for name in names):
            yield from _newest(names, known)


def ipcache(_: NodeRequest) -> Iterator[IpcacheEntry]:
    """Which prefix has which identity, and behind which node it is.

    Up to Cilium 1.10 the encryption key stood where 1.14 keeps a node id in a value of the same
    size; a map of node ids tells them apart.
    """
    folder = pins.root()
    name = pins.present(folder, IPCACHE)[0]
    with_ids = any(one in NODE_IDS for one in pins.names(folder))
    for layout, key, value in pins.entries(folder, name, layout_tables.IPCACHE):
        old = not with_ids and not value[layout_tables.KEY_AT]
        key_at = layout_tables.KEY_AT_OLD if old else layout_tables.KEY_AT
        yield layout(key, value, key_at)


def endpoints(_: NodeRequest) -> Iterator[LocalEndpoint]:
    """The node's own addresses and those of its pods."""
    return _newest(ENDPOINTS, layout_tables.ENDPOINTS)


def egress(_: NodeRequest) -> Iterator[EgressGatewayPolicy]:
    """Which traffic leaves the cluster by which gateway."""
    return _families(EGRESS4, layout_tables.EGRESS4, EGRESS6, layout_tables.EGRESS6)


def ipmasq(_: NodeRequest) -> Iterator[Network]:
    """Prefixes that are not masqueraded."""
    return _families(MASQ4, layout_tables.MASQ4, MASQ6, layout_tables.MASQ6)
