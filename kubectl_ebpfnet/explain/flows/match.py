"""The joined view: one flow in Cilium's conntrack, Cilium's NAT and nf_conntrack, side by side.

The three tables are joined through the translations: Cilium's NAT map is keyed by the packet as
Cilium's conntrack has it; nf_conntrack's original tuple is the packet as it came to netfilter,
which is before its own NAT and after Cilium's load-balancing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import FactLine
from kubectl_ebpfnet.explain.views.node import NodeView, expanded
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import CtEntry, NatEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.path import TrackedFlow, TrackingNote

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
    """

    protocol: int
    source: Address
    ends: frozenset[tuple[Address, int | None]]
    frontends: frozenset[tuple[Address, int | None]] = frozenset()

    def is_end(self, flow: Flow) -> bool:
        """Tell whether a flow goes from the source to an end."""
        return self._goes_to(flow, self.ends)

    def is_frontend(self, flow: Flow) -> bool:
        """Tell whether a flow goes from the source to a frontend."""
        return self._goes_to(flow, self.frontends)

    def may_be_behind(self, entry: CtEntry) -> bool:
        """Tell whether an entry from the source was load-balanced, maybe by a frontend."""
        flow = entry.flow
        return bool(
            self.frontends
            and entry.rev_nat
            and (flow.protocol, flow.source) == (self.protocol, self.source)
        )

    def _goes_to(self, flow: Flow, ends: frozenset[tuple[Address, int | None]]) -> bool:
        if flow.protocol != self.protocol or flow.source != self.source:
            return False
        return any(
            flow.destination == address and (port is None or port == flow.destination_port)
            for address, port in ends
        )


@dataclass(slots=True)
class _FlowLines:
    """The lines of a node's tables that may belong to the flows of a query."""

    ct: list[FactLine[CtEntry]] = field(default_factory=list)
    service: list[FactLine[CtEntry]] = field(default_factory=list)
    nat: dict[Flow, FactLine[NatEntry]] = field(default_factory=dict)
    nf: list[FactLine[ConntrackEntry]] = field(default_factory=list)


def tracked_flows(node: NodeView, query: FlowQuery, direction: str = "OUT") -> list[TrackedFlow]:
    """Return flows that a node tracks, newest first, at most `SHOWN`.

    Args:
        node: whose tables are read.
        query: the flows to find.
        direction: `OUT` on the sender's node, `IN` on the receiver's.
    """
    tables = _read(node, query, direction)
    flows = [_joined(node, line, tables) for line in _newest(tables.ct)]
    known = {flow.netfilter for flow in flows}
    newest = sorted(tables.nf, key=lambda line: line.fact.timeout or 0, reverse=True)
    alone = [line for line in newest if line.fact not in known]
    flows += [joined(node, line.fact.original, nf=line) for line in alone]
    return flows[:SHOWN]


def _read(node: NodeView, query: FlowQuery, direction: str) -> _FlowLines:
    tables = _FlowLines()
    needle = [str(query.source)]
    elsewhere: list[FactLine[CtEntry]] = []
    for line in node.lines(q.CT, needle):
        entry = line.fact
        if entry.related:
            continue
        if entry.direction == direction and query.is_end(entry.flow):
            tables.ct.append(line)
        elif entry.direction == "SVC" and query.is_frontend(entry.flow):
            tables.service.append(line)
        elif entry.direction == direction and query.may_be_behind(entry):
            elsewhere.append(line)
    # A flow stays with its backend after the service has lost the backend: its SVC entry shows it.
    begun = {(line.fact.flow.source_port, line.fact.rev_nat) for line in tables.service}
    tables.ct += [s for s in elsewhere if (s.fact.flow.source_port, s.fact.rev_nat) in begun]
    for nat in node.lines(q.NAT, needle):
        if nat.fact.direction == "OUT" and nat.fact.flow.source == query.source:
            tables.nat[nat.fact.flow] = nat
    for nf in node.lines(q.CONNTRACK, [str(query.source), expanded(query.source)]):
        original = nf.fact.original
        if query.is_end(original) or query.is_frontend(original):
            tables.nf.append(nf)
    return tables


def _newest(entries: Iterable[FactLine[CtEntry]]) -> list[FactLine[CtEntry]]:
    def age(line: FactLine[CtEntry]) -> tuple[int, int]:
        entry = line.fact
        return (entry.remaining if entry.remaining is not None else 0, entry.expires or 0)

    return sorted(entries, key=age, reverse=True)


def _joined(node: NodeView, line: FactLine[CtEntry], tables: _FlowLines) -> TrackedFlow:
    flow = line.fact.flow
    service = next((s for s in tables.service if s.fact.flow.source_port == flow.source_port), None)
    nat = tables.nat.get(flow)
    nf = next((s for s in tables.nf if _same(s.fact, flow, service)), None)
    return joined(node, service.fact.flow if service else flow, line, service, nat, nf)


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


def joined(
    node: NodeView,
    first: Flow,
    ct: FactLine[CtEntry] | None = None,
    service: FactLine[CtEntry] | None = None,
    nat: FactLine[NatEntry] | None = None,
    nf: FactLine[ConntrackEntry] | None = None,
) -> TrackedFlow:
    """Return the entries that a node has of one flow.

    Args:
        node: whose tables have them.
        first: the packet as its sender sent it.
        ct, service, nat, nf: the entries, None where a table has none.
    """
    last = ct.fact.flow if ct is not None else first
    for translation in (nf, nat):  # NAT by Cilium comes last
        last = translation.fact.translated() if translation is not None else last
    lines = [part for part in (ct, service, nat, nf) if part is not None]
    return TrackedFlow(
        node=node.name,
        flow=first,
        cilium_ct=ct.fact if ct else None,
        service_ct=service.fact if service else None,
        cilium_nat=nat.fact if nat else None,
        netfilter=nf.fact if nf else None,
        translated=last,
        evidence=tuple(e for part in lines for e in part.evidence),
    )


def notes(node: NodeView, flows: Sequence[TrackedFlow]) -> list[TrackingNote]:
    """Return a note for each table that has no entry of the flows on a node."""
    here = [flow for flow in flows if flow.node == node.name]
    notes_of_node: list[TrackingNote] = []
    if not any(flow.cilium_ct for flow in here):
        notes_of_node += _note(node, q.CT, "cilium-ct")
    if not any(flow.cilium_nat for flow in here):
        notes_of_node += _nat_note(node)
    if not any(flow.netfilter for flow in here):
        notes_of_node += _note(node, q.CONNTRACK, "nf_conntrack")
    return notes_of_node


def _note(node: NodeView, fact: Fact[Any], table: str) -> list[TrackingNote]:
    answer = node.table_state(fact)
    text = "no entry" if answer.known else f"not readable: {answer.missing}"
    return [TrackingNote(node.name, table, text, cite.whole(answer.record))]


def _nat_note(node: NodeView) -> list[TrackingNote]:
    if no_snat_map(node):
        answer = node.table_state(q.NAT)
        text = "no snat map on this node: Cilium does no NAT here"
        return [TrackingNote(node.name, "cilium-nat", text, cite.whole(answer.record))]
    return _note(node, q.NAT, "cilium-nat")


def no_snat_map(node: NodeView) -> bool:
    """Tell whether the node was asked for Cilium's SNAT map and has none.

    Old versions print "Unable to open … Skipping." and exit with 0, new ones exit with 1.
    """
    record = node.table_state(q.NAT).record
    if record is None or not record.ran:
        return False
    text = record.stderr + (record.beginning if record.exit_code else b"")
    return b"cilium_snat_v" in text and (b"no such file" in text or b"no map" in text)
