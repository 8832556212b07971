"""Every flow that a node tracks, joined out of Cilium's conntrack and NAT and nf_conntrack.

One packet leaves up to five entries on a node: SVC (load-balanced), OUT (client's side) and IN
(server's side) in Cilium's conntrack, OUT in its NAT, one in nf_conntrack. They are one flow: the
joins are those of match.py, made by dictionaries since a node may have 100,000 of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, replace
from typing import Any

from kubectl_ebpfnet.explain.flows.join import Join
from kubectl_ebpfnet.explain.flows.notes import no_snat_map
from kubectl_ebpfnet.explain.views.answer import FactLine
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView, expanded
from kubectl_ebpfnet.explain.views.placed import placed_pod
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.flows import FlowList, is_over
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.path import TrackedFlow
from kubectl_ebpfnet.model.protocol.questions import FlowFilter

_Client = tuple[int, Address, int | None, int]  # protocol, address, port, reverse NAT id


@dataclass(slots=True)
class _JoinIndex:
    """Entries of a node's tables, by the keys that join them."""

    ct: dict[Flow, FactLine[CtEntry]] = field(default_factory=dict)
    service: dict[_Client, FactLine[CtEntry]] = field(default_factory=dict)
    nat: dict[Flow, FactLine[NatEntry]] = field(default_factory=dict)
    nf: dict[Flow, FactLine[ConntrackEntry]] = field(default_factory=dict)
    nf_translated: dict[Flow, FactLine[ConntrackEntry]] = field(default_factory=dict)
    errors: dict[tuple[Address, Address], FactLine[CtEntry]] = field(default_factory=dict)


MOST = 1000
"""Flows that are shown, unless all are asked for."""


def of_node(
    name: str,
    bundle: Bundle,
    filters: Sequence[FlowFilter] = (),
    most: int | None = None,
    *,
    alive: bool = False,
) -> FlowList:
    """Return the flows of a node that fit any filter.

    Args:
        name: of the node.
        bundle: all records.
        filters: () for every flow.
        most: of the newest flows, None for all.
        alive: leave out those that are over; they are counted.
    """
    return flows_of(ClusterView(bundle).node(name), filters, most, alive=alive)


def flows_of(
    node: NodeView,
    filters: Sequence[FlowFilter] = (),
    most: int | None = None,
    *,
    alive: bool = False,
) -> FlowList:
    """Return the same of a node's view: those of one cluster share what all objects are read for.

    Args:
        node: the view.
        filters, most, alive: as of `of_node`.
    """
    tables = _read(node, filters)
    join = Join(node)
    fits = _Fits(filters)
    found = [flow for flow in _joined(join, tables) if fits(flow)]
    found.sort(key=lambda flow: (join.rank_of(flow), _words(flow)))
    missing = tuple(text for _, text in _missing(node)) + tuple(_left_out(node))
    shown = [flow for flow in found if not is_over(flow)] if alive else found
    flows = tuple(shown[:most])
    known = bool(found) or _known(node)
    return FlowList(
        f"node {node.name}", node.name, flows, missing, known, len(shown) - len(flows),
        len(found) - len(shown),
    )  # fmt: skip


def of_pod(
    namespace: str,
    name: str,
    bundle: Bundle,
    peers: Sequence[FlowFilter] = (FlowFilter(),),
    most: int | None = None,
    *,
    alive: bool = False,
) -> FlowList:
    """Return the flows of a pod.

    Args:
        namespace: of the pod.
        name: of the pod.
        bundle: all records.
        peers: filters of the flows' other end, by `peer`, `peer_port` and `protocol`.
        most: of the newest flows, None for all.
        alive: leave out those that are over; they are counted.
    """
    target = f"pod {namespace}/{name}"
    pod = placed_pod(ClusterView(bundle), namespace, "pod", name)
    if not pod.node:
        return FlowList(target, "", (), (f"{target} is on no node that is known",), known=False)
    if not pod.addresses:
        reason = f"the addresses of {target} are not known"
        return FlowList(target, pod.node, (), (reason,), known=False)
    filters = pod_filters(pod.addresses, peers)
    found = of_node(pod.node, bundle, filters, most, alive=alive)
    missing = found.missing
    if pod.host_network:
        note = f"{target} shares the address of node {pod.node}: these are the node's flows"
        missing = (note, *missing)
    return replace(
        found, target=target, missing=missing, owners=(f"{namespace}/{name}",) * len(found.flows)
    )


def pod_filters(
    addresses: Iterable[Address], peers: Sequence[FlowFilter]
) -> tuple[FlowFilter, ...]:
    """Return the filters of a pod's flows: each address with each peer of its IP version."""
    return tuple(
        FlowFilter(address, None, peer.peer, peer.peer_port, peer.protocol)
        for address in addresses
        for peer in peers
        if peer.peer is None or peer.peer.version == address.version
    )


def _read(node: NodeView, filters: Sequence[FlowFilter]) -> _JoinIndex:
    ends = {end for f in filters for end in (f.address or f.peer,) if end is not None}
    # A filter without an address needs every line.
    every = any(f.address is None and f.peer is None for f in filters)
    needles = () if every else sorted({t for end in ends for t in (str(end), expanded(end))})
    tables = _JoinIndex()
    service: list[FactLine[CtEntry]] = []
    for line in node.lines(q.CT, needles):
        entry = line.fact
        if entry.related:
            tables.errors[(entry.flow.source, entry.flow.destination)] = line
        elif entry.direction == "SVC":
            service.append(line)
        elif entry.flow not in tables.ct or entry.direction == "OUT":
            tables.ct[entry.flow] = line
    for line in service:
        flow = line.fact.flow
        tables.service[(flow.protocol, flow.source, flow.source_port, line.fact.rev_nat)] = line
    for nat in node.lines(q.NAT, needles):
        if nat.fact.direction == "OUT":
            tables.nat[nat.fact.flow] = nat
    for nf in node.lines(q.CONNTRACK, needles):
        tables.nf[nf.fact.original] = nf
        tables.nf_translated.setdefault(nf.fact.translated(), nf)
    return tables


class _Fits:
    """Tells whether a flow fits any of some filters, before or after any translation: `--to` may
    name either. A Service may have thousands of peers, so they are looked up by their address."""

    def __init__(self, filters: Sequence[FlowFilter]) -> None:
        self._all = not filters
        self._by_peer: dict[Address | None, list[FlowFilter]] = {}
        for each in filters:
            self._by_peer.setdefault(each.peer, []).append(each)

    def __call__(self, found: TrackedFlow) -> bool:
        """Tell it of a flow."""
        flows = [found.flow, found.translated]
        flows += [found.cilium_ct.flow] if found.cilium_ct else []
        flows += [found.netfilter.original, found.netfilter.reply] if found.netfilter else []
        ends = {None, *(end for flow in flows for end in (flow.source, flow.destination))}
        return self._all or any(
            each.fits(*flows) for end in ends for each in self._by_peer.get(end, ())
        )


def _joined(join: Join, tables: _JoinIndex) -> list[TrackedFlow]:
    found: list[TrackedFlow] = []
    for flow, line in tables.ct.items():
        client = (flow.protocol, flow.source, flow.source_port, line.fact.rev_nat)
        service = tables.service.get(client) if line.fact.rev_nat else None
        nf = _netfilter(tables, flow, service)
        found.append(_tracked(join, tables, line, service, tables.nat.get(flow), nf))
    used = {flow.service_ct.flow for flow in found if flow.service_ct}
    for service in tables.service.values():
        if service.fact.flow not in used:
            nf = _netfilter(tables, service.fact.flow, None)
            found.append(_tracked(join, tables, None, service, None, nf))
    used = {flow.cilium_nat.flow for flow in found if flow.cilium_nat}
    for nat in tables.nat.values():
        if nat.fact.flow not in used:
            nf = _netfilter(tables, nat.fact.flow, None)
            found.append(_tracked(join, tables, None, None, nat, nf))
    used = {flow.netfilter.original for flow in found if flow.netfilter}
    for nf in tables.nf.values():
        if nf.fact.original not in used:
            found.append(_tracked(join, tables, None, None, None, nf))
    return found


def _netfilter(
    tables: _JoinIndex, flow: Flow, service: FactLine[CtEntry] | None
) -> FactLine[ConntrackEntry] | None:
    """Find nf_conntrack's entry, which has the packet before or after Cilium's translation."""
    nf = tables.nf.get(flow)
    if nf is None and service is not None:
        nf = tables.nf.get(service.fact.flow)
    if nf is None:
        behind = tables.nf_translated.get(flow)
        if behind is not None and behind.fact.original.source == flow.source:
            nf = behind
    return nf


def _tracked(
    join: Join,
    tables: _JoinIndex,
    ct: FactLine[CtEntry] | None,
    service: FactLine[CtEntry] | None,
    nat: FactLine[NatEntry] | None,
    nf: FactLine[ConntrackEntry] | None,
) -> TrackedFlow:
    if service is not None:
        first = service.fact.flow
    elif nf is not None and ct is None and nat is None:
        first = nf.fact.original
    else:
        first = ct.fact.flow if ct is not None else nat.fact.flow  # type: ignore[union-attr]
        if nf is not None and nf.fact.destination_nat:
            first = nf.fact.original
    ends = (ct.fact.flow.source, ct.fact.flow.destination) if ct is not None else None
    errors = tables.errors.get(ends) if ends is not None else None
    return join.flow(first, ct, service, nat, nf, errors)


def _words(flow: TrackedFlow) -> tuple[int, str, int, str]:
    f = flow.flow
    return f.protocol, str(f.source), f.source_port or 0, str(f.destination)


def _known(node: NodeView) -> bool:
    """Tell whether a table was read that has every flow: Cilium's where there is Cilium."""
    missing = {question.name for question, _ in _missing(node)}
    has_cilium = bool(node.config.routing_mode or node.config.version or node.config.masquerade)
    return q.CT.name not in missing or (q.CONNTRACK.name not in missing and not has_cilium)


_TABLES: tuple[tuple[Fact[Any], str], ...] = (
    (q.CT, "Cilium's conntrack"),
    (q.NAT, "Cilium's NAT"),
    (q.CONNTRACK, "nf_conntrack"),
)


def _left_out(node: NodeView) -> Iterator[str]:
    """Yield a note for each table of which only the newest entries came home."""
    cut = False
    for question, name in _TABLES:
        record = node.table_state(question).record
        if record is not None and (record.left_out or record.beside_left_out or record.about):
            cut = True
            kept = sum(chunk.count(b"\n") for chunk in record.stdout.chunks())
            which, more = "newest", f"{record.left_out + record.beside_left_out:,}"
            if record.about:  # by the keys of what conntrack shows
                which, more = "flows'", f"about {more}"
            yield (
                f"{name} of node {node.name}: the {which} {kept:,} entries were read, and "
                f"{more} more are there (--all reads them)"
            )
    if cut:
        yield "where a table was not read whole, a flow may have entries that are not shown with it"


def _missing(node: NodeView) -> list[tuple[Fact[Any], str]]:
    """Return each table that could not be read, and why."""
    missing: list[tuple[Fact[Any], str]] = []
    for question, name in _TABLES:
        answer = node.table_state(question)
        if not answer.known and not (question is q.NAT and no_snat_map(node)):
            missing.append((question, f"{name} of node {node.name}: {answer.missing}"))
        elif unread := node.unread_lines(question):
            missing.append((question, f"{name} of node {node.name}: {unread}"))
    return missing
