"""Signs that an endpoint lets pass what its policy map denies, where its option PolicyAuditMode was
not read.

In audit mode a denied packet is logged and gets an entry of Cilium's conntrack as every other one
does (bpf/bpf_lxc.c, POLICY_AUDIT_MODE of bpf/lib/policy.h); without it, a packet that is denied
gets none. Where nothing of the kind is seen the map is taken at its word: endpoints start without
audit mode unless cilium-config says so (policy-audit-mode, which policy_map.audit reads).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice

from kubectl_ebpfnet.explain.flows.clock import FlowClock
from kubectl_ebpfnet.explain.path import policy
from kubectl_ebpfnet.explain.path.stages import policy_map
from kubectl_ebpfnet.explain.path.stages.policy_names import REALIZED, Names
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.net import has_ports
from kubectl_ebpfnet.model.path import Outcome
from kubectl_ebpfnet.model.policy import Policy

_SEARCHED = 200
"""Entries of the endpoint that are weighed."""
_UNREAD = "whether the endpoint is in policy audit mode was not read"


def doubt(walk: PathBuilder, subject: PolicySubject, named: Names) -> str:
    """Return why a packet that the map denies may pass all the same, "" where nothing says so.

    Args:
        walk: has the newest attempt.
        subject: whose policy denies the packet; its audit mode is not known.
        named: what the policies say of the packet.
    """
    attempt = walk.attempt
    if attempt is not None and attempt.age is not None and walk.answered_now():
        record = walk.cluster.bundle.numbered(attempt.evidence[0].record)
        if is_since_changes(walk.cluster, record, attempt.age):
            return _UNREAD
    if attempt is not None and attempt.outcome is Outcome.UNANSWERED:
        return ""
    # Where the policies allow it, the map has changed without them.
    passed = "" if named.disagreement else _let_through(walk.cluster, subject)
    return f"{_UNREAD}, and {passed}" if passed else ""


def _let_through(cluster: ClusterView, subject: PolicySubject) -> str:
    """Return which flow the endpoint let through though its map denies it, "" for none."""
    node, flow = subject.node, subject.packet.flow
    egress = subject.direction == "egress"
    own = flow.source if egress else flow.destination
    clock, record = FlowClock(node), node.table_state(q.CT).record
    by_name = egress and any(_has_names(policy) for policy in cluster.kube.network_policies)
    for line in islice(node.lines(q.CT, [str(own)]), _SEARCHED):
        entry = line.fact
        mine = entry.flow.source if egress else entry.flow.destination
        if mine != own or entry.direction != ("OUT" if egress else "IN") or entry.related:
            continue
        if not has_ports(entry.flow.protocol):  # its type, which maps go by, is not kept
            continue
        if by_name and not cluster.in_cluster(entry.flow.destination):
            continue  # a name that was looked up may have allowed it then
        age = clock.last_seen(entry, None, None).any
        if record is None or age is None or not is_since_changes(cluster, record, age):
            continue
        if _denies(cluster, subject, entry):
            return f"{entry.flow} was let through, {age:.0f} s before, which its map denies too"
    return ""


def _has_names(policy: Policy) -> bool:
    """Tell whether a policy allows what DNS names have, which changes without it."""
    return any(rule.peers.names for spec in policy.specs for rule in spec.rules)


def _denies(cluster: ClusterView, subject: PolicySubject, entry: CtEntry) -> bool:
    egress, flow = subject.direction == "egress", entry.flow
    far = flow.destination if egress else flow.source
    identity = None if egress else entry.source_identity or None
    remote = policy_map.remote(cluster, subject.node, far, identity)
    verdict = policy.decide(
        policy_map.entries(subject.node, subject.endpoint_id), subject.endpoint_id,
        subject.direction, remote, flow.protocol, flow.destination_port,
    )  # fmt: skip
    return verdict.allowed is False


def is_since_changes(cluster: ClusterView, record: Record, age: float) -> bool:
    """Tell whether what was seen so many seconds before a table was read was seen since the newest
    change of a network policy. An older sight proves nothing of the map."""
    policies = cluster.kube.network_policies
    if not policies:
        return cluster.api_record("ciliumnetworkpolicies") is None
    try:
        seen = datetime.fromisoformat(record.started) - timedelta(seconds=age)
        changes = [datetime.fromisoformat(time) for each in policies for time in each.changed]
        return all(seen > change + REALIZED for change in changes)
    except (ValueError, TypeError, OverflowError):  # no times, or none of this world
        return False
