"""`-o json` and `-o yaml`: the whole answer for programs. Documented in docs/json.md.

The document is versioned by `schema` (model.path.SCHEMA): keys may be added within a version,
none is removed, renamed or given another type.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.net import protocol_name
from kubectl_ebpfnet.model.path import SCHEMA, Attempt, Entrance, Entry, Hop, Packet, Path, WayBack
from kubectl_ebpfnet.model.protocol import codec

_OF_RECORD = ("number", "place", "argv", "exit_code", "started", "error")


def document(path: Path, bundle: Bundle) -> dict[str, Any]:
    """Return the answer as plain values, in the order of docs/json.md."""
    return {
        "schema": SCHEMA,
        **codec.plain(replace(path, outside=None)),
        "protocol": protocol_name(path.protocol),
        "hops": [_hop(hop) for hop in path.hops],
        "attempt": _attempt(path.attempt),
        "answer": _answer(path.answer),
        "outside": _outside(path.outside),
        **sources(
            [
                *path.findings,
                *path.flows,
                *path.tracking,
                *(cite for each in _paths(path) for cite in _way(each)),
            ],
            bundle,
        ),
    }


def _paths(path: Path) -> list[Path]:
    entries = path.outside.entries if path.outside is not None else ()
    return [path, *(entry.path for entry in entries)]


def _way(path: Path) -> list[Any]:
    """Return what has evidence on a path's way."""
    back = path.answer.hops if path.answer is not None else ()
    return [*path.hops, *path.contradictions, *back]


def _outside(entrance: Entrance | None) -> dict[str, Any] | None:
    if entrance is None:
        return None
    entries = [_entry(entry) for entry in entrance.entries]
    return {**codec.plain(replace(entrance, entries=())), "entries": entries}


def _entry(entry: Entry) -> dict[str, Any]:
    """Return what becomes of the packet by one node: the members that differ between nodes."""
    path = entry.path
    whole: dict[str, Any] = codec.plain(replace(path, hops=(), answer=None, attempt=None))
    kept = (
        "verdict",
        "reason",
        "because",
        "seen",
        "cause",
        "fix",
        "contradictions",
        "drop",
        "mtu",
        "presumed",
    )
    return {
        "node": entry.node,
        **{key: whole[key] for key in kept},
        "attempt": _attempt(path.attempt),
        "answer": _answer(path.answer),
        "destination": codec.plain(path.destination),
        "hops": [_hop(hop) for hop in path.hops],
    }


def sources(cites: Iterable[Any], bundle: Bundle) -> dict[str, Any]:
    """Return the last members of a document: the cited records without their output, and the
    bundle.

    Args:
        cites: objects with `evidence`.
        bundle: its records.
    """
    numbers = {each.record for cite in cites for each in cite.evidence}
    cited = (record for record in bundle.records if record.number in numbers)
    return {
        "records": [{key: codec.plain(getattr(each, key)) for key in _OF_RECORD} for each in cited],
        "bundle": {"source": bundle.source, "note": bundle.note},
    }


def _hop(hop: Hop) -> dict[str, Any]:
    values: dict[str, Any] = codec.plain(hop)
    for key in ("reason", "short"):
        if not values[key]:
            del values[key]
    del values["packet"]
    evidence = values.pop("evidence")
    return {**values, "packet": _packet(hop.packet), "evidence": evidence}


def _attempt(attempt: Attempt | None) -> dict[str, Any] | None:
    if attempt is None:
        return None
    return {
        "outcome": attempt.outcome.value,
        "age": attempt.age,
        "text": attempt.text,
        "short": attempt.short,
        "node": attempt.flow.node,
        "flow": codec.plain(attempt.flow.flow),
        "evidence": codec.plain(attempt.evidence),
    }


def _answer(answer: WayBack | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {**codec.plain(answer), "hops": [_hop(hop) for hop in answer.hops]}


def _packet(packet: Packet) -> dict[str, Any]:
    values: dict[str, Any] = codec.plain(packet, brief=True)
    return {**values.pop("flow"), **values}
