"""What policy verdicts are made of: an endpoint's map, audit mode, the host endpoint, identities.

Sources: Cilium pkg/maps/policymap, pkg/endpoint (PolicyAuditMode), bpf/lib/host_firewall.h,
bpf/lib/eps.h (an address without an entry in the ipcache has the identity world).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kubectl_ebpfnet.explain.path.policy import Remote
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import (
    NODE_IDENTITIES,
    REMOTE_NODE_IDENTITIES,
    ClusterView,
)
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium import HOST, REMOTE_NODE, Endpoint, PolicyEntry
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import PlaceKind
from kubectl_ebpfnet.model.net import Address, Flow
from kubectl_ebpfnet.model.path import Evidence

HOST_LABEL = "reserved:host"
WORLD = 2
_RESERVED_END = 256
HOST_CALLS = re.compile("cilium_calls_hostns_([0-9]{1,5})")
_FEW = 8
"""Entries of a direction that are quoted, each, where none of them fits a packet."""
_STEPS = 2
"""From an entry to its map in JSON: {"EndpointID": …, "Content": [entry, …]}."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Whether an endpoint is in policy audit mode.

    Attributes:
        on: None when not known.
        evidence: what says so.
        reason: for None, where something hints that it is on; "" where nothing does: it is off
            unless someone has set it.
    """

    on: bool | None
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""


def entries(node: NodeView, endpoint_id: int) -> Sequence[PolicyEntry]:
    """Return the entries of an endpoint's policy map; () for an empty map."""
    return node.having(q.POLICY_MAPS, endpoint_id, "endpoint_id")


def missing(node: NodeView, endpoint_id: int | None, who: str = "endpoint") -> str:
    """Return why an endpoint's policy map is not known, "" when it was read, be it empty.

    Args:
        node: of the endpoint.
        endpoint_id: None when it is not known.
        who: names the endpoint.
    """
    if endpoint_id is None:
        if node[q.ENDPOINTS].missing and node[q.ENDPOINTS].record is None:
            return node[q.ENDPOINTS].missing  # names the command that lists endpoints
        why = node[q.ENDPOINTS].missing or "the agent does not know its address"
        return f"the {who.removeprefix('the ')} is not known: {why}"
    maps = node[q.POLICY_MAPS]
    if not maps.known:
        if maps.record is None:
            return maps.missing
        return f"the policy map could not be read: {maps.missing}"
    if not _was_asked(node, endpoint_id):
        return f"the policy map of {who} {endpoint_id} was not asked for"
    if entries(node, endpoint_id) or _is_empty(node, endpoint_id):
        return ""
    return f"no policy map of {who} {endpoint_id} was read"


def _was_asked(node: NodeView, endpoint_id: int) -> bool:
    """Tell whether a live run has the map of an endpoint: it reads those of the endpoints that have
    the packet's addresses, and those of endpoints without an address."""
    record = node[q.POLICY_MAPS].record
    if record is None or not record.line_filter or entries(node, endpoint_id):
        return True
    if endpoint_id in node[q.POLICY_ENDPOINTS].facts:
        return True
    rows = node.having(q.ENDPOINT_MAP, endpoint_id, "endpoint_id")
    addresses = [row.address for row in rows if not row.host]
    known = [each for each in node[q.ENDPOINTS].facts if each.id == endpoint_id]
    addresses += [address for each in known if each.identity != HOST for address in each.addresses]
    if not addresses:
        return True
    asked = any(str(address) in record.line_filter for address in addresses)
    return asked or node.want(q.POLICY_MAPS, addresses[0])


def lacking(node: NodeView, remote: Remote) -> str:
    """Return why a map that was read does not tell about the other end, "" where it does: a node
    pod sends entries of reserved identities, and of those of the packet's addresses."""
    record, identity = node[q.POLICY_MAPS].record, remote.identity
    if record is None or record.place.kind is not PlaceKind.NODE or not record.line_filter:
        return ""
    asked = map(node.ipcache_of, js.addresses(record.line_filter))
    known = {entry.identity for entry in asked if entry is not None}
    if identity is not None and (identity < _RESERVED_END or identity in known):
        return ""
    if not record.left_out:
        return ""
    if remote.address is not None:
        node.want_all(q.POLICY_MAPS, remote.address)
    return "the policy map's entries of the other end's identity were not asked for"


def _is_empty(node: NodeView, endpoint_id: int) -> bool:
    """Tell whether an endpoint without entries has a map that was read.

    The agent's command names every map. The node side reads every pinned map or fails, and names
    none that is empty: the endpoint has to be there.
    """
    if endpoint_id in node[q.POLICY_ENDPOINTS].facts:
        return True
    record = node[q.POLICY_MAPS].record
    if record is None or record.place.kind is not PlaceKind.NODE or record.stderr.strip():
        return False
    if node[q.BPF_PINS].known:
        name = f"_{endpoint_id:05d}"
        pins = node[q.BPF_PINS].facts
        return any(p.name.startswith("cilium_policy_") and p.name.endswith(name) for p in pins)
    return bool(node.having(q.ENDPOINT_MAP, endpoint_id, "endpoint_id"))


def evidence(
    node: NodeView, endpoint_id: int, direction: str, entry: PolicyEntry | None
) -> tuple[Evidence, ...]:
    """Cite the entry that decided; where none did, those of the direction if they are few, or the
    endpoint's whole map, or the list without it."""
    record = node[q.POLICY_MAPS].record
    if entry is not None:
        return cite.block(record, entry.span)
    own = entries(node, endpoint_id)
    same = tuple(e.span for e in own if e.direction == direction)
    if 0 < len(same) <= _FEW:
        return cite.of(record, *same)
    spans = tuple(dict.fromkeys(e.span.outer(_STEPS) for e in own))
    return cite.of(record, *spans) if spans else cite.whole(record)


def remote(cluster: ClusterView, node: NodeView, address: Address, identity: int | None) -> Remote:
    """Return the other end of a packet as the policy maps of a node name it.

    Args:
        cluster: knows the labels of identities.
        node: whose ipcache is asked where the identity is not given.
        address: of the other end.
        identity: that travels with the packet, or that the caller knows; None for neither. A
            tunnel says of every node that it is one; which, the ipcache of the receiver tells
            (bpf/bpf_overlay.c).
    """
    if identity in (None, REMOTE_NODE):
        entry = node.ipcache_of(address)
        if entry is not None:
            identity = entry.identity
        elif identity is None and node.ipcache_lacks(address):
            identity = WORLD
    return Remote(identity, frozenset(_labels(cluster, node, identity)), address)


def _labels(cluster: ClusterView, node: NodeView, identity: int | None) -> tuple[str, ...]:
    """Return all labels of an identity, () where they are not known. Nodes number the identities of
    CIDRs, and of other nodes, for themselves."""
    if identity is None:  # what is no int is looked for in each of a range's 16 million
        return ()
    if identity in NODE_IDENTITIES or identity in REMOTE_NODE_IDENTITIES:
        return next((one.labels for one in node.having(q.IDENTITIES, identity, "id")), ())
    return cluster.identity_labels.get(identity, ())


def audit(cluster: ClusterView, node: NodeView, endpoint_id: int, flow: Flow) -> Audit:
    """Tell whether an endpoint lets denied packets pass and logs them.

    Args:
        cluster: has Cilium's settings.
        node: of the endpoint.
        endpoint_id: its id there.
        flow: the packet: a verdict “audit” in the flow log says the same.
    """
    agents = endpoint(node, endpoint_id)
    if agents is not None and agents.policy_audit is not None:
        where = agents.span.member("status", "realized", "options")
        return Audit(agents.policy_audit, cite.of(node[q.ENDPOINTS].record, where))
    for state in node.having(q.ENDPOINT_STATES, endpoint_id, "endpoint_id"):
        if state.policy_audit is not None:
            said = cite.of(node[q.ENDPOINT_STATES].record, state.span)
            return Audit(state.policy_audit, said)
    for _, line in node.events([str(flow.source)]):
        event = line.fact
        if (event.kind, event.summary) == ("policy-verdict", "audit") and (
            event.flow is not None
            and (event.flow.destination, event.flow.destination_port)
            == (flow.destination, flow.destination_port)
        ):
            return Audit(None, line.evidence, "its flow log shows the verdict “audit” of this flow")
    if cluster.settings.policy_audit:
        return Audit(None, (), "cilium-config starts endpoints in policy audit mode")
    return Audit(None)


def enforces(node: NodeView, endpoint_id: int, direction: str) -> bool | None:
    """Tell whether the agent enforces policy for an endpoint; None where it does not say.

    Where it does not, the map has an entry that allows everything (pkg/policy, AllowAllIdentities).

    Args:
        node: of the endpoint.
        endpoint_id: its id there.
        direction: `ingress` or `egress`.
    """
    agents = endpoint(node, endpoint_id)
    if agents is None or agents.policy_enabled not in ("none", "ingress", "egress", "both"):
        return None
    return agents.policy_enabled in (direction, "both")


def host_firewall(cluster: ClusterView, node: NodeView) -> bool | None:
    """Tell whether a node's host firewall is on; None when nothing says. It is off by default."""
    said = node.config.host_firewall
    if said is not None:
        return said
    if cluster.settings_record is not None:
        return False
    by_cilium = node[q.ENDPOINTS].known or node[q.ENDPOINT_MAP].known or node[q.POLICY_MAPS].known
    return None if by_cilium or node.config.state else False


def host_endpoint(node: NodeView) -> int | None:
    """Return the id of the endpoint that stands for the node itself, None when not known.

    Without the agent, the map of its programs' tail calls has its id; else it is the one endpoint
    that has a policy map and no address in cilium_lxc.
    """
    for known in node[q.ENDPOINTS].facts:
        if is_host(known):
            return known.id
    for state in node[q.ENDPOINT_STATES].facts:
        if state.host:
            return state.endpoint_id
    for pin in node[q.BPF_PINS].facts:
        found = HOST_CALLS.fullmatch(pin.name)
        if found is not None:
            return int(found[1])
    if node[q.ENDPOINTS].known or not node[q.ENDPOINT_MAP].known or not node[q.POLICY_MAPS].known:
        return None
    with_address = {row.endpoint_id for row in node[q.ENDPOINT_MAP].facts if not row.host}
    others = {entry.endpoint_id for entry in node[q.POLICY_MAPS].facts} - with_address
    return others.pop() if len(others) == 1 else None


def endpoint(node: NodeView, endpoint_id: int) -> Endpoint | None:
    """Return an endpoint as the agent describes it, None where the agent did not."""
    return next(iter(node.having(q.ENDPOINTS, endpoint_id, "id")), None)


def endpoint_evidence(node: NodeView, known: Endpoint) -> tuple[Evidence, ...]:
    """Cite the state of an endpoint."""
    record = node[q.ENDPOINTS].record
    return cite.of(record, known.span.member("status"), keep=("state", "health"))


def enforcement_evidence(node: NodeView, endpoint_id: int) -> tuple[Evidence, ...]:
    """Cite what the agent says that it enforces for an endpoint; () where it says nothing."""
    agents = endpoint(node, endpoint_id)
    if agents is None:
        return ()
    where = agents.span.member("status", "policy", "realized")
    return cite.of(node[q.ENDPOINTS].record, where, keep=("policy-enabled",))


def is_host(endpoint: Endpoint) -> bool:
    """Tell whether an endpoint stands for its node."""
    return HOST_LABEL in endpoint.labels
