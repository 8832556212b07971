"""What becomes of a packet that a policy map denies: where it is lost, by which policy, and what a
person edits."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import commands, policy, room
from kubectl_ebpfnet.explain.path.stages import looked_up_names, policy_ends, policy_map
from kubectl_ebpfnet.explain.path.stages.policy_names import Names
from kubectl_ebpfnet.explain.path.stages.policy_outcome import asked, who
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views.names import identity_name, identity_text
from kubectl_ebpfnet.model.kube import AGENT_LABEL
from kubectl_ebpfnet.model.path import Evidence, Fix, State


def denied(
    walk: PathBuilder,
    subject: PolicySubject,
    verdict: policy.PolicyVerdict,
    evidence: tuple[Evidence, ...],
    named: Names,
    *,
    audit_read: bool,
    behind: str = "",
) -> None:
    """End the walk at the policy.

    Args:
        walk: takes the hop and the finding.
        subject: whose policy is asked about what.
        verdict: of its map.
        evidence: the proof.
        audit_read: whether it is in policy audit mode was read.
        behind: why the map may be older than the policies, "" where it is not.
    """
    own = walk.ends.identity if subject.direction == "egress" else None
    remote = subject.remote.identity
    name = identity_name(walk.cluster, remote) if remote is not None else who(walk, subject)
    mine = f" (its own is {identity_text(walk.cluster, own)})" if own else ""
    rule = (
        f"its entry “{policy.describe(verdict.entry)}” matches"
        if verdict.entry is not None
        else _lacks_entry(subject)
    )
    if verdict.entry is None and _enforced(subject) is False:
        evidence += policy_map.enforcement_evidence(subject.node, subject.endpoint_id)
    full = room.policy_map_full(subject.node, subject.endpoint_id)
    rule += f"; {full}" if full and verdict.entry is None else ""
    rule += f"; {named.disagreement}" if named.disagreement else ""
    rule += f"; {behind}" if behind else ""
    unread = "" if audit_read else " Whether it is in policy audit mode was not read."
    nameless = f" Which policy denies it is not known: {named.unknown}." if named.unknown else ""
    because = f" {named.cause[0].upper()}{named.cause[1:]}." if named.by else nameless
    show = subject.node.cilium(f"monitor -t drop --related-to {subject.endpoint_id}")
    on = f"{subject.name} on {subject.node.name}"
    cause = named.cause if named.by else f"{on}: {rule}"
    cause += f"; which policy denies it is not known: {named.unknown}" if named.unknown else ""
    cause += f"; {behind}" if behind and named.by else ""
    looked_up = looked_up_names.why_denied(walk, subject, verdict, named)
    if looked_up is not None:
        evidence += looked_up.evidence
        cause += f"; {looked_up.text}"
        because += f" {looked_up.text[0].upper()}{looked_up.text[1:]}."
    by = f", by {named.by}" if named.by else ""
    walk.drop(
        *subject.where,
        f"{subject.direction} policy denies {name} at {subject.what} for {subject.name}: "
        f"{verdict.reason}{by}",
        State.DERIVED,
        subject.packet,
        evidence + named.evidence,
        title=f"policy drops the packet: {subject.name}, {subject.direction}, "
        f"{who(walk, subject)} at {subject.what}",
        detail=f"{subject.name[0].upper()}{subject.name[1:]}{mine}: {rule}.{because}{unread} "
        f"`{show}` in the agent on {subject.node.name} shows the drops as they happen.",
        cause=cause + ("" if audit_read else "; whether it is in policy audit mode was not read"),
        fix=_fix(walk, subject, verdict, named) if looked_up is None else looked_up.fix,
        object=named.object or _endpoint_behind(walk, subject, verdict, named),
        short=f"{asked(walk, subject)} {_denied_by(subject, verdict, named)}",
        by=f"by the {subject.direction} policy of {_whose(walk, subject)}",
    )


def _denied_by(subject: PolicySubject, verdict: policy.PolicyVerdict, named: Names) -> str:
    if verdict.entry is not None:
        return f"denied by {named.object}" if named.object else "denied"
    if named.disagreement or _is_empty(subject):
        return "allowed by no entry of the policy map"
    return "is allowed by no rule"


def _whose(walk: PathBuilder, subject: PolicySubject) -> str:
    """Return `pod/client`, or the node's name for its own policy."""
    flow = subject.packet.flow
    own = flow.source if subject.direction == "egress" else flow.destination
    pod = walk.cluster.pod_with(own)
    if pod is not None:
        return f"pod/{pod.name}"
    host = "host" in subject.name
    return f"node/{subject.node.name}" if host else f"{subject.name} on {subject.node.name}"


def _endpoint_behind(
    walk: PathBuilder, subject: PolicySubject, verdict: policy.PolicyVerdict, named: Names
) -> str:
    """Return the endpoint whose map is not what the policies ask for, "" where nothing says so."""
    enforced = _enforced(subject)
    broken = verdict.entry is None and (enforced is False or (enforced and _is_empty(subject)))
    if not named.disagreement and not broken:
        return ""
    kind, _, name = policy_ends.title(walk.cluster, subject.node, subject.endpoint_id).partition(
        " "
    )
    return {"pod": f"CiliumEndpoint {name}", "node": f"Node {name}"}.get(kind, "")


def _enforced(subject: PolicySubject) -> bool | None:
    return policy_map.enforces(subject.node, subject.endpoint_id, subject.direction)


def _is_empty(subject: PolicySubject) -> bool:
    return not policy_map.entries(subject.node, subject.endpoint_id)


def _lacks_entry(subject: PolicySubject) -> str:
    """Say that no entry of the map allows the packet, and whether one should."""
    said = f"no entry of its policy map allows {subject.packet.flow}"
    if _is_empty(subject):
        said = "its policy map is empty, which denies everything"
    if _enforced(subject) is False:
        said += f", although the agent enforces no {subject.direction} policy for it"
    return said


def _fix(
    walk: PathBuilder, subject: PolicySubject, verdict: policy.PolicyVerdict, named: Names
) -> Fix:
    what = f"{subject.what} {subject.side} {who(walk, subject)}"
    whose = "the node" if "host" in subject.name else "the pod"
    if verdict.entry is None and room.policy_map_full(subject.node, subject.endpoint_id):
        return Fix(
            "Raise bpf-policy-map-max, or let the policies select fewer identities and ports: an "
            f"entry that allows {what} may not have fitted.",
            subject.node.in_agent(f"bpf policy get {subject.endpoint_id} -n"),
        )
    broken = verdict.entry is None and (_is_empty(subject) or _enforced(subject) is False)
    if named.fix is not None and (named.by or not broken):
        return named.fix
    allow = f"Allow {what} in a policy that selects {whose}."
    if verdict.entry is None:
        lacks_rule = not named.disagreement  # else a rule allows it already
        if lacks_rule and (_enforced(subject) or not broken):
            return Fix(allow)
        mine, node = subject.name, subject.node.name
        anew = f"The agent on {node} writes the whole map of {mine} when it starts: restart it."
        if lacks_rule and _enforced(subject) is None:
            anew = f"{allow} Where none selects {whose}, its map is broken. {anew}"
        agents = f"-l {'='.join(AGENT_LABEL)} {commands.pods_on(node)}"
        return Fix(anew, f"kubectl delete pods -A {agents}")
    return Fix(
        f"Take {what} out of the {subject.direction}Deny rule that selects {whose}: a deny wins "
        "over what other rules allow."
    )
