"""The kernel's connection tracking table: /proc/net/nf_conntrack and `conntrack -L`.

    ipv4     2 tcp      6 117 TIME_WAIT src=… dst=… sport=… dport=… src=… dst=… … [ASSURED] mark=0
    └─ not in plain `conntrack -L`
               └─ protocol, number, seconds left (none when offloaded), state (TCP, SCTP, DCCP)
                                      └─ original 5-tuple               └─ expected reply

The second `src=` begins the reply. The table is long, so a reader passes only the lines that it
needs (model.evidence.matching_lines) to `entry`.

ICMP has no ports. Its echo identifier takes the place of the sender's port: the original's
source_port and the reply's destination_port; the other two are None. So, as for TCP, the reversed
reply is the original when nothing is translated.

Sources: Linux net/netfilter/nf_conntrack_standalone.c (ct_seq_show), libnetfilter_conntrack's
src/conntrack/snprintf_default.c, conntrack(8). Verified with Linux 6.18 and conntrack 1.4.7.
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, Address, Flow
from kubectl_ebpfnet.parse._text import address, decode, integer, port, quoted

_SOURCE = "nf_conntrack"
_FAMILIES = ("ipv4", "ipv6")
# `conntrack -L 2>&1` ends with `conntrack v1.4.7 (conntrack-tools): 169 flow entries have been…`
_TOTAL = "conntrack v"


@dataclass(slots=True)
class _Tuple:
    """The words of one tuple, while the line is read."""

    source: Address
    destination: Address | None = None
    source_port: int | None = None
    destination_port: int | None = None
    identifier: int | None = None


@dataclass(slots=True)
class _Tail:
    """The words outside of the tuples."""

    status: list[str] = field(default_factory=list)
    mark: int | None = None
    zone: int = 0
    packets: int | None = None
    bytes: int | None = None


def entry(line: bytes, number: int) -> ConntrackEntry | None:
    """Return the entry of one line.

    Args:
        line: without its newline.
        number: 1-based, for the error.

    Returns:
        None for an empty line, and for the line of `conntrack` that counts the entries.

    Raises:
        ParseError: the line is not an entry.
    """
    try:
        text = decode(line, _SOURCE)
    except ParseError as error:
        raise ParseError(_SOURCE, number, error.problem) from None
    words = text.split()
    if not words or text.startswith(_TOTAL):
        return None
    at = 2 if words[0] in _FAMILIES else 0
    if len(words) < at + 4:
        raise ParseError(_SOURCE, number, f"not an entry: {quoted(text)}")
    protocol = integer(words[at + 1], _SOURCE, number, most=255)
    at += 2
    timeout: int | None = None
    state = ""
    if words[at].isdigit():
        timeout = integer(words[at], _SOURCE, number)
        at += 1
    if at < len(words) and "=" not in words[at] and words[at][0] != "[":
        state = words[at]
        at += 1
    tuples, tail = _read(words[at:], number)
    if len(tuples) != 2:
        raise ParseError(_SOURCE, number, f"{len(tuples)} tuples instead of 2: {quoted(text)}")
    echo = protocol in (ICMP, ICMPV6)
    return ConntrackEntry(
        original=_flow(tuples[0], protocol, number, identifier_first=True if echo else None),
        reply=_flow(tuples[1], protocol, number, identifier_first=False if echo else None),
        timeout=timeout,
        state=state,
        status=frozenset(tail.status),
        mark=tail.mark,
        zone=tail.zone,
        packets=tail.packets,
        bytes=tail.bytes,
    )


def _flow(words: _Tuple, protocol: int, number: int, *, identifier_first: bool | None) -> Flow:
    if words.destination is None:
        raise ParseError(_SOURCE, number, "a tuple without dst=")
    if words.destination.version != words.source.version:
        raise ParseError(_SOURCE, number, "a tuple of two address families")
    source_port, destination_port = words.source_port, words.destination_port
    if identifier_first is not None:
        source_port = words.identifier if identifier_first else None
        destination_port = None if identifier_first else words.identifier
    return Flow(protocol, words.source, source_port, words.destination, destination_port)


def _read(words: list[str], number: int) -> tuple[list[_Tuple], _Tail]:
    tuples: list[_Tuple] = []
    tail = _Tail()
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            if word[0] == "[" and word[-1] == "]":
                tail.status.append(word[1:-1])
        elif name == "src":
            tuples.append(_Tuple(address(value, _SOURCE, number)))
        elif tuples and _tuple_word(tuples[-1], name, value, number):
            continue
        else:
            _tail_word(tail, name, value, number)
    return tuples, tail


def _tuple_word(words: _Tuple, name: str, value: str, number: int) -> bool:
    """Take a word if it belongs to a tuple; tell whether it does."""
    if name == "dst":
        words.destination = address(value, _SOURCE, number)
    elif name == "sport":
        words.source_port = port(value, _SOURCE, number)
    elif name == "dport":
        words.destination_port = port(value, _SOURCE, number)
    elif name == "id" and words.identifier is None:
        # `conntrack -o id` ends with an id of its own; ICMP's comes first. Protocols with ports
        # ignore it.
        words.identifier = integer(value, _SOURCE, number)
    else:
        return False
    return True


def _tail_word(tail: _Tail, name: str, value: str, number: int) -> None:
    if name == "mark":
        tail.mark = integer(value, _SOURCE, number)
    elif name in ("zone", "zone-orig"):
        tail.zone = integer(value, _SOURCE, number)
    elif name == "packets":
        tail.packets = (tail.packets or 0) + integer(value, _SOURCE, number)
    elif name == "bytes":
        tail.bytes = (tail.bytes or 0) + integer(value, _SOURCE, number)
