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
from kubectl_ebpfnet.model.path import SCHEMA, Hop, Packet, Path, Target
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
        "findings": codec.plain(path.findings),
        "flows": codec.plain(path.flows),
        "tracking": codec.plain(path.tracking),
        "records": [record_document(record) for record in _cited(path, bundle)],
        "bundle": {"source": bundle.source, "note": bundle.note},
    }


def safe_text(values: Any, format_name: str) -> str:
    """Return plain values as `json` or `yaml` that is safe to print."""
    return (safe_json if format_name == "json" else safe_yaml)(values)


def safe_json(values: Any) -> str:
    """Return plain values as JSON, indented by two spaces, with a newline at its end.

    Characters that a terminal would obey or would not show are JSON escapes: the text is safe to
    print, and equal for a parser.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False)
    return _NOT_ASCII.sub(_escaped, text) + "\n"


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
    values: dict[str, Any] = codec.plain(hop)
    if not hop.reason:
        del values["reason"]
    del values["packet"]
    evidence = values.pop("evidence")
    return {**values, "packet": _packet(hop.packet), "evidence": evidence}


def _packet(packet: Packet) -> dict[str, Any]:
    values: dict[str, Any] = codec.plain(packet, brief=True)
    return {**values.pop("flow"), **values}


def _cited(path: Path, bundle: Bundle) -> list[Record]:
    parts: tuple[Any, ...] = (*path.hops, *path.findings, *path.flows, *path.tracking)
    numbers = {e.record for item in parts for e in item.evidence}
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
