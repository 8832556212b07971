"""One private netns, many next hops: a connection by each, at the same time.

The kernel needs some 25 ms to attach a program and as long to detach it, one after the other on the
whole machine (the rtnetlink lock, and a grace period of RCU), so 50 private namespaces would take
seconds. Here each connection has a mark (SO_MARK, socket(7)), a rule for the mark names a table,
and the table has one route by the next hop (ip-rule(8)).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from kubectl_ebpfnet.node.netkat import changes
from kubectl_ebpfnet.node.netkat.copy import abort_when_closed
from kubectl_ebpfnet.node.netkat.setup import NetkatSetup
from kubectl_ebpfnet.node.netlink.rtnetlink import Change, change

_TABLES = 1000
_SO_MARK = 36
# A next hop that is given by its MAC needs an address for its route; nobody has these (RFC 2544
# and RFC 5180: benchmarking).
_HOP_ADDRESSES = {4: "198.19.0.0", 6: "2001:2:0:fffe::"}


def add_next_hops(setup: NetkatSetup, next_hops: Sequence[str]) -> None:
    """Add a route by each next hop to the private netns.

    Args:
        setup: of `set_up_for_peer`, for as many connections.
        next_hops: an address on the link or a MAC each.

    Raises:
        KernelError: the kernel refuses one of them.
    """
    source, index = ipaddress.ip_address(setup.route.sources[0]), setup.netns.index
    version, first = source.version, int(ipaddress.ip_address(_HOP_ADDRESSES[source.version]))
    changed: list[Change] = []
    for number, next_hop in enumerate(next_hops, 1):
        gateway, table = next_hop, _TABLES + number
        if not _is_address(next_hop):
            gateway = str(ipaddress.ip_address(first + number))
            changed.append(
                changes.neighbour(index, gateway, bytes.fromhex(next_hop.replace(":", "")))
            )
        peer_prefix = f"{setup.peer_address}/{source.max_prefixlen}"
        changed.append(
            changes.route(version, peer_prefix, gateway, index, str(source), table=table)
        )
        changed.append(changes.rule(version, number, table, number))
    with setup.netns.inside():
        change(changed)


def marked_sockets(setup: NetkatSetup, count: int, *, udp: bool) -> list[socket.socket]:
    """Return a socket for each next hop, bound to its local port and marked for its route.

    Args:
        setup: of `set_up_for_peer`, for as many connections.
        count: number of sockets.
        udp: datagram sockets.
    """
    source = setup.route.sources[0]
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    changed = []
    with setup.netns.inside():
        for number in range(1, count + 1):
            sock = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
            changed.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, number)
            sock.bind((source, setup.first_port + number - 1))
            if not udp:
                abort_when_closed(sock)
    return changed


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True
