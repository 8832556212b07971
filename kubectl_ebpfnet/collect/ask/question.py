"""A question to a place: a row of the catalogue, and what narrows it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

from kubectl_ebpfnet.model.catalogue import CONNTRACK, CT, NAT
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Place
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, UDP, Address, endpoint_text
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, PodNamespace, snat_end

NEWEST = 200
"""Entries that are wanted of flows that differ in the peer alone: which one is the newest is known,
and what others do."""
MOST_PEERS = 16
"""Peers of a rule for lines: a line is searched for each. What others have is found among what is
wanted beside the flows. A node pod takes all."""
_PEERS = 4


@dataclass(frozen=True, slots=True)
class Question:
    """One question. Each answerer asks it in its own words.

    Attributes:
        fact: the row of the catalogue, with its words.
        place: the place of the record.
        netns: the pod's network namespace, for the node side; None for the node's own.
        flows: filters of a table that grows with traffic; () for the whole table.
        beside: filters of what else is wanted of it.
        newest: how many entries are wanted of flows that differ in the peer alone; 0 for all.
        rows: the addresses whose rows are asked for, of a table of addresses; () for the whole
            table.
    """

    fact: Fact[Any]
    place: Place
    netns: PodNamespace | None = None
    flows: tuple[FlowFilter, ...] = ()
    beside: tuple[FlowFilter, ...] = ()
    newest: int = NEWEST
    rows: tuple[Address, ...] = ()

    @property
    def needles(self) -> tuple[str, ...]:
        """What every selected line has one of: addresses, or for flows of any address the words
        of a protocol; () where any line may be selected. Of a table of addresses, the addresses."""
        if self.rows:
            return tuple(map(str, self.rows))
        words: list[str] = []
        for flow in (*self.flows, *self.beside):
            address = _texts(flow.address or flow.peer)
            named = address or _PROTOCOL_WORDS.get(flow.protocol or 0)
            if not named:
                return ()
            words += named
        return tuple(dict.fromkeys(words))

    @property
    def by_lines(self) -> tuple[FlowFilter, ...]:
        """The flows that rules for lines select: of those that differ in the peer alone, the first
        ones."""
        seen: Counter[FlowFilter] = Counter()
        found = []
        for flow in self.flows:
            alike = replace(flow, peer=None) if flow.peer is not None else flow
            seen[alike] += 1
            if seen[alike] <= MOST_PEERS:
                found.append(flow)
        return tuple(found)

    @property
    def line_rules(self) -> str:
        """The flows as rules that select lines of a table, "" without flows (shell_script.py).

        A rule is a line: words that are parted by |, one of which the line must have, and a tab
        between those that it must all have. Flows that differ in the peer alone are one rule. A
        line belongs to the first rule that it meets, and each rule keeps the newest: so flows that
        matter most stand first. A rule that begins with - is of what is wanted beside the flows.
        The rule that begins with + selects none: its lines are counted. Of a table of addresses: @
        and the addresses. Of a list of endpoints: & and lines of the headers of those with them.
        """
        if self.rows and self.fact.by_endpoint:
            return "&" + "\n".join(f" * IPv{row.version} address: {row}" for row in self.rows)
        if self.rows:
            return "@" + "|".join(map(str, self.rows))
        rules: dict[tuple[object, ...], list[list[str]]] = {}
        beside = [(flow, ["-"]) for flow in self.beside]
        for flow, mark in [*((flow, list[str]()) for flow in self.by_lines), *beside]:
            peer = (flow.port, flow.peer_port, flow.peer is None)
            rule = rules.setdefault((*mark, flow.address, flow.protocol, peer), [])
            peers = self._words(_of_address(flow.peer))
            if rule:
                rule[_PEERS] += peers
                continue
            rule += [
                mark,
                self._words(_of_address(flow.address)),
                self._words(_of_protocol(flow.protocol)),
                self._words(_of_port(flow.port)),
                peers,
                self._words(_of_port(flow.peer_port)),
            ]
        end = snat_end(self.flows)
        if end is not None and self.fact.name in (NAT.name, CONNTRACK.name):
            rules[end] = _to_end(*end, cilium=self.fact.name == NAT.name)
        lines = []
        for rule in rules.values():
            parts = ["|".join(part) for part in rule if part]
            some = any(part != "-" for part in parts)
            lines.append("\t".join(parts if some else [*parts, " "]))  # every entry has a blank
        return "\n".join(lines)

    def _words(self, words: _Words) -> list[str]:
        """Return a value in the words of the table that is asked."""
        ours, netfilter = words
        if self.fact.name == CONNTRACK.name:
            return netfilter
        return ours if self.fact.name in (CT.name, NAT.name) else [*ours, *netfilter]


def _to_end(protocol: int, address: Address, port: int, *, cilium: bool) -> list[list[str]]:
    """Return the rule of entries to a destination: in Cilium's NAT map, or in nf_conntrack."""
    ours, netfilter = _PROTOCOL_WORDS.get(protocol, ("", ""))
    if cilium:
        return [["+"], [f" -> {endpoint_text(address, port)} XLATE_SRC "], [f"{ours}OUT "]]
    ports = [[f" dport={port} "]] if port else []
    return [["+"], [f" dst={_texts(address)[-1]} "], *ports, [netfilter]]


_PROTOCOL_WORDS = {
    TCP: ["TCP ", "tcp "],
    UDP: ["UDP ", "udp "],
    ICMP: ["ICMP ", "icmp "],
    ICMPV6: ["ICMPv6 ", "icmpv6 "],
}
"""As Cilium's tables and nf_conntrack call them; other protocols do not select."""


def _texts(address: Address | None) -> list[str]:
    """Return an address as tables print it; nf_conntrack prints IPv6 in full."""
    if address is None:
        return []
    full = address.exploded if isinstance(address, IPv6Address) else str(address)
    return [*dict.fromkeys((str(address), full))]


_Words = tuple[list[str], list[str]]
"""Of Cilium's tables, and of nf_conntrack."""
_ANY: _Words = ([], [])


def _of_address(address: Address | None) -> _Words:
    """Return what is printed around an address: 10.0.0.1 is no part of 10.0.0.10. Cilium's
    conntrack has no brackets around IPv6."""
    if address is None:
        return _ANY
    around = [f" {address}:"] if address.version == 4 else [f" {address}:", f" [{address}]:"]
    return around, [f"={text} " for text in _texts(address)]


def _of_protocol(protocol: int | None) -> _Words:
    ours, netfilter = _PROTOCOL_WORDS.get(protocol or 0, ("", ""))
    return ([ours], [netfilter]) if ours else _ANY


def _of_port(port: int | None) -> _Words:
    return ([f":{port} "], [f"port={port} "]) if port is not None else _ANY
