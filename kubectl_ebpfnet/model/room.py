"""How full the tables of Cilium's datapath are: its maps, and the ports of its source NAT."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address


class Table(StrEnum):
    """The maps that grow with a cluster, or with its traffic."""

    CT_TCP = "ct-tcp"
    CT_ANY = "ct-any"
    NAT = "nat"
    POLICY = "policy"
    IPCACHE = "ipcache"
    ENDPOINTS = "endpoints"
    SERVICES = "services"
    BACKENDS = "backends"
    REV_NAT = "rev-nat"


@dataclass(frozen=True, slots=True)
class MapRoom:
    """How many entries a map has, and how many it can have (`max_entries`).

    Attributes:
        table: which one.
        most: entries that it can have.
        version: 4 or 6, None where one map or one setting is for both.
        endpoint_id: of a policy map, None where one setting is for all.
        entries: that it has; None where they were not counted.
        exact: `entries` were counted one by one; of a large map a part is, and tells the rest.
        evicts: a new entry takes the place of the least recently used one (LRU); False where it is
            refused; None where the map's type was not read.
    """

    table: Table
    most: int
    version: int | None = None
    endpoint_id: int | None = None
    entries: int | None = None
    exact: bool = True
    evicts: bool | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class SnatUse:
    """How many flows to one destination a node's SNAT map has, by their new source.

    Attributes:
        protocol: IANA number.
        destination, port: where they go; port 0 for ICMP.
        source: their address after translation; None for every address that no other fact names.
        flows: how many, each of which has a port of `source`; without a source, at most so many.
    """

    protocol: int
    destination: Address
    port: int
    source: Address | None
    flows: int
    span: Span = field(default=NOWHERE, compare=False)
