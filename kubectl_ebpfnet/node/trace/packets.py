"""Follow packets through this node by bpf/trace.bpf.c: what is asked in, events out.

The structures below are those of bpf/follow.h. How a packet is followed stands there too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import (
    Copies,
    Direction,
    Losses,
    MatchedBy,
    PacketEvent,
    Place,
    Tunnel,
)
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, SCTP, TCP, UDP, Address, Flow
from kubectl_ebpfnet.model.protocol.tracing import MOST_FILTERS, PacketFilter
from kubectl_ebpfnet.node.bpf.objects import BpfObject, Refused
from kubectl_ebpfnet.node.trace import drop_reasons

PROGRAMS = {
    "queue": Place.QUEUE,
    "xmit": Place.XMIT,
    "rx": Place.NETIF_RX,
    "gro": Place.GRO,
    "receive": Place.RECEIVE,
    "drop": Place.DROP,
    "consume": Place.CONSUME,
    "deliver": Place.DELIVER,
}
"""Programs of the object by name, and the place that each one sees."""
FUNCTIONS = (
    "ip_local_deliver", "ip_forward", "ip_output", "ip6_input", "ip6_forward", "ip6_output",
)  # fmt: skip
"""Functions of the kernel that bpf/programs.bpf.c sees, in its order."""
DROPS_ONLY = ("drop",)
SHARED = (
    ".rodata.config", ".data.counters", ".data.learned", ".data.tracked", "tuples", "buffers",
    "events",
)  # fmt: skip
"""Maps and sections that the objects of further programs use, too: all that bpf/follow.h has."""
_PLACES = ("", *PROGRAMS.values(), Place.PROGRAM, Place.KERNEL)
_DIRECTIONS = (Direction.NONE, Direction.FORTH, Direction.BACK)
_MATCHES = ("", *MatchedBy)
_COPIES = tuple(Copies)
_TUNNELS = ("", "vxlan", "geneve", "ipip")
_ICMP_ERROR, _FRAGMENT = 1, 6  # enum packet_flags
_PACKET = "16s16sHHI16s16sQIIIHBBBBBBI"
_EVENT = struct.Struct(f"=QQ{_PACKET}IIIIIHHBBBB16s16s64sI")
_CONFIG = struct.Struct("=IIIIIHHHH")
_KEY = struct.Struct("=QQ")
_BYTES = struct.Struct("=QQI260s")
_END = struct.Struct("=16sIHH")
_FILTER = struct.Struct(f"={_END.size}s{_END.size}sII")
_ALL_BITS = 0xFFFFFFFF
_PLACE_AT = struct.calcsize(f"=QQ{_PACKET}IIIIIHH")
_COUNTERS = struct.Struct("=QQQQQ")
_VXLAN_PORTS, _GENEVE_PORTS = (8472, 4789), (6081, 0)
_ANY = bytes(16)


@dataclass(frozen=True, slots=True)
class Selection:
    """What to tell of.

    Attributes:
        filters: MOST_FILTERS at most; a packet that one of them selects is followed.
        netns: inode of a network namespace of which everything is told; 0 for none.
        everything: every packet of the node.
        programs: which of PROGRAMS are attached.
        events_per_second: the budget in the kernel; what is over it is counted.
        data: bytes of each packet to tell, at most MOST_DATA: a record of their own.
        ring_bytes: room for events that were not read yet: a power of two.
        vxlan_ports, geneve_ports: UDP ports of tunnels, two each at most.
    """

    filters: tuple[PacketFilter, ...] = ()
    netns: int = 0
    everything: bool = False
    programs: tuple[str, ...] = tuple(PROGRAMS)
    events_per_second: int = 20_000
    data: int = 0
    ring_bytes: int = 1 << 22
    vxlan_ports: tuple[int, ...] = _VXLAN_PORTS
    geneve_ports: tuple[int, ...] = _GENEVE_PORTS


class PacketTrace:
    """Packets of this node as they pass. Nothing of it is left when it is closed, or killed."""

    def __init__(self, selection: Selection) -> None:
        """Attach the programs.

        Raises:
            Unsupported: this kernel or image cannot; the message says what is missing.
            KernelError: it refuses otherwise.
        """
        values = {".rodata.config": config_of(selection)}
        self._object = BpfObject("trace", selection.programs, values, selection.ring_bytes)
        self._reasons = drop_reasons.names()
        self._ring = self._object.ring()

    def __enter__(self) -> PacketTrace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach everything."""
        self._ring.close()
        self._object.close()

    def shared(self) -> dict[str, int]:
        """Return descriptors of what further objects share. Raises KernelError."""
        return {name: self._object.map_fd(name) for name in SHARED}

    @property
    def attached(self) -> tuple[Place, ...]:
        """The places that are seen."""
        return tuple(PROGRAMS[name] for name in self._object.attached)

    @property
    def refused(self) -> tuple[Refused, ...]:
        """The programs that this kernel does not take, and why."""
        return self._object.refused

    def events(self, seconds: float) -> Iterator[PacketEvent]:
        """Yield what was seen since the last call, in the order of time as far as it was read.

        Args:
            seconds: wait at most so long for the first one.

        Raises:
            KernelError: the ring buffer cannot be read.
        """
        for record in self.records(seconds):
            if bytes_of(record) is None:
                yield self.event_of(record)

    def records(self, seconds: float) -> list[bytes]:
        """Return the same as the kernel wrote it: an event costs a tenth until it is read.

        Raises:
            KernelError: the ring buffer cannot be read.
        """
        return self._ring.read(seconds)

    def event_of(self, record: bytes) -> PacketEvent:
        """Return the event of a record."""
        return event_of(record, self._reasons)

    def losses(self) -> Losses:
        """Return how many events are missing until now. Raises KernelError."""
        _, over_budget, ring_full, _, _ = _COUNTERS.unpack(self._object.section(".data.counters"))
        return Losses(over_budget, ring_full)


def config_of(selection: Selection) -> bytes:
    """Return struct config of bpf/trace.bpf.c. Raises ValueError for too many filters or ports."""
    filters = selection.filters
    if len(filters) > MOST_FILTERS:
        raise ValueError(f"at most {MOST_FILTERS} filters")
    vxlan, geneve = (
        tuple(_network_order(port) for port in (*ports, 0, 0)[:2])
        for ports in (selection.vxlan_ports, selection.geneve_ports)
    )
    head = _CONFIG.pack(
        len(filters), selection.netns, selection.everything, selection.events_per_second,
        selection.data, *vxlan, *geneve,
    )  # fmt: skip
    packed = b"".join(
        _FILTER.pack(
            _end(each.source, each.source_port), _end(each.destination, each.destination_port),
            each.protocol, _ALL_BITS if each.protocol else 0,
        )
        for each in filters
    )  # fmt: skip
    return head + packed.ljust(MOST_FILTERS * _FILTER.size, b"\0")


def _end(address: Address | None, port: int | None) -> bytes:
    """Return struct end: what is None or 0 is any, by a mask of zeros."""
    mask, port_mask = _ALL_BITS if address is not None else 0, 0xFFFF if port else 0
    return _END.pack(_packed(address), mask, _network_order(port or 0), port_mask)


def _network_order(port: int) -> int:
    return int.from_bytes(struct.pack("!H", port), "little")


def _packed(address: Address | None) -> bytes:
    if address is None:
        return _ANY
    return address.packed if address.version == 6 else IPv6Address(f"::ffff:{address}").packed


def _address(packed: bytes) -> Address:
    address = IPv6Address(packed)
    mapped: IPv4Address | None = address.ipv4_mapped
    return mapped or address


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def event_of(record: bytes, reasons: dict[int, str]) -> PacketEvent:
    """Return the event of one record of the ring buffer: struct event. Of PROGRAM program and
    verdict are numbers (programs.SecondLayer names them).

    Args:
        record: its bytes.
        reasons: names of drop reasons by number (drop_reasons.names).
    """
    (
        time, _, source, destination, source_port, destination_port, protocol,
        outer_source, outer_destination, fingerprint, seq, ack, tunnel_id, size,
        tcp_flags, icmp_type, icmp_code, flags, tunnel, ttl, _,
        netns, ifindex, length, reason, pid, segments, ethertype,
        place, direction, matched_by, copies, device, command, where, program,
    ) = _EVENT.unpack(record)  # fmt: skip
    flow = None
    if source != _ANY or destination != _ANY:
        ports = _ports(protocol, source_port, destination_port)
        flow = Flow(protocol, _address(source), ports[0], _address(destination), ports[1])
    is_icmp = bool(flags & _ICMP_ERROR) or protocol in (ICMP, ICMPV6)
    carried = None
    if tunnel:
        ends = _address(outer_source), _address(outer_destination)
        carried = Tunnel(_TUNNELS[tunnel], tunnel_id, *ends)
    return PacketEvent(
        time, Place(_PLACES[place]), netns, ifindex, _text(device), flow, _DIRECTIONS[direction],
        MatchedBy(_MATCHES[matched_by]), fingerprint, seq, ack, tcp_flags,
        (icmp_type, icmp_code) if is_icmp else None, bool(flags & _ICMP_ERROR),
        bool(flags & _FRAGMENT), ttl, size, length, segments, carried, ethertype,
        drop_reasons.name(reason, reasons) if place == _DROP else "",
        FUNCTIONS[program] if place == _KERNEL else _text(where),
        _COPIES[copies], pid, _text(command), str(program) if place == _PROGRAM else "",
        str(reason) if place == _PROGRAM else "",
    )  # fmt: skip


_DROP, _PROGRAM, _KERNEL = map(_PLACES.index, (Place.DROP, Place.PROGRAM, Place.KERNEL))


def key_of(record: bytes) -> tuple[int, int]:
    """Return what an event and the bytes of its packet have in common: time and buffer."""
    time, address = _KEY.unpack_from(record)
    return time, address


def bytes_of(record: bytes) -> bytes | None:
    """Return a packet's first bytes; None for a record of an event."""
    if len(record) != _BYTES.size:
        return None
    _, _, length, data = _BYTES.unpack(record)
    return bytes(data[:length])


def is_drop(record: bytes) -> bool:
    """Tell whether a record of the ring buffer is of a drop."""
    return record[_PLACE_AT] == _DROP


def _ports(protocol: int, source: int, destination: int) -> tuple[int | None, int | None]:
    """Return ports in host order; of an ICMP echo its id and None."""
    first, second = (
        int.from_bytes(port.to_bytes(2, "little"), "big") for port in (source, destination)
    )
    if protocol in (TCP, UDP, SCTP):
        return first, second
    return first or None, None
