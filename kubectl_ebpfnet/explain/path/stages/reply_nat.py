"""The translations of a packet, undone for its answer where the kernel and Cilium do it.

netfilter translates an answer back by its connection alone, and asks no rule: a source that it gave
the packet becomes the answer's destination before the routing decision, a destination that it gave
becomes the answer's source as the answer leaves (Linux net/netfilter/nf_nat_core.c, nf_nat_packet;
include/net/netfilter/nf_nat.h, HOOK2MANIP). Cilium does so where the answer comes from a device
(bpf/lib/nodeport.h, rev_nodeport_lb4 and snat_v4_rev_nat), from a backend, or to the pod that sent
the packet to a Service (bpf/bpf_lxc.c, lb4_rev_nat). A socket's own load-balancing is in no packet.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Flow, endpoint_text
from kubectl_ebpfnet.model.path import Hop, HopKind, HopPlace, State


class Undone(StrEnum):
    """Where translations are undone, and which."""

    AS_IT_COMES = "as it comes"
    """netfilter's source NAT: in PREROUTING or OUTPUT, before the routing decision."""
    AS_IT_LEAVES = "as it leaves"
    """netfilter's destination NAT: in POSTROUTING or INPUT."""
    BY_CILIUM = "by Cilium"
    """Cilium's, but for the load-balancing at the sender's own device."""
    AT_SENDER = "at the sender"
    """Cilium's load-balancing at the sender's own device."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A hop that changed the packet's addresses or ports."""

    hop: Hop
    before: Flow
    after: Flow


def translations(forth: PathBuilder) -> tuple[Translation, ...]:
    """Return what was translated on a packet's way, in its order."""
    found, flow = [], forth.ends.flow
    for hop in forth.hops:
        after = hop.packet.flow
        if hop.kind in (HopKind.NAT, HopKind.LOAD_BALANCING) and after != flow:
            found.append(Translation(hop, flow, after))
        flow = after
    return tuple(found)


def expected(forth: PathBuilder) -> Flow:
    """Return the answer that the sender's socket waits for."""
    flow = forth.ends.flow
    for each in translations(forth):
        if each.hop.place is HopPlace.POD:
            flow = each.after
    return flow.reversed()


def undo(walk: PathBuilder, here: PacketState, which: Undone) -> PacketState:
    """Undo the translations that the packet of an answer met at this node.

    Args:
        walk: takes a hop for each; of a packet's own walk nothing is undone.
        here: the answer.
        which: are undone at this place.
    """
    if walk.forth is None:
        return here
    for each in reversed(translations(walk.forth)):
        flow = here.packet.flow
        if not flow.matches(each.after.reversed()) or which is not _undone_where(walk, each.hop):
            continue
        if each.hop.node != here.node and not answers_by_itself(walk.forth):
            continue
        if not _of_this_connection(walk, each.hop):
            continue
        new = each.before.reversed()
        packet = replace(here.packet, flow=new)
        where = (each.hop.place, each.hop.where, each.hop.node, HopKind.NAT)
        if each.hop.node != here.node:
            where = here.in_cilium(HopKind.NAT)
        walk.hop(
            *where, _words(flow, new), State.DERIVED, packet, each.hop.evidence,
            short="the translation is undone",
        )  # fmt: skip
        seen = here.netfilter
        here = here.to(
            here.stage, packet=packet, netfilter=replace(seen, flow=new) if seen else None
        )
    return here


def _of_this_connection(walk: PathBuilder, hop: Hop) -> bool:
    """Tell whether a packet was translated on the side of each L7 proxy where its answer is."""
    redirects = walk.forth.redirects if walk.forth is not None else []
    return all((hop.number <= r.hop) is (r in walk.proxied) for r in redirects if r.hop)


def answers_by_itself(forth: PathBuilder) -> bool:
    """Tell whether the node that balanced keeps the client's address, so that the backend's node
    answers by itself: it undoes the other's translation (bpf/lib/nodeport.h, DSR)."""
    return any("DSR" in hop.summary for hop in forth.hops)


def _undone_where(walk: PathBuilder, hop: Hop) -> Undone | None:
    balances = hop.kind is HopKind.LOAD_BALANCING
    if hop.place is HopPlace.NODE:
        return Undone.AS_IT_LEAVES if balances else Undone.AS_IT_COMES
    if hop.place is not HopPlace.CILIUM:
        return None
    client = walk.ends.source_endpoint
    at_sender = client is not None and hop.where == client.interface
    if balances and at_sender and hop.node == walk.ends.source.node:
        return Undone.AT_SENDER
    return Undone.BY_CILIUM


def _words(flow: Flow, new: Flow) -> str:
    if (flow.source, flow.source_port) != (new.source, new.source_port):
        end = endpoint_text(new.source, new.source_port)
        return f"the translation is undone: the answer comes from {end}"
    end = endpoint_text(new.destination, new.destination_port)
    return f"the translation is undone: the answer goes to {end}"
