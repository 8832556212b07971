"""The flow that netkat's programs catch, and the peer's stand-in address."""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class CaughtFlow:
    """The packets of one netkat.

    Attributes:
        version: 4 or 6.
        protocol: 6 (TCP) or 17 (UDP).
        local_addresses: the node's addresses, packed, of the private netns.
        ports: the first and the last local port.
        peer: address of the peer, packed; None for any.
        peer_port: port of the peer; 0 for any.
        stand_in: the peer's address inside of the private netns, packed; None for its own.
        notes: descriptor of an array with a number for each local port: 1 where the connection uses
            the stand-in, 0 where it uses the peer's own address. 0 without an array: all
            connections use the stand-in.
    """

    version: int
    protocol: int
    local_addresses: tuple[bytes, ...]
    ports: tuple[int, int]
    peer: bytes | None = None
    peer_port: int = 0
    stand_in: bytes | None = None
    notes: int = 0


def checksum_neutral(peer: bytes) -> bytes:
    """Return a stand-in for an address: in 198.18.0.0/15 or 2001:2::/48, with the same checksum.

    Args:
        peer: packed, 4 or 16 bytes.

    Returns:
        An address, packed, whose 16-bit words have the peer's one's complement sum, so that it
        replaces the peer without a change of checksums (RFC 6296); never the peer itself.
    """
    words = [int.from_bytes(peer[n : n + 2], "big") for n in range(0, len(peer), 2)]
    for head in ((0xC612,), (0xC613,)) if len(peer) == 4 else ((0x2001, 2, 0), (0x2001, 2, 0, 1)):
        rest = (sum(words) - sum(head)) % 0xFFFF
        found = [*head, *[0] * (len(words) - len(head) - 1), rest]
        if found != words:
            break
    return b"".join(word.to_bytes(2, "big") for word in found)
