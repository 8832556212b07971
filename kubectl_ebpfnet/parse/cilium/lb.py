"""Cilium's load-balancer: `bpf lb list`, its source ranges, and `service list`.

Source: Cilium cmd/bpf_lb_list.go, pkg/loadbalancer/maps; api/v1/models/service*.go. The map lists
one row a slot, in no order (cilium-facts 2.3): slot 0 is the frontend, the others its backends.
Up to 1.14 the rows of a frontend stand under its address, and the protocol is not printed until
1.17.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium import Backend, Frontend, SourceRange
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.net import Address, protocol_number
from kubectl_ebpfnet.model.untrusted import network
from kubectl_ebpfnet.parse import _json
from kubectl_ebpfnet.parse._text import integer, lines
from kubectl_ebpfnet.parse.cilium.tuple import address_and_port

LB_LIST = "cilium bpf lb list"
RANGE_LIST = "cilium bpf lb list --source-ranges"
SERVICE_LIST = "cilium service list"

_KEY = re.compile(r"^(\S+?)(?: \((\d+)\))?$")
_VALUE = re.compile(r"^(\S+) \((\d+)\)(?: \((\d+)\))?(?: \[([^\]]*)\])?(?: \(L7LB\D*(\d+)\))?$")
_RANGE = re.compile(r"^(\S+) \((\d+)\)$")
_RANGES_HEADER = "SOURCE RANGE"
_TYPES = frozenset(
    {"ClusterIP", "NodePort", "ExternalIPs", "HostPort", "LoadBalancer", "LocalRedirect"}
)


@dataclass(slots=True)
class _FrontendRows:
    """The slots of one frontend, while rows are read."""

    address: Address
    port: int
    protocol: int | None
    internal: bool
    span: Span
    rev_nat: int = 0
    flags: tuple[str, ...] = ()
    proxy_port: int = 0
    unresolved: int = 0
    backends: list[Backend] = field(default_factory=list)


def frontends(data: bytes) -> tuple[Frontend, ...]:
    """Parse `bpf lb list`, the text of any version. Raises ParseError."""
    found: dict[tuple[Address, int, int | None, bool], _FrontendRows] = {}
    for number, key, value in _slots(data):
        frontend_key = _frontend_key(key, number)
        rows = found.setdefault(frontend_key, _FrontendRows(*frontend_key, Span(number)))
        _add_slot(rows, value, number)
    return tuple(_frontend(rows) for rows in found.values())


def source_ranges(data: bytes) -> tuple[SourceRange, ...]:
    """Parse `bpf lb list --source-ranges`. Raises ParseError, also for no table at all: a map that
    could not be opened is no map without ranges."""
    if not data.lstrip().startswith(_RANGES_HEADER.encode()):
        raise ParseError(RANGE_LIST, 1, "no table of source ranges")
    found = []
    for number, text in lines(data, RANGE_LIST):
        if not text.strip() or text.startswith(_RANGES_HEADER):
            continue
        row = _RANGE.match(text.strip())
        if row is None:
            raise ParseError(RANGE_LIST, number, "a row without a range and its reverse NAT id")
        rev_nat = integer(row[2], RANGE_LIST, number, most=0xFFFF)
        found.append(SourceRange(rev_nat, network(row[1], RANGE_LIST, number), Span(number)))
    return tuple(found)


def _slots(data: bytes) -> list[tuple[int, str, str]]:
    """Return (line, key without slot, value) of each row; an empty key repeats the last."""
    found = []
    last = ""
    for number, text in lines(data, LB_LIST):
        if not text.strip() or text.startswith("SERVICE ADDRESS"):
            continue
        if text[0] == " ":
            key, value = last, text.strip()
        else:
            cells = re.split(r" {2,}|\t+", text.strip(), maxsplit=1)
            if len(cells) < 2:
                raise ParseError(LB_LIST, number, "a row without a backend")
            key, value = _without_slot(cells[0], number), cells[1].strip()
        if not key:
            raise ParseError(LB_LIST, number, "a backend without a frontend")
        last = key
        found.append((number, key, value))
    return found


def _without_slot(key: str, number: int) -> str:
    match = _KEY.match(key.strip())
    if match is None:
        raise ParseError(LB_LIST, number, "not a service address")
    return match[1]


def _frontend_key(key: str, number: int) -> tuple[Address, int, int | None, bool]:
    words = key.split("/")
    internal = words[-1] == "i"
    if internal:
        words.pop()
    protocol = protocol_number(words.pop()) if len(words) > 1 else None
    return (*address_and_port(words[0], number, LB_LIST), protocol, internal)


def _add_slot(rows: _FrontendRows, value: str, number: int) -> None:
    if value.startswith("backend ") and value.endswith("not found"):
        rows.unresolved += 1
        return
    match = _VALUE.match(value)
    if match is None:
        raise ParseError(LB_LIST, number, "not a backend")
    slot = integer(match[3], LB_LIST, number, most=65535) if match[3] else 0
    words = tuple(word.strip() for word in (match[4] or "").split(",") if word.strip())
    rows.rev_nat = integer(match[2], LB_LIST, number, most=65535) or rows.rev_nat
    place, _, protocol = match[1].partition("/")
    target, port = address_and_port(place, number, LB_LIST)
    if not slot and (match[4] is not None or (target.is_unspecified and not port)):
        rows.flags, rows.span = words, Span(number)
        rows.proxy_port = integer(match[5], LB_LIST, number, most=65535) if match[5] else 0
        return
    rows.backends.append(
        Backend(
            target,
            port,
            protocol_number(protocol) if protocol else None,
            "quarantined" if "quarantined" in words else "",
            slot,
            span=Span(number),
        )
    )


def _frontend(rows: _FrontendRows) -> Frontend:
    kind = next((word for word in rows.flags if word in _TYPES), "")
    return Frontend(
        address=rows.address,
        port=rows.port,
        protocol=rows.protocol,
        internal=rows.internal,
        type=kind,
        flags=frozenset(word for word in rows.flags if word != kind),
        rev_nat=rows.rev_nat,
        backends=tuple(sorted(rows.backends, key=lambda backend: backend.slot)),
        proxy_port=rows.proxy_port,
        unresolved=rows.unresolved,
        span=rows.span,
    )


def services(data: bytes) -> tuple[Frontend, ...]:
    """Parse `service list -o json`. Raises ParseError."""
    return tuple(_service(item, span) for span, item in _json.list_items(data, SERVICE_LIST))


def _service(item: Any, span: Span) -> Frontend:
    path = ("status", "realized") if js.dig(item, "status", "realized") else ("spec",)
    realized, span = js.dig(item, *path), span.member(*path)
    frontend_address = js.dig(realized, "frontend-address")
    address = js.address(js.text(frontend_address, "ip"))
    if address is None:
        raise ParseError(SERVICE_LIST, 0, "a service without a frontend address")
    flags = js.dig(realized, "flags")
    external = js.text(flags, "extTrafficPolicy") or js.text(flags, "trafficPolicy")
    local = (("Local", external), ("InternalLocal", js.text(flags, "intTrafficPolicy")))
    return Frontend(
        address=address,
        port=_port(js.number(frontend_address, "port")),
        protocol=_protocol(js.text(frontend_address, "protocol")),
        internal=js.text(frontend_address, "scope") == "internal",
        type=js.text(flags, "type"),
        flags=frozenset(word for word, policy in local if policy == "Local"),
        rev_nat=js.number(realized, "id") or 0,
        backends=tuple(
            backend
            for index, item in enumerate(js.items(realized, "backend-addresses"))
            if (backend := _backend(item, span.member("backend-addresses", index))) is not None
        ),
        namespace=js.text(flags, "namespace"),
        name=js.text(flags, "name"),
        span=span,
    )


def _backend(item: Any, span: Span) -> Backend | None:
    address = js.address(js.text(item, "ip"))
    if address is None:
        return None
    return Backend(
        address=address,
        port=_port(js.number(item, "port")),
        protocol=_protocol(js.text(item, "protocol")),
        state=js.text(item, "state"),
        node=js.text(item, "nodeName"),
        preferred=js.flag(item, "preferred") is True,
        span=span,
    )


def _port(value: int | None) -> int:
    return value if value is not None and 0 <= value <= 65535 else 0


def _protocol(name: str) -> int | None:
    return None if name in ("", "ANY", "NONE", "any") else protocol_number(name)
