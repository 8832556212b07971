"""Cilium's SNAT entries from its maps, equal to `cilium-dbg bpf nat list`.

Sources: Cilium pkg/maps/nat; node/cilium/layout_tuple.py. A translated flow has two entries, OUT
for the packet and IN for the reply, and each tells the other's key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from kubectl_ebpfnet.model.cilium import NatEntry
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, NodeRequest
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.cilium import layout_tuple, pins, scan

MAPS = {"cilium_snat_v4_external": (4, None), "cilium_snat_v6_external": (6, None)}
"""IP version; None: every protocol."""


def entries(request: NodeRequest) -> Iterator[NatEntry]:
    """Yield the entries of the requested flows, before or after translation, or all.

    A completely known flow is looked up by its keys, then by the keys that the found entries tell.
    So an entry whose other half was evicted or replaced is found under its own addresses only.

    Raises:
        KernelError: no such map is pinned, has these sizes, or may be read.
    """
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    for table, layout in scan.tables(pins.root(), MAPS, layout_tuple.NAT, request.flows):
        yield from _matching_entries(table, request.flows, layout, now)


def _matching_entries(
    table: syscall.Map, flows: Sequence[FlowFilter], layout: layout_tuple.TupleLayout, now: int
) -> Iterator[NatEntry]:
    if flows and all(flow.exact is not None for flow in flows):
        yield from _by_key(table, flows, layout, now)
        return
    for key, value in scan.matching(table, flows, layout, nat=True):
        entry = layout_tuple.nat_entry(key, value, layout, now)
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
