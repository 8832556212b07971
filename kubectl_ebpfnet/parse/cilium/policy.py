"""`cilium-dbg bpf policy get --all`: policy maps of endpoints.

Source: Cilium cmd/bpf_policy_get.go, pkg/maps/policymap; columns and JSON by version: cilium-facts
2.6. Without -n the text has the labels of an identity, in several lines; only labels of reserved
identities can be turned back into numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium import RESERVED_IDENTITIES, PolicyEntry
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.parse import _json
from kubectl_ebpfnet.parse._text import integer, lines
from kubectl_ebpfnet.parse.cilium.tabwriter import cells, columns
from kubectl_ebpfnet.parse.cilium.tuple import u8proto

SOURCE = "cilium bpf policy get"
STATIC_BITS = 40
"""Bits of identity and direction in the key's prefix length; 8 of the protocol, 16 of the port
follow."""
NOT_COUNTED = 2**64 - 1
UNKNOWN_IDENTITY = -1

_RESERVED = {
    frozenset({f"reserved:{name}"}): number for number, name in RESERVED_IDENTITIES.items()
} | {frozenset({"reserved:kube-apiserver", "reserved:remote-node"}): 7}
"""Label sets of reserved identities, as `identity list` of 1.20-dev prints them."""
_PATH = re.compile(r"(?:Path: |)(/\S*/cilium_policy_(?:v2_)?([0-9]{1,10})):?$")

Rows = list[tuple[int, str]]


def entries(data: bytes) -> tuple[PolicyEntry, ...]:
    """Return every entry of every endpoint, text or JSON. Raises ParseError."""
    if _json.is_json_form(data):
        return _from_json(data)
    found: list[PolicyEntry] = []
    for endpoint, rows in _sections(data):
        body = "\n".join(text for _, text in rows).encode()
        if endpoint is None:
            raise ParseError(SOURCE, rows[0][0], "a row before its endpoint's id")
        if _json.is_json_form(body):
            found += _old_json(endpoint, body, Span(rows[0][0], rows[-1][0]))
        else:
            found += _table(endpoint, rows)
    return tuple(found)


def endpoints(data: bytes) -> tuple[int, ...]:
    """Return the ids of the endpoints whose maps were read, empty ones too. Raises ParseError."""
    if _json.is_json_form(data):
        blocks = _json.list_items(data, SOURCE)
        ids = (js.text(block, "EndpointID") for _, block in blocks)
        return tuple(integer(digits, SOURCE) for digits in ids if digits)
    found: dict[int, None] = {}
    for number, text in lines(data, SOURCE):
        path = _PATH.match(text.rstrip())
        if text.startswith("Endpoint ID:"):
            found[integer(text.partition(":")[2].strip(), SOURCE, number)] = None
        elif path is not None:
            found[int(path[2])] = None
    return tuple(found)


def _sections(data: bytes) -> Iterator[tuple[int | None, Rows]]:
    """Yield (endpoint, lines without leading empty lines) of each map that has lines.

    A map's lines come after `Endpoint ID: N` and `Path: …`, up to 1.10 under `<path>:`.
    """
    endpoint: int | None = None
    rows: Rows = []
    for number, text in lines(data, SOURCE):
        is_heading = text.startswith("Endpoint ID:")
        path = _PATH.match(text.rstrip())
        if not is_heading and path is None:
            if rows or text.strip():
                rows.append((number, text))
            continue
        if rows:
            yield endpoint, rows
        rows = []
        if is_heading:
            endpoint = integer(text.partition(":")[2].strip(), SOURCE, number)
        elif path is not None and not text.startswith("Path:"):
            endpoint = int(path[2])
    if rows:
        yield endpoint, rows


def _from_json(data: bytes) -> tuple[PolicyEntry, ...]:
    found: list[PolicyEntry] = []
    for span, block in _json.list_items(data, SOURCE):
        digits = js.text(block, "EndpointID")
        if not digits:
            raise ParseError(SOURCE, 0, "a map without its EndpointID")
        endpoint = integer(digits, SOURCE)
        for index, item in enumerate(js.items(block, "Content")):
            found.append(_json_entry(endpoint, item, span.member("Content", index)))
    return tuple(found)


def _old_json(endpoint: int, body: bytes, span: Span) -> list[PolicyEntry]:
    """Return the entries of one map's document (≤ 1.10), which stands in the lines of `span`."""
    try:
        items = _json.list_items(body, SOURCE, span)
        return [_json_entry(endpoint, item, place) for place, item in items]
    except ParseError as error:
        line = min(error.line or 1, len(span.lines)) + span.line - 1
        raise ParseError(SOURCE, line, error.problem) from None


def _json_entry(endpoint: int, item: Any, span: Span) -> PolicyEntry:
    key = js.dig(item, "Key")
    identity = js.number(key, "Identity")
    direction = js.number(key, "TrafficDirection")
    if identity is None or direction not in (0, 1):
        raise ParseError(SOURCE, 0, "an entry without identity or direction")
    port_number = js.number(key, "DestPortNetwork")
    port_number = js.number(key, "DestPort") if port_number is None else port_number
    port = _swapped(port_number or 0)
    protocol = js.number(key, "Nexthdr") or 0
    bits = js.number(key, "Prefixlen")
    port_bits = (16 if port else 0) if bits is None else max(0, bits - STATIC_BITS - 8)
    proxy = js.number(item, "ProxyPortNetwork")
    proxy = js.number(item, "ProxyPort") if proxy is None else proxy
    return PolicyEntry(
        endpoint_id=endpoint,
        deny=bool((js.number(item, "Flags") or 0) & 1),
        direction="egress" if direction else "ingress",
        identity=identity,
        protocol=protocol,
        ports=_range(port, min(port_bits, 16)),
        proxy_port=_swapped(proxy or 0),
        auth=_auth(item),
        precedence=js.number(item, "Precedence"),
        packets=_counted(js.number(item, "Packets")),
        bytes=_counted(js.number(item, "Bytes")),
        span=span,
    )


def _auth(item: Any) -> str:
    """Return the mutual authentication of an entry; the highest bit tells a rule's own choice."""
    number = js.number(item, "AuthRequirement")
    number = js.number(item, "AuthType") if number is None else number
    kind = (number or 0) & 0x7F
    return {0: "", 1: "spire", 2: "test-always-fail"}.get(kind, f"auth type {kind}")


def _swapped(value: int) -> int:
    return int.from_bytes((value & 0xFFFF).to_bytes(2, "little"), "big")


def _range(port: int, bits: int) -> tuple[int, int]:
    """Return the range of ports that share the first bits of a port."""
    if bits == 0:
        return (0, 65535)
    width = 1 << (16 - bits)
    low = port - port % width
    return (low, low + width - 1)


def _counted(value: int | None) -> int | None:
    return None if value is None or value == NOT_COUNTED else value


def _table(endpoint: int, rows: Rows) -> list[PolicyEntry]:
    found: list[PolicyEntry] = []
    header: list[tuple[str, int]] = []
    for number, text in rows:
        if text.startswith("POLICY "):
            header = columns(text)
            continue
        if not text.strip() or text.startswith("Policy stats empty"):
            continue
        if not header:
            raise ParseError(SOURCE, number, "a row before the header")
        row = cells(text, header)
        if found and not row.get("POLICY") and text[0] == " ":
            entry = replace(found[-1], span=Span(found[-1].span.line, number))
            found[-1] = _with_labels(entry, (*entry.labels, _identity_cell(row)))
        else:
            found.append(_row(endpoint, row, number))
    return found


def _with_labels(entry: PolicyEntry, labels: tuple[str, ...]) -> PolicyEntry:
    """Return the entry of the identity that has exactly these labels.

    The number is unknown for `reserved:kube-apiserver` with `reserved:world`, a CIDR identity, and
    for every identity of a pod.
    """
    identity = _RESERVED.get(frozenset(labels), UNKNOWN_IDENTITY)
    return replace(entry, labels=labels, identity=identity)


def _identity_cell(row: dict[str, str]) -> str:
    return next(
        (value for title, value in row.items() if title.startswith(("LABELS", "IDENTITY"))), ""
    )


def _row(endpoint: int, row: dict[str, str], number: int) -> PolicyEntry:
    policy, direction = row.get("POLICY", ""), row.get("DIRECTION", "").lower()
    if policy not in ("Allow", "Deny") or direction not in ("ingress", "egress"):
        raise ParseError(SOURCE, number, "not a policy entry")
    identity_cell = _identity_cell(row)
    protocol, ports = _ports(row.get("PORT/PROTO", "ANY"), number)
    proxy = row.get("PROXY PORT", "NONE")
    entry = PolicyEntry(
        endpoint_id=endpoint,
        deny=policy == "Deny",
        direction=direction,
        identity=0,
        protocol=protocol,
        ports=ports,
        proxy_port=0 if proxy in ("NONE", "", "-") else integer(proxy, SOURCE, number, most=65535),
        auth="" if row.get("AUTH TYPE", "") in ("", "-", "disabled") else row["AUTH TYPE"],
        packets=_column(row.get("PACKETS", "-"), number),
        bytes=_column(row.get("BYTES", "-"), number),
        span=Span(number),
    )
    if identity_cell.isascii() and identity_cell.isdigit():
        return replace(entry, identity=integer(identity_cell, SOURCE, number))
    if identity_cell == "ANY":
        return entry
    return _with_labels(entry, (identity_cell,) if identity_cell else ())


def _column(text: str, number: int) -> int | None:
    return None if text in ("-", "") else integer(text, SOURCE, number)


def _ports(text: str, number: int) -> tuple[int, tuple[int, int]]:
    """Parse `80/TCP`, `8080-8095/TCP`, `0x50/12/TCP` (≤ 1.16), `TCP`, `ANY`."""
    words = text.split("/")
    protocol = u8proto(words[-1])
    if protocol is None:
        raise ParseError(SOURCE, number, "unknown protocol")
    if len(words) == 1:
        return protocol, (0, 65535)
    if len(words) == 3:
        port = integer(words[0], SOURCE, number, most=65535)
        return protocol, _range(port, integer(words[1], SOURCE, number, most=16))
    low, dash, high = words[0].partition("-")
    first = integer(low, SOURCE, number, most=65535)
    return protocol, (first, integer(high, SOURCE, number, most=65535) if dash else first)
