"""The verdict of an endpoint's policy, as a hop: for both ends of a path.

explain/path/policy.py makes the decision; Cilium's bpf/bpf_lxc.c shows when it is made.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import policy
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import identity_name, identity_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import PolicyEntry
from kubectl_ebpfnet.model.net import has_ports
from kubectl_ebpfnet.model.path import Decides, Evidence, HopKind, Packet, Severity, State

ICMP_ECHO_REQUEST = {1: 8, 58: 128}
"""With ICMP rules, Cilium's policy maps hold the ICMP type in place of the port."""
_STEPS = 2
"""From an entry to its map in JSON: {"EndpointID": …, "Content": [entry, …]}."""


def policy_hop(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    packet: Packet,
    endpoint_id: int | None,
    direction: str,
    identity: int | None,
) -> bool:
    """Add the verdict of an endpoint's policy.

    Args:
        walk: takes hops and findings.
        here: the packet at the endpoint's host side.
        node: the endpoint's node.
        packet: as the policy sees it.
        endpoint_id: of the endpoint, None when not known.
        direction: `ingress` or `egress`, seen from the endpoint.
        identity: security identity of the remote side, None when not known.

    Returns:
        Whether the packet goes on.
    """
    where = here.in_cilium(HopKind.POLICY)
    seen = _conntrack_evidence(walk, here.node)
    missing = _missing(node, endpoint_id, identity)
    if missing:
        state = State.OBSERVED if seen else State.UNKNOWN
        text = f"{direction} policy" + (
            ": let this flow pass, or it would not be in conntrack" if seen else ""
        )
        walk.hop(
            *where, text, state, packet, seen,
            reason="" if seen else missing, decides=Decides.DROP,
        )  # fmt: skip
        return True
    assert endpoint_id is not None
    assert identity is not None
    flow = packet.flow
    port = flow.destination_port
    if not has_ports(flow.protocol):
        port = ICMP_ECHO_REQUEST.get(flow.protocol)
    verdict = policy.decide(
        node[q.POLICY_MAPS].facts, endpoint_id, direction, identity, flow.protocol, port
    )
    who = identity_text(walk.cluster, identity)
    side = "to" if direction == "egress" else "from"
    evidence = _policy_evidence(node, endpoint_id, verdict.entry)
    if verdict.allowed is None or (
        verdict.allowed is False and port is None and has_ports(flow.protocol) and not seen
    ):
        walk.hop(
            *where,
            f"{direction} policy of endpoint {endpoint_id} {side} {who}",
            State.UNKNOWN,
            packet,
            evidence,
            reason="it depends on the port: give one, as in 1.1.1.1:80"
            if port is None
            else "the policy map names identities by labels that could not be resolved",
            decides=Decides.DROP,
        )
        return True
    if verdict.allowed:
        assert verdict.entry is not None
        walk.hop(
            *where,
            f"{direction} policy of endpoint {endpoint_id} allows it {side} {who}: "
            f"{policy.describe(verdict.entry)}",
            State.OBSERVED if seen else State.DERIVED,
            packet,
            evidence,
        )
        if verdict.entry.proxy_port:
            _proxied(walk, here, endpoint_id, verdict.entry, evidence)
        return True
    _denied(walk, here, packet, endpoint_id, direction, identity, verdict, evidence)
    return False


def _proxied(
    walk: PathBuilder,
    here: PacketState,
    endpoint_id: int,
    entry: PolicyEntry,
    evidence: tuple[Evidence, ...],
) -> None:
    """Note that the L7 proxy, whose rules are not in the policy map, decides next."""
    walk.doubt(
        f"the L7 proxy on {here.node} (port {entry.proxy_port}) decides about each request, by "
        "rules that are not in the policy map"
    )
    walk.finding(
        Severity.INFO,
        f"the L7 proxy on {here.node} decides about each request of endpoint {endpoint_id}",
        "The path below is that of a request which it lets pass; the proxy opens a connection of "
        f"its own for it. `cilium-dbg monitor -t l7 --related-to {endpoint_id}` in the agent on "
        f"{here.node} shows what it refuses.",
        evidence,
    )


def _denied(
    walk: PathBuilder,
    here: PacketState,
    packet: Packet,
    endpoint_id: int,
    direction: str,
    identity: int,
    verdict: policy.PolicyVerdict,
    evidence: tuple[Evidence, ...],
) -> None:
    proof_of_drop = next(walk.cluster.node(here.node).drops(packet.flow), None)
    if proof_of_drop is not None:
        evidence += proof_of_drop.evidence
    own = walk.ends.identity if direction == "egress" else None
    who = identity_name(walk.cluster, identity)
    summary = f"{direction} policy denies {who} for endpoint {endpoint_id}: {verdict.reason}"
    summary += ", as cilium monitor shows" if proof_of_drop is not None else ""
    kinds = sorted(
        {f"{ns or 'cluster'}/{name}" for _, ns, name in walk.cluster.kube.network_policies}
    )
    mine = f" (its own is {identity_text(walk.cluster, own)})" if own else ""
    named = f" Policies in the cluster: {', '.join(kinds[:5])}." if kinds else ""
    rule = (
        f"its entry “{policy.describe(verdict.entry)}” matches"
        if verdict.entry is not None
        else f"no entry of its policy map allows {packet.flow}"
    )
    walk.drop(
        *here.in_cilium(HopKind.POLICY),
        summary,
        State.OBSERVED if proof_of_drop is not None else State.DERIVED,
        packet,
        evidence,
        title=f"policy drops the packet: endpoint {endpoint_id}, {direction}, "
        f"{identity_text(walk.cluster, identity)}",
        detail=f"Endpoint {endpoint_id}{mine}: {rule}.{named} "
        f"`cilium-dbg monitor -t drop --related-to {endpoint_id}` in the agent on {here.node} "
        "shows the drops as they happen.",
        seen=proof_of_drop is not None,
    )


def _conntrack_evidence(walk: PathBuilder, node_name: str) -> tuple[Evidence, ...]:
    for flow in walk.flows:
        if flow.node == node_name and flow.cilium_ct is not None:
            return flow.evidence[:1]
    return ()


def _missing(node: NodeView, endpoint_id: int | None, identity: int | None) -> str:
    if endpoint_id is None:
        if node[q.ENDPOINTS].missing and node[q.ENDPOINTS].record is None:
            return node[q.ENDPOINTS].missing  # names the command that lists endpoints
        why = node[q.ENDPOINTS].missing or "the agent does not know the pod's address"
        return f"the endpoint is not known: {why}"
    if not node[q.POLICY_MAPS].known:
        if node[q.POLICY_MAPS].record is None:
            return node[q.POLICY_MAPS].missing
        return f"the policy map could not be read: {node[q.POLICY_MAPS].missing}"
    if not any(e.endpoint_id == endpoint_id for e in node[q.POLICY_MAPS].facts):
        return f"no policy map of endpoint {endpoint_id} was read"
    if identity is None:
        why = node[q.IPCACHE].missing or "no ipcache entry"
        return f"the identity of the remote side is not known: {why}"
    return ""


def _policy_evidence(
    node: NodeView, endpoint_id: int, entry: PolicyEntry | None
) -> tuple[Evidence, ...]:
    """Cite the entry that decided, or the endpoint's whole map."""
    if entry is not None:
        return cite.block(node[q.POLICY_MAPS].record, entry.span)
    own = (e.span.outer(_STEPS) for e in node[q.POLICY_MAPS].facts if e.endpoint_id == endpoint_id)
    return cite.of(node[q.POLICY_MAPS].record, *dict.fromkeys(own))
