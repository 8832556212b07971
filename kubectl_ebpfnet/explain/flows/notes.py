"""Why a table has no entry of a flow, or not all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.path import TrackedFlow, TrackingNote


def notes(node: NodeView, flows: Sequence[TrackedFlow]) -> list[TrackingNote]:
    """Return a note for each table that has no entry of the flows on a node, or more than were
    read."""
    here = [flow for flow in flows if flow.node == node.name]
    notes_of_node: list[TrackingNote] = []
    notes_of_node += _note(node, q.CT, "cilium-ct", any(flow.cilium_ct for flow in here))
    if no_snat_map(node):
        notes_of_node += _nat_note(node)
    else:
        notes_of_node += _note(node, q.NAT, "cilium-nat", any(flow.cilium_nat for flow in here))
    notes_of_node += _note(node, q.CONNTRACK, "nf_conntrack", any(flow.netfilter for flow in here))
    return notes_of_node


def _note(node: NodeView, fact: Fact[Any], table: str, has_some: bool) -> list[TrackingNote]:
    answer = node.table_state(fact)
    more = _not_shown(answer.record) if answer.known else ""
    unread = node.unread_lines(fact)
    none = f"no entry, but {unread}" if unread else "no entry"
    text = none if answer.known else f"not readable: {answer.missing}"
    if has_some:
        text = more
    elif more:
        text = f"{text} in what was read; {more}"
    return [TrackingNote(node.name, table, text, cite.whole(answer.record))] if text else []


def is_cut(record: Record | None) -> bool:
    """Tell whether a node left entries of a table out."""
    return record is not None and bool(record.left_out or record.beside_left_out or record.about)


def _not_shown(record: Record | None) -> str:
    """Return how many entries a node left out of a table, "" for none."""
    if record is None or not is_cut(record):
        return ""
    parts, about = [], "about " if record.about else ""
    if record.left_out:
        parts.append(f"{about}{record.left_out:,} older entries of this tuple")
    if record.beside_left_out:
        parts.append(f"{about}{record.beside_left_out:,} entries of other flows")
    if record.about and not record.left_out:
        return "entries were looked up for the connections alone that conntrack shows"
    return f"{' and '.join(parts)} are not shown"


def _nat_note(node: NodeView) -> list[TrackingNote]:
    answer = node.table_state(q.NAT)
    text = "no snat map on this node: Cilium does no NAT here"
    return [TrackingNote(node.name, "cilium-nat", text, cite.whole(answer.record))]


def no_snat_map(node: NodeView, version: int = 4) -> bool:
    """Tell whether the node was asked for Cilium's SNAT map of an IP version and has none.

    Old versions print "Unable to open … Skipping." and exit with 0, new ones exit with 1.
    """
    record = node.table_state(q.NAT).record
    if record is None or not record.ran:
        return False
    text = record.stderr + (record.beginning if record.exit_code else b"")
    return b"cilium_snat_v%d" % version in text and (b"no such file" in text or b"no map" in text)
