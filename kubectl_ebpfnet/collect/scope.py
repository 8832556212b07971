"""What a run asks of its places: the rows of the table of facts (model/catalogue.py) that it needs,
about the flows and the packets that it is about.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.collect.ask.question import NEWEST, Question
from kubectl_ebpfnet.model.catalogue import (
    FACTS,
    FIB,
    FORWARD,
    SNAT_USE,
    packet_words,
    snat_words,
)
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Place, PlaceKind
from kubectl_ebpfnet.model.fact import NOBODY, Need
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, PodNamespace, snat_end


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of a run.

    Attributes:
        need: selects rows: those that any of these users needs.
        flows: select entries of tables that grow with traffic; () selects all.
        beside: the same, of what is wanted beside the flows that the run is about.
        newest: how many entries of each, 0 for all.
        packets: sources and destinations to look up in the kernel's routing.
        ends: what is needed besides of a place where the packet may end.
        rows: addresses that select rows of tables of addresses; () selects all.
    """

    need: Need
    flows: tuple[FlowFilter, ...] = ()
    beside: tuple[FlowFilter, ...] = ()
    newest: int = NEWEST
    packets: tuple[tuple[Address, Address], ...] = ()
    ends: Need = NOBODY
    rows: tuple[Address, ...] = ()

    @property
    def at_end(self) -> Scope:
        """The same, of a place where the packet may end."""
        return replace(self, need=self.need | self.ends)

    @property
    def of_far_pod(self) -> Scope:
        """The same, of a pod that the packet may end in: who listens there, and what an answer
        passes on its way out."""
        return Scope((self.need & ~Need.NAMES) | self.ends)

    def questions(self, place: Place, netns: PodNamespace | None = None) -> list[Question]:
        """Return the questions to a place, in the order of the table. What answers two rows is
        asked once.

        Args:
            place: of the records. An agent or a pod is asked by exec, a node by its node pod.
            netns: a pod's network namespace, where the node pod of its node is asked.
        """
        by_node_pod = netns is not None or place.kind is PlaceKind.NODE
        found: dict[object, Question] = {}
        for fact in FACTS:
            need = fact.need
            if by_node_pod and fact.node_need is not None:
                need = fact.node_need
            by_exec = () if fact.node_pod_only else fact.forms
            asked = fact.node_argv if by_node_pod else by_exec
            if asked and place.kind in fact.places and need & self.need and not fact.takes:
                if fact.select:
                    found[asked] = Question(fact.about(*self._selected(fact.select)), place)
                    continue
                question = Question(fact, place, netns)
                if fact.by_flow:
                    question = Question(fact, place, netns, self.flows, self.beside, self.newest)
                elif self.rows and (fact.by_address or fact.by_endpoint):
                    flows = self.flows if by_node_pod else ()  # of the wildcard, their ports
                    question = Question(fact, place, netns, flows, rows=self.rows)
                found.setdefault(asked, question)
        return list(found.values())

    def _selected(self, flag: str) -> list[str]:
        """Return the words by which a command itself selects the flows; [] selects all."""
        addresses = [flow.address or flow.peer for flow in (*self.flows, *self.beside)]
        if None in addresses:
            return []
        return [word for address in dict.fromkeys(addresses) for word in (flag, str(address))]

    def lookups(
        self, pod: Place, node: Place, netns: PodNamespace, addresses: tuple[Address, ...]
    ) -> list[Question]:
        """Return questions to a node pod for the kernel's routing decision about each packet of a
        pod, in the pod and on its node, and for the ports of source NAT where the packet goes.

        Args:
            pod, node: the places of the records.
            netns: the pod's network namespace.
            addresses: of the pod.
        """
        found = []
        for source, destination in self.packets:
            if source not in addresses:
                continue
            words = packet_words(source, destination)
            found.append(Question(FIB.about(*words), pod, netns))
            found.append(Question(FORWARD.about(*words), node, netns))
        end = snat_end(self.flows)
        if end is not None and Need.LEAVES in self.need:
            found.append(Question(SNAT_USE.about(*snat_words(*end)), node))
        return found


EVERYTHING = Scope(~(Need.DOCTOR | Need.TRACE), ends=Need.ENDS_TCP | Need.ENDS_UDP | Need.ENDS_SCTP)
"""The scope of a capture."""


FLOWS_NEWEST = 2500
"""Entries of a table that `flows` reads for its newest thousand: a flow may have three."""


MOST_PEERS = 64
"""Filters of peers that a node is handed: of more, all flows are read and filtered here."""


def flows_scope(
    addresses: tuple[Address, ...], peers: tuple[FlowFilter, ...], *, everything: bool = False
) -> Scope:
    """Return the scope of `flows`.

    Args:
        addresses: of the pod. A flow is joined from every entry of the pod, so lines of all of its
            flows are read, after those of the peers; () for a node, where `peers` filter.
        peers: filters for the other end.
        everything: all entries are wanted, not the newest alone.
    """
    newest = 0 if everything else FLOWS_NEWEST
    by_peer = tuple(f for f in peers if f.peer is not None or f.protocol is not None)
    if len(by_peer) > MOST_PEERS:
        by_peer = ()
    if not addresses:
        return Scope(Need.FLOWS, by_peer or (FlowFilter(),), newest=newest)
    asked = tuple(
        FlowFilter(address, None, peer.peer, peer.peer_port, peer.protocol)
        for address in addresses
        for peer in by_peer
        if peer.peer is None or peer.peer.version == address.version
    )
    own = tuple(FlowFilter(address=address) for address in addresses)
    flows, beside = (asked, own) if asked else (own, ())
    return Scope(Need.FLOWS, flows, beside, newest)
