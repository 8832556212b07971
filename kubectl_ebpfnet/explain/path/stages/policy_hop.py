"""The verdict of an endpoint's policy, as a hop. A node's own is asked by host_firewall.py.

explain/path/policy.py makes the decision; Cilium's bpf/bpf_lxc.c shows when it is made. It is made
for each packet of the flow's own direction, also of established flows: that a flow was let through
before proves nothing. In audit mode a denied packet is logged and goes on (bpf/lib/policy.h,
POLICY_AUDIT_MODE).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import policy
from kubectl_ebpfnet.explain.path.presumed import Look
from kubectl_ebpfnet.explain.path.stages import (
    audit_signs,
    endpoint_state,
    policy_ends,
    policy_map,
    policy_names,
    policy_outcome,
    policy_settings,
    remote_identity,
)
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Where
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.path import (
    Decides,
    Fix,
    HopKind,
    Packet,
    State,
)


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
    flow = packet.flow
    address = flow.destination if direction == "egress" else flow.source
    remote = policy_map.remote(walk.cluster, node, address, identity)
    missing = policy_map.missing(node, endpoint_id) or policy_map.lacking(node, remote)
    if missing or endpoint_id is None:
        where = here.in_cilium(HopKind.POLICY)
        said = policy_names.without_map(walk.cluster, where, packet, direction)
        missing += f"; {said}" if said else ""
        not_read(walk, where, packet, f"{direction} policy", missing)
        return True
    where = here.in_cilium(HopKind.POLICY)
    name = f"endpoint {endpoint_id}"
    service, asked = walk.ends.service, None
    if direction == "egress" and service is not None and service.address != address:
        asked = (service.address, service.port)
    subject = PolicySubject(where, node, endpoint_id, name, direction, remote, packet, asked)
    return decided(walk, subject)


def not_read(walk: PathBuilder, where: Where, packet: Packet, title: str, missing: str) -> None:
    """Add the hop of a verdict that cannot be told; an answer that just came shows that it let the
    flow pass.

    Args:
        walk: takes the hop.
        where: of the hop.
        packet: as the policy sees it.
        title: whose verdict, in which direction.
        missing: what was not read, and why.
    """
    node = where[2]
    seen = policy_outcome.passed_now(walk, node)
    if seen:
        walk.hop(*where, f"{title} let this flow pass", State.OBSERVED, packet, seen)
        return
    view = walk.cluster.node(node)
    unlisted = view[q.ENDPOINTS].missing
    command = "endpoint list -o json" if unlisted else "bpf policy get --all -n"
    fix = Fix(f"Read it in the agent on {node}.", view.in_agent(command))
    walk.hop(
        *where, title, State.UNKNOWN, packet, reason=missing, decides=Decides.DROP, fix=fix
    )  # fmt: skip


def decided(walk: PathBuilder, subject: PolicySubject, doubt: str = "") -> bool:
    """Add the verdict of a policy map that was read; return whether the packet goes on.

    Args:
        walk: takes hops and findings.
        subject: whose policy is asked about what.
        doubt: why a packet that the map denies may pass all the same, "" for no doubt.
    """
    node, endpoint_id = subject.node, subject.endpoint_id
    verdict = verdict_of(subject)
    evidence = policy_map.evidence(node, endpoint_id, subject.direction, verdict.entry)
    named = policy_names.names(walk.cluster, subject, verdict)
    behind = endpoint_state.warn(walk, subject)
    remote_identity.compare(walk, subject)
    policy_outcome.refused(walk, subject, named)
    own = policy_ends.subject(walk.cluster, node, endpoint_id)
    for unlisted in policy_settings.unlisted(walk.cluster, own):
        walk.presumed.add(
            f"that the policy map of {subject.name} holds what the policies ask for: {unlisted}",
            Look.LAST,
        )
    if verdict.allowed is None:
        policy_outcome.undecided(walk, subject, verdict, evidence, named)
        return True
    audit = policy_map.audit(walk.cluster, node, endpoint_id, subject.packet.flow)
    if verdict.allowed:
        return policy_outcome.allowed(
            walk, subject, verdict, evidence, named, behind, audit=audit.on
        )
    if audit.on:
        evidence += named.evidence + audit.evidence
        policy_outcome.audited(walk, subject, verdict, evidence, named)
        return True
    if audit.on is None and not doubt:
        doubt = audit.reason or audit_signs.doubt(walk, subject, named)
    if doubt:
        policy_outcome.doubtful(walk, subject, verdict, doubt, evidence)
        reason = f"its policy denies this ({verdict.reason}), but {doubt}"
        verdict = policy.PolicyVerdict(None, None, reason)
        policy_outcome.undecided(walk, subject, verdict, evidence, named)
        return True
    from kubectl_ebpfnet.explain.path.stages import policy_denied  # most packets may pass

    policy_denied.denied(
        walk, subject, verdict, evidence, named, audit_read=audit.on is not None, behind=behind
    )
    return False


def verdict_of(subject: PolicySubject) -> policy.PolicyVerdict:
    """Return the verdict of a policy map that was read."""
    entries = policy_map.entries(subject.node, subject.endpoint_id)
    return policy.decide(
        entries, subject.endpoint_id, subject.direction, subject.remote,
        subject.packet.flow.protocol, subject.port,
    )  # fmt: skip
