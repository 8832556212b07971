"""The policies of Cilium's egress gateway: `bpf egress list`, of every version.

Sources: Cilium cilium-dbg/cmd/bpf_egress_list.go (`0.0.0.0` is "Not Found", `0.0.0.1` is "Excluded
CIDR"; a node without the map prints that on stderr alone, with exit code 0); up to 1.10 the two
halves of the map's entries as they are (pkg/maps/egressmap: the gateway before the address); with
several gateways a numbered line each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium import EgressGatewayPolicy
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.untrusted import address, json_value, network
from kubectl_ebpfnet.parse._json import list_items
from kubectl_ebpfnet.parse.cilium.maps import has_no_command
from kubectl_ebpfnet.parse.cilium.tabwriter import rows

SOURCE = "cilium bpf egress list"
_OLD_HEADER = b"SRC IP"
_NUMBERED = re.compile(r"[0-9]{1,3} => (.+)")
_NOT_FOUND, _EXCLUDED = "Not Found", "Excluded CIDR"
_EXCLUDED_ADDRESS = IPv4Address(1)


def policies(data: bytes) -> tuple[EgressGatewayPolicy, ...]:
    """Parse `bpf egress list`; a Cilium without that command has no policies. Raises ParseError."""
    if has_no_command(data, b"egress"):
        return ()
    if data.lstrip().startswith(_OLD_HEADER):
        return tuple(_old(Span(number), cells) for number, cells in rows(data, SOURCE, "SRC IP"))
    return tuple(_policies(data))


def policies_json(data: bytes) -> tuple[EgressGatewayPolicy, ...]:
    """Parse `bpf egress list -o json`. Raises ParseError."""
    if not data.strip():  # the map is not there
        return ()
    found: list[EgressGatewayPolicy] = []
    if data.lstrip().startswith(b"{"):
        return _old_json(data)
    for span, value in list_items(data, SOURCE):
        cells = [js.text(value, name) for name in ("SourceIP", "DestCIDR", "EgressIP")]
        several = (*js.texts(value, "GatewayIPs"), *js.texts(value, "Gateways"))
        found.append(_policy(span, [*cells, *(several or (js.text(value, "GatewayIP"),))]))
    return tuple(found)


def _old_json(data: bytes) -> tuple[EgressGatewayPolicy, ...]:
    """Parse the entries up to 1.10: `{"SOURCE CIDR": ["GATEWAY ADDRESS"]}`."""
    value = json_value(data, SOURCE)
    return tuple(
        _old(Span().member(key, index), [key, info])
        for key in value
        for index, info in enumerate(js.texts(value, key))
    )


def _policies(data: bytes) -> Iterator[EgressGatewayPolicy]:
    before: tuple[int, list[str]] | None = None
    last = 0
    for number, cells in rows(data, SOURCE, "Source IP"):
        further = _NUMBERED.fullmatch(cells[0]) if len(cells) == 1 else None
        if further is not None and before is not None:
            before[1].append(cells[0])
        else:
            if before is not None:
                yield _policy(Span(before[0], last), before[1])
            before = number, cells
        last = number
    if before is not None:
        yield _policy(Span(before[0], last), before[1])


def _old(span: Span, cells: list[str]) -> EgressGatewayPolicy:
    words = " ".join(cells).split(" ")
    if len(words) != 4:
        raise ParseError(SOURCE, span.line, "a row without source, destination, gateway, address")
    source, destination, gateway, egress = words
    return _policy(span, [source, destination, egress, gateway])


def _policy(span: Span, cells: list[str]) -> EgressGatewayPolicy:
    if len(cells) < 4:
        raise ParseError(SOURCE, span.line, "a row without source, destination, address, gateway")
    gateways = [_gateway(span, said) for said in cells[3:]]
    known = [gateway for gateway in gateways if gateway is not None]
    excluded = _EXCLUDED_ADDRESS in known
    egress = address(cells[2], SOURCE, span.line)
    return EgressGatewayPolicy(
        source=address(cells[0], SOURCE, span.line),
        destination=network(cells[1], SOURCE, span.line),
        egress_address=None if egress.is_unspecified else egress,
        gateway=None if excluded or not known else known[0],
        excluded=excluded,
        others=() if excluded else tuple(known[1:]),
        span=span,
    )


def _gateway(span: Span, said: str) -> Address | None:
    numbered = _NUMBERED.fullmatch(said)
    said = numbered[1].strip() if numbered is not None else said
    if said == _NOT_FOUND:
        return None
    found = _EXCLUDED_ADDRESS if said == _EXCLUDED else address(said, SOURCE, span.line)
    return None if found.is_unspecified else found
