"""Addresses, protocols and flows, which every layer of the stack shares.

Protocol numbers are IANA's (https://www.iana.org/assignments/protocol-numbers).
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from kubectl_ebpfnet.model.dataclass import dataclass

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

ICMP = 1
TCP = 6
UDP = 17
ESP = 50
ICMPV6 = 58
SCTP = 132

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
"""TCP flag bits, RFC 9293 3.1."""

_NAMES = {ICMP: "ICMP", TCP: "TCP", UDP: "UDP", ESP: "ESP", ICMPV6: "ICMPv6", SCTP: "SCTP"}
_NUMBERS = {name.lower(): number for number, name in _NAMES.items()}


def protocol_name(number: int) -> str:
    """Return the usual name of an IP protocol number; the number as text where it has none."""
    return _NAMES.get(number, str(number))


def protocol_number(name: str) -> int | None:
    """Return the number of a protocol name in any case, or of decimal digits; None if unknown."""
    if name.isascii() and name.isdigit() and len(name) <= 3:
        return int(name)
    return _NUMBERS.get(name.lower())


def has_ports(protocol: int) -> bool:
    """Tell whether the protocol's header has a source and a destination port."""
    return protocol in (TCP, UDP, SCTP)


CLIENT_PORTS = (32768, 60999)
"""The source ports that Linux gives a client by itself (net.ipv4.ip_local_port_range)."""


def within(port: int | None, low: int, high: int, *, of_client: bool = False) -> bool | None:
    """Tell whether a port is between two; None where that is not known.

    Args:
        port: None when not known.
        low, high: the bounds, both included.
        of_client: a port that is not known is one of CLIENT_PORTS.
    """
    if port is not None:
        return low <= port <= high
    first, last = CLIENT_PORTS if of_client else (0, 0xFFFF)
    if low <= first and last <= high:
        return True
    return None if low <= last and first <= high else False


@dataclass(frozen=True, slots=True)
class Flow:
    """A packet's 5-tuple, as it is in the headers at one place.

    Attributes:
        protocol: IANA protocol number.
        source: source address.
        source_port: source port; the identifier for ICMP echo; None when any or not known.
        destination: destination address.
        destination_port: destination port; None when any or not known.
    """

    protocol: int
    source: Address
    source_port: int | None
    destination: Address
    destination_port: int | None

    def reversed(self) -> Flow:
        """Return the 5-tuple of a reply to this packet."""
        return Flow(
            self.protocol, self.destination, self.destination_port, self.source, self.source_port
        )

    def matches(self, other: Flow) -> bool:
        """Tell whether both name the same flow; a port of None on either side means any."""
        return (
            self.protocol == other.protocol
            and self.source == other.source
            and self.destination == other.destination
            and _same_port(self.source_port, other.source_port)
            and _same_port(self.destination_port, other.destination_port)
        )

    def with_destination(self, address: Address, port: int | None) -> Flow:
        """Return the packet with another destination."""
        return replace(self, destination=address, destination_port=port)

    def with_source(self, address: Address, port: int | None) -> Flow:
        """Return the packet with another source."""
        return replace(self, source=address, source_port=port)

    def __str__(self) -> str:
        return (
            f"{protocol_name(self.protocol)} {endpoint_text(self.source, self.source_port)}"
            f" → {endpoint_text(self.destination, self.destination_port)}"
        )


def _same_port(one: int | None, other: int | None) -> bool:
    return one is None or other is None or one == other


def endpoint_text(address: Address, port: int | None) -> str:
    """Return `10.0.0.1:80`, `[fd00::1]:80`, or the bare address when the port is None."""
    if port is None:
        return str(address)
    if address.version == 6:
        return f"[{address}]:{port}"
    return f"{address}:{port}"
