"""The connection tuple of Cilium's maps, for conntrack and NAT: in their text and in their JSON.

Source: Cilium pkg/tuple. Text: `TCP OUT 10.0.0.1:4000 -> 10.0.0.2:80 …`. JSON: addresses are lists
of bytes, ports are network order read as little endian (cilium-facts 2 and 3.1); IPv4 and IPv6
differ in their length only.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.net import Address, protocol_number
from kubectl_ebpfnet.parse._text import address, integer, quoted

# What u8proto names besides the protocols that everybody names (model.net).
_PROTOCOLS = {"ANY": 0, "IGMP": 2, "VRRP": 112}


@dataclass(frozen=True, slots=True)
class Stored:
    """A key as it is stored, and its value's members."""

    destination: Address
    source: Address
    destination_port: int
    source_port: int
    protocol: int
    flags: int
    value: dict[str, Any]


def stored_tuple(item: object, source: str, line: int = 0) -> Stored:
    """The key and value of one record. Raises ParseError."""
    if not isinstance(item, dict):
        raise ParseError(source, line, "a record that is no object")
    key, value = item.get("Key"), item.get("Value")
    if not isinstance(key, dict) or not isinstance(value, dict):
        raise ParseError(source, line, "a record without Key and Value")
    return Stored(
        bytes_address(key.get("DestAddr"), source, line),
        bytes_address(key.get("SourceAddr"), source, line),
        swapped_port(key.get("DestPort"), source, line),
        swapped_port(key.get("SourcePort"), source, line),
        integer(key.get("NextHeader"), source, line, most=255),
        integer(key.get("Flags"), source, line, most=255),
        value,
    )


def bytes_address(value: object, source: str, line: int = 0) -> Address:
    """`[10, 244, 0, 213]` as an address. Raises ParseError."""
    if isinstance(value, list) and len(value) in (4, 16):
        return ip_address(bytes(integer(byte, source, line, most=255) for byte in value))
    raise ParseError(source, line, "an address that is not 4 or 16 bytes")


def swapped_port(value: object, source: str, line: int = 0) -> int:
    """20480 as port 80. Raises ParseError."""
    port = integer(value, source, line, most=65535)
    return int.from_bytes(port.to_bytes(2, "little"), "big")


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
