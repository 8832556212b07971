"""Search the entries of flows in a map of connection tuples, in packed form.

A table of half a million entries is read in batches (syscall.Map.batches), and the bytes of a
flow's address or port are searched in the whole batch at once. Only keys with the bytes at the
right offset are unpacked. The result may have other entries too: the caller checks each fact by
FlowFilter.fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kubectl_ebpfnet.errors import Unsupported
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from kubectl_ebpfnet.node.bpf.syscall import Map
from kubectl_ebpfnet.node.cilium import pins
from kubectl_ebpfnet.node.cilium.layout_tuple import NAT_ADDRESS, TupleLayout, of_sizes

Entry = tuple[bytes, bytes]
_FEW = 40
"""So few of a batch's 4096 entries are cheaper to check than another needle is to count."""


@dataclass(frozen=True, slots=True)
class Needle:
    """Bytes that an entry must have at one of the offsets, in its key or in its value."""

    packed: bytes
    offsets: frozenset[int]
    in_value: bool = False


@dataclass(frozen=True, slots=True)
class PackedFilter:
    """A FlowFilter as bytes of a tuple.

    Attributes:
        anchors: a matching entry has at least one needle of each group; () when every entry has to
            be checked. Groups that are usually rare come first.
        pieces: a matching entry has every one of them at one of its offsets.
        protocol: IANA number, None for any.
    """

    anchors: tuple[tuple[Needle, ...], ...]
    pieces: tuple[Needle, ...]
    protocol: int | None

    def may_fit(self, key: bytes, value: bytes, layout: TupleLayout) -> bool:
        """Tell whether an entry can match, from its bytes.

        Args:
            key, value: as stored.
            layout: of the map's keys.
        """
        if self.protocol is not None and key[layout.protocol] != self.protocol:
            return False
        return all(
            any(key.startswith(piece.packed, at) for at in piece.offsets)
            or (piece.in_value and _in_value(piece, value, layout))
            for piece in self.pieces
        )


def _in_value(piece: Needle, value: bytes, layout: TupleLayout) -> bool:
    at = NAT_ADDRESS if len(piece.packed) == layout.source else NAT_ADDRESS + layout.source
    return value.startswith(piece.packed, at)


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


def packed(wanted: FlowFilter, layout: TupleLayout, *, nat: bool = False) -> PackedFilter | None:
    """Return the filter for one map; None when no entry of this map can match.

    Args:
        wanted: the filter.
        layout: of the map's keys.
        nat: match the new address and port in the value too (NAT_ADDRESS).
    """
    length = layout.source
    addresses = [end.packed for end in (wanted.address, wanted.peer) if end is not None]
    if any(len(address) != length for address in addresses):
        return None
    # An ICMP identifier is in the place of a port.
    numbers = (number for number in (wanted.port, wanted.peer_port) if number is not None)
    ports = [number.to_bytes(2, "big") for number in numbers]
    at_address = frozenset({0, length})
    at_port = frozenset({layout.destination_port, layout.source_port})
    pieces = tuple(
        Needle(raw, at, in_value=nat)
        for values, at in ((addresses, at_address), (ports, at_port))
        for raw in values
    )
    anchors: list[tuple[Needle, ...]] = []
    if len(addresses) == 2:  # the key has both addresses side by side
        zero = frozenset({0})
        orders = {addresses[0] + addresses[1], addresses[1] + addresses[0]}
        in_key = tuple(Needle(raw, zero) for raw in sorted(orders))
        anchors = [in_key + (_value_needles(addresses, length) if nat else ())]
    else:
        for values, at in ((addresses, at_address), (ports, at_port)):
            anchors += [
                (Needle(raw, at), *(_value_needles([raw], length) if nat else ())) for raw in values
            ]
    return PackedFilter(tuple(anchors), pieces, wanted.protocol)


def _value_needles(values: Sequence[bytes], length: int) -> tuple[Needle, ...]:
    """Return needles in the values of a SNAT map: addresses of this length, or ports."""
    return tuple(
        Needle(raw, frozenset({NAT_ADDRESS + (0 if len(raw) == length else length)}), in_value=True)
        for raw in sorted(set(values))
    )


def matching(
    table: Map, flows: Sequence[FlowFilter], layout: TupleLayout, *, nat: bool = False
) -> Iterator[Entry]:
    """Yield (key, value) of every entry that may match one of the flows; all without flows.

    Args:
        table: the map.
        flows: filters.
        layout: of the map's keys.
        nat: match the new address and port in the value too.

    Raises:
        KernelError: the map cannot be read.
    """
    if not flows:
        yield from table.items()
        return
    filters = [
        packed_filter
        for flow in flows
        if (packed_filter := packed(flow, layout, nat=nat)) is not None
    ]
    if not filters:
        return
    key_size, value_size = table.info.key_size, table.value_bytes
    try:
        for count, keys, values in table.batches():
            key_bytes = bytes(keys[: count * key_size])
            value_bytes = bytes(values[: count * value_size]) if nat else b""
            for at in sorted(_candidates(filters, layout, key_bytes, value_bytes, value_size)):
                key = key_bytes[at * key_size : (at + 1) * key_size]
                value = bytes(values[at * value_size : (at + 1) * value_size])
                if any(packed_filter.may_fit(key, value, layout) for packed_filter in filters):
                    yield key, value
        return
    except Unsupported:
        pass  # before Linux 5.6; raised at the first batch
    for key, value in table.items():
        if any(packed_filter.may_fit(key, value, layout) for packed_filter in filters):
            yield key, value


def _candidates(
    filters: Sequence[PackedFilter],
    layout: TupleLayout,
    keys: bytes,
    values: bytes,
    value_size: int,
) -> set[int]:
    """Return the numbers of a batch's entries that have a needle of one of the filters."""
    found: set[int] = set()
    size = layout.size
    for packed_filter in filters:
        if packed_filter.anchors:
            for needle in _rarest(packed_filter.anchors, keys, values):
                data, stride = (values, value_size) if needle.in_value else (keys, size)
                found.update(_places(data, needle, stride))
        elif packed_filter.protocol is not None:
            column = keys[layout.protocol :: size]
            found.update(
                _places(column, Needle(bytes((packed_filter.protocol,)), frozenset({0})), 1)
            )
        else:
            return set(range(len(keys) // size))
    return found


def _rarest(groups: Sequence[tuple[Needle, ...]], keys: bytes, values: bytes) -> tuple[Needle, ...]:
    """Return the rarest group in a batch, or the first group that is rare enough.

    A bad anchor is in every entry: the node's address, or the port of the only service.
    """
    if len(groups) == 1:
        return groups[0]
    counts = []
    for group in groups:
        counts.append(sum((values if n.in_value else keys).count(n.packed) for n in group))
        if counts[-1] <= _FEW:
            return group
    return groups[counts.index(min(counts))]


def _places(data: bytes, needle: Needle, stride: int) -> Iterator[int]:
    """Yield the numbers of the records that have the needle at one of its offsets."""
    at = data.find(needle.packed)
    while at >= 0:
        number, offset = divmod(at, stride)
        if offset in needle.offsets:
            yield number
        at = data.find(needle.packed, at + 1)
