"""The connection tuple of Cilium's conntrack and NAT: `TCP OUT 10.0.0.1:4000 -> 10.0.0.2:80 …`.

Source: Cilium pkg/tuple.
"""

from __future__ import annotations

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, protocol_number
from kubectl_ebpfnet.parse._text import address, integer, quoted

# Names of u8proto that model/net.py lacks.
_PROTOCOLS = {"ANY": 0, "IGMP": 2, "VRRP": 112}


@dataclass(frozen=True, slots=True)
class TupleLine:
    """The part of a line that conntrack and NAT entries share.

    Attributes:
        protocol: IANA number, 0 for ANY.
        direction: the second word.
        left, right: address and port on each side of the arrow.
        rest: the words after the tuple.
    """

    protocol: int
    direction: str
    left: tuple[Address, int]
    right: tuple[Address, int]
    rest: list[str]


def parse_tuple_line(
    line: bytes, number: int, source: str, directions: frozenset[str]
) -> TupleLine | None:
    """Return the tuple at the beginning of a line; None for an empty line.

    Args:
        line: without its newline.
        number: 1-based, for errors.
        source: the command, for errors.
        directions: allowed words of a direction.

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
    left, right = (address_and_port(word, number, source) for word in (words[2], words[4]))
    return TupleLine(protocol, words[1], left, right, words[5:])


def address_and_port(text: str, number: int, source: str) -> tuple[Address, int]:
    """Parse `10.0.0.1:80`, `[fd00::1]:80`, and `fd00::1:80`, whose last colon precedes the port.

    The cluster of a clustermesh, as in `10.0.0.1@2:80`, is left out.

    Args:
        text: address and port.
        number: 1-based line, for errors.
        source: the command, for errors.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]").partition("@")[0]
    if "%" in host:  # Cilium prints no zones, and a zone may contain any text
        raise ParseError(source, number, f"{quoted(host)} is not an IP address")
    return address(host, source, number), integer(port, source, number, most=65535)


def u8proto(name: str) -> int | None:
    """Return the number of a protocol as Cilium's pkg/u8proto names it; 0 for ANY, None when
    unknown."""
    known = _PROTOCOLS.get(name.upper())
    return protocol_number(name) if known is None else known
