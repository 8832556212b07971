"""Policy maps of Cilium's endpoints, equal to `bpf policy get --all -n`.

Sources: Cilium pkg/maps/policymap, bpf/lib/policy.h (__policy_account);
node/cilium/layout_tables.py. Each endpoint has a map, `cilium_policy_00448`, with a version before
the id since 1.17. Since 1.18 one map has the counters of all endpoints.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium import PolicyEntry
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import LeftOut, NodeRequest
from kubectl_ebpfnet.node.bpf.maps import Map
from kubectl_ebpfnet.node.cilium import layout_tables, pins, reading, tables
from kubectl_ebpfnet.node.cilium.columns import Columns, how_many, places
from kubectl_ebpfnet.node.cilium.layout_tuple import of_sizes

_NAME = re.compile(r"cilium_policy_(?:v(\d{1,3})_)?(\d{5})")
STATS = "cilium_policystats"


def entries(request: NodeRequest) -> Iterator[PolicyEntry | LeftOut]:
    """Yield the entries of every endpoint, or of the endpoint ids in the request's words; where
    rows are asked for, of the endpoints that have these addresses, and of those that have none:
    what they say of reserved identities, and of those that the ipcache gives these addresses.

    Raises:
        KernelError: a word is no id; none of the endpoints has a policy map; a map has unknown
            sizes, or may not be read.
    """
    folder = pins.root()
    named = maps(folder)
    ids = _ids(request.argv[2:])
    if request.rows and not ids:
        elsewhere = _with_other_addresses(folder, request.rows)
        ids = tuple(number for number in sorted(named) if number not in elsewhere)
        if not ids:
            yield LeftOut(len(named))
            return
    mapped_ids = [number for number in ids or sorted(named) if number in named]
    if not mapped_ids:
        names = [f"cilium_policy_v2_{number:05d}" for number in ids]
        raise pins.absent(folder, *(names or ["cilium_policy_…"]))
    stats = pins.opened(folder, STATS)
    identities = _identities(folder, request.rows) if request.rows else None
    left_out = len(named) - len(mapped_ids)
    with stats or nullcontext():
        for number in mapped_ids:
            table = pins.opened(folder, named[number])
            if table is None:
                continue
            with table:
                size = (table.info.key_size, table.info.value_size)
                layout = of_sizes(named[number], size, layout_tables.POLICY)
                for keys, values in reading.batches(table):
                    of_others = 0 if identities is None else _of_others(keys, layout, identities)
                    left_out += how_many(of_others)
                    for place in places(keys.all ^ of_others, keys.count):
                        entry = (keys.record(place), values.record(place))
                        yield _entry(number, *entry, layout, _known(stats))
    if request.rows and left_out:
        yield LeftOut(left_out)


def _identities(folder: Path, rows: Sequence[Address]) -> frozenset[int] | None:
    """Return the identities that the ipcache gives addresses, those of no policy (0) and of other
    addresses (world) aside; None where it cannot be read."""
    name = next((name for name in tables.IPCACHE if name in pins.names(folder)), "")
    table = pins.opened(folder, name) if name else None
    if table is None:
        return None
    with table:
        sizes = (table.info.key_size, table.info.value_size)
        layout = of_sizes(name, sizes, layout_tables.IPCACHE)
        keys = map(layout_tables.ipcache_host_key, rows)
        found = ((key, table.lookup(key)) for key in keys)
        return frozenset(layout(key, value, 0).identity for key, value in found if value)


def _of_others(
    keys: Columns, layout: layout_tables.PolicyLayout, identities: frozenset[int]
) -> int:
    """Return the mask of a batch's entries for identities that are neither reserved, and those of
    any, nor wanted. One is always taken: a map that is not empty must not seem to be."""
    at = 4 if layout.by_prefix else 0
    high = at + 1 if sys.byteorder == "little" else at
    wanted = keys.having(high, frozenset((bytes(3),)))
    if identities:
        packed = frozenset(struct.pack("=I", identity) for identity in identities)
        wanted |= keys.having(at, packed)
    return keys.all ^ (wanted or 0xFF)


def _with_other_addresses(folder: Path, rows: Sequence[Address]) -> set[int]:
    """Return the ids of the endpoints that have addresses, none of which is in rows."""
    addresses: dict[int, set[Address]] = {}
    for layout, key, value in pins.entries(folder, tables.ENDPOINTS[0], layout_tables.ENDPOINTS):
        endpoint = layout(key, value)
        if endpoint.endpoint_id is not None:
            addresses.setdefault(endpoint.endpoint_id, set()).add(endpoint.address)
    return {number for number, own in addresses.items() if own.isdisjoint(rows)}


def _known(stats: Map | None) -> Map | None:
    """Return the map of counters if its sizes are known; entries are useful without it too."""
    if stats is None or (stats.info.key_size, stats.info.value_size) != layout_tables.POLICY_STATS:
        return None
    return stats


def _ids(words: tuple[str, ...]) -> tuple[int, ...]:
    if not all(re.fullmatch(r"[0-9]{1,5}", word) for word in words):
        raise KernelError(f"endpoint ids are numbers, not {' '.join(words)!r}")
    return tuple(dict.fromkeys(int(word) for word in words))


def maps(folder: Path) -> dict[int, str]:
    """Return the name of each endpoint's policy map, of the newest form."""
    found: dict[int, tuple[int, str]] = {}
    for name in pins.names(folder):
        if match := _NAME.fullmatch(name):
            version = (int(match[1] or 0), name)
            found[int(match[2])] = max(version, found.get(int(match[2]), version))
    return {number: name for number, (_, name) in found.items()}


def _entry(
    number: int,
    key: bytes,
    value: bytes,
    layout: layout_tables.PolicyLayout,
    stats: Map | None,
) -> PolicyEntry:
    entry = layout_tables.policy_entry(number, key, value, layout)
    if not layout.counters and stats is not None:
        counted = stats.lookup(layout_tables.policy_stats_key(number, key))
        if counted is not None:
            packets, size = layout_tables.counters(counted)
            entry = replace(entry, packets=packets, bytes=size)
    return entry
