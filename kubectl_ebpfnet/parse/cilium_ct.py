"""`cilium-dbg bpf ct list`: Cilium's conntrack entries.

Source: Cilium pkg/maps/ctmap/types.go (Dump), pkg/tuple. What differs between versions:

* ≤ 1.14 prints service entries as `OUT` with the word `service`, and backwards;
* ≥ 1.15 prints them as `SVC`, client → frontend;
* ≤ 1.15 counts Rx and Tx apart, later one pair for both; since 1.17 zero means "not counted";
* IPv6 is not in brackets: the last colon parts the port.
"""

from __future__ import annotations

from kubectl_ebpfnet.model.cilium import CtEntry
from kubectl_ebpfnet.model.net import Address, Flow, has_ports
from kubectl_ebpfnet.parse import _json
from kubectl_ebpfnet.parse._text import integer, lines
from kubectl_ebpfnet.parse._tuple import Stored, stored_tuple, text_tuple

SOURCE = "cilium bpf ct list"
_DIRECTIONS = frozenset({"IN", "OUT", "SVC"})
# What is read of the `key=value` words; the others, and those of versions to come, are let be.
_NUMBERS = frozenset(
    {
        "expires", "Packets", "Bytes", "RxPackets", "RxBytes", "TxPackets", "TxBytes",
        "RxFlagsSeen", "TxFlagsSeen", "RevNAT", "SourceSecurityID", "BackendID",
    }
)  # fmt: skip
_FLAGS = (
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


def entry(line: bytes, number: int) -> CtEntry | None:
    """One line of the text form.

    Args:
        line: without its newline.
        number: its 1-based number, for the fact and for errors.

    Returns:
        The entry; None for an empty line.

    Raises:
        ParseError: the line is no conntrack entry.
    """
    read = text_tuple(line, number, SOURCE, _DIRECTIONS)
    if read is None:
        return None
    direction, one, other = read.direction, read.left, read.right
    values, flags, marks = _fields(read.rest, number)
    if "service" in marks and direction != "SVC":
        direction, one, other = "SVC", other, one
    related = "related" in marks
    return CtEntry(
        flow=_flow(read.protocol, one, other, related),
        direction=direction,
        related=related,
        expires=values.get("expires"),
        remaining=values.get("remaining"),
        flags=flags,
        tx_flags_seen=values.get("TxFlagsSeen", 0),
        rx_flags_seen=values.get("RxFlagsSeen", 0),
        packets=_counted(values, "Packets"),
        bytes=_counted(values, "Bytes", direction),
        rev_nat=values.get("RevNAT", 0),
        source_identity=values.get("SourceSecurityID", 0),
        backend_id=values.get("BackendID", 0),
        line=number,
    )


def entries(data: bytes) -> tuple[CtEntry, ...]:
    """Every entry of a whole list. Raises ParseError."""
    found = (entry(text.encode(), number) for number, text in lines(data, SOURCE))
    return tuple(one for one in found if one is not None)


def _flow(
    protocol: int, one: tuple[Address, int], other: tuple[Address, int], related: bool
) -> Flow:
    if related:
        return Flow(protocol, one[0], None, other[0], None)
    if has_ports(protocol):
        return Flow(protocol, *one, *other)
    # ICMP: the identifier stands in the initiator's port; nothing stands in the other.
    return Flow(protocol, one[0], one[1] or other[1] or None, other[0], None)


def _fields(words: list[str], number: int) -> tuple[dict[str, int], frozenset[str], frozenset[str]]:
    """(numbers by key, flag names, bare words before the first key)."""
    values: dict[str, int] = {}
    flags: set[str] = set()
    marks: set[str] = set()
    in_flags = False
    remaining = False
    for word in words:
        key, equals, value = word.partition("=")
        if word == "[":
            in_flags = True
        elif word == "]":
            in_flags = False
        elif in_flags:
            flags.add(word)
        elif word == "(remaining:":
            remaining = True
        elif remaining:
            values["remaining"] = integer(word, SOURCE, number, least=None)
            remaining = False
        elif equals:
            if key in _NUMBERS:
                values[key] = integer(value, SOURCE, number)
        elif not values:
            marks.add(word)
    return values, frozenset(flags), frozenset(marks)


def _counted(values: dict[str, int], what: str, direction: str = "") -> int | None:
    if what in values:
        counted = values.get("Packets", 0)
        return values[what] if counted or values[what] else None
    received, sent = values.get(f"Rx{what}"), values.get(f"Tx{what}")
    if received is None or sent is None:
        return None
    if what == "Bytes" and direction == "SVC":
        return sent  # the field of received bytes holds the backend's id (≥ 1.14)
    return received + sent


def json_entries(data: bytes) -> tuple[CtEntry, ...]:
    """Every entry of `bpf ct list -o json`: the stored fields (cilium-facts 3.2). Raises
    ParseError."""
    return tuple(_json_entry(item, line) for line, item in _json.listed(data, SOURCE))


def _json_entry(item: object, line: int) -> CtEntry:
    stored = stored_tuple(item, SOURCE, line)
    related = bool(stored.flags & 2)
    if stored.flags & 4:
        direction = "SVC"
        one = (stored.source, stored.destination_port)
        other = (stored.destination, stored.source_port)
    else:
        direction = "IN" if stored.flags & 1 else "OUT"
        one = (stored.destination, stored.source_port)
        other = (stored.source, stored.destination_port)
    flow = _flow(stored.protocol, one, other, related)
    return _json_fact(stored, direction, flow, related, line)


def _json_fact(stored: Stored, direction: str, flow: Flow, related: bool, line: int) -> CtEntry:
    value = stored.value

    def number(name: str) -> int:
        found = value.get(name, 0)
        return integer(found if found is not None else 0, SOURCE, line)

    bits = number("Flags")
    union = value.get("Union0")
    backend = number("BackendID")
    if direction == "SVC" and isinstance(union, list) and len(union) == 2:
        backend = integer(union[1], SOURCE, line)
    if "Packets" in value:
        packets, size = number("Packets"), number("Bytes")
    else:
        packets = number("RxPackets") + number("TxPackets")
        size = number("TxBytes") + (number("RxBytes") if direction != "SVC" else 0)
    counted = "Packets" not in value or bool(packets or size)
    return CtEntry(
        flow=flow,
        direction=direction,
        related=related,
        expires=number("Lifetime"),
        flags=frozenset(name for bit, name in _FLAGS if bits & bit),
        tx_flags_seen=number("TxFlagsSeen"),
        rx_flags_seen=number("RxFlagsSeen"),
        packets=packets if counted else None,
        bytes=size if counted else None,
        rev_nat=_swapped(number("RevNAT")),
        source_identity=number("SourceSecurityID"),
        backend_id=backend,
        line=line,
    )


def _swapped(value: int) -> int:
    return int.from_bytes((value & 0xFFFF).to_bytes(2, "little"), "big")
