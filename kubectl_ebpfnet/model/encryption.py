"""What encrypts packets between nodes: WireGuard's devices and peers, the kernel's IPsec states.

No private key, preshared key or key of a state is a member of anything here, nor ever read into it.
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address, Network


@dataclass(frozen=True, slots=True)
class WireGuardDevice:
    """A WireGuard device (Linux include/uapi/linux/wireguard.h).

    Attributes:
        name: of the device.
        public_key: its own, in base64; "" when it has none.
        port: UDP port that it receives on and sends from, None when not said.
        mark: skb mark of the packets that it sends, None when not said.
        peers: how many it has, None when not said.
    """

    name: str
    public_key: str = ""
    port: int | None = None
    mark: int | None = None
    peers: int | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class WireGuardPeer:
    """A peer of a WireGuard device.

    Attributes:
        device: name of the device.
        public_key: the peer's, in base64.
        endpoint: where packets for it are sent, None when not known; it follows the source of what
            the peer sent last.
        port: UDP port of the endpoint.
        allowed: destinations that it is sent, and sources that are taken from it.
        handshake_age: seconds since the latest handshake, None when there was none.
        received, sent: bytes of UDP payload, handshakes included.
    """

    device: str
    public_key: str
    endpoint: Address | None = None
    port: int | None = None
    allowed: tuple[Network, ...] = ()
    handshake_age: int | None = None
    received: int = 0
    sent: int = 0
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class XfrmState:
    """A state (security association) of the kernel's IPsec (ip-xfrm(8)).

    Attributes:
        source, destination: of the encrypted packet, in tunnel mode.
        protocol: `esp`, `ah`, `comp`, or a number.
        spi: security parameter index.
        mode: `tunnel`, `transport`, …
        mark, mark_mask: packets that it is for: skb mark & mask == mark; a mask of 0 takes all.
        packets: that it has encrypted or decrypted, None when not said.
        failed: packets whose integrity check failed, None when not said.
    """

    source: Address
    destination: Address
    protocol: str
    spi: int
    mode: str = ""
    mark: int = 0
    mark_mask: int = 0
    packets: int | None = None
    failed: int | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class XfrmPolicy:
    """A policy of the kernel's IPsec (ip-xfrm(8)): which packets a state has to encrypt, or has to
    have encrypted.

    Attributes:
        source, destination: prefixes of the packets that it takes.
        direction: `out`, `in`, `fwd`.
        action: `allow`, or `block`, which drops.
        priority: the lowest is asked first.
        ends: where the states of its templates lead to; without those that need not be there.
        mark, mark_mask: as in XfrmState.
        narrowed: it looks at more than addresses and mark: a protocol, ports, a device.
    """

    source: Network
    destination: Network
    direction: str
    action: str = "allow"
    priority: int = 0
    ends: tuple[Address, ...] = ()
    mark: int = 0
    mark_mask: int = 0
    narrowed: bool = False
    span: Span = field(default=NOWHERE, compare=False)
