"""Cilium's connection tracking from its maps, equal to `cilium-dbg bpf ct list`.

Sources: Cilium pkg/maps/ctmap; node/cilium/layout_tuple.py. A completely known flow is looked up by
its keys, other flows are searched in packed form.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, Flow
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, LeftOut, NodeRequest
from kubectl_ebpfnet.node.bpf.maps import Map
from kubectl_ebpfnet.node.cilium import layout_tuple, pins, reading, scan

MAPS = {
    "cilium_ct4_global": (4, True),
    "cilium_ct_any4_global": (4, False),
    "cilium_ct6_global": (6, True),
    "cilium_ct_any6_global": (6, False),
}
"""IP version, and whether the map is for TCP; the other one has all other protocols."""

_TIMER_LINES = 5000
"""The first processor's jiffies follow its timers, two lines each."""


TIMES = scan.Times((48, 52), 4)
"""The last reports of either direction."""

_Asked = tuple[tuple[FlowFilter, ...], tuple[FlowFilter, ...], int]
_shown: dict[_Asked, list[Flow]] = {}


def shown(request: NodeRequest) -> list[Flow]:
    """Return the flows of the entries that this process has sent as the newest of the same flows,
    if it was asked for them."""
    return _shown.get(_asked(request), [])


def _asked(request: NodeRequest) -> _Asked:
    return request.flows, request.beside, request.newest


def entries(request: NodeRequest) -> Iterator[CtEntry | LeftOut]:
    """Yield the entries of the requested flows and of ICMP errors between their ends, or all.

    Packets and bytes are None where both are zero: since Cilium 1.17 counting is optional.
    Times are in seconds of CLOCK_MONOTONIC, also of a datapath that writes jiffies; `remaining` is
    None where the unit cannot be told.

    Raises:
        KernelError: no such map is pinned, has these sizes, or may be read.
    """
    folder = pins.root()
    flows = (*request.flows, *request.beside)
    wanted = (*_errors_of(flows), *flows)
    clock = layout_tuple.DatapathClock(int(time.clock_gettime(time.CLOCK_MONOTONIC)), _jiffies())
    apart = not _since_1_17(folder)

    def fact(key: bytes, value: bytes, layout: layout_tuple.TupleLayout) -> Iterator[CtEntry]:
        entry = layout_tuple.ct_entry(key, value, layout, clock, apart=apart)
        if entry is not None and _fits(entry, flows):
            yield entry

    rules = scan.rules((*_errors_of(flows), *request.flows), request.beside)
    for table, layout in scan.tables(folder, MAPS, layout_tuple.CT, wanted):
        if request.newest and flows:
            scan.keep_newest(reading.in_halves(table), rules, layout, TIMES, request.newest)
            continue
        for key, value in _matching_entries(table, flows, rules, layout):
            yield from fact(key, value, layout)
    sent: list[Flow] = []
    for key, value in scan.kept(rules):
        for entry in fact(key, value, layout_tuple.CT[len(key), len(value)]):
            yield entry
            sent.append(entry.flow)
    if request.newest and flows:
        _shown[_asked(request)] = sent
    yield from scan.left_out(rules)


def _errors_of(flows: Sequence[FlowFilter]) -> list[FlowFilter]:
    """Return filters of the keys of entries for ICMP errors between the ends of flows.

    Both ports are 0 in the key; the entry has none.
    """
    return [
        FlowFilter(flow.address, 0, flow.peer, 0, ICMP if flow.address.version == 4 else ICMPV6)
        for flow in flows
        if flow.address is not None and flow.peer is not None
    ]


def _jiffies() -> int | None:
    """Return the kernel's jiffies (kernel/time/timer_list.c), None where it does not tell them."""
    try:
        with Path("/proc/timer_list").open(encoding="ascii", errors="replace") as lines:
            for line in itertools.islice(lines, _TIMER_LINES):
                name, colon, value = line.partition(":")
                if colon and name.strip() == "jiffies" and value.strip().isdigit():
                    return int(value)
    except OSError:
        pass
    return None


def _since_1_17(folder: Path) -> bool:
    """Tell whether received packets have no separate counters.

    A conntrack entry has the same size in 1.15 and since, but Cilium 1.17 renamed the policy maps
    and 1.18 the ipcache. In 1.16 the words in question are zero.
    """
    return any(
        name.startswith("cilium_policy_v") or name == "cilium_ipcache_v2"
        for name in pins.names(folder)
    )


def _matching_entries(
    table: Map,
    flows: Sequence[FlowFilter],
    rules: Sequence[scan.Rule],
    layout: layout_tuple.TupleLayout,
) -> Iterator[tuple[bytes, bytes]]:
    exact = [flow.exact for flow in flows]
    if not flows or None in exact:
        yield from scan.matching(table, rules if flows else (), layout)
        return
    keys = {key for flow in exact if flow is not None for key in layout_tuple.ct_keys(flow)}
    for key in sorted(keys):
        if len(key) == layout.size and (value := table.lookup(key)) is not None:
            yield key, value


def _fits(entry: CtEntry, flows: Sequence[FlowFilter]) -> bool:
    if not flows or any(flow.fits(entry.flow) for flow in flows):
        return True
    ends = {entry.flow.source, entry.flow.destination}
    return entry.related and any({flow.address, flow.peer} == ends for flow in flows)
