"""How full a map of a node is: what the node side counted, else what was printed of it against the
size that the agent has set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import LineCounts, Output, Record
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.room import MapRoom, Table
from kubectl_ebpfnet.parse.node_side import is_node_question

_EVICTING = frozenset({Table.CT_TCP, Table.CT_ANY, Table.NAT})
"""LRU maps on every kernel since 4.10, which Cilium needs."""
_TCP6 = re.compile(rb"^TCP [^\n]*? -> \[", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Room:
    """How many entries a map has, and how many it can have.

    Attributes:
        entries: that it has; of a large map the node side's estimate unless `exact`.
        most: that it can have.
        exact: every entry was counted.
        evicts: a new entry takes the place of an old one; else it is refused.
        evidence: of both numbers.
    """

    entries: int
    most: int
    exact: bool
    evicts: bool
    evidence: tuple[Evidence, ...]

    @property
    def full(self) -> float:
        """The part of the map that is in use."""
        return self.entries / self.most

    @property
    def text(self) -> str:
        """`4,090 of at most 4,096 entries`."""
        about = "" if self.exact else "about "
        return f"{about}{self.entries:,} of at most {self.most:,} entries"


def of_map(node: NodeView, table: Table, version: int, endpoint_id: int = 0) -> Room | None:
    """Return how full a map is; None where its size or its entries are not known.

    Args:
        node: that has the map.
        table: which one.
        version: 4 or 6.
        endpoint_id: of a policy map.
    """
    answer = node[q.MAP_ROOM]
    fact = next((f for f in answer.facts if _is(f, table, version, endpoint_id)), None)
    if fact is None or fact.most <= 0:
        return None
    evidence = cite.of(answer.record, fact.span)
    if fact.entries is None:
        entries, record = _printed(node, table, version, endpoint_id)
        if entries is None:
            return None
        fact, evidence = replace(fact, entries=entries), evidence + cite.of(record)
    evicts = table in _EVICTING if fact.evicts is None else fact.evicts
    return Room(fact.entries or 0, fact.most, fact.exact, evicts, evidence)


def _is(fact: MapRoom, table: Table, version: int, endpoint_id: int) -> bool:
    return (
        fact.table is table
        and fact.version in (None, version)
        and fact.endpoint_id in (None, endpoint_id)
    )


def _printed(
    node: NodeView, table: Table, version: int, endpoint_id: int
) -> tuple[int | None, Record | None]:
    """Return how many entries of a map the agent printed, and the record of them."""
    if table in _EVICTING:
        state = node.table_state(q.NAT if table is Table.NAT else q.CT)
        counts = _counts(state.record) if state.known and state.record is not None else None
        return (None if counts is None else _of(counts, table, version)), state.record
    if table is Table.POLICY:
        rows = node[q.POLICY_MAPS]
        own = len(node.having(q.POLICY_MAPS, endpoint_id, "endpoint_id"))
        asked = rows.record is not None and not rows.record.line_filter  # else of some endpoints
        return (own if rows.known and (own or asked) else None), rows.record
    if table is Table.SERVICES:
        front = node[q.LB_MAP]
        if front.record is not None and front.record.counts is not None:
            return _of(front.record.counts, table, version), front.record
        of_version = [f for f in front.facts if f.address.version == version]
        slots = sum(1 + len(f.backends) + f.unresolved for f in of_version)
        whole = front.record is not None and not front.record.left_out
        return (slots if front.known and whole else None), front.record
    if table is Table.IPCACHE:
        return _length(node[q.IPCACHE])
    return _length(node[q.ENDPOINT_MAP]) if table is Table.ENDPOINTS else (None, None)


def _length(answer: Answer[Any]) -> tuple[int | None, Record | None]:
    left_out = answer.record.left_out if answer.record is not None else 0
    return (len(answer.facts) + left_out if answer.known else None), answer.record


def _of(counts: LineCounts, table: Table, version: int) -> int:
    tcp, other = (counts.tcp4, counts.other4) if version == 4 else (counts.tcp6, counts.other6)
    return {Table.CT_TCP: tcp, Table.CT_ANY: other}.get(table, tcp + other)


def _counts(record: Record) -> LineCounts | None:
    """Return the lines of an agent's table by their kind, None where a part was printed uncounted.

    A whole table is counted as the script of a live run does it (collect/ask/script.py).
    """
    if record.line_filter or is_node_question(record.argv):
        return record.counts
    entries = six = tcp = tcp6 = 0
    for text in _whole_lines(record.stdout):  # no object for each of a million lines
        entries += text.count(b" -> ")
        tcp += text.count(b"\nTCP ") + text.startswith(b"TCP ")
        six_here = text.count(b" -> [")
        six += six_here
        tcp6 += len(_TCP6.findall(text)) if six_here else 0
    return LineCounts(tcp - tcp6, tcp6, entries - six - (tcp - tcp6), six - tcp6)


def _whole_lines(output: Output) -> Iterator[bytes]:
    """Yield an output in large pieces that end with a line."""
    rest: list[bytes] = []
    for chunk in output.chunks():
        end = chunk.rfind(b"\n") + 1
        if end:
            yield b"".join((*rest, chunk[:end]))
            rest = []
        rest.append(chunk[end:])
    yield b"".join(rest)
