"""`route -n`, `arp -an` and `ifconfig` of net-tools and of BusyBox.

Sources: net-tools' lib/inet_gr.c, lib/inet6_gr.c, arp.c and lib/interface.c; BusyBox'
networking/route.c, arp.c and interface.c; route(8), arp(8), ifconfig(8). Verified with
net-tools 2.10 and BusyBox 1.35 (whose arp writes PUB as PUP).

`route -n` and `arp -an` read /proc/net; parse/procfs.py lists the facts that it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import InterfaceAddress, Neighbour, Route
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
_BLOCK = re.compile(r"(\S+?)(?:: flags=[0-9]+<[^>]*>|\s+Link encap:)")
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
        span=Span(number),
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
        span=Span(number),
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
        found.append(Neighbour(host, words[-1], mac, (state,), Span(number)))
    return tuple(found)


def addresses(data: bytes) -> tuple[InterfaceAddress, ...]:
    """Return the addresses of `ifconfig`, in their order; those of a label are its device's."""
    found = []
    device = ""
    for number, text in lines(data, "ifconfig"):
        words = text.split()
        if words and not text[0].isspace():
            begun = _BLOCK.match(text)
            if begun is None:
                problem = f"not the first line of a device: {quoted(text)}"
                raise ParseError("ifconfig", number, problem)
            device = begun[1].partition(":")[0]
        elif device and words and words[0] in ("inet", "inet6"):
            found.append(_address(device, words, number))
    return tuple(found)


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
    return InterfaceAddress(device, host, prefix.prefixlen, scope, Span(number))
