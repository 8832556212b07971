"""Cilium's SNAT entries from its maps, equal to `cilium-dbg bpf nat list`.

Sources: Cilium pkg/maps/nat; node/cilium/layout_tuple.py. A translated flow has two entries, OUT
for the packet and IN for the reply, and each tells the other's key.

A map of half a million entries takes the kernel 0.14 s to hand over. So of a large one the entries
of the connections that conntrack's answer shows are looked up by their keys; a part of the map
tells how many others there are. Where conntrack shows none of the flows that are asked for, as on a
gateway, which has entries of translations alone, the map is read whole.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from math import sqrt

from kubectl_ebpfnet.model.cilium_ct import NatEntry
from kubectl_ebpfnet.model.net import Address, Flow, has_ports
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, LeftOut, NodeRequest
from kubectl_ebpfnet.node.bpf.maps import Map
from kubectl_ebpfnet.node.cilium import ct, layout_tuple, pins, reading, scan
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
    rules, newest = scan.rules(request.flows, request.beside), request.newest
    exact = [one for flow in flows if (one := flow.exact) is not None]
    shown, older, beside, about = ct.shown(request), 0, 0, False
    if not any(flow.fits(one) for one in shown for flow in request.flows):
        shown = []
    for table, layout in scan.tables(pins.root(), MAPS, layout_tuple.NAT, flows):
        if newest and flows:
            part = _part_of_large(table) if shown else None
            if part is None:
                scan.keep_newest(reading.in_halves(table), rules, layout, TIMES, newest, nat=True)
                continue
            found = list(_by_key(table, [*shown, *exact], flows, layout, now))
            yield from found
            more, more_beside = _others(found, request, layout, *part)
            older, beside, about = older + more, beside + more_beside, True
        elif flows and len(exact) == len(flows):
            yield from _by_key(table, exact, flows, layout, now)
        else:
            yield from _facts(scan.matching(table, rules, layout, nat=True), flows, now)
    yield from _facts(scan.kept(rules), flows, now)
    more, more_beside = scan.missing(rules)
    if about or more or more_beside:
        yield LeftOut(older + more, beside + more_beside, about)


def _part_of_large(table: Map) -> tuple[list[reading.Batch], float] | None:
    """Return a part of a map, and how many times as many entries it has; None of one that is read
    whole."""
    part, times = reading.beginning(table)
    large = times * sum(keys.count for keys, _ in part) > _WHOLE
    return (part, times) if large else None


def _others(
    found: Sequence[NatEntry],
    request: NodeRequest,
    layout: layout_tuple.TupleLayout,
    part: Sequence[reading.Batch],
    times: float,
) -> tuple[int, int]:
    """Return about how many entries a map has beside those that were found: of the flows, and of
    others that are wanted too."""
    rules = scan.rules(request.flows, request.beside)
    scan.keep_newest(part, rules, layout, TIMES, 0, nat=True)
    of_flows = sum(_fits(entry, request.flows) for entry in found)
    older, beside = (round(seen * times) for seen in scan.missing(rules))
    return max(0, older - of_flows), max(0, beside - (len(found) - of_flows))


_End = tuple[int, Address, int]
_WHOLE = 131_072
"""Entries of a map that are read whole, which takes 0.05 s."""
_FEW = 24_576
"""Flows to one destination that are not counted in a larger map: three quarters of the ports that
source NAT has by default (32768 to 65535)."""


def sources_to(end: _End) -> tuple[Counter[Address], int]:
    """Return how many flows to a protocol, address and port (0 for ICMP) have each new source, and
    how many every other address has at most.

    Raises:
        KernelError: no such map is pinned, has these sizes, or may be read.
    """
    protocol, destination, port = end
    wanted = FlowFilter(peer=destination, peer_port=port or None, protocol=protocol)
    sources, others = Counter[Address](), 0
    for table, layout in scan.tables(pins.root(), MAPS, layout_tuple.NAT, (wanted,)):
        counted, few = _sources_in(table, end, layout)
        if few:
            others = _FEW
        else:
            sources += counted
    return sources, others


def _sources_in(
    table: Map, end: _End, layout: layout_tuple.TupleLayout
) -> tuple[Counter[Address], bool]:
    """Return the new sources of a map's flows to an end; or tell, as soon as the part of a large
    map that is read shows it, that none has more than a few."""
    sources, read, look = Counter[Address](), 0, reading.ENOUGH
    for keys, values in reading.batches(table):
        _count(sources, end, layout, keys, values)
        read += keys.count
        if read < look:
            continue
        look *= 2  # to look each time would see by chance what is not there
        times = reading.times_read(table)
        if times > 1 and times * read > _WHOLE and _at_most(sources, times) <= _FEW:
            return sources, True
    return sources, False


def _at_most(sources: Counter[Address], times: float) -> float:
    """Return how many flows a source may have in all, by a part of the map: one in a million of
    such parts shows fewer by chance."""
    seen = max(sources.values(), default=0)
    return (seen + 5 * sqrt(seen) + 12) * times


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
    table: Map,
    exact: Sequence[Flow],
    flows: Sequence[FlowFilter],
    layout: layout_tuple.TupleLayout,
    now: int,
) -> Iterator[NatEntry]:
    """Yield the entries of flows that are wholly known and fit one of the filters, each once."""
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
