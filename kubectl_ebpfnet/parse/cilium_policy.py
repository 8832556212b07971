"""`cilium-dbg bpf policy get --all`: policy maps of endpoints.

Source: Cilium cmd/bpf_policy_get.go, pkg/maps/policymap; columns and JSON by version: cilium-facts
2.6. Without -n the text names identities by labels, over several lines; only reserved ones can be
turned back into numbers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.cilium import RESERVED_IDENTITIES, PolicyEntry
from kubectl_ebpfnet.model.net import protocol_number
from kubectl_ebpfnet.parse import _json
from kubectl_ebpfnet.parse._tables import cells, columns
from kubectl_ebpfnet.parse._text import integer, is_json, json_value, lines

SOURCE = "cilium bpf policy get"
STATIC_BITS = 40
"""Of the key's prefix length: identity and direction; then 8 of the protocol, 16 of the port."""
NOT_COUNTED = 2**64 - 1
UNKNOWN_IDENTITY = -1

_RESERVED = {f"reserved:{name}": number for number, name in RESERVED_IDENTITIES.items()}
_PATH_ID = re.compile(r"cilium_policy_(?:v2_)?0*(\d+)")


def entries(data: bytes) -> tuple[PolicyEntry, ...]:
    """Every entry of every endpoint, text or JSON. Raises ParseError."""
    return _from_json(data) if is_json(data) else _from_text(data)


def _from_json(data: bytes) -> tuple[PolicyEntry, ...]:
    value = json_value(data, SOURCE)
    where = _lines_of_entries(data)
    found: list[PolicyEntry] = []
    for block in value if isinstance(value, list) else [value]:
        content = _json.items(block, "Content")
        digits = _json.text(block, "EndpointID")
        if not content and not digits:
            raise ParseError(SOURCE, 0, "a block without EndpointID and Content")
        number = integer(digits, SOURCE, 0)
        for item in content:
            line = where[len(found)] if len(found) < len(where) else 0
            found.append(_json_entry(number, item, line))
    return tuple(found)


def _lines_of_entries(data: bytes) -> list[int]:
    """Lines where entries begin: objects that hold ProxyPort… as their first member."""
    starts = []
    before = 0
    for number, text in lines(data, SOURCE):
        stripped = text.strip()
        if stripped == "{":
            before = number
        elif stripped.startswith('"ProxyPort') and before == number - 1:
            starts.append(before)
    return starts


def _json_entry(endpoint: int, item: Any, line: int) -> PolicyEntry:
    key = _json.dig(item, "Key")
    identity = _json.number(key, "Identity")
    direction = _json.number(key, "TrafficDirection")
    if identity is None or direction not in (0, 1):
        raise ParseError(SOURCE, line, "an entry without identity or direction")
    stored = _json.number(key, "DestPortNetwork")
    stored = _json.number(key, "DestPort") if stored is None else stored
    port = _swapped(stored or 0)
    protocol = _json.number(key, "Nexthdr") or 0
    bits = _json.number(key, "Prefixlen")
    given = (16 if port else 0) if bits is None else max(0, bits - STATIC_BITS - 8)
    proxy = _json.number(item, "ProxyPortNetwork")
    proxy = _json.number(item, "ProxyPort") if proxy is None else proxy
    return PolicyEntry(
        endpoint_id=endpoint,
        deny=bool((_json.number(item, "Flags") or 0) & 1),
        direction="egress" if direction else "ingress",
        identity=identity,
        protocol=protocol,
        ports=_range(port, min(given, 16)),
        proxy_port=_swapped(proxy or 0),
        precedence=_json.number(item, "Precedence"),
        packets=_counted(_json.number(item, "Packets")),
        bytes=_counted(_json.number(item, "Bytes")),
        line=line,
    )


def _swapped(value: int) -> int:
    return int.from_bytes((value & 0xFFFF).to_bytes(2, "little"), "big")


def _range(port: int, bits: int) -> tuple[int, int]:
    """The ports that the first bits of a port name."""
    if bits == 0:
        return (0, 65535)
    width = 1 << (16 - bits)
    low = port - port % width
    return (low, low + width - 1)


def _counted(value: int | None) -> int | None:
    return None if value is None or value == NOT_COUNTED else value


def _from_text(data: bytes) -> tuple[PolicyEntry, ...]:
    found: list[PolicyEntry] = []
    endpoint: int | None = None
    header: list[tuple[str, int]] = []
    for number, text in lines(data, SOURCE):
        stripped = text.strip()
        if stripped.startswith("Endpoint ID:"):
            endpoint = integer(stripped.partition(":")[2].strip(), SOURCE, number)
        elif match := _PATH_ID.search(stripped) if "/" in stripped[:6] + stripped[-2:] else None:
            endpoint = int(match[1]) if endpoint is None or stripped.endswith(":") else endpoint
        elif stripped.startswith("POLICY "):
            header = columns(text)
        elif not stripped or stripped.startswith(("Path:", "Policy stats empty")):
            continue
        elif not header:
            raise ParseError(SOURCE, number, "a row before the header")
        elif text[0] == " " and found and not cells(text, header).get("POLICY"):
            found[-1] = _with_label(found[-1], stripped)
        else:
            found.append(_row(endpoint, cells(text, header), number))
    return tuple(found)


def _with_label(entry: PolicyEntry, label: str) -> PolicyEntry:
    labels = (*entry.labels, label.split()[0])
    # `reserved:kube-apiserver` with `reserved:world` is a CIDR identity of its own number.
    return replace(entry, labels=labels, identity=UNKNOWN_IDENTITY)


def _row(endpoint: int | None, row: dict[str, str], number: int) -> PolicyEntry:
    if endpoint is None:
        raise ParseError(SOURCE, number, "a row before its endpoint's id")
    policy, direction = row.get("POLICY", ""), row.get("DIRECTION", "").lower()
    if policy not in ("Allow", "Deny") or direction not in ("ingress", "egress"):
        raise ParseError(SOURCE, number, "not a policy entry")
    who = next(
        (value for title, value in row.items() if title.startswith(("LABELS", "IDENTITY"))), ""
    )
    protocol, ports = _ports(row.get("PORT/PROTO", "ANY"), number)
    proxy = row.get("PROXY PORT", "NONE")
    return PolicyEntry(
        endpoint_id=endpoint,
        deny=policy == "Deny",
        direction=direction,
        identity=_identity(who),
        protocol=protocol,
        ports=ports,
        proxy_port=0 if proxy in ("NONE", "", "-") else integer(proxy, SOURCE, number, most=65535),
        packets=_column(row.get("PACKETS", "-"), number),
        bytes=_column(row.get("BYTES", "-"), number),
        labels=(who,) if who and not who.isdigit() and who != "ANY" else (),
        line=number,
    )


def _identity(text: str) -> int:
    if text in ("ANY", ""):
        return 0
    if text.isdigit() and text.isascii() and len(text) < 12:
        return int(text)
    return _RESERVED.get(text, UNKNOWN_IDENTITY)


def _column(text: str, number: int) -> int | None:
    return None if text in ("-", "") else integer(text, SOURCE, number)


def _ports(text: str, number: int) -> tuple[int, tuple[int, int]]:
    """`80/TCP`, `8080-8095/TCP`, `0x50/12/TCP` (≤ 1.16), `TCP`, `ANY`."""
    if text == "ANY":
        return 0, (0, 65535)
    words = text.split("/")
    protocol = protocol_number(words[-1])
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
