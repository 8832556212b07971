"""Nodes on the way whose connection tracking sees a TCP connection in one direction alone.

Where the answer comes back past a node that the packet passed, its nf_conntrack has the first
packet and never an answer: what the sender sends after the handshake is INVALID to it, and rules
for that, as kube-proxy has one in FORWARD, drop it (Linux net/netfilter/nf_conntrack_proto_tcp.c:
an ACK of the sender in SYN_SENT is sIV).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kubectl_ebpfnet.explain.path.endings import Arrived, Dropped
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.model.net import TCP

Run = Callable[[PathBuilder, PacketState], None]
"""Runs a walk from a place."""


def follow(walk: PathBuilder, start: PacketState, run: Run) -> None:
    """Walk the packets after the handshake, and end the walk where such a node drops them.

    Args:
        walk: of the first packet; it and that of its answer have ended.
        start: where it began.
        run: runs a walk.
    """
    nodes = _one_sided(walk)
    if not nodes:
        return
    later = PathBuilder(
        walk.cluster, walk.ends, size=walk.size, forced=walk.forced, one_sided=nodes
    )
    later.flows.extend(walk.ends.flows)
    run(later, start)
    end = later.end
    if not isinstance(end, Dropped) or end.drop.node not in nodes:
        return
    why = (
        f"the answer passes {end.drop.node} by, so what follows a connection's first packet is "
        "INVALID there"
    )
    walk.hops[:] = later.hops
    walk.undecided[:] = later.undecided
    walk.findings.append(end.finding)
    walk.end = replace(end, reason=f"{end.reason}; {why}", cause=f"{end.cause}: {why}")


def _one_sided(walk: PathBuilder) -> frozenset[str]:
    """Return the nodes that track the packet, and that its answer, as far as it is known, does not
    come to."""
    back = walk.back
    known = isinstance(walk.end, Arrived) and back is not None and isinstance(back.end, Arrived)
    if not known or back is None or walk.ends.flow.protocol != TCP:
        return frozenset()
    answered_by = {hop.node for hop in back.hops} | {walk.ends.source.node}
    tracked = {node for node, seen in walk.connections.items() if seen.state == "NEW"}
    return frozenset(tracked - answered_by)
