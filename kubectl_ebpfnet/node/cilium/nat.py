"""Cilium's SNAT entries, straight from its maps: what `cilium-dbg bpf nat list` prints.

Sources: Cilium pkg/maps/nat; kubectl_ebpfnet/node/cilium/layout_tuple.py. A translated flow has
two entries, OUT for the packet and IN for the reply, and each names the other's key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from kubectl_ebpfnet.model.cilium import NatEntry
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, NodeRequest
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.cilium import layout_tuple, pins, scan

MAPS = {"cilium_snat_v4_external": 4, "cilium_snat_v6_external": 6}
"""IP version of each."""


def entries(request: NodeRequest) -> Iterator[NatEntry]:
    """Entries of the flows that are wanted, before or after translation, or all of them.

    A flow that is wholly known is looked up by its keys, and then by those of the entries that are
    found. So an entry whose other half was evicted, or is another flow's by now, is found under its
    own addresses only.

    Raises:
        KernelError: no such map is pinned, is of these sizes, or may be read.
    """
    folder = pins.root()
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    for name in pins.present(folder, tuple(MAPS)):
        if not _concerned(MAPS[name], request.flows):
            continue
        table = pins.opened(folder, name)
        if table is None:
            continue
        with table:
            sizes = (table.info.key_size, table.info.value_size)
            layout = layout_tuple.of_sizes(name, sizes, layout_tuple.NAT)
            yield from _wanted(table, request.flows, layout, now)


def _concerned(version: int, flows: Sequence[FlowFilter]) -> bool:
    return not flows or any(
        all(end is None or end.version == version for end in (flow.address, flow.peer))
        for flow in flows
    )


def _wanted(
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
    wanted = [
        key for flow in exact for key in layout_tuple.nat_keys(flow) if len(key) == layout.size
    ]
    seen: set[bytes] = set()
    while wanted:
        key = wanted.pop()
        if key in seen:
            continue
        seen.add(key)
        value = table.lookup(key)
        entry = None if value is None else layout_tuple.nat_entry(key, value, layout, now)
        if entry is not None and _fits(entry, flows):  # the other half may be another flow's by now
            yield entry
            wanted.append(layout_tuple.nat_twin(entry))
