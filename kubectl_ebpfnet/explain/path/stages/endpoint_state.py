"""Whether an endpoint's policy map holds the newest policy; a warning where it may not.

The agent says a state, and the revisions of the policy that the map holds and of that which is on
its way; every endpoint of a node comes to the newest revision, also where it changes nothing for
it. Without the agent, a folder that is there while it regenerates an endpoint, or since that
failed, tells the same.

Source: Cilium pkg/endpoint (endpoint.go: states; policy.go: SetPolicyRevision; directory.go),
pkg/envoy (an endpoint with L7 rules waits until Envoy acknowledges them).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.presumed import Look
from kubectl_ebpfnet.explain.path.stages import policy_map
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Endpoint
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Evidence, Severity
from kubectl_ebpfnet.model.proxy import EndpointRule

_REALIZED = ("", "ready", "disconnecting", "disconnected")
"""States in which the map holds what the agent last put into it."""
_SLOW = 30
"""Seconds that a regeneration may take; it is a matter of a few."""


@dataclass(frozen=True, slots=True)
class _Behind:
    """An endpoint whose map may be older than the policies.

    Attributes:
        text: what shows it, one clause.
        evidence: the proof.
        pending: rules that are not in the map yet.
    """

    text: str
    evidence: tuple[Evidence, ...]
    pending: tuple[EndpointRule, ...] = ()


def warn(walk: PathBuilder, subject: PolicySubject) -> str:
    """Warn where an endpoint's map may not hold its newest policy; return that in words, "" where
    nothing says so: it is presumed where nobody tells."""
    behind = _by_agent(subject.node, subject.endpoint_id)
    if behind is None:
        behind = _by_folders(subject.node, subject.endpoint_id)
    if behind is None:
        if not _is_told(subject.node, subject.endpoint_id):
            on = f"{subject.name} on {subject.node.name}"
            walk.presumed.add(f"that the policy map of {on} holds the newest policy", Look.LAST)
        return ""
    policies = ", ".join(dict.fromkeys(p for rule in behind.pending for p in rule.policies))
    lacks = f": its policy map does not hold {policies} yet" if policies else ""
    walk.finding(
        Severity.WARNING,
        f"{subject.name} on {subject.node.name} {behind.text}{lacks}",
        "What is decided here is decided by its policy map as it is, which may be older than the "
        f"policies in the cluster. {_waits_for(behind.pending)}If it stays so, the agent's log and "
        f"`{subject.node.cilium(f'endpoint log {subject.endpoint_id}')}` tell why.",
        behind.evidence,
    )
    return f"its policy map may be older than the policies: {subject.name} {behind.text}"


def _by_agent(node: NodeView, endpoint_id: int) -> _Behind | None:
    known = policy_map.endpoint(node, endpoint_id)
    if known is None:
        return None
    rules = node.having(q.ENDPOINT_RULES, endpoint_id, "endpoint_id")
    pending = tuple(rule for rule in rules if not rule.realized)
    if known.state not in _REALIZED:
        return _Behind(
            f"is {known.state}{_revisions(node, known)}",
            policy_map.endpoint_evidence(node, known) + _cited(node, pending), pending,
        )  # fmt: skip
    if _revisions(node, known):
        said = known.span.member("status", "policy", "realized")
        proof = cite.of(node[q.ENDPOINTS].record, said, keep=("policy-revision",))
        return _Behind(f"is {known.state or 'there'}{_revisions(node, known)}", proof, pending)
    return None


def _revisions(node: NodeView, known: Endpoint) -> str:
    """Return that the map's policy is older than the agent's, "" where it is not."""
    has = known.policy_revision
    others = [one.policy_revision or 0 for one in node[q.ENDPOINTS].facts]
    newest = max([*others, known.wanted_revision or 0])
    if has is None or newest <= has:
        return ""
    return f", with the policy of revision {has}, and the newest is {newest}"


def _cited(node: NodeView, rules: tuple[EndpointRule, ...]) -> tuple[Evidence, ...]:
    return cite.of(node[q.ENDPOINT_RULES].record, *(rule.span for rule in rules[:3]))


def _waits_for(pending: tuple[EndpointRule, ...]) -> str:
    parsers = {rule.parser for rule in pending if rule.parser not in ("", "dns")}
    if not parsers:
        return ""
    return (
        f"Its L7 rules ({', '.join(sorted(parsers))}) need Envoy, which has to acknowledge them: "
        "`kubectl get pods -A -l k8s-app=cilium-envoy -o wide` shows whether one runs there. "
    )


def _is_told(node: NodeView, endpoint_id: int) -> bool:
    """Tell whether the agent, or its folders, say how an endpoint is."""
    states = node.having(q.ENDPOINT_STATES, endpoint_id, "endpoint_id")
    return policy_map.endpoint(node, endpoint_id) is not None or bool(states)


def _by_folders(node: NodeView, endpoint_id: int) -> _Behind | None:
    for state in node.having(q.ENDPOINT_STATES, endpoint_id, "endpoint_id"):
        proof = cite.of(node[q.ENDPOINT_STATES].record, state.span)
        if state.building is not None:
            since = f", for {state.building} s" if state.building >= _SLOW else ""
            return _Behind(f"is being regenerated{since}", proof)
        if state.failed is not None:
            return _Behind(f"could not be regenerated {state.failed} s ago", proof)
    return None
