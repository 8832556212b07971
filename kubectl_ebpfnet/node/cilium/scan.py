"""Search the entries of flows in a map of connection tuples, in packed form.

A table of half a million entries is read in batches (reading.py), and a batch is compared
column by column (columns.py). Only entries that fit are unpacked, and of many that fit only the
newest: a pod may have as many entries as the table. The result may have a few other entries too:
the caller checks each fact by FlowFilter.fits.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from operator import itemgetter
from pathlib import Path

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import TCP, has_ports
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, LeftOut
from kubectl_ebpfnet.node.bpf.maps import Map
from kubectl_ebpfnet.node.cilium import pins
from kubectl_ebpfnet.node.cilium.columns import Columns, how_many, places
from kubectl_ebpfnet.node.cilium.layout_tuple import IN, NAT_ADDRESS, TupleLayout, of_sizes
from kubectl_ebpfnet.node.cilium.reading import Batch, batches

Entry = tuple[bytes, bytes]
_WITH_PORTS = frozenset(bytes((number,)) for number in range(256) if has_ports(number))


@dataclass(frozen=True, slots=True)
class Times:
    """Numbers in a value that tell when its entry was last used, or made: the greatest counts.

    Attributes:
        offsets: of the numbers, which are in the host's order.
        width: of each, in bytes.
    """

    offsets: tuple[int, ...]
    width: int

    def of(self, value: bytes) -> int:
        """Return the greatest number of a value."""
        numbers = (value[at : at + self.width] for at in self.offsets)
        return max(int.from_bytes(number, sys.byteorder) for number in numbers)

    def later(self, values: Columns, time: int) -> int:
        """Return the mask of the values with a number above a time."""
        mask = 0
        for at in self.offsets:
            mask |= values.above(at, self.width, time)
        return mask


_Side = tuple[frozenset[bytes] | None, int | None]
"""Addresses and the port of one end of a flow; None for any."""


@dataclass(slots=True)
class Rule:
    """Flows that differ in the peer alone, and the newest of their entries.

    Attributes:
        wanted: one of the filters; its peer does not count.
        peers: packed, of all of them; None where any will do.
        beside: the entries are not of the flows that were asked for, but of others beside them.
        seen: how many entries fit.
        kept: (time, number, entry), a heap whose first is the oldest.
    """

    wanted: FlowFilter
    peers: frozenset[bytes] | None = None
    beside: bool = False
    seen: int = 0
    kept: list[tuple[int, int, Entry]] = field(default_factory=list)

    def sides(self, length: int) -> tuple[_Side, _Side] | None:
        """Return both ends of the flows; None where none has addresses of a length."""
        ours, theirs = self.wanted.address, self.peers
        if ours is not None and len(ours.packed) != length:
            return None
        if theirs is not None:
            theirs = frozenset(peer for peer in theirs if len(peer) == length)
            if not theirs:
                return None
        own = None if ours is None else frozenset((ours.packed,))
        return (own, self.wanted.port), (theirs, self.wanted.peer_port)


def rules(flows: Sequence[FlowFilter], beside: Sequence[FlowFilter] = ()) -> list[Rule]:
    """Return the rules that select entries: an entry belongs to the first one that it fits.

    Args:
        flows: filters of the flows that are asked for.
        beside: of others, of which some are wanted too.
    """
    found: dict[object, Rule] = {}
    for is_beside, some in ((False, flows), (True, beside)):
        for flow in some:
            any_peer = flow.peer is None
            key = (is_beside, flow.address, flow.port, flow.peer_port, flow.protocol, any_peer)
            rule = found.setdefault(key, Rule(flow, beside=is_beside))
            if flow.peer is not None:
                rule.peers = (rule.peers or frozenset()) | {flow.peer.packed}
    return list(found.values())


def kept(of: Sequence[Rule]) -> Iterator[Entry]:
    """Yield the entries that rules have kept, in the order of the table."""
    for rule in of:
        for _, _, entry in sorted(rule.kept, key=itemgetter(1)):
            yield entry


def missing(of: Sequence[Rule]) -> tuple[int, int]:
    """Return how many entries of the flows, and of others beside, were not kept."""
    found = [0, 0]
    for rule in of:
        found[rule.beside] += max(0, rule.seen - len(rule.kept))
    return found[0], found[1]


def left_out(of: Sequence[Rule]) -> Iterator[LeftOut]:
    """Yield how many entries were left out, if any were."""
    if any(found := missing(of)):
        yield LeftOut(*found)


def tables(
    folder: Path,
    maps: Mapping[str, tuple[int, bool | None]],
    layouts: Mapping[tuple[int, int], TupleLayout],
    flows: Sequence[FlowFilter],
) -> Iterator[tuple[Map, TupleLayout]]:
    """Yield the pinned maps that can have entries of the flows, each with its layout.

    Args:
        folder: where Cilium's maps are pinned.
        maps: name → IP version; whether it is for TCP or for all other protocols, None for both.
        layouts: by sizes of key and value.
        flows: the requested flows; () for all.
    """
    for name in pins.present(folder, tuple(maps)):
        if flows and not any(_may_have(*maps[name], flow) for flow in flows):
            continue
        table = pins.opened(folder, name)
        if table is not None:
            with table:
                sizes = (table.info.key_size, table.info.value_size)
                yield table, of_sizes(name, sizes, layouts)


def _may_have(version: int, tcp: bool | None, flow: FlowFilter) -> bool:
    of_protocol = tcp is None or flow.protocol is None or (flow.protocol == TCP) == tcp
    ends = (flow.address, flow.peer)
    return of_protocol and all(end is None or end.version == version for end in ends)


def matching(
    table: Map, wanted: Sequence[Rule], layout: TupleLayout, *, nat: bool = False
) -> Iterator[Entry]:
    """Yield (key, value) of every entry that may fit one of the rules; all without rules.

    Args:
        table: the map.
        wanted: the rules.
        layout: of the map's keys.
        nat: match the new address and port in the value too.

    Raises:
        KernelError: the map cannot be read.
    """
    if not wanted:
        yield from table.items()
        return
    for keys, values in batches(table):
        mask = 0
        for rule in wanted:
            mask |= fitting(rule, keys, values, layout, nat=nat)
        for number in places(mask, keys.count):
            yield keys.record(number), values.record(number)


def keep_newest(
    read: Iterable[Batch],
    wanted: Sequence[Rule],
    layout: TupleLayout,
    times: Times,
    most: int,
    *,
    nat: bool = False,
) -> None:
    """Give each rule the newest entries of a map that fit it, and count the others.

    Args:
        read: the map, in batches.
        wanted: the rules.
        layout: of the map's keys.
        times: where a value tells how old it is.
        most: how many a rule keeps; 0 to count them alone.
        nat: match the new address and port in the value too.

    Raises:
        KernelError: the map cannot be read.
    """
    for keys, values in read:
        left = keys.all
        for rule in wanted:
            mask = left & fitting(rule, keys, values, layout, nat=nat)
            if not mask:
                continue
            left ^= mask
            before = rule.seen
            rule.seen += how_many(mask)
            if not most:
                continue
            if len(rule.kept) >= most:
                mask &= times.later(values, rule.kept[0][0])
            for number in places(mask, keys.count):
                value = values.record(number)
                entry = (times.of(value), before + number, (keys.record(number), value))
                put = heapq.heappush if len(rule.kept) < most else heapq.heappushpop
                put(rule.kept, entry)


def fitting(
    rule: Rule, keys: Columns, values: Columns, layout: TupleLayout, *, nat: bool = False
) -> int:
    """Return the mask of the entries that may fit a rule.

    A NAT entry fits by the new end in its value as well, which stands in place of the source of an
    OUT entry, and of the destination of an IN entry.

    Args:
        rule: what is wanted.
        keys, values: a batch.
        layout: of the keys.
        nat: these are entries of NAT: the ports stand in the order of the addresses. In a conntrack
            key they stand the other way round (layout_tuple.py).
    """
    sides, wanted = rule.sides(layout.source), rule.wanted
    if sides is None:
        return 0
    mask = keys.all
    if wanted.protocol is not None:
        mask = keys.having(layout.protocol, frozenset((bytes((wanted.protocol,)),)))
    if not mask:
        return 0
    ports = (layout.destination_port, layout.source_port)
    portless = keys.all ^ keys.having(layout.protocol, _WITH_PORTS)

    def ends(at: int, number: int) -> tuple[int, int]:
        """Return the masks of the entries that have either side at an address of the key."""
        found = []
        for addresses, port in sides:
            here = keys.all if addresses is None else keys.having(at, addresses)
            if here and port is not None:
                text = frozenset((port.to_bytes(2, "big"),))
                other = keys.having(ports[1 - number], text) & portless  # an echo's identifier
                here &= keys.having(ports[number], text) | other
            found.append(here)
        return found[0], found[1]

    first, second = ends(0, 0 if nat else 1), ends(layout.source, 1 if nat else 0)
    fits = _either(first, second)
    if nat:
        new = _new_ends(values, sides, layout.source)
        incoming = keys.masked(layout.flags, IN)
        fits |= (keys.all ^ incoming) & _either(new, first) | incoming & _either(new, second)
    return mask & fits


def _new_ends(values: Columns, sides: tuple[_Side, _Side], length: int) -> tuple[int, int]:
    """Return the masks of the entries of NAT that have either side as the new end."""
    found = []
    for addresses, port in sides:
        here = values.all if addresses is None else values.having(NAT_ADDRESS, addresses)
        if here and port is not None:
            here &= values.having(NAT_ADDRESS + length, frozenset((port.to_bytes(2, "big"),)))
        found.append(here)
    return found[0], found[1]


def _either(one: tuple[int, int], other: tuple[int, int]) -> int:
    return one[0] & other[1] | one[1] & other[0]
