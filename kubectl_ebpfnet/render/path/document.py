"""`-o json` and `-o yaml`: the whole answer for programs. Documented in docs/json.md.

The document is versioned by `schema` (model.path.SCHEMA): keys may be added within a version,
none is removed, renamed or given another type.
"""

from __future__ import annotations

import json
import re
from typing import Any

from kubectl_ebpfnet.model.evidence import Bundle, Record
from kubectl_ebpfnet.model.net import protocol_name
from kubectl_ebpfnet.model.path import (
    SCHEMA,
    Evidence,
    Finding,
    Hop,
    Packet,
    Path,
    Target,
    TrackedFlow,
    TrackingNote,
)
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.render.text.style import is_visible

_NOT_ASCII = re.compile(r"[^\n -~]")


def document(path: Path, bundle: Bundle) -> dict[str, Any]:
    """Return the answer as plain values, in the order of docs/json.md."""
    return {
        "schema": SCHEMA,
        "source": _target(path.source),
        "destination": _target(path.destination),
        "protocol": protocol_name(path.protocol),
        "verdict": path.verdict.value,
        "reason": path.reason,
        "hops": [_hop(hop) for hop in path.hops],
        "findings": [_finding(finding) for finding in path.findings],
        "flows": [_tracked(flow) for flow in path.flows],
        "tracking": [_note(note) for note in path.tracking],
        "records": [record_document(record) for record in _cited(path, bundle)],
        "bundle": {"source": bundle.source, "note": bundle.note},
    }


def json_text(path: Path, bundle: Bundle) -> str:
    """Return the document as JSON, indented by two spaces.

    Characters that a terminal would obey or would not show are JSON escapes: the text is safe to
    print, and equal for a parser.
    """
    return safe_json(document(path, bundle))


def safe_json(values: Any) -> str:
    """Return plain values as JSON that is safe to print, with a newline at its end."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    return _NOT_ASCII.sub(_escaped, text) + "\n"


def yaml_text(path: Path, bundle: Bundle) -> str:
    """Return the document as YAML."""
    return safe_yaml(document(path, bundle))


def safe_yaml(values: Any) -> str:
    """Return plain values as YAML that is safe to print."""
    import yaml  # 10 ms, for this format alone

    # PyYAML escapes every character beyond ASCII, or hardly any that a terminal obeys.
    harmless = all(map(is_visible, set(json.dumps(values, ensure_ascii=False))))
    return yaml.safe_dump(
        values, sort_keys=False, allow_unicode=harmless, width=2**20, default_flow_style=False
    )


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return character if is_visible(character) else json.dumps(character)[1:-1]


def _target(target: Target) -> dict[str, Any]:
    return {
        "text": target.text,
        "kind": target.kind,
        "namespace": target.namespace,
        "name": target.name,
        "address": None if target.address is None else str(target.address),
        "port": target.port,
        "node": target.node,
        "note": target.note,
    }


def _hop(hop: Hop) -> dict[str, Any]:
    values: dict[str, Any] = {
        "number": hop.number,
        "place": hop.place.value,
        "where": hop.where,
        "node": hop.node,
        "kind": hop.kind.value,
        "summary": hop.summary,
        "state": hop.state.value,
    }
    if hop.reason:
        values["reason"] = hop.reason
    values["drops"] = hop.drops
    values["packet"] = _packet(hop.packet)
    values["evidence"] = _evidence(hop.evidence)
    return values


def _packet(packet: Packet) -> dict[str, Any]:
    values = codec.flow(packet.flow)
    if packet.outer is not None:
        values["outer"] = codec.flow(packet.outer)
    if packet.vni is not None:
        values["vni"] = packet.vni
    if packet.mark is not None:
        values["mark"] = packet.mark
    return values


def _evidence(evidence: tuple[Evidence, ...]) -> list[dict[str, Any]]:
    return [
        {"record": item.record, "lines": list(item.lines), "excerpt": list(item.excerpt)}
        for item in evidence
    ]


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity.value,
        "title": finding.title,
        "detail": finding.detail,
        "evidence": _evidence(finding.evidence),
    }


def _tracked(tracked: TrackedFlow) -> dict[str, Any]:
    return {
        "node": tracked.node,
        "flow": codec.flow(tracked.flow),
        "cilium_ct": codec.plain(tracked.cilium_ct),
        "service_ct": codec.plain(tracked.service_ct),
        "cilium_nat": codec.plain(tracked.cilium_nat),
        "netfilter": codec.plain(tracked.netfilter),
        "translated": codec.flow(tracked.translated),
        "evidence": _evidence(tracked.evidence),
    }


def _note(note: TrackingNote) -> dict[str, Any]:
    return {
        "node": note.node,
        "table": note.table,
        "text": note.text,
        "evidence": _evidence(note.evidence),
    }


def _cited(path: Path, bundle: Bundle) -> list[Record]:
    parts: tuple[tuple[Hop | Finding | TrackedFlow | TrackingNote, ...], ...] = (
        path.hops,
        path.findings,
        path.flows,
        path.tracking,
    )
    numbers = {e.record for group in parts for item in group for e in item.evidence}
    return [record for record in bundle.records if record.number in numbers]


def record_document(record: Record) -> dict[str, Any]:
    """Return a cited record without its output."""
    return {
        "number": record.number,
        "place": codec.plain(record.place),
        "argv": list(record.argv),
        "exit_code": record.exit_code,
        "started": record.started,
        "error": record.error,
    }
