"""`cilium-dbg bpf nat list`: Cilium's SNAT entries.

Source: Cilium pkg/maps/nat. A key has the order of the packet: OUT as it leaves, before
translation; IN as the reply arrives. IPv6 addresses are in brackets.
"""

from __future__ import annotations

from itertools import pairwise

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.cilium_ct import NatEntry
from kubectl_ebpfnet.model.net import Address, Flow, has_ports
from kubectl_ebpfnet.parse._text import integer
from kubectl_ebpfnet.parse.cilium.tuple import address_and_port, parse_tuple_line

SOURCE = "cilium bpf nat list"
_DIRECTIONS = frozenset({"IN", "OUT"})


def entry(line: bytes, number: int) -> NatEntry | None:
    """Parse one line of the text form; return None for an empty line.

    Raises:
        ParseError: the line is no NAT entry.
    """
    read = parse_tuple_line(line, number, SOURCE, _DIRECTIONS)
    if read is None:
        return None
    words = read.rest
    at = next((i for i, word in enumerate(words) if word in ("XLATE_SRC", "XLATE_DST")), None)
    if at is None or at + 1 >= len(words):
        raise ParseError(SOURCE, number, "a NAT entry without its translation")
    translated_address, port = address_and_port(words[at + 1], number, SOURCE)
    rest = words[at + 2 :]
    flow = _flow(read.protocol, read.left, read.right, read.direction)
    return NatEntry(
        flow=flow,
        direction=read.direction,
        address=translated_address,
        port=port,
        age=_age(rest, number),
        needs_ct=any(word in ("NeedsCT=1", "HostLocal=1") for word in rest),
    )


def _flow(
    protocol: int, left: tuple[Address, int], right: tuple[Address, int], direction: str
) -> Flow:
    if has_ports(protocol):
        return Flow(protocol, *left, *right)
    # ICMP: the echo identifier is the client's: the source of OUT, the destination of IN.
    if direction == "OUT":
        return Flow(protocol, left[0], left[1] or None, right[0], None)
    return Flow(protocol, left[0], None, right[0], right[1] or None)


def _age(words: list[str], number: int) -> int | None:
    """Return the seconds of `Created=12sec ago`; ≤ 1.14 prints `Nsec` of a wrong clock."""
    for word, after in pairwise(words):
        if word.startswith("Created=") and word.endswith("sec") and after == "ago":
            return integer(word[len("Created=") : -len("sec")], SOURCE, number, least=None)
    return None
