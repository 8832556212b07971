"""`ip route`, part of parse.iproute.

Source: iproute2's ip/iproute.c (print_route); the types are RTN_* of
include/uapi/linux/rtnetlink.h.

A listing of one table (`ip route show table 200`) does not name the table in its lines; its routes
get the table `main`, and the caller has to correct it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Any

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import Route
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.parse._text import (
    address,
    integer,
    is_json,
    json_integer,
    json_objects,
    json_records,
    json_text,
    lines,
    network,
    next_word,
)

_SOURCE = "ip route"
_TYPES_WORDS = (
    "unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat xresolve"
)
_TYPES = frozenset(_TYPES_WORDS.split())
# Words that have a value; the second part has no field. A metric may have `lock` before its value.
_VALUES_WORDS = (
    "dev table scope from src metric mtu"
    " proto tos nhid advmss rtt rttvar reordering window cwnd initcwnd initrwnd ssthresh realm"
    " realms hoplimit quickack congctl rto_min features expires error uid iif weight users"
    " age"
)
_VALUES = frozenset(_VALUES_WORDS.split())


@dataclass(slots=True)
class _Record:
    """One record, while its lines or members are read."""

    span: Span
    destination: str = ""
    source: str = ""
    type: str = "unicast"
    table: str = "main"
    gateway: Address | None = None
    # The gateway is of the other family (RTA_VIA): an IPv4 route by an IPv6 neighbour.
    other_family: bool = False
    device: str = ""
    metric: int = 0
    preferred_source: Address | None = None
    scope: str = ""
    mtu: int | None = None
    advmss: int | None = None
    tos: str = ""
    weight: int = 0
    dead: bool = False
    # Only IPv6 routes have a router preference.
    has_preference: bool = False
    nexthops: list[_Record] = field(default_factory=list)

    def routes(self, version: int) -> Iterator[Route]:
        """Yield one route for each next hop.

        Args:
            version: the family of a `default` that does not show its own.
        """
        version = self._version(version)
        destination = network(self.destination, _SOURCE, self.span.line, version=version)
        source = self._source(version)
        for hop in self.nexthops or [self]:
            yield Route(
                destination=destination,
                gateway=hop.gateway,
                device=hop.device,
                table=self.table,
                type=self.type,
                metric=self.metric,
                preferred_source=self.preferred_source,
                scope=self.scope,
                mtu=self.mtu,
                advmss=self.advmss,
                source=source,
                tos=self.tos,
                weight=hop.weight,
                dead=hop.dead or self.dead,
                span=hop.span,
            )

    def _source(self, version: int) -> Network | None:
        if self.source in ("", "all"):
            return None
        source = network(self.source, _SOURCE, self.span.line, version=version)
        # `ip -6 route get` prints `from ::` for a packet without a source yet.
        return None if source.prefixlen == 0 or source.is_unspecified else source

    def _version(self, version: int) -> int:
        for hop in (self, *self.nexthops):
            if hop.gateway is not None:
                return 10 - hop.gateway.version if hop.other_family else hop.gateway.version
        if self.preferred_source is not None:
            return self.preferred_source.version
        return 6 if self.has_preference else version


def routes(data: bytes, version: int = 4) -> tuple[Route, ...]:
    """Return the routes of `ip [-j] [-6] route [show table all]`, in their order.

    A route with several next hops gives one Route for each of them.

    Args:
        data: the output.
        version: 4 or 6: the family of a `default` that does not show its own, as the routes of
            `show table all` do by their gateway or router preference.
    """
    if is_json(data):
        found = json_records(data, _SOURCE)
        records = [_json_record(member, span) for span, member in found]
    else:
        records = _text_records(data)
    return tuple(route for record in records for route in record.routes(version))


def routes6(data: bytes) -> tuple[Route, ...]:
    """Return the routes of `ip -6 route`, which prints IPv6's `default` without its family."""
    return routes(data, version=6)


def _json_record(member: dict[str, Any], span: Span) -> _Record:
    record = _Record(span)
    record.destination = json_text(member, "dst", _SOURCE)
    record.source = json_text(member, "from", _SOURCE)
    record.type = json_text(member, "type", _SOURCE, "unicast")
    record.table = json_text(member, "table", _SOURCE, "main")
    record.metric = json_integer(member, "metric", _SOURCE) or 0
    record.scope = json_text(member, "scope", _SOURCE)
    record.tos = json_text(member, "tos", _SOURCE)
    record.has_preference = "pref" in member
    if member.get("prefsrc") is not None:
        record.preferred_source = address(member["prefsrc"], _SOURCE, 1)
    metrics = member.get("metrics", [])
    if not (isinstance(metrics, list) and all(isinstance(each, int) for each in metrics)):
        # Old iproute2 prints numbers alone, which do not tell of what they are.
        for _, each in json_objects(metrics, _SOURCE):
            record.mtu = json_integer(each, "mtu", _SOURCE)
            record.advmss = json_integer(each, "advmss", _SOURCE)
    _json_hop(record, member)
    hops = member.get("nexthops", [])
    for place, hop in json_objects(hops, _SOURCE, span.member("nexthops")):
        record.nexthops.append(_Record(place, weight=json_integer(hop, "weight", _SOURCE) or 1))
        _json_hop(record.nexthops[-1], hop)
    return record


def _json_hop(record: _Record, member: dict[str, Any]) -> None:
    record.device = json_text(member, "dev", _SOURCE)
    flags = member.get("flags", [])
    record.dead = isinstance(flags, list) and "dead" in flags
    via = member.get("via")
    if isinstance(via, dict):
        record.gateway = address(via.get("host"), _SOURCE, 1)
        record.other_family = True
    elif member.get("gateway") is not None:
        record.gateway = address(member["gateway"], _SOURCE, 1)


def _text_records(data: bytes) -> list[_Record]:
    records: list[_Record] = []
    for number, text in lines(data, _SOURCE):
        words = iter(text.split())
        if not text.strip():
            continue
        if text[0].isspace():
            if records:
                _text_continuation(records[-1], next(words), words, number)
            continue
        record = _Record(Span(number))
        first = next(words)
        if first in _TYPES:
            record.type = first
            first = next_word(words, first, _SOURCE, number)
        record.destination = first
        _text_words(record, words)
        records.append(record)
    return records


def _text_continuation(record: _Record, first: str, words: Iterator[str], number: int) -> None:
    if first == "nexthop":
        record.nexthops.append(_Record(Span(number), weight=1))
        _text_words(record.nexthops[-1], words)
    elif first == "cache":  # `ip route get` puts the metrics here
        _text_words(record, words)


def _text_words(record: _Record, words: Iterator[str]) -> None:
    """Read the words after the destination, or after the word `nexthop`."""
    for word in words:
        if word == "encap":  # skip its words, which may equal words of the route
            word = next((w for w in words if w in ("via", "dev")), "")
        if word == "dead":
            record.dead = True
        elif word == "via":
            _text_gateway(record, words)
        elif word == "pref":
            record.has_preference = True
            next_word(words, word, _SOURCE, record.span.line)
        elif word in _VALUES:
            value = next_word(words, word, _SOURCE, record.span.line)
            if value == "lock":
                value = next_word(words, value, _SOURCE, record.span.line)
            _text_value(record, word, value)


def _text_value(record: _Record, word: str, value: str) -> None:
    match word:
        case "dev":
            record.device = value
        case "table":
            record.table = value
        case "scope":
            record.scope = value
        case "tos":
            record.tos = value
        case "weight":
            record.weight = integer(value, _SOURCE, record.span.line)
        case "from":
            record.source = value
        case "src":
            record.preferred_source = address(value, _SOURCE, record.span.line)
        case "metric":
            record.metric = integer(value, _SOURCE, record.span.line)
        case "mtu":
            record.mtu = integer(value, _SOURCE, record.span.line)
        case "advmss":
            record.advmss = integer(value, _SOURCE, record.span.line)


def _text_gateway(record: _Record, words: Iterator[str]) -> None:
    value = next_word(words, "via", _SOURCE, record.span.line)
    if value in ("inet", "inet6"):
        record.other_family = True
        value = next_word(words, value, _SOURCE, record.span.line)
    record.gateway = address(value, _SOURCE, record.span.line)
