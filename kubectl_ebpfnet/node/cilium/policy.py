"""Policy maps of Cilium's endpoints, equal to `bpf policy get --all -n`.

Sources: Cilium pkg/maps/policymap, bpf/lib/policy.h (__policy_account);
node/cilium/layout_tables.py. Each endpoint has a map, `cilium_policy_00448`, with a version before
the id since 1.17. Since 1.18 one map has the counters of all endpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium import PolicyEntry
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import LeftOut, NodeRequest
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.cilium import layout_tables, pins, tables

_NAME = re.compile(r"cilium_policy_(?:v(\d{1,3})_)?(\d{5})")
STATS = "cilium_policystats"


def entries(request: NodeRequest) -> Iterator[PolicyEntry | LeftOut]:
    """Yield the entries of every endpoint, or of the endpoint ids in the request's words; where
    rows are asked for, of the endpoints that have these addresses, and of those that have none.

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
    with stats or nullcontext():
        for number in mapped_ids:
            yield from _entries(folder, named[number], number, _known(stats))
    if request.rows and len(mapped_ids) < len(named):
        yield LeftOut(len(named) - len(mapped_ids))


def _with_other_addresses(folder: Path, rows: Sequence[Address]) -> set[int]:
    """Return the ids of the endpoints that have addresses, none of which is in rows."""
    addresses: dict[int, set[Address]] = {}
    for layout, key, value in pins.entries(folder, tables.ENDPOINTS[0], layout_tables.ENDPOINTS):
        endpoint = layout(key, value)
        if endpoint.endpoint_id is not None:
            addresses.setdefault(endpoint.endpoint_id, set()).add(endpoint.address)
    return {number for number, own in addresses.items() if own.isdisjoint(rows)}


def _known(stats: syscall.Map | None) -> syscall.Map | None:
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


def _entries(
    folder: Path, name: str, number: int, stats: syscall.Map | None
) -> Iterator[PolicyEntry]:
    for layout, key, value in pins.entries(folder, name, layout_tables.POLICY):
        entry = layout_tables.policy_entry(number, key, value, layout)
        if not layout.counters and stats is not None:
            counted = stats.lookup(layout_tables.policy_stats_key(number, key))
            if counted is not None:
                packets, size = layout_tables.counters(counted)
                entry = replace(entry, packets=packets, bytes=size)
        yield entry
