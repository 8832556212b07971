"""Which sockets of a network namespace may take the first packet of a flow.

A socket must be bound to the packet's port; to its address, or to any of its IP version; to its
device, or to none; and have no other peer. An IPv6 socket that is bound to any address takes IPv4
packets too, unless IPV6_V6ONLY is set. Of those that do, the best takes it: one that is bound to
the address, then to the device, then one of IPv4; several that are alike (SO_REUSEPORT) take turns.

Sources: Linux net/ipv4/inet_hashtables.c and udp.c (__inet_lookup_listener, compute_score),
net/ipv6/inet6_hashtables.c and udp.c; ipv6(7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kernel import Listener
from kubectl_ebpfnet.model.net import Address, Flow, endpoint_text


@dataclass(frozen=True, slots=True)
class SocketLookup:
    """What a packet meets at its port.

    Attributes:
        takers: sockets that take it: one, or several that take turns; () for none.
        v6_only_unread: the takers are IPv6 sockets, the packet is IPv4, and IPV6_V6ONLY was not
            read: it is off unless a program sets it.
    """

    takers: tuple[Listener, ...]
    v6_only_unread: bool


def look_up(sockets: Sequence[Listener], flow: Flow, device: str) -> SocketLookup:
    """Return which sockets take the first packet of a flow.

    Args:
        sockets: of the namespace and the packet's protocol.
        flow: the packet, with a destination port.
        device: that it came in by. To a socket a packet that stays on lo comes by the device that
            has its address (inet_iif).
    """
    at_port = [socket for socket in sockets if socket.port == flow.destination_port]
    takers = [socket for socket in at_port if _takes(socket, flow, device)]
    best = max((_score(socket) for socket in takers), default=())
    takers = [socket for socket in takers if _score(socket) == best]
    unread = all(_is_any6(s) and s.v6_only is None for s in takers) and bool(takers)
    return SocketLookup(tuple(takers), unread and flow.destination.version == 4)


def of_local_proxy(sockets: Sequence[Listener], flow: Flow, port: int) -> SocketLookup:
    """Return which sockets of a node's own namespace take a flow that is handed to a proxy there.

    Args:
        sockets: of the namespace and the flow's protocol.
        flow: as it was before.
        port: of the proxy, on loopback.
    """
    to = replace(flow, source_port=None, destination=loopback(flow), destination_port=port)
    found = look_up(sockets, to, "lo")
    return replace(found, takers=tuple(each for each in found.takers if each.peer is None))


def loopback(flow: Flow) -> Address:
    """Return the loopback address of a flow's IP version."""
    return ip_address("127.0.0.1" if flow.source.version == 4 else "::1")


def is_for(socket: Listener, flow: Flow) -> bool:
    """Tell whether a socket is bound to a packet's address, or to any of its IP version."""
    destination = flow.destination
    if _is_any6(socket) and destination.version == 4:
        return not socket.v6_only
    any_address = socket.address.is_unspecified and socket.address.version == destination.version
    return any_address or socket.address == destination


def text(socket: Listener) -> str:
    """Return where a socket is bound: `127.0.0.1:80`, `[::]:80`, `0.0.0.0:80 on net1`."""
    device = f" on {socket.device}" if socket.device else ""
    only = " (IPv6 only)" if socket.v6_only and socket.address.is_unspecified else ""
    return endpoint_text(socket.address, socket.port) + device + only


def _takes(socket: Listener, flow: Flow, device: str) -> bool:
    if socket.device not in ("", device) or not is_for(socket, flow):
        return False
    if socket.peer is None:
        return True
    return socket.peer == flow.source and flow.source_port in (None, socket.peer_port)


def _is_any6(socket: Listener) -> bool:
    return socket.address.version == 6 and socket.address.is_unspecified


def _score(socket: Listener) -> tuple[bool, ...]:
    return (
        not socket.address.is_unspecified,
        socket.peer is not None,
        bool(socket.device),
        socket.address.version == 4,
    )
