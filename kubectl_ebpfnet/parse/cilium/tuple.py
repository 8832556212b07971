"""The connection tuple of Cilium's conntrack and NAT: `TCP OUT 10.0.0.1:4000 -> 10.0.0.2:80 …`.

Source: Cilium pkg/tuple.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.net import Address, protocol_number
from kubectl_ebpfnet.parse._text import address, integer, quoted

# What u8proto names besides the protocols that everybody names (model.net).
_PROTOCOLS = {"ANY": 0, "IGMP": 2, "VRRP": 112}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a list, as far as conntrack and NAT have it in common.

    Attributes:
        protocol: IANA number, 0 for ANY.
        direction: the second word.
        left, right: address and port on each side of the arrow.
        rest: the words after them.
    """

    protocol: int
    direction: str
    left: tuple[Address, int]
    right: tuple[Address, int]
    rest: list[str]


def text_tuple(line: bytes, number: int, source: str, directions: frozenset[str]) -> Line | None:
    """The tuple at the beginning of a line; None for an empty line.

    Raises:
        ParseError: the line does not begin with a tuple.
    """
    try:
        words = line.decode("utf-8").split()
    except UnicodeDecodeError:
        raise ParseError(source, number, "not UTF-8 text") from None
    if not words:
        return None
    if len(words) < 5 or words[1] not in directions or words[3] != "->":
        raise ParseError(source, number, "not an entry")
    protocol = u8proto(words[0])
    if protocol is None:
        raise ParseError(source, number, f"unknown protocol {quoted(words[0])}")
    left, right = (end(word, number, source) for word in (words[2], words[4]))
    return Line(protocol, words[1], left, right, words[5:])


def end(text: str, number: int, source: str) -> tuple[Address, int]:
    """`10.0.0.1:80`, `[fd00::1]:80`, and `fd00::1:80`, whose last colon parts the port.

    The cluster of a clustermesh, as in `10.0.0.1@2:80`, is left out.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]").partition("@")[0]
    if "%" in host:  # Cilium prints no zones, and whatever may stand in one
        raise ParseError(source, number, f"{quoted(host)} is not an IP address")
    return address(host, source, number), integer(port, source, number, most=65535)


def u8proto(name: str) -> int | None:
    """The number of a protocol as Cilium's pkg/u8proto names it; 0 for ANY, None when unknown."""
    known = _PROTOCOLS.get(name.upper())
    return protocol_number(name) if known is None else known
