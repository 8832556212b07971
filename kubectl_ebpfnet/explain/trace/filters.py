"""Which packets are followed, and on which nodes: those that the walk of `path` predicts."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.kube import ServiceEndpoint
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.model.path import Hop, Path
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter

MOST_BACKENDS = 8
"""Of a Service, that are followed."""


def backends_of(path: Path, bundle: Bundle) -> tuple[ServiceEndpoint, ...]:
    """Return the backends of the Service that is asked for: path shows the way to one, and a packet
    may take another."""
    end = path.destination
    if end.kind != "service":
        return ()
    return tuple(
        each
        for each in ClusterView(bundle).kube.endpoints
        if (each.namespace, each.service) == (end.namespace, end.name)
        and each.protocol == path.protocol
        and (each.ready or each.serving)
    )


def nodes_of(path: Path, backends: Iterable[ServiceEndpoint] = ()) -> tuple[str, ...]:
    """Return the nodes that the packet or its answer passes, in their order; those of other
    backends behind."""
    back = path.answer.hops if path.answer else ()
    hops = [hop.node for hop in (*path.hops, *back)]
    ends = (path.source.node, *hops, path.destination.node)
    entries = [each.node for each in path.outside.entries] if path.outside else []
    others = [each.node for each in backends]
    return tuple(dict.fromkeys(node for node in (*ends, *entries, *others) if node))


def filters_of(
    path: Path, node: str, backends: Iterable[ServiceEndpoint] = ()
) -> tuple[PacketFilter, ...]:
    """Return what a node is to follow; what matters most comes first.

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
    if sender is not None:
        flows += [
            Flow(path.protocol, sender, None, each.address, each.port)
            for each in backends
            if node in (path.source.node, each.node) and each.address.version == sender.version
        ]
    return tuple(dict.fromkeys(map(_filter, flows)))


def _first(hops: Iterable[Hop], node: str) -> list[Flow]:
    return [hop.packet.flow for hop in hops if hop.node == node][:1]


def _asked(path: Path) -> Iterable[Flow]:
    source, destination = path.source, path.destination
    if source.address is not None and destination.address is not None:
        yield Flow(path.protocol, source.address, None, destination.address, destination.port)


def _filter(flow: Flow) -> PacketFilter:
    # The walk's client port is that of an earlier connection, or any.
    return PacketFilter(flow.source, flow.destination, None, flow.destination_port, flow.protocol)
