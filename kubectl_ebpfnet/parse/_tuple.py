"""The connection tuple of Cilium's maps in their JSON form, for conntrack and NAT.

Source: Cilium pkg/tuple; addresses are lists of bytes, ports are network order read as little
endian (cilium-facts 2 and 3.1). JSON knows no difference between 4 and 16 bytes but their length.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.parse._text import integer


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


def stored_tuple(item: object, source: str) -> Stored:
    """The key and value of one record. Raises ParseError."""
    if not isinstance(item, dict):
        raise ParseError(source, 0, "a record that is no object")
    key, value = item.get("Key"), item.get("Value")
    if not isinstance(key, dict) or not isinstance(value, dict):
        raise ParseError(source, 0, "a record without Key and Value")
    return Stored(
        bytes_address(key.get("DestAddr"), source),
        bytes_address(key.get("SourceAddr"), source),
        swapped_port(key.get("DestPort"), source),
        swapped_port(key.get("SourcePort"), source),
        integer(key.get("NextHeader"), source, 0, most=255),
        integer(key.get("Flags"), source, 0, most=255),
        value,
    )


def bytes_address(value: object, source: str) -> Address:
    """`[10, 244, 0, 213]` as an address. Raises ParseError."""
    if isinstance(value, list) and len(value) in (4, 16):
        return ip_address(bytes(integer(byte, source, 0, most=255) for byte in value))
    raise ParseError(source, 0, "an address that is not 4 or 16 bytes")


def swapped_port(value: object, source: str) -> int:
    """20480 as port 80. Raises ParseError."""
    port = integer(value, source, 0, most=65535)
    return int.from_bytes(port.to_bytes(2, "little"), "big")
