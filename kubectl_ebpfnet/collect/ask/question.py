"""A question to a place: a row of the catalogue, and what narrows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from kubectl_ebpfnet.model.catalogue import CONNTRACK, NAT
from kubectl_ebpfnet.model.evidence import Place
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, UDP, Address, endpoint_text, has_ports
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, PodNamespace


@dataclass(frozen=True, slots=True)
class Question:
    """One question. Each answerer asks it in its own words.

    Attributes:
        fact: the row of the catalogue, with its words.
        place: the place of the record.
        netns: the pod's network namespace, for the node side; None for the node's own.
        flows: filters of a table that grows with traffic; () for the whole table.
        rows: the addresses whose rows are asked for, of a table of addresses; () for the whole
            table.
    """

    fact: Fact[Any]
    place: Place
    netns: PodNamespace | None = None
    flows: tuple[FlowFilter, ...] = ()
    rows: tuple[Address, ...] = ()

    @property
    def needles(self) -> tuple[str, ...]:
        """What every selected line has one of: addresses, or for flows of any address the words
        of a protocol; () where any line may be selected. Of a table of addresses, the addresses."""
        if self.rows:
            return tuple(map(str, self.rows))
        words: list[str] = []
        for flow in self.flows:
            address = _address_words(flow.address or flow.peer)
            named = address or _PROTOCOL_WORDS.get(flow.protocol or 0)
            if not named:
                return ()
            words += named
        return tuple(dict.fromkeys(words))

    @property
    def line_rules(self) -> str:
        """The flows as rules that select lines of a table, "" without flows (shell_script.py).

        A rule is a line: words that are parted by |, one of which the line must have, and a tab
        between those that it must all have. Flows that differ in the peer alone are one rule. A
        line belongs to the first rule that it meets, and each rule keeps the newest: so flows that
        matter most stand first. The rule that begins with + selects none: its lines are counted.
        Of a table of addresses: = and the addresses.
        """
        if self.rows:
            return "=" + "|".join(map(str, self.rows))
        rules: dict[tuple[object, ...], list[list[str]]] = {}
        for flow in self.flows:
            peer = (flow.port, flow.peer_port, flow.peer is None)
            rule = rules.setdefault((flow.address, flow.protocol, peer), [])
            words = [
                _address_words(flow.address),
                _PROTOCOL_WORDS.get(flow.protocol or 0, []),
                _port_words(flow.port),
                _address_words(flow.peer),
                _port_words(flow.peer_port),
            ]
            if rule:
                rule[3] += words[3]
            else:
                rule += words
        end = snat_end(self.flows)
        if end is not None and self.fact.name in (NAT.name, CONNTRACK.name):
            rules[end] = _to_end(*end, cilium=self.fact.name == NAT.name)
        parts = (["|".join(part) for part in rule if part] for rule in rules.values())
        return "\n".join("\t".join(part or " ") for part in parts)  # every entry has a blank

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the flows, as the record of the node side names its filter."""
        words = (str(end) for flow in self.flows for end in (flow.address, flow.peer) if end)
        return tuple(dict.fromkeys(words))


def snat_end(flows: Sequence[FlowFilter]) -> tuple[int, Address, int] | None:
    """Return the protocol, address and port, 0 for ICMP, that the first flow goes to: every flow
    of a node there needs another port of source NAT. None where that is not said."""
    for flow in flows[:1]:
        if flow.peer is not None and flow.protocol is not None:
            if not has_ports(flow.protocol):
                return flow.protocol, flow.peer, 0
            if flow.peer_port is not None:
                return flow.protocol, flow.peer, flow.peer_port
    return None


def _to_end(protocol: int, address: Address, port: int, *, cilium: bool) -> list[list[str]]:
    """Return the rule of entries to a destination: in Cilium's NAT map, or in nf_conntrack."""
    ours, netfilter = _PROTOCOL_WORDS.get(protocol, ("", ""))
    if cilium:
        return [["+"], [f" -> {endpoint_text(address, port)} XLATE_SRC "], [f"{ours}OUT "]]
    ports = [[f" dport={port} "]] if port else []
    return [["+"], [f" dst={_address_words(address)[-1]} "], *ports, [netfilter]]


_PROTOCOL_WORDS = {
    TCP: ["TCP ", "tcp "],
    UDP: ["UDP ", "udp "],
    ICMP: ["ICMP ", "icmp "],
    ICMPV6: ["ICMPv6 ", "icmpv6 "],
}
"""As Cilium's tables and nf_conntrack call them; other protocols do not select."""


def _address_words(address: Address | None) -> list[str]:
    """Return an address as tables print it; nf_conntrack prints IPv6 in full."""
    if address is None:
        return []
    full = address.exploded if isinstance(address, IPv6Address) else str(address)
    return [*dict.fromkeys((str(address), full))]


def _port_words(port: int | None) -> list[str]:
    return [] if port is None else [f":{port} ", f"port={port} "]
