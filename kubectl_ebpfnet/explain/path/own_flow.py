"""The packet's own flow, as the node that the packet has come to tracks it."""

from __future__ import annotations

from kubectl_ebpfnet.explain.flows.match import FlowQuery, tracked_flows
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.path import TrackedFlow


def tracked_at(walk: PathBuilder, here: PacketState) -> TrackedFlow | None:
    """Return the packet's own flow as its present node tracks it, None when it has none."""
    if walk.tracked is not None and walk.tracked.node == here.node:
        return walk.tracked
    return next((t for t in walk.flows if _is_of(t, here)), None)


def incoming_at(walk: PathBuilder, here: PacketState) -> TrackedFlow | None:
    """Return the packet's own flow as the node that it has come to tracks it, None without one.

    It is of the newest attempt: its ports are the packet's. An entry of another connection,
    which may be older, says nothing of this packet.
    """
    for tracked in walk.flows:
        way = tracked.cilium_ct.direction if tracked.cilium_ct is not None else "IN"
        if way == "IN" and _is_of(tracked, here):
            return tracked
    flow = here.packet.flow
    sender = walk.cluster.node(walk.ends.first_node)
    if flow.source_port is None and sender.table_state(q.CT).known:
        return None  # no attempt is tracked where it began: what is here is older
    query = FlowQuery(
        flow.protocol,
        flow.source,
        frozenset({(flow.destination, flow.destination_port)}),
        source_port=flow.source_port,
    )
    return next(iter(tracked_flows(walk.cluster.node(here.node), query, "IN")), None)


def _is_of(tracked: TrackedFlow, here: PacketState) -> bool:
    """Tell whether a flow that the packet's node tracks has the packet's ports."""
    flow = here.packet.flow
    return (
        (tracked.node, tracked.flow.source) == (here.node, flow.source)
        and flow.source_port == tracked.flow.source_port
        and flow.destination in (tracked.flow.destination, tracked.translated.destination)
    )
