"""Connection tuples of Cilium's maps: packed bytes to facts, for conntrack and SNAT.

Sources: Cilium bpf/lib/common.h, conntrack.h, nat.h and their mirrors in pkg/maps/{ctmap,nat};
the tables of cilium-facts 3.1 to 3.4. No I/O here. Ports and reverse NAT ids are in network order,
addresses are bytes, every other number is in the host's order. Layouts of equal size (the counters
of a conntrack entry up to Cilium 1.15 and since) are distinguished by the caller.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry, ct_flow
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, Address, Flow, has_ports

T = TypeVar("T")

IN, RELATED, SERVICE = 1, 2, 4
"""Bits of a tuple's flags; none of them is OUT."""
PLAUSIBLE_SECONDS = 86400
"""Longest plausible lifetime. Cilium's default timeouts end at 21600 s. A longer one is not in
seconds where it may be jiffies, FIRST_JIFFIES at least."""
FIRST_JIFFIES = ((1 << 32) - 300 * 1000) >> 8
"""Least time of `jiffies` mode, which is jiffies >> 8: they begin at 2^32 - 300 s, of 1000 Hz at
most (include/linux/jiffies.h, INITIAL_JIFFIES). As seconds that is an uptime of 194 days."""


@dataclass(frozen=True, slots=True)
class DatapathClock:
    """The two clocks that times in Cilium's maps may be of (bpf/lib/time.h), read at one moment.

    Attributes:
        monotonic: CLOCK_MONOTONIC in seconds.
        jiffies: None where the kernel does not tell.
    """

    monotonic: int
    jiffies: int | None = None

    @property
    def hertz(self) -> float | None:
        """Jiffies a second, None where nothing tells."""
        up = self.monotonic - 300
        if self.jiffies is None or abs(up) < 10:
            return None
        measured = (self.jiffies - (1 << 32)) / up
        return min((100, 250, 300, 1000), key=lambda hertz: abs(hertz - measured))

    def in_seconds(self, expires: int) -> Callable[[int], int]:
        """Return what makes seconds of CLOCK_MONOTONIC of the times beside a lifetime.

        Times of which nothing tells the unit stay as they are, and so does zero, which is "never".

        Args:
            expires: the lifetime, in the map's own unit.
        """
        if expires < FIRST_JIFFIES or abs(expires - self.monotonic) <= PLAUSIBLE_SECONDS:
            return lambda time: time
        hertz, jiffies = self.hertz, self.jiffies
        if hertz is None or jiffies is None:
            return lambda time: time
        return lambda time: time and self.monotonic + round((time * 256 - jiffies) / hertz)


_CT_VALUE = struct.Struct("=QQQQIH2sHBBIII")
_CT_FLAGS = (
    (0x01, "RxClosing"),
    (0x02, "TxClosing"),
    (0x04, "Nat64"),
    (0x08, "LBLoopback"),
    (0x10, "SeenNonSyn"),
    (0x20, "NodePort"),
    (0x40, "ProxyRedirect"),
    (0x80, "DSRInternal"),
    (0x100, "FromL7LB"),
    (0x400, "FromTunnel"),
)
_NAT_HEAD = struct.Struct("=QQ")
NAT_ADDRESS = 32
"""Offset in a SNAT value of the new address, followed by the new port."""


@dataclass(frozen=True, slots=True)
class TupleLayout:
    """Offsets in `struct ipv4_ct_tuple` or `ipv6_ct_tuple`, whose destination address is at 0.

    `source` is also the length of an address.
    """

    source: int
    destination_port: int
    source_port: int
    protocol: int
    flags: int
    size: int


IPV4_TUPLE = TupleLayout(4, 8, 10, 12, 13, 14)
IPV6_TUPLE = TupleLayout(16, 32, 34, 36, 37, 38)

CT = {(14, 56): IPV4_TUPLE, (38, 56): IPV6_TUPLE}
NAT = {(14, 40): IPV4_TUPLE, (38, 56): IPV6_TUPLE}


def of_sizes(name: str, sizes: tuple[int, int], known: Mapping[tuple[int, int], T]) -> T:
    """Return the layout of a map.

    Args:
        name: of the map, for the error.
        sizes: of key and value, in bytes.
        known: layouts by these sizes.

    Raises:
        KernelError: no known Cilium has a map of these sizes.
    """
    if sizes in known:
        return known[sizes]
    forms = ", ".join(f"{key} and {value}" for key, value in sorted(known))
    raise KernelError(
        f"map {name} has keys of {sizes[0]} bytes and values of {sizes[1]} bytes;"
        f" known are {forms}",
        hint="this Cilium is newer than this tool, or the map is not Cilium's",
    )


def address(raw: bytes) -> Address:
    """Decode an address of 4 or 16 bytes."""
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


def family_address(raw: bytes, family: int) -> Address:
    """Decode 16 bytes with a family: 1 is IPv4 in the first four bytes, 2 is IPv6.

    Raises:
        KernelError: another family.
    """
    if family == 1:
        return IPv4Address(raw[:4])
    if family == 2:
        return IPv6Address(raw)
    raise KernelError(f"a key of Cilium's with the unknown address family {family}")


def port(raw: bytes) -> int:
    """Decode a port, 2 bytes in network order."""
    return int.from_bytes(raw, "big")


def ct_entry(
    key: bytes, value: bytes, layout: TupleLayout, clock: DatapathClock, *, apart: bool = False
) -> CtEntry | None:
    """Return an entry of a conntrack map.

    Args:
        key: as stored. OUT and IN entries have swapped addresses, service entries swapped ports:
            in all of them the client's or the server's address is `daddr` with `sport`, the
            other's is `saddr` with `dport` (cilium-facts 3.2).
        value: 56 bytes.
        layout: of the key.
        clock: of the node; times in jiffies become seconds by it.
        apart: received packets and bytes are in the first two words (Cilium ≤ 1.15), which later
            have other fields.

    Returns:
        The entry; None for a key without protocol, which Cilium's own tools skip too.
    """
    protocol, flags = key[layout.protocol], key[layout.flags]
    if not protocol:
        return None
    end = layout.source
    source_end = (address(key[:end]), port(key[layout.source_port : layout.source_port + 2]))
    destination_end = (
        address(key[end : 2 * end]),
        port(key[layout.destination_port : layout.destination_port + 2]),
    )
    service, related = bool(flags & SERVICE), bool(flags & RELATED)
    if service:
        source_end, destination_end = destination_end, source_end
    first, second, packets, size, expires, bits, rev_nat, _, tx, rx, identity, sent, received = (
        _CT_VALUE.unpack(value)
    )
    seconds = clock.in_seconds(expires)
    expires = seconds(expires)
    if apart:
        packets += first
        size += 0 if service else second  # a service entry keeps its backend's id there
    counted = bool(packets or size)
    return CtEntry(
        flow=ct_flow(protocol, source_end, destination_end, related),
        direction="SVC" if service else "IN" if flags & IN else "OUT",
        related=related,
        expires=expires,
        remaining=_remaining(expires, clock.monotonic),
        flags=frozenset(name for bit, name in _CT_FLAGS if bits & bit),
        tx_flags_seen=tx,
        rx_flags_seen=rx,
        packets=packets if counted else None,
        bytes=size if counted else None,
        rev_nat=port(rev_nat),
        source_identity=identity,
        backend_id=second if service else 0,
        last_tx_report=seconds(sent),
        last_rx_report=seconds(received),
    )


def _remaining(expires: int, now: int) -> int | None:
    remaining = expires - now
    return remaining if -PLAUSIBLE_SECONDS <= remaining <= PLAUSIBLE_SECONDS else None


def ct_keys(flow: Flow) -> tuple[bytes, ...]:
    """Return every key that a flow, in either orientation, can have in a conntrack map, and those
    of the entries for ICMP errors between its ends.

    The service key of a flow has the same bytes as the OUT key of its reply, except the flags.
    """
    packed_ends = _packed_ends(flow)
    both = (packed_ends, packed_ends[::-1])
    errors = ICMP if flow.source.version == 4 else ICMPV6
    return tuple(
        first[0] + second[0] + second[1] + first[1] + bytes((flow.protocol, flags))
        for first, second in both
        for flags in (0, IN, SERVICE)
    ) + tuple(
        first[0] + second[0] + bytes(4) + bytes((errors, RELATED | flags))
        for first, second in both
        for flags in (0, IN)
    )


def _packed_ends(flow: Flow) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    return (
        (flow.source.packed, (flow.source_port or 0).to_bytes(2, "big")),
        (flow.destination.packed, (flow.destination_port or 0).to_bytes(2, "big")),
    )


def nat_entry(key: bytes, value: bytes, layout: TupleLayout, now: int) -> NatEntry | None:
    """Decode an entry of a SNAT map; its key has the packet's addresses and ports in their order.

    Args:
        key: as stored.
        value: 40 bytes for IPv4, 56 for IPv6.
        layout: of the key.
        now: CLOCK_MONOTONIC in seconds.

    Returns:
        The entry; None for a key without protocol.
    """
    protocol = key[layout.protocol]
    if not protocol:
        return None
    end = layout.source
    direction = "IN" if key[layout.flags] & IN else "OUT"
    source = (address(key[end : 2 * end]), port(key[layout.source_port : layout.source_port + 2]))
    destination = (
        address(key[:end]),
        port(key[layout.destination_port : layout.destination_port + 2]),
    )
    if has_ports(protocol):
        flow = Flow(protocol, *source, *destination)
    elif direction == "OUT":  # the echo identifier is the client's
        flow = Flow(protocol, source[0], source[1] or None, destination[0], None)
    else:
        flow = Flow(protocol, source[0], None, destination[0], destination[1] or None)
    created, needs_ct = _NAT_HEAD.unpack_from(value)
    address_end = NAT_ADDRESS + end
    return NatEntry(
        flow=flow,
        direction=direction,
        address=address(value[NAT_ADDRESS:address_end]),
        port=port(value[address_end : address_end + 2]),
        # An entry lives as long as it is used; a time in the future is not in seconds.
        age=now - created if 0 < created <= now + 1 else None,
        needs_ct=needs_ct == 1,
    )


def nat_keys(flow: Flow) -> tuple[bytes, ...]:
    """Return the keys of a packet, in either orientation, in a SNAT map: OUT and IN."""
    packed_ends = _packed_ends(flow)
    return tuple(
        target[0] + source[0] + target[1] + source[1] + bytes((flow.protocol, flags))
        for source, target in (packed_ends, packed_ends[::-1])
        for flags in (0, IN)
    )


def nat_twin(entry: NatEntry) -> bytes:
    """Return the key of the reverse entry: the reply to the translated flow."""
    flow = entry.translated().reversed()
    source, target = _packed_ends(flow)
    flags = 0 if entry.direction == "IN" else IN
    return target[0] + source[0] + target[1] + source[1] + bytes((flow.protocol, flags))
