"""`ip link` and `ip addr`, part of parse.iproute.

Source: iproute2's ip/ipaddress.c (print_linkinfo, print_addrinfo), iplink_vxlan.c,
iplink_geneve.c, iplink_xdp.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import InterfaceAddress, Link
from kubectl_ebpfnet.parse._text import (
    address,
    hardware_address,
    integer,
    is_json,
    json_integer,
    json_objects,
    json_records,
    json_text,
    lines,
    next_word,
    port,
    quoted,
)

_HEADER = re.compile(r"([0-9]{1,10}): (\S+): <([^>]*)>(.*)")
_INDEX_OF_PEER = re.compile(r"if([0-9]{1,10})")
_KIND = re.compile(r"[a-z0-9_-]+")

# Words of a link's first line that have a value; other words have none.
_HEADER_VALUES = frozenset(
    ("mtu", "qdisc", "master", "state", "mode", "group", "qlen", "tap_state", "event")
)
# First words of lines that can come instead of the line where `-d` prints the kind.
_NOT_A_KIND = frozenset(("inet", "inet6", "alias", "altname", "vf", "event", "promiscuity"))
_TUNNELS = ("vxlan", "geneve")


def links(data: bytes) -> tuple[Link, ...]:
    """Return the devices of `ip [-j] [-d] link` or `ip [-j] addr`, in their order.

    Text may be an excerpt (`ip a | grep …`): a block without its first line is skipped.
    """
    if is_json(data):
        found = json_records(data, "ip link")
        return tuple(_json_link(record, span) for span, record in found)
    return tuple(Link(**block) for block in _blocks(data))


def addresses(data: bytes) -> tuple[InterfaceAddress, ...]:
    """Return the addresses of `ip [-j] addr`, in their order; excerpts as in `links`."""
    if is_json(data):
        return tuple(_json_addresses(data))
    return tuple(_text_addresses(data))


def _json_link(record: dict[str, Any], span: Span) -> Link:
    source = "ip link"
    flags = record.get("flags", [])
    if not isinstance(flags, list):
        raise ParseError(source, 1, '"flags" is not a list')
    info = _member(record, "linkinfo")
    kind = json_text(info, "info_kind", source)
    tunnel = _member(info, "info_data") if kind in _TUNNELS else {}
    vrf = _member(info, "info_data") if kind == "vrf" else {}
    table = json_integer(vrf, "table", source)
    peer_index, peer_name = _peer(json_text(record, "link", source))
    netns_id = json_integer(record, "link_netnsid", source, least=None)
    return Link(
        index=integer(record.get("ifindex"), source, 1, least=1),
        name=_name(record, source),
        kind=kind,
        mac=hardware_address(json_text(record, "address", source)),
        up="UP" in flags,
        lower_up="LOWER_UP" in flags,
        arp="NOARP" not in flags,
        mtu=json_integer(record, "mtu", source),
        peer_index=json_integer(record, "link_index", source) or peer_index,
        peer_name=peer_name,
        netns_id=netns_id if netns_id is None or netns_id >= 0 else None,
        netns_name=json_text(record, "link_netns", source),
        master=json_text(record, "master", source),
        tunnel_port=json_integer(tunnel, "port", source),
        tunnel_external=tunnel.get("external") is True,
        vrf_table="" if table is None else str(table),
        xdp_program=_json_xdp(record),
        qdisc=json_text(record, "qdisc", source),
        span=span,
    )


def _json_xdp(record: dict[str, Any]) -> int | None:
    xdp = _member(record, "xdp")
    attached = xdp.get("attached")
    first = attached[0] if isinstance(attached, list) and attached else {}
    for holder in (xdp, first if isinstance(first, dict) else {}):
        number = json_integer(_member(holder, "prog"), "id", "ip link")
        if number is not None:
            return number
    return None


def _member(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ParseError("ip link", 1, f'"{name}" is {quoted(value)}, not an object')
    return value


def _name(record: dict[str, Any], source: str) -> str:
    name = json_text(record, "ifname", source)
    if not name:
        raise ParseError(source, 1, 'a device without "ifname"')
    return name


def _peer(text: str) -> tuple[int | None, str]:
    """Return the peer's index or name, from the text after the `@`."""
    if text in ("", "NONE"):
        return None, ""
    index = _INDEX_OF_PEER.fullmatch(text)
    return (int(index[1]), "") if index else (None, text)


def _blocks(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the fields of Link, for each block of text that has its first line."""
    block: dict[str, Any] | None = None
    kind_is_next = False
    for number, text in lines(data, "ip link"):
        if not text.strip():
            continue
        if not text[0].isspace():
            if block is not None:
                yield block
            block = _header(text, number)
            continue
        if block is None:
            continue
        words = text.split()
        block["span"] = Span(block["span"].line, number)
        if words[0].startswith("link/"):
            # Only `-d` prints the promiscuity, and only `-d` has a line with the kind.
            kind_is_next = "promiscuity" in words
            _hardware_line(block, words, number)
        elif words[0] == "prog/xdp":
            _xdp_line(block, words, number)
        elif kind_is_next:
            kind_is_next = False
            _kind_line(block, words, number)
    if block is not None:
        yield block


def _header(text: str, number: int) -> dict[str, Any] | None:
    """Parse the first line of a block; return None for grep's line between two excerpts."""
    if text == "--":
        return None
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ParseError("ip link", number, f"not the first line of a device: {quoted(text)}")
    title, at, peer = match[2].rpartition("@")
    name = title if at and title else match[2]
    index = integer(match[1], "ip link", number, least=1)
    flags = match[3].split(",")
    peer_index, peer_name = _peer(peer if at else "")
    if peer_name == name:
        # BusyBox looks the peer's index up in this namespace, even if the peer is in another. No
        # device is its own peer, so this index is of another namespace.
        peer_index, peer_name = index, ""
    block: dict[str, Any] = {
        "index": index,
        "name": name,
        "up": "UP" in flags,
        "lower_up": "LOWER_UP" in flags,
        "arp": "NOARP" not in flags,
        "peer_index": peer_index,
        "peer_name": peer_name,
        "span": Span(number),
    }
    words = iter(match[4].split())
    for word in words:
        if word in _HEADER_VALUES:
            value = next_word(words, word, "ip link", number)
            if word == "mtu":
                block["mtu"] = integer(value, "ip link", number)
            elif word in ("master", "qdisc"):
                block[word] = value
        elif word.startswith("xdp") and "/id:" in word:
            block["xdp_program"] = integer(word.partition("/id:")[2], "ip link", number)
    return block


def _hardware_line(block: dict[str, Any], line: list[str], number: int) -> None:
    block["mac"] = hardware_address(line[1]) if len(line) > 1 else ""
    words = iter(line)
    for word in words:
        if word == "link-netns":
            block["netns_name"] = next_word(words, word, "ip link", number)
        elif word == "link-netnsid":
            value = next_word(words, word, "ip link", number)
            if value != "unknown":
                block["netns_id"] = integer(value, "ip link", number)


def _xdp_line(block: dict[str, Any], line: list[str], number: int) -> None:
    words = iter(line)
    for word in words:
        if word == "id":
            block["xdp_program"] = integer(
                next_word(words, word, "ip link", number), "ip link", number
            )
            return


def _kind_line(block: dict[str, Any], line: list[str], number: int) -> None:
    kind = line[0]
    if kind in _NOT_A_KIND or kind.endswith("_slave") or not _KIND.fullmatch(kind):
        return
    block["kind"] = kind
    if kind == "vrf" and line[1:2] == ["table"]:
        block["vrf_table"] = "".join(line[2:3])
    if kind not in _TUNNELS:
        return
    block["tunnel_external"] = "external" in line
    words = iter(line)
    for word in words:
        if word == "dstport":
            block["tunnel_port"] = port(
                next_word(words, word, "ip link", number), "ip link", number
            )


def _json_addresses(data: bytes) -> Iterator[InterfaceAddress]:
    source = "ip addr"
    for span, record in json_records(data, source):
        device = _name(record, source)
        listed = record.get("addr_info", [])
        for place, entry in json_objects(listed, source, span.member("addr_info")):
            if entry.get("family") not in ("inet", "inet6"):
                continue
            local = address(entry.get("local", entry.get("address")), source, 1)
            yield InterfaceAddress(
                device=device,
                address=local,
                prefix_length=integer(entry.get("prefixlen"), source, 1, most=local.max_prefixlen),
                scope=json_text(entry, "scope", source, "global"),
                span=place,
            )


def _text_addresses(data: bytes) -> Iterator[InterfaceAddress]:
    device = ""
    for number, text in lines(data, "ip addr"):
        if not text.strip():
            continue
        if not text[0].isspace():
            header = _header(text, number)
            device = header["name"] if header else ""
            continue
        line = text.split()
        if device and line[0] in ("inet", "inet6"):
            yield _address_line(device, line, number)


def _address_line(device: str, line: list[str], number: int) -> InterfaceAddress:
    source = "ip addr"
    words = iter(line)
    local, _, length = next_word(words, next(words), source, number).partition("/")
    scope = "global"
    for word in words:
        if word == "peer":  # then the length is behind the peer's address
            length = next_word(words, word, source, number).partition("/")[2]
        elif word == "scope":
            scope = next_word(words, word, source, number)
        elif word in ("brd", "any", "proto", "metric"):
            next_word(words, word, source, number)
    host = address(local, source, number)
    bits = integer(length, source, number, most=host.max_prefixlen)
    return InterfaceAddress(device, host, bits, scope, Span(number))
