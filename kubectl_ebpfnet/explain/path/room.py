"""Room for one more: maps of Cilium's that are full, on the nodes that a packet passes.

A map that evicts (LRU: connection tracking, NAT) takes every new flow, and some old one loses its
entry. A map that refuses is filled by the agent: what does not fit is not there, so the datapath
decides without it.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import room
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.explain.views.room import Room
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, HopPlace, Severity
from kubectl_ebpfnet.model.room import Table
from kubectl_ebpfnet.model.shell import word

FULL = 0.95
"""Part of a map that evicts from which on it evicts: each CPU keeps some free entries of its own
(Linux kernel/bpf/bpf_lru_list.c)."""
NEARLY = 0.9
"""Part of a map that refuses above which it is time to act."""
_OF_TRAFFIC = {
    Table.CT_TCP: "CT: Map insertion failed",
    Table.CT_ANY: "CT: Map insertion failed",
    Table.NAT: "No mapping for NAT masquerade",
}
"""Maps that flows fill, and the drop reason where one of them takes no new entry."""


@dataclass(frozen=True, slots=True)
class _Words:
    """What a map is called, which setting gives its size, and what follows when it is full."""

    name: str
    setting: str
    follows: str


_NOT_BALANCED = (
    "A Service or a backend that does not fit is not there: packets to it are not load-balanced."
)
_CT = (
    "A new flow takes the place of the one that was idle longest. That one's next packet is taken "
    "for a new connection, so its answers are judged by policy."
)
_TABLES = {
    Table.CT_TCP: _Words("connection tracking of TCP", "bpf-ct-global-tcp-max", _CT),
    Table.CT_ANY: _Words("connection tracking of what is not TCP", "bpf-ct-global-any-max", _CT),
    Table.NAT: _Words(
        "NAT map",
        "bpf-nat-global-max",
        "A new flow takes the place of the one that was idle longest, whose answers then do not "
        "find back to their pod.",
    ),
    Table.POLICY: _Words(
        "policy map",
        "bpf-policy-map-max",
        "An entry that does not fit is not there: what it would allow is denied, and what it would "
        "deny passes where a wider one allows it. Policies that select many identities, or ranges "
        "of ports, need many.",
    ),
    Table.IPCACHE: _Words(
        "ipcache",
        "",
        "An address that does not fit has the identity of the next wider prefix, mostly of the "
        "world, and no tunnel endpoint.",
    ),
    Table.ENDPOINTS: _Words(
        "endpoints' map", "", "A pod whose address does not fit is not found on its node."
    ),
    Table.SERVICES: _Words("map of Services", "bpf-lb-map-max", _NOT_BALANCED),
    Table.BACKENDS: _Words("map of backends", "bpf-lb-map-max", _NOT_BALANCED),
    Table.REV_NAT: _Words(
        "map of reverse NAT",
        "bpf-lb-map-max",
        "Answers of a Service that does not fit keep the backend's address.",
    ),
}


def apply(walk: PathBuilder) -> None:
    """Report each map that is full, or nearly, and that this packet needs."""
    for node, table, endpoint_id in dict.fromkeys(_needed(walk)):
        found = room.of_map(node, table, walk.ends.flow.source.version, endpoint_id)
        if found is not None:
            _report(walk, node, table, endpoint_id, found)


def policy_map_full(node: NodeView, endpoint_id: int) -> str:
    """Return that an endpoint's policy map has no room, one clause; "" where it has."""
    found = room.of_map(node, Table.POLICY, 4, endpoint_id)
    if found is None or found.entries < found.most:
        return ""
    return f"its policy map is full ({found.text}), so entries of its policies may be missing"


def _needed(walk: PathBuilder) -> Iterator[tuple[NodeView, Table, int]]:
    ends, cluster = walk.ends, walk.cluster
    tracking = Table.CT_TCP if ends.flow.protocol == TCP else Table.CT_ANY
    for name in walk.nodes:
        node = cluster.node(name)
        yield node, tracking, 0
        yield node, Table.IPCACHE, 0
        yield node, Table.ENDPOINTS, 0
        passed = [hop for hop in walk.hops if hop.node == name]
        cilium = {hop.kind for hop in passed if hop.place is HopPlace.CILIUM}
        if HopKind.NAT in cilium:
            yield node, Table.NAT, 0
        if ends.service is not None and name == ends.first_node:
            yield from ((node, t, 0) for t in (Table.SERVICES, Table.BACKENDS, Table.REV_NAT))
        if HopKind.POLICY in cilium:
            addresses = {
                a for h in passed for a in (h.packet.flow.source, h.packet.flow.destination)
            }
            for address in sorted(addresses, key=str):
                endpoint = node.endpoint_of(address)
                if endpoint is not None:
                    yield node, Table.POLICY, endpoint.id


def _report(walk: PathBuilder, node: NodeView, table: Table, endpoint_id: int, found: Room) -> None:
    if found.full < (FULL if found.evicts else NEARLY):
        return
    words = _TABLES[table]
    whose = f" of endpoint {endpoint_id}" if endpoint_id else ""
    full = found.evicts or found.entries >= found.most
    how = "full" if full else "nearly full"
    title = f"Cilium's {words.name}{whose} on {node.name} is {how}: {found.text}"
    detail = [words.follows]
    if table in _OF_TRAFFIC:
        if not found.evicts:
            detail = [f"A new flow that finds no room is dropped ({_OF_TRAFFIC[table]})."]
            if full and not walk.answered_now():
                fix = Fix(f"Raise {words.setting}.", node.in_agent("status --verbose"))
                reason = f"{title}: a new flow is dropped ({_OF_TRAFFIC[table]})"
                walk.doubt(reason, Decides.DROP, fix)
        detail.append(f"`kubectl ebpfnet flows node/{word(node.name)}` shows who fills it.")
    if words.setting:
        ratio = ", or follows from bpf-map-dynamic-size-ratio" if table in _OF_TRAFFIC else ""
        detail.append(f"Its size is {words.setting}{ratio}.")
    severity = Severity.ERROR if full and not found.evicts else Severity.WARNING
    walk.finding(severity, title, " ".join(detail), found.evidence)
