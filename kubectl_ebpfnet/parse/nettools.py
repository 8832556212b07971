"""`route -n`, `arp -an` and `ifconfig` of net-tools and of BusyBox.

Sources: net-tools' lib/inet_gr.c, lib/inet6_gr.c, arp.c and lib/interface.c; BusyBox'
networking/route.c, arp.c and interface.c; route(8), arp(8), ifconfig(8). Verified with
net-tools 2.10 and BusyBox 1.35 (whose arp writes PUB as PUP).

`route -n` and `arp -an` read /proc/net; parse/procfs.py lists the facts that it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.kernel import InterfaceAddress, Link, Neighbour, Route
from kubectl_ebpfnet.parse._text import (
    address,
    hardware_address,
    integer,
    lines,
    network,
    next_word,
    quoted,
)

_TITLES = ("Kernel IP", "Destination")
_COLUMNS = 8
_COLUMNS6 = 7
_NONE = ("-", "*")

_ARP_TOTALS = ("arp: in ", "Entries: ")

# net-tools 2: `eth0: flags=4163<UP,…>  mtu 1500`; net-tools 1 and BusyBox: `eth0  Link encap:…`.
_BLOCK = re.compile(r"(\S+): flags=[0-9]+<([^>]*)>(.*)")
_OLD_BLOCK = re.compile(r"(\S+)\s+Link encap:(.*)")
_OLD_SCOPES = ("global", "link", "host", "site")


def routes(data: bytes) -> tuple[Route, ...]:
    """Return the routes of `route -n`, or of `route -6 -n`, in their order."""
    parsed = (
        _route6(fields, number) if len(fields) == _COLUMNS6 else _route(fields, number)
        for number, fields in _rows(data)
    )
    return tuple(route for route in parsed if route is not None)


def _rows(data: bytes) -> Iterator[tuple[int, list[str]]]:
    for number, text in lines(data, "route -n"):
        fields = text.split()
        if not fields or text.startswith(_TITLES):
            continue
        if len(fields) not in (_COLUMNS, _COLUMNS6):
            raise ParseError("route -n", number, f"not a route: {quoted(text)}")
        yield number, fields


def _route(fields: list[str], number: int) -> Route:
    source = "route -n"
    destination, gateway, mask, flags, metric, _, _, device = fields
    no_device = device in _NONE
    kind = "blackhole" if no_device else "unicast"
    return Route(
        destination=network(f"{destination}/{mask}", source, number),
        gateway=address(gateway, source, number) if "G" in flags else None,
        device="" if no_device else device,
        type="unreachable" if "!" in flags else kind,
        metric=integer(metric, source, number),
        line=number,
    )


def _route6(fields: list[str], number: int) -> Route | None:
    source = "route -n"
    destination, gateway, flags, metric, _, _, device = fields
    prefix = network(destination, source, number, version=6)
    kind = "unicast"
    if "!" in flags:
        kind = "unreachable"
    elif "n" in flags:  # RTF_NONEXTHOP without RTF_REJECT: an address of this host
        kind = "local"
    elif prefix.is_multicast:
        kind = "multicast"
    if kind == "unreachable" and metric == "-1":  # the kernel's null route, see parse/procfs.py
        return None
    return Route(
        destination=prefix,
        gateway=address(gateway, source, number) if "G" in flags else None,
        device=device,
        table="local" if kind in ("local", "multicast") else "main",
        type=kind,
        metric=integer(metric, source, number),
        line=number,
    )


def neighbours(data: bytes) -> tuple[Neighbour, ...]:
    """Return the entries of `arp -an`, in their order, with the states of parse/procfs.py."""
    found = []
    for number, text in lines(data, "arp -an"):
        if not text.strip() or text.startswith(_ARP_TOTALS):
            continue
        words = text.split()
        if len(words) < 6 or words[2] != "at" or words[-2] != "on" or words[1][0] != "(":
            raise ParseError("arp -an", number, f"not a neighbour: {quoted(text)}")
        host = address(words[1].strip("()"), "arp -an", number)
        remarks = words[4:-2]
        if "PUB" in remarks or "PUP" in remarks:  # not a neighbour: this host answers for it
            continue
        mac = hardware_address(words[3])
        state = "INCOMPLETE"
        if mac:
            state = "PERMANENT" if "PERM" in remarks else "REACHABLE"
        found.append(Neighbour(host, words[-1], mac, (state,), number))
    return tuple(found)


def links(data: bytes) -> tuple[Link, ...]:
    """Return the devices of `ifconfig`, in their order.

    `index` is 0, the index of no device, since ifconfig does not print it. Labels of further
    addresses (`eth0:1`) are no devices and are left out.
    """
    return tuple(Link(**fields) for fields, _ in _blocks(data) if ":" not in fields["name"])


def addresses(data: bytes) -> tuple[InterfaceAddress, ...]:
    """Return the addresses of `ifconfig`, in their order; those of a label are its device's."""
    return tuple(found for _, block in _blocks(data) for found in block)


def _blocks(data: bytes) -> Iterator[tuple[dict[str, Any], list[InterfaceAddress]]]:
    """Yield the fields of Link and the addresses of each block."""
    fields: dict[str, Any] | None = None
    found: list[InterfaceAddress] = []
    for number, text in lines(data, "ifconfig"):
        if not text.strip():
            continue
        if not text[0].isspace():
            if fields is not None:
                yield fields, found
            fields, found = _first_line(text, number), []
        elif fields is not None:
            _further_line(fields, found, text.split(), number)
    if fields is not None:
        yield fields, found


def _first_line(text: str, number: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"index": 0, "line": number}
    header = _BLOCK.fullmatch(text)
    if header is not None:
        words = iter(header[3].split())
        fields.update(name=header[1], **_flags(header[2].split(",")))
        for word in words:
            if word == "mtu":
                fields["mtu"] = integer(
                    next_word(words, word, "ifconfig", number), "ifconfig", number
                )
        return fields
    old_header = _OLD_BLOCK.fullmatch(text)
    if old_header is None:
        raise ParseError("ifconfig", number, f"not the first line of a device: {quoted(text)}")
    # The device is down until a line with flags comes: a line without flags is not printed.
    fields.update(name=old_header[1], up=False, lower_up=False)
    words = iter(old_header[2].split())
    for word in words:
        if word == "HWaddr":
            fields["mac"] = hardware_address(next_word(words, word, "ifconfig", number))
    return fields


def _flags(words: list[str]) -> dict[str, bool]:
    # RUNNING is IFF_RUNNING, the operational state; LOWER_UP, the carrier, comes with it.
    return {"up": "UP" in words, "lower_up": "RUNNING" in words}


def _further_line(
    fields: dict[str, Any], found: list[InterfaceAddress], words: list[str], number: int
) -> None:
    first = words[0]
    if first in ("inet", "inet6"):
        found.append(_address(fields["name"].partition(":")[0], words, number))
    elif first in ("ether", "loop", "infiniband") and len(words) > 1:
        fields["mac"] = hardware_address(words[1])
    elif words[-1].startswith("Metric:"):  # `UP BROADCAST RUNNING MULTICAST  MTU:1500  Metric:1`
        fields.update(_flags(words))
        for word in words:
            if word.startswith("MTU:"):
                fields["mtu"] = integer(word[4:], "ifconfig", number)


def _address(device: str, line: list[str], number: int) -> InterfaceAddress:
    source = "ifconfig"
    values: dict[str, str] = {}
    scope = "global"
    words = iter(line)
    for word in words:
        if word in ("inet", "inet6"):
            values["local"] = next_word(words, word, source, number).removeprefix("addr:")
            if not values["local"]:  # BusyBox: `inet6 addr: fe80::1/64 Scope:Link`
                values["local"] = next_word(words, "addr:", source, number)
        elif word in ("netmask", "prefixlen"):
            values["length"] = next_word(words, word, source, number)
        elif word == "scopeid":  # `0x20<link>`
            scope = next_word(words, word, source, number).partition("<")[2].rstrip(">")
        elif word.startswith("Mask:"):
            values["length"] = word[5:]
        elif word.startswith("Scope:"):
            scope = word[6:].lower()
    local, _, length = values["local"].partition("/")
    host = address(local, source, number)
    prefix = network(f"{host}/{values.get('length', length)}", source, number)
    if scope not in _OLD_SCOPES:
        scope = "global"
    return InterfaceAddress(device, host, prefix.prefixlen, scope, number)
