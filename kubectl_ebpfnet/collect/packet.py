"""What one packet needs of the places that it passes, and its lines of long tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from kubectl_ebpfnet.collect.destination import FarEnd
from kubectl_ebpfnet.collect.scope import Scope
from kubectl_ebpfnet.collect.sender import Sender
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.fact import NOBODY, Need
from kubectl_ebpfnet.model.kube import Node, Pod
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, SCTP, TCP, UDP, Address
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from kubectl_ebpfnet.model.request import PathRequest

MOST_LOOKUPS = 8
"""How many destinations to look up; a Service may have hundreds of backends."""
MOST_ROWS = 100
"""How many addresses select rows: they are words of an exec's address, which proxies limit."""
_ENDS = {TCP: Need.ENDS_TCP, UDP: Need.ENDS_UDP, SCTP: Need.ENDS_SCTP}
"""The sockets that may take a packet of a protocol."""


def packet_scope(
    sender: Pod | Sender,
    request: PathRequest,
    versions: frozenset[int],
    far_end: FarEnd,
    *,
    knows_nodes: bool,
) -> Scope:
    """Return what a packet needs: its lines of long tables, and no table that cannot act on it.

    Args:
        sender: the source.
        request: the packet.
        versions: possible IP versions of the destination.
        far_end: what is known of the other end.
        knows_nodes: the CiliumNode objects were read.
    """
    sources = sender.addresses
    own = frozenset(source.version for source in sources)
    versions = (versions & own) or versions or own or frozenset((4, 6))
    need = Need.PATH | Need.SENDER
    need |= Need.IPV4 if 4 in versions else NOBODY
    need |= Need.IPV6 if 6 in versions else NOBODY
    need |= Need.LEAVES if far_end.leaves else Need.STAYS
    need |= NOBODY if knows_nodes else Need.NODES
    asked = request.destination_address
    front = [*([asked] if asked else []), *far_end.frontends]
    behind = [address for pod in far_end.pods for address in pod.addresses]
    destinations = [*dict.fromkeys([*front, *behind])]
    flows: list[FlowFilter] = []
    beside: list[FlowFilter] = []
    for source in (source for source in sources if source.version in versions):
        any_source = sender.host_network
        flows += packet_flows(source, request, front, destinations, any_source=any_source)
        beside += other_flows(source, request, front, any_source=any_source)
    return Scope(
        need,
        tuple(flows),
        tuple(beside),
        packets=tuple(
            (source, end)
            for end in destinations[:MOST_LOOKUPS]
            for source in sources
            if source.version == end.version
        ),
        ends=_ENDS.get(request.protocol, NOBODY),
    )


def row_addresses(
    scope: Scope,
    sender: Sender,
    far_ends: Sequence[FarEnd],
    nodes: Sequence[Node],
    cilium_nodes: Sequence[object],
) -> tuple[Address, ...]:
    """Return the addresses whose rows of tables of addresses (ipcache, load-balancer) a packet
    needs: of its ends, of their nodes and as many others, and the wildcards; () for all rows
    where these are many.

    Args:
        scope: of the packet, with its flows.
        sender: of the packet.
        far_ends: what is known of the other end.
        nodes: all of them.
        cilium_nodes: CiliumNode objects.
    """
    names = {sender.node, *(pod.node for end in far_ends for pod in end.pods)}
    names.update(node for end in far_ends for node in end.nodes)
    found = [*sender.addresses]
    found += [end for flow in scope.flows for end in (flow.address, flow.peer) if end is not None]
    for end in far_ends:
        found += [*end.frontends, *(address for pod in end.pods for address in pod.addresses)]
    found += [IPv4Address(0), IPv6Address(0)]
    of_nodes = {node.name: [*node.internal_addresses, *node.external_addresses] for node in nodes}
    for value in cilium_nodes:
        own = js.addresses(js.text(item, "ip") for item in js.items(value, "spec", "addresses"))
        of_nodes.setdefault(js.text(value, "metadata", "name"), []).extend(own)
    others: list[Address] = []
    for name, addresses in of_nodes.items():
        (found if name in names or not set(found).isdisjoint(addresses) else others).extend(
            addresses
        )
    rows = list(dict.fromkeys(found))
    if len(rows) > MOST_ROWS:
        return ()
    return tuple(dict.fromkeys((*rows, *others)))[:MOST_ROWS]


def packet_flows(
    source: Address,
    request: PathRequest,
    front: Sequence[Address],
    ends: Sequence[Address],
    *,
    any_source: bool = False,
) -> list[FlowFilter]:
    """Return filters of a packet's entries in tables that grow with traffic, what matters most
    first: each brings home its newest.

    Args:
        source: the sender's address.
        request: the packet.
        front: addresses that may be asked at the request's port.
        ends: these, and where the packet may be sent instead.
        any_source: a node's namespace sends it, by the address that the route names: to pods that
            is cilium_host's.
    """
    protocol, port = request.protocol, request.port
    one, some = ([end for end in ends if end.version == source.version] for ends in (front, ends))
    sender = None if any_source else source
    flows = [FlowFilter(sender, None, end, port, protocol) for end in one if port]
    behind = [end for end in some if not port or end not in one]
    return flows + [FlowFilter(sender, None, end, None, protocol) for end in behind]


def other_flows(
    source: Address, request: PathRequest, front: Sequence[Address], *, any_source: bool = False
) -> list[FlowFilter]:
    """Return filters of what is wanted beside a packet's entries, of which a pod may have 60,000:
    other ports of the destination, where else the pod sends, and the errors that came back.

    Args:
        source, request, front, any_source: as of `packet_flows`.
    """
    protocol = request.protocol
    sender = None if any_source else source
    one = [end for end in front if end.version == source.version and request.port]
    flows = [FlowFilter(sender, None, end, None, protocol) for end in one]
    flows.append(FlowFilter(source, protocol=protocol))
    error = ICMP if source.version == 4 else ICMPV6  # what came back instead of an answer
    return flows if protocol == error else [*flows, FlowFilter(source, protocol=error)]


def far_scope(scope: Scope, far_end: FarEnd) -> Scope:
    """Return what the same packet needs of a node at its far end."""
    if far_end.ends_on_node:
        scope = scope.at_end
    if far_end.by_node:
        return scope
    return replace(scope, need=scope.need & ~(Need.SENDER | Need.LEAVES))
