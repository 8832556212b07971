"""One private netns, many next hops: a connection each, at the same time.

To attach a program and to let go of it takes the kernel some 25 ms each, one after the other for
the whole machine (the rtnetlink lock, and a grace period of RCU), so 50 private namespaces cannot
be had quickly. Here each connection has a mark (SO_MARK, socket(7)), a rule leads the mark to a
table of its own, and that holds the one route by its next hop (ip-rule(8)).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from kubectl_ebpfnet.node.netkat import changes
from kubectl_ebpfnet.node.netkat.copy import abort_when_closed
from kubectl_ebpfnet.node.netkat.setup import NetkatSetup
from kubectl_ebpfnet.node.netlink.message import Change, change

_TABLES = 1000
_SO_MARK = 36
# Next hops that are given by their MAC need an address to be called by; these are nobody's
# (RFC 2544 and RFC 5180: benchmarking).
_NAMES = {4: "198.19.0.0", 6: "2001:2:0:fffe::"}


def spread(laid: NetkatSetup, next_hops: Sequence[str]) -> None:
    """Give the private netns a way by each next hop.

    Args:
        laid: by `laying.to_peer` for as many connections.
        next_hops: an address on the link or a MAC each.

    Raises:
        KernelError: the kernel refuses one of them.
    """
    source, index = ipaddress.ip_address(laid.way.sources[0]), laid.private.index
    version, first = source.version, int(ipaddress.ip_address(_NAMES[source.version]))
    found: list[Change] = []
    for number, next_hop in enumerate(next_hops, 1):
        gateway, table = next_hop, _TABLES + number
        if not _is_address(next_hop):
            gateway = str(ipaddress.ip_address(first + number))
            found.append(
                changes.neighbour(index, gateway, bytes.fromhex(next_hop.replace(":", "")))
            )
        near = f"{laid.near}/{source.max_prefixlen}"
        found.append(changes.route(version, near, gateway, index, str(source), table=table))
        found.append(changes.rule(version, number, table, number))
    with laid.private.inside():
        change(found)


def sockets(laid: NetkatSetup, count: int, *, udp: bool) -> list[socket.socket]:
    """A socket for each next hop, bound to its local port and marked for its way."""
    source = laid.way.sources[0]
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    found = []
    with laid.private.inside():
        for number in range(1, count + 1):
            one = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
            found.append(one)
            one.setsockopt(socket.SOL_SOCKET, _SO_MARK, number)
            one.bind((source, laid.first_port + number - 1))
            if not udp:
                abort_when_closed(one)
    return found


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True
