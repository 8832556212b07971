"""`-o json`, `-o yaml` and `-o events`: the answer of `trace` for programs. docs/json.md has it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.trace import SCHEMA, Notice, Sighting, Trace
from kubectl_ebpfnet.render.path.document import document as path_document
from kubectl_ebpfnet.render.text.documents import escaped_json


def document(trace: Trace, bundle: Bundle) -> dict[str, Any]:
    """Return the answer as plain values; `path` is the document of `path -o json`."""
    path = path_document(trace.path, bundle) if trace.path is not None else None
    return {"schema": SCHEMA, **codec.plain(replace(trace, path=None)), "path": path}


def notice_line(notice: Notice) -> str:
    """Return a notice of Cilium as one line of JSON: its one member is `notice`."""
    values = {"notice": codec.plain(notice)}
    return escaped_json(json.dumps(values, separators=(",", ":"), ensure_ascii=False))


def event_line(sighting: Sighting, packet: int) -> str:
    """Return a sighting as one line of JSON: `packet` is the number of its packet."""
    values = {"packet": packet, **codec.plain(sighting)}
    return escaped_json(json.dumps(values, separators=(",", ":"), ensure_ascii=False))
