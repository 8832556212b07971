"""Entries of a map of connection tuples that some flows may have, found in packed form.

A table of half a million entries is read in batches (bpf.Map.batches), and the bytes that a wanted
address has in a key, or a wanted port, are searched in the whole batch at once. Only keys that have
them at the right offset are unpacked. What comes out may still hold entries that do not fit: the
caller asks FlowFilter.fits of each fact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kubectl_ebpfnet.errors import Unsupported
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from kubectl_ebpfnet.node.bpf.syscall import Map
from kubectl_ebpfnet.node.cilium.layout_tuple import NAT_ADDRESS, TupleLayout

Entry = tuple[bytes, bytes]
_FEW = 40
"""Of a batch's some 4096 entries: looking at so many costs less than counting another needle."""


@dataclass(frozen=True, slots=True)
class Needle:
    """Bytes that an entry must have at one of some offsets, in its key or in its value."""

    packed: bytes
    offsets: frozenset[int]
    in_value: bool = False


@dataclass(frozen=True, slots=True)
class PackedFilter:
    """A FlowFilter as bytes of a tuple.

    Attributes:
        anchors: an entry that can match has, of each of these groups, one needle or more; () when
            every entry has to be looked at. What is rare as a rule comes first.
        pieces: every one of these must stand at one of its places too.
        protocol: IANA number, None for any.
    """

    anchors: tuple[tuple[Needle, ...], ...]
    pieces: tuple[Needle, ...]
    protocol: int | None

    def may_fit(self, key: bytes, value: bytes, layout: TupleLayout) -> bool:
        """Whether the entry can match, as far as bytes tell."""
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


def packed(wanted: FlowFilter, layout: TupleLayout, *, nat: bool = False) -> PackedFilter | None:
    """The filter for one map; None when no entry of this map can match.

    Args:
        wanted: the filter.
        layout: of the map's keys.
        nat: the value rewrites an address and a port (NAT_ADDRESS), which count too.
    """
    length = layout.source
    addresses = [one.packed for one in (wanted.address, wanted.peer) if one is not None]
    if any(len(one) != length for one in addresses):
        return None
    # An ICMP identifier stands where a port would, so this holds for it too.
    given = (one for one in (wanted.port, wanted.peer_port) if one is not None)
    ports = [one.to_bytes(2, "big") for one in given]
    at_address = frozenset({0, length})
    at_port = frozenset({layout.destination_port, layout.source_port})
    pieces = tuple(
        Needle(one, at, in_value=nat)
        for many, at in ((addresses, at_address), (ports, at_port))
        for one in many
    )
    anchors: list[tuple[Needle, ...]] = []
    if len(addresses) == 2:  # both addresses stand side by side in the key
        zero = frozenset({0})
        both = {addresses[0] + addresses[1], addresses[1] + addresses[0]}
        pair = tuple(Needle(one, zero) for one in sorted(both))
        anchors = [pair + (_written(addresses, length) if nat else ())]
    else:
        for many, at in ((addresses, at_address), (ports, at_port)):
            anchors += [
                (Needle(one, at), *(_written([one], length) if nat else ())) for one in many
            ]
    return PackedFilter(tuple(anchors), pieces, wanted.protocol)


def _written(values: Sequence[bytes], length: int) -> tuple[Needle, ...]:
    """Needles in the values of a SNAT map: addresses of this length, or ports."""
    return tuple(
        Needle(one, frozenset({NAT_ADDRESS + (0 if len(one) == length else length)}), in_value=True)
        for one in sorted(set(values))
    )


def matching(
    table: Map, flows: Sequence[FlowFilter], layout: TupleLayout, *, nat: bool = False
) -> Iterator[Entry]:
    """(key, value) of every entry that may fit one of the filters; all of them without filters.

    Raises:
        KernelError: the map cannot be read.
    """
    if not flows:
        yield from table.items()
        return
    filters = [one for flow in flows if (one := packed(flow, layout, nat=nat)) is not None]
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
                if any(one.may_fit(key, value, layout) for one in filters):
                    yield key, value
        return
    except Unsupported:
        pass  # before Linux 5.6; it is said at the first batch
    for key, value in table.items():
        if any(one.may_fit(key, value, layout) for one in filters):
            yield key, value


def _candidates(
    filters: Sequence[PackedFilter],
    layout: TupleLayout,
    keys: bytes,
    values: bytes,
    value_size: int,
) -> set[int]:
    """Numbers of the entries of a batch that have a needle of one of the filters."""
    found: set[int] = set()
    size = layout.size
    for one in filters:
        if one.anchors:
            for needle in _rarest(one.anchors, keys, values):
                data, stride = (values, value_size) if needle.in_value else (keys, size)
                found.update(_places(data, needle, stride))
        elif one.protocol is not None:
            column = keys[layout.protocol :: size]
            found.update(_places(column, Needle(bytes((one.protocol,)), frozenset({0})), 1))
        else:
            return set(range(len(keys) // size))
    return found


def _rarest(groups: Sequence[tuple[Needle, ...]], keys: bytes, values: bytes) -> tuple[Needle, ...]:
    """The group that is found least often in a batch, or the first one that is rare enough.

    Every entry may have the node's address, or the port of the one service.
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
    """Numbers of the records that have the needle at one of its offsets."""
    at = data.find(needle.packed)
    while at >= 0:
        number, offset = divmod(at, stride)
        if offset in needle.offsets:
            yield number
        at = data.find(needle.packed, at + 1)
