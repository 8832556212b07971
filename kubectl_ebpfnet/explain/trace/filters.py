"""Which packets are followed, and on which nodes: those that the walk of `path` predicts."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.path import Hop, Path
from kubectl_ebpfnet.model.protocol.tracing import MOST_FILTERS, PacketFilter


def nodes_of(path: Path) -> tuple[str, ...]:
    """Return the nodes that the packet or its answer passes, in their order."""
    back = path.answer.hops if path.answer else ()
    hops = [hop.node for hop in (*path.hops, *back)]
    ends = (path.source.node, *hops, path.destination.node)
    entries = [each.node for each in path.outside.entries] if path.outside else []
    return tuple(dict.fromkeys(node for node in (*ends, *entries) if node))


def filters_of(path: Path, node: str) -> tuple[PacketFilter, ...]:
    """Return what a node is to follow, at most MOST_FILTERS.

    At the sender's node that is what has the sender's own address: as it is sent, and with the
    address of a backend that its socket took. Another node meets the packet, or the answer, as it
    comes there first. Every later translation is learned by the kernel from the packet itself: a
    filter for a node's own address would follow others' packets too.
    """
    flows = [path.hops[0].packet.flow] if path.hops else list(_asked(path))
    sender = flows[0].source if flows else None
    if node == path.source.node:
        flows += [hop.packet.flow for hop in path.hops if hop.packet.flow.source == sender]
    else:
        flows += _first(path.hops, node)
        flows += [each.reversed() for each in _first(path.answer.hops if path.answer else (), node)]
    return tuple(dict.fromkeys(_filter(flow) for flow in flows))[:MOST_FILTERS]


def _first(hops: Iterable[Hop], node: str) -> list[Flow]:
    return [hop.packet.flow for hop in hops if hop.node == node][:1]


def _asked(path: Path) -> Iterable[Flow]:
    source, destination = path.source, path.destination
    if source.address is not None and destination.address is not None:
        yield Flow(path.protocol, source.address, None, destination.address, destination.port)


def _filter(flow: Flow) -> PacketFilter:
    # The walk's client port is that of an earlier connection, or any.
    return PacketFilter(flow.source, flow.destination, None, flow.destination_port, flow.protocol)
