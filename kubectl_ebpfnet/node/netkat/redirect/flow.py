"""What belongs to one netkat: the flow that the programs catch, and the peer's stand-in address."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CaughtFlow:
    """What belongs to one netkat.

    Attributes:
        version: 4 or 6.
        protocol: 6 (TCP) or 17 (UDP).
        locals: the node's addresses, packed, that the private netns wears.
        ports: the first and the last local port.
        peer: its address, packed; None: anybody.
        peer_port: its port; 0: any.
        stand_in: what the private netns calls the peer; None: by its own address.
        notes: descriptor of an array with a number for each local port: 1 where the peer was
            called by its stand-in, 0 where by its own address. 0: it is always the stand-in.
    """

    version: int
    protocol: int
    locals: tuple[bytes, ...]
    ports: tuple[int, int]
    peer: bytes | None = None
    peer_port: int = 0
    stand_in: bytes | None = None
    notes: int = 0


def neutral(peer: bytes) -> bytes:
    """A stand-in for an address: out of 198.18.0.0/15 or 2001:2::/48, with the same checksum.

    Args:
        peer: packed, 4 or 16 bytes.

    Returns:
        An address, packed, whose 16-bit words have the peer's one's complement sum, so that it can
        be put in the peer's place without touching a checksum (RFC 6296); never the peer itself.
    """
    words = [int.from_bytes(peer[n : n + 2], "big") for n in range(0, len(peer), 2)]
    for head in ((0xC612,), (0xC613,)) if len(peer) == 4 else ((0x2001, 2, 0), (0x2001, 2, 0, 1)):
        rest = (sum(words) - sum(head)) % 0xFFFF
        found = [*head, *[0] * (len(words) - len(head) - 1), rest]
        if found != words:
            break
    return b"".join(word.to_bytes(2, "big") for word in found)
