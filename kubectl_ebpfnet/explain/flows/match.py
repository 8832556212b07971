"""The joined view: one flow in Cilium's conntrack, Cilium's NAT and nf_conntrack, side by side.

The three tables are joined through the translations: Cilium's NAT map is keyed by the packet as
Cilium's conntrack has it; nf_conntrack's original tuple is the packet as it came to netfilter,
which is before its own NAT and after Cilium's load-balancing.
"""

from __future__ import annotations

import heapq
from dataclasses import field

from kubectl_ebpfnet.explain.flows.join import Join, first_begun
from kubectl_ebpfnet.explain.flows.notes import is_cut
from kubectl_ebpfnet.explain.views.answer import FactLine
from kubectl_ebpfnet.explain.views.node import NodeView, expanded
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import ACK, FIN, RST, TCP, Address, Flow
from kubectl_ebpfnet.model.path import TrackedFlow

SHOWN = 5
"""Flows that an answer carries; a pod may have thousands to one destination."""


@dataclass(frozen=True, slots=True)
class FlowQuery:
    """A filter of tracked flows.

    Attributes:
        protocol: IANA number.
        source: the sender's address.
        ends: destinations: (address, port or None for any port).
        frontends: service addresses that may be rewritten to one of the ends.
        rev_nat: reverse NAT id of the frontends, 0 where it is not known: then only entries of
            load-balancing tell it.
        by_socket: the sockets of the source may themselves replace a frontend by a backend, so that
            no entry names the frontend.
        source_port: the sender's port or echo identifier, None for any.
        passed_by: answers may pass the node by (DSR): then the entry of load-balancing stands alone
            though the flow goes on.
    """

    protocol: int
    source: Address
    ends: frozenset[tuple[Address, int | None]]
    frontends: frozenset[tuple[Address, int | None]] = frozenset()
    rev_nat: int = 0
    by_socket: bool = True
    source_port: int | None = None
    passed_by: bool = False

    def is_end(self, flow: Flow) -> bool:
        """Tell whether a flow goes from the source to an end."""
        return self._goes_to(flow, self.ends)

    def is_frontend(self, flow: Flow) -> bool:
        """Tell whether a flow goes from the source to a frontend."""
        return self._goes_to(flow, self.frontends)

    def is_sent(self, entry: CtEntry) -> bool:
        """Tell whether an OUT entry may be of this query's flows: to an end, and load-balanced by
        no other frontend."""
        if not self.is_end(entry.flow):
            return False
        if not self.frontends:
            return not entry.rev_nat
        if not entry.rev_nat:
            return self.by_socket or self.is_frontend(entry.flow)
        return self.rev_nat == entry.rev_nat

    def may_be_behind(self, entry: CtEntry) -> bool:
        """Tell whether an entry from the source was load-balanced, maybe by a frontend."""
        flow = entry.flow
        return bool(
            self.frontends
            and entry.rev_nat
            and (flow.protocol, flow.source) == (self.protocol, self.source)
        )

    def may_be_hairpin(self, entry: CtEntry) -> bool:
        """Tell whether an entry is of a pod that a Service, maybe a frontend, sent to itself.

        Cilium gives such a packet the source 169.254.42.1 (bpf/lib/lb.h, LBLoopback).
        """
        to_itself = (entry.flow.protocol, entry.flow.destination) == (self.protocol, self.source)
        return bool(self.frontends) and "LBLoopback" in entry.flags and to_itself

    def _goes_to(self, flow: Flow, ends: frozenset[tuple[Address, int | None]]) -> bool:
        if flow.protocol != self.protocol or flow.source != self.source:
            return False
        if self.source_port not in (None, flow.source_port):
            return False
        at = flow.destination
        return (at, flow.destination_port) in ends or (at, None) in ends


@dataclass(slots=True)
class _FlowLines:
    """The lines of a node's tables that may belong to the flows of a query.

    Attributes:
        ct: entries of the flows.
        service: entries of load-balancing, by the client's port and the reverse NAT id.
        nat: by the packet before translation.
        nf: by the source port.
        errors: entries for ICMP errors, by the other end.
    """

    ct: list[FactLine[CtEntry]] = field(default_factory=list)
    service: dict[tuple[int | None, int], FactLine[CtEntry]] = field(default_factory=dict)
    nat: dict[Flow, FactLine[NatEntry]] = field(default_factory=dict)
    nf: dict[int | None, list[FactLine[ConntrackEntry]]] = field(default_factory=dict)
    errors: dict[Address, FactLine[CtEntry]] = field(default_factory=dict)

    def service_of(self, entry: CtEntry) -> FactLine[CtEntry] | None:
        """Return the entry by which an entry's flow was load-balanced."""
        if not entry.rev_nat:
            return None
        return self.service.get((entry.flow.source_port, entry.rev_nat))

    def netfilter_of(
        self, flow: Flow, service: FactLine[CtEntry] | None
    ) -> FactLine[ConntrackEntry] | None:
        """Return nf_conntrack's entry of a flow, which has it before or after a translation."""
        lines = self.nf.get(flow.source_port, ())
        return next((line for line in lines if _same(line.fact, flow, service)), None)


def tracked_flows(node: NodeView, query: FlowQuery, direction: str = "OUT") -> list[TrackedFlow]:
    """Return flows that a node tracks, the one whose source sent last first, at most `SHOWN`.

    Args:
        node: whose tables are read.
        query: the flows to find.
        direction: `OUT` on the sender's node, `IN` on the receiver's.
    """
    tables = _read(node, query, direction)
    join = Join(node)
    ranked: list[tuple[tuple[tuple[int, float], bool, int], _Parts]] = []
    in_netfilter: set[Flow] = set()
    for line in tables.ct:
        service = tables.service_of(line.fact)
        nf = tables.netfilter_of(line.fact.flow, service)
        if nf is not None:
            in_netfilter.add(nf.fact.original)
        ranked.append((_key(join.rank(line.fact, None), line.fact), (line, service, nf)))
    sent = {(line.fact.flow.source_port, line.fact.rev_nat) for line in tables.ct}
    alone = tables.service.items() if _has_every_line(node, query.source) else ()
    for key, service in alone:
        # Without an entry to the backend: lost between load-balancing and conntrack.
        if key not in sent and (query.passed_by or not _went_on(service.fact)):
            key_of_it = _key(join.rank(service.fact, None), service.fact)
            ranked.append((key_of_it, (None, service, None)))
    for nf in (line for lines in tables.nf.values() for line in lines):
        if nf.fact.original not in in_netfilter:
            ranked.append((_key(join.rank(None, nf.fact), nf.fact), (None, None, nf)))
    newest = heapq.nsmallest(SHOWN, ranked, key=lambda each: each[0])
    begun = {end: line.fact.last_request for end, line in tables.errors.items()}
    return first_begun([_joined(join, parts, tables) for _, parts in newest], begun)


def _key(
    rank: tuple[int, float], entry: CtEntry | ConntrackEntry
) -> tuple[tuple[int, float], bool, int]:
    """Return what sorts an entry: of the same second, what was answered first, then by port."""
    if isinstance(entry, ConntrackEntry):
        return rank, "UNREPLIED" in entry.status, entry.original.source_port or 0
    silent = not entry.reply_flags and not entry.last_reply
    return rank, silent, entry.flow.source_port or 0


_Parts = tuple[FactLine[CtEntry] | None, FactLine[CtEntry] | None, FactLine[ConntrackEntry] | None]


def _has_every_line(node: NodeView, source: Address) -> bool:
    """Tell whether conntrack was read with every line of a source, whatever the other end."""
    record = node.table_state(q.CT).record
    if record is None or record.left_out or record.beside_left_out:
        return False
    return set(record.line_filter) <= {str(source), expanded(source)}


def _went_on(entry: CtEntry) -> bool:
    """Tell whether the client sent more than the beginning of a TCP connection."""
    return entry.flow.protocol == TCP and bool(entry.request_flags & (ACK | FIN | RST))


def _read(node: NodeView, query: FlowQuery, direction: str) -> _FlowLines:
    tables = _FlowLines()
    needle = [str(query.source)]
    elsewhere: list[FactLine[CtEntry]] = []
    others: set[Flow] = set()
    for line in node.lines(q.CT, needle):
        entry = line.fact
        if entry.related:
            if entry.direction == direction and entry.flow.source == query.source:
                tables.errors[entry.flow.destination] = line
        elif entry.direction == "SVC":
            if query.is_frontend(entry.flow):
                tables.service[(entry.flow.source_port, entry.rev_nat)] = line
        elif entry.direction != direction:
            continue
        elif query.is_end(entry.flow) if direction == "IN" else query.is_sent(entry):
            tables.ct.append(line)
        elif query.may_be_hairpin(entry):
            elsewhere.append(line)
        else:
            others.add(entry.flow)
            if query.may_be_behind(entry):
                elsewhere.append(line)
    # A flow stays with its backend after the service has lost the backend: its SVC entry shows it.
    behind = [line for line in elsewhere if tables.service_of(line.fact) is not None]
    tables.ct += behind
    others.difference_update(line.fact.flow for line in behind)
    for nat in node.lines(q.NAT, needle):
        if nat.fact.direction == "OUT" and nat.fact.flow.source == query.source:
            tables.nat[nat.fact.flow] = nat
    translated_for_others: set[Flow] = set()
    own = {line.fact.flow for line in tables.ct}
    ports_of_others = {flow.source_port for flow in others}
    whole = not is_cut(node.table_state(q.CT).record)
    for nf in node.lines(q.CONNTRACK, [str(query.source), expanded(query.source)]):
        original = nf.fact.original
        if original in others:
            continue
        if query.is_frontend(original):
            tables.nf.setdefault(original.source_port, []).append(nf)
        elif query.is_end(original):
            # Cilium saw this port's packet go elsewhere: another node sent it here. Of a table
            # that was cut at the node, the entry that shows that may be missing.
            if original in own or (whole and original.source_port not in ports_of_others):
                tables.nf.setdefault(original.source_port, []).append(nf)
        elif nf.fact.destination_nat and original.source == query.source:
            end = nf.fact.translated()
            translated_for_others.add(
                original.with_destination(end.destination, end.destination_port)
            )
    # By netfilter's translation for another Service's address.
    tables.ct = [line for line in tables.ct if line.fact.flow not in translated_for_others]
    return tables


def _joined(join: Join, parts: _Parts, tables: _FlowLines) -> TrackedFlow:
    ct, service, nf = parts
    if service is not None:
        first = service.fact.flow
    elif ct is not None:
        first = ct.fact.flow
    else:
        assert nf is not None
        first = nf.fact.original
    nat = tables.nat.get(ct.fact.flow) if ct is not None else None
    end = ct.fact.flow.destination if ct is not None else first.destination
    return join.flow(first, ct, service, nat, nf, tables.errors.get(end))


def _same(entry: ConntrackEntry, flow: Flow, service: FactLine[CtEntry] | None) -> bool:
    if entry.original == flow:
        return True
    if service is not None and entry.original == service.fact.flow:
        return True
    # Destination NAT by netfilter: Cilium saw the packet before or after it.
    return (
        entry.original.source == flow.source
        and entry.original.source_port == flow.source_port
        and entry.original.protocol == flow.protocol
        and entry.translated().destination == flow.destination
    )
