"""`cilium-dbg bpf ct list`: Cilium's conntrack entries.

Source: Cilium pkg/maps/ctmap/types.go (Dump), pkg/tuple. What differs between versions:

* ≤ 1.14 prints service entries as `OUT` with the word `service`, and backwards;
* ≥ 1.15 prints them as `SVC`, client → frontend;
* ≤ 1.15 counts Rx and Tx apart, later one pair for both; since 1.17 zero means "not counted";
* IPv6 is not in brackets: the last colon parts the port.
"""

from __future__ import annotations

from kubectl_ebpfnet.model.cilium_ct import CtEntry, ct_flow
from kubectl_ebpfnet.parse._text import integer
from kubectl_ebpfnet.parse.cilium.tuple import parse_tuple_line

SOURCE = "cilium bpf ct list"
_DIRECTIONS = frozenset({"IN", "OUT", "SVC"})
# The `key=value` words that are read; others, also of later versions, are ignored.
_NUMBERS = frozenset(
    {
        "expires", "Packets", "Bytes", "RxPackets", "RxBytes", "TxPackets", "TxBytes",
        "RxFlagsSeen", "TxFlagsSeen", "LastRxReport", "LastTxReport", "RevNAT", "SourceSecurityID",
        "BackendID",
    }
)  # fmt: skip


def entry(line: bytes, number: int) -> CtEntry | None:
    """Parse one line of the text form.

    Args:
        line: without its newline.
        number: its 1-based number, for errors.

    Returns:
        The entry; None for an empty line.

    Raises:
        ParseError: the line is no conntrack entry.
    """
    read = parse_tuple_line(line, number, SOURCE, _DIRECTIONS)
    if read is None:
        return None
    direction, left, right = read.direction, read.left, read.right
    values, flags, marks = _fields(read.rest, number)
    if "service" in marks and direction != "SVC":
        direction, left, right = "SVC", right, left
    related = "related" in marks
    return CtEntry(
        flow=ct_flow(read.protocol, left, right, related),
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
        last_tx_report=values.get("LastTxReport"),
        last_rx_report=values.get("LastRxReport"),
    )


def _fields(words: list[str], number: int) -> tuple[dict[str, int], frozenset[str], frozenset[str]]:
    """Return (numbers by key, flag names, bare words before the first key)."""
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
