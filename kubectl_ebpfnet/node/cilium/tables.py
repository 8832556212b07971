"""Cilium's smaller maps: ipcache, endpoints, egress gateway, ip-masq, source ranges.

Sources: Cilium pkg/maps/{ipcache,lxcmap,egressmap,ipmasq}, pkg/loadbalancer/maps;
node/cilium/layout_tables.py. Each function answers one question of model/protocol/questions.py and
raises KernelError when its map is not pinned, has unknown sizes, or may not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import TypeVar

from kubectl_ebpfnet.model.cilium import (
    EgressGatewayPolicy,
    IpcacheEntry,
    LocalEndpoint,
    SourceRange,
)
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.model.protocol.questions import LeftOut, NodeRequest
from kubectl_ebpfnet.node.cilium import layout_tables, pins, reading
from kubectl_ebpfnet.node.cilium.columns import Columns, places
from kubectl_ebpfnet.node.cilium.layout_tuple import of_sizes

T = TypeVar("T")
Layouts = Mapping[tuple[int, int], Callable[[bytes, bytes], T]]

IPCACHE = ("cilium_ipcache_v2", "cilium_ipcache")
ENDPOINTS = ("cilium_lxc",)
NODE_IDS = ("cilium_node_map_v2", "cilium_node_map")
EGRESS4 = ("cilium_egress_gw_policy_v4_v2", "cilium_egress_gw_policy_v4", "cilium_egress_v4")
EGRESS6 = ("cilium_egress_gw_policy_v6",)
MASQ4, MASQ6 = ("cilium_ipmasq_v4",), ("cilium_ipmasq_v6",)
RANGES4, RANGES6 = ("cilium_lb4_source_range",), ("cilium_lb6_source_range",)


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


def ipcache(request: NodeRequest) -> Iterator[IpcacheEntry | LeftOut]:
    """Yield the identity of each prefix, and the node it is behind; where rows are asked for, of
    the prefixes that hold one of these addresses.

    Up to Cilium 1.10 the encryption key is at the offset of 1.14's node id, in a value of the same
    size; a map of node ids distinguishes them.
    """
    folder = pins.root()
    name = pins.present(folder, IPCACHE)[0]
    with_ids = any(map_name in NODE_IDS for map_name in pins.names(folder))
    table = pins.opened(folder, name)
    if table is None:
        return
    left_out = 0
    with table:
        sizes = (table.info.key_size, table.info.value_size)
        layout = of_sizes(name, sizes, layout_tables.IPCACHE)
        holding = layout_tables.ipcache_keys(request.rows)
        for keys, values in reading.batches(table):
            shown = [*range(keys.count)]
            if request.rows:
                shown = [*_holding(keys, request.rows, holding)]
            left_out += keys.count - len(shown)
            for number in shown:
                value = values.record(number)
                old = not with_ids and not value[layout_tables.KEY_OFFSET]
                offset = layout_tables.KEY_OFFSET_OLD if old else layout_tables.KEY_OFFSET
                yield layout(keys.record(number), value, offset)
    if left_out:
        yield LeftOut(left_out)


def _holding(
    keys: Columns, rows: Sequence[Address], holding: Set[tuple[int, int, int]]
) -> Iterator[int]:
    """Yield the numbers of a batch's prefixes that hold one of the addresses."""
    single = 0
    for length, family in layout_tables.IPCACHE_SINGLE:
        single |= keys.having(0, length) & keys.having(7, family)
    wanted = keys.having(8, frozenset(row.packed.ljust(16, b"\0") for row in rows))
    yield from places(single & wanted, keys.count)
    for number in places(keys.all ^ single, keys.count):
        if layout_tables.ipcache_key(keys.record(number)) in holding:
            yield number


def endpoints(_: NodeRequest) -> Iterator[LocalEndpoint]:
    """Return the addresses of the node and of its pods."""
    return _newest(ENDPOINTS, layout_tables.ENDPOINTS)


def egress(request: NodeRequest) -> Iterator[EgressGatewayPolicy | LeftOut]:
    """Yield the policies of the egress gateway; where rows are asked for, of these pods."""
    left_out = 0
    pods = frozenset(request.rows)
    for policy in _families(EGRESS4, layout_tables.EGRESS4, EGRESS6, layout_tables.EGRESS6):
        if pods and policy.source not in pods:
            left_out += 1
            continue
        yield policy
    if left_out:
        yield LeftOut(left_out)


def ipmasq(_: NodeRequest) -> Iterator[Network]:
    """Return the prefixes that are not masqueraded."""
    return _families(MASQ4, layout_tables.MASQ4, MASQ6, layout_tables.MASQ6)


def source_ranges(_: NodeRequest) -> Iterator[SourceRange]:
    """Return the source ranges of load-balancers' frontends."""
    return _families(RANGES4, layout_tables.RANGES4, RANGES6, layout_tables.RANGES6)
