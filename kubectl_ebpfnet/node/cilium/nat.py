"""Cilium's SNAT entries from its maps, equal to `cilium-dbg bpf nat list`.

Sources: Cilium pkg/maps/nat; node/cilium/layout_tuple.py. A translated flow has two entries, OUT
for the packet and IN for the reply, and each tells the other's key.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kubectl_ebpfnet.model.cilium import NatEntry
from kubectl_ebpfnet.model.net import Address, has_ports
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, LeftOut, NodeRequest, snat_end
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.cilium import layout_tuple, pins, scan
from kubectl_ebpfnet.node.cilium.columns import Columns, how_many, places

MAPS = {"cilium_snat_v4_external": (4, None), "cilium_snat_v6_external": (6, None)}
"""IP version; None: every protocol."""


TIMES = scan.Times((0,), 8)
"""When it was made."""


def entries(request: NodeRequest) -> Iterator[NatEntry | LeftOut]:
    """Yield the entries of the requested flows, before or after translation, or all.

    A completely known flow is looked up by its keys, then by the keys that the found entries tell.
    So an entry whose other half was evicted or replaced is found under its own addresses only.

    Raises:
        KernelError: no such map is pinned, has these sizes, or may be read.
    """
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    flows = (*request.flows, *request.beside)
    rules = scan.rules(request.flows, request.beside)
    end = snat_end(request.flows)
    sources: Counter[Address] = Counter()
    folder = pins.root()
    for table, layout in scan.tables(folder, MAPS, layout_tuple.NAT, flows):
        if request.newest and flows:
            count = partial(_count, sources, end, layout) if end is not None else _ignore
            scan.keep_newest(table, rules, layout, TIMES, request.newest, nat=True, also=count)
            if end is not None and len(end[1].packed) == layout.source:
                _counted[folder, end] = time.monotonic(), sources
        elif flows and all(flow.exact is not None for flow in flows):
            yield from _by_key(table, flows, layout, now)
        else:
            found = scan.matching(table, rules, layout, nat=True)
            yield from _facts(found, flows, now)
    yield from _facts(scan.kept(rules), flows, now)
    yield from scan.left_out(rules)


_End = tuple[int, Address, int]
_counted: dict[tuple[Path, _End], tuple[float, Counter[Address]]] = {}
_COUNTED_SECONDS = 5.0
"""How long what was counted for one question answers another of the same session: reading a full
map takes 0.2 s."""


def sources_to(end: _End) -> Counter[Address]:
    """Return how many flows to a protocol, address and port (0 for ICMP) have each new source.

    Raises:
        KernelError: no such map is pinned, has these sizes, or may be read.
    """
    folder = pins.root()
    when, sources = _counted.get((folder, end), (0.0, Counter[Address]()))
    if when and time.monotonic() - when < _COUNTED_SECONDS:
        return sources
    protocol, destination, port = end
    wanted = FlowFilter(peer=destination, peer_port=port or None, protocol=protocol)
    for table, layout in scan.tables(folder, MAPS, layout_tuple.NAT, (wanted,)):
        for keys, values in scan.batches(table):
            _count(sources, end, layout, keys, values)
    return sources


def _ignore(_: Columns, __: Columns) -> None:
    pass


def _count(
    sources: Counter[Address],
    end: _End,
    layout: layout_tuple.TupleLayout,
    keys: Columns,
    values: Columns,
) -> None:
    """Add a batch's flows to an end to their new sources, which are few."""
    protocol, destination, port = end
    if len(destination.packed) != layout.source:
        return
    mask = keys.having(layout.protocol, frozenset((bytes((protocol,)),)))
    mask &= keys.having(0, frozenset((destination.packed,)))
    mask &= keys.all ^ keys.masked(layout.flags, layout_tuple.IN)
    if mask and has_ports(protocol):
        mask &= keys.having(layout.destination_port, frozenset((port.to_bytes(2, "big"),)))
    new = layout_tuple.NAT_ADDRESS
    while mask:
        value = values.record(next(places(mask, values.count)))
        source = value[new : new + layout.source]
        same = mask & values.having(new, frozenset((source,)))
        sources[layout_tuple.address(source)] += how_many(same)
        mask ^= same


def _facts(
    found: Iterator[scan.Entry], flows: Sequence[FlowFilter], now: int
) -> Iterator[NatEntry]:
    for key, value in found:
        entry = layout_tuple.nat_entry(key, value, layout_tuple.NAT[len(key), len(value)], now)
        if entry is not None and _fits(entry, flows):
            yield entry


def _fits(entry: NatEntry, flows: Sequence[FlowFilter]) -> bool:
    return not flows or any(flow.fits(entry.flow, entry.translated()) for flow in flows)


def _by_key(
    table: syscall.Map, flows: Sequence[FlowFilter], layout: layout_tuple.TupleLayout, now: int
) -> Iterator[NatEntry]:
    exact = [one for flow in flows if (one := flow.exact) is not None]
    pending_keys = [
        key for flow in exact for key in layout_tuple.nat_keys(flow) if len(key) == layout.size
    ]
    seen: set[bytes] = set()
    while pending_keys:
        key = pending_keys.pop()
        if key in seen:
            continue
        seen.add(key)
        value = table.lookup(key)
        entry = None if value is None else layout_tuple.nat_entry(key, value, layout, now)
        if entry is not None and _fits(entry, flows):  # the key may belong to another flow by now
            yield entry
            pending_keys.append(layout_tuple.nat_twin(entry))
