"""A question to a place: a row of the catalogue, and what narrows it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from kubectl_ebpfnet.model.evidence import Place
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, PodNamespace


@dataclass(frozen=True, slots=True)
class Question:
    """One question. Each answerer asks it in its own words.

    Attributes:
        fact: the row of the catalogue, with its words.
        place: the place of the record.
        netns: the pod's network namespace, for the node side; None for the node's own.
        flows: filters of a table that grows with traffic; () for the whole table.
    """

    fact: Fact[Any]
    place: Place
    netns: PodNamespace | None = None
    flows: tuple[FlowFilter, ...] = ()

    @property
    def needles(self) -> tuple[str, ...]:
        """The flows as strings that a command's line has to contain; () where a filter has no
        address. nf_conntrack prints IPv6 in full."""
        words: list[str] = []
        for flow in self.flows:
            address = flow.address or flow.peer
            if address is None:
                return ()
            words.append(str(address))
            if isinstance(address, IPv6Address) and address.exploded != str(address):
                words.append(address.exploded)
        return tuple(words)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the flows, as the record of the node side names its filter."""
        words = (str(end) for flow in self.flows for end in (flow.address, flow.peer) if end)
        return tuple(dict.fromkeys(words))
