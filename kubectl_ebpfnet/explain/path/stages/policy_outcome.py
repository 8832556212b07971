"""What becomes of a packet at an endpoint's policy: a hop for each verdict, and what to do then."""

from __future__ import annotations

from datetime import datetime, timedelta

from kubectl_ebpfnet.explain.path import commands, fqdn, policy, room
from kubectl_ebpfnet.explain.path.redirect import Redirect
from kubectl_ebpfnet.explain.path.stages import looked_up_names, policy_map
from kubectl_ebpfnet.explain.path.stages.policy_names import REALIZED, Names
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import identity_name, identity_text, peer_name
from kubectl_ebpfnet.model.kube import AGENT_LABEL
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, Severity, State
from kubectl_ebpfnet.model.proxy import EndpointRule


def undecided(
    walk: PathBuilder,
    subject: PolicySubject,
    verdict: policy.PolicyVerdict,
    evidence: tuple[Evidence, ...],
    named: Names,
) -> None:
    """Add the hop of a verdict that the map does not tell."""
    should = f"; by the policies in the cluster: {named.cause}" if named.cause else ""
    walk.hop(
        *subject.where,
        f"{subject.direction} policy of {subject.name} {subject.side} {_who(walk, subject)} "
        f"at {subject.what}",
        State.UNKNOWN,
        subject.packet,
        evidence,
        reason=verdict.reason + should,
        decides=Decides.DROP,
        fix=Fix(
            "List the map with numeric identities, and the labels of the identities.",
            subject.node.cilium(f"bpf policy get {subject.endpoint_id} -n"),
        ),
        short=_asked(walk, subject),
    )


def refused(walk: PathBuilder, subject: PolicySubject, named: Names) -> None:
    """Warn of policies that would select the endpoint, and that Cilium refuses."""
    for policy_ in named.refused:
        record = walk.cluster.api_record_of(policy_)
        walk.finding(
            Severity.WARNING,
            f"Cilium refuses {policy_.title}, which would select {subject.name}",
            f"It decides nothing: {policy_.invalid}",
            cite.of(record, policy_.span.member("status")),
        )


def allowed(
    walk: PathBuilder,
    subject: PolicySubject,
    verdict: policy.PolicyVerdict,
    evidence: tuple[Evidence, ...],
    named: Names,
    behind: str,
) -> None:
    """Add the hop of a packet that may pass, or may after more was decided."""
    entry = verdict.entry
    assert entry is not None
    summary = (
        f"{subject.direction} policy of {subject.name} allows it {subject.side} "
        f"{_who(walk, subject)}: {policy.describe(entry)}{named.by}"
    )
    allowing = {each.policy.abbreviated for each in named.allowing}
    by = f" by {allowing.pop()}" if len(allowing) == 1 else ""
    short = f"{_asked(walk, subject)} allowed{by}"
    contrary = named.disagreement or ("" if behind else named.older)
    evidence += () if contrary else named.evidence
    known = fqdn.allowed_by(subject.node, subject.endpoint_id, subject.packet.flow.destination)
    if known and subject.direction == "egress" and entry.identity:
        summary += f"; it is {known} in the FQDN cache"
    if contrary:
        _does_not_follow(walk, subject, named, contrary)
    seen = passed_now(walk, subject.node.name)
    where = subject.where
    if entry.auth and not seen:
        walk.hop(
            *where, f"{summary}, after mutual authentication ({entry.auth})", State.UNKNOWN,
            subject.packet, evidence, decides=Decides.DROP,
            reason="the entry wants mutual authentication, and whether the two nodes have it was "
            "not read",
            fix=Fix("List the authentications.", subject.node.cilium("bpf auth list")),
            short=f"{short}, after mutual authentication",
        )  # fmt: skip
        return
    state = State.OBSERVED if seen else State.DERIVED
    walk.hop(*where, summary, state, subject.packet, evidence + seen, short=short)
    if entry.proxy_port:
        walk.redirects.append(
            Redirect(
                subject.node.name, subject.endpoint_id, subject.direction, entry.proxy_port,
                subject.packet.flow, rules=tuple(
                    EndpointRule(
                        subject.endpoint_id, subject.direction, parser=each.rule.proxy,
                        allows=each.rule.allows, policies=(each.policy.title,),
                    ) for each in named.allowing if each.rule.proxy
                ),
            )
        )  # fmt: skip


def _does_not_follow(
    walk: PathBuilder, subject: PolicySubject, named: Names, contrary: str
) -> None:
    """Warn where the map lets pass what the policies in the cluster deny, or allow otherwise."""
    show = subject.node.cilium(f"endpoint log {subject.endpoint_id}")
    walk.finding(
        Severity.WARNING,
        f"the policy map of {subject.name} on {subject.node.name} does not follow the policies in "
        "the cluster",
        f"{contrary}. The map decides; `{show}` in the agent on {subject.node.name} shows what it "
        "waits for.",
        named.evidence,
    )


def audited(
    walk: PathBuilder,
    subject: PolicySubject,
    verdict: policy.PolicyVerdict,
    evidence: tuple[Evidence, ...],
    named: Names,
) -> None:
    """Add the hop of a packet that would be denied, and a warning."""
    who = _who(walk, subject)
    because = f"{named.cause}. " if named.cause else ""
    walk.hop(
        *subject.where,
        f"{subject.direction} policy of {subject.name} would deny it {subject.side} {who} at "
        f"{subject.what} ({verdict.reason}{f', by {named.by}' if named.by else ''}): policy audit "
        "mode logs it and lets it pass",
        State.OBSERVED if passed_now(walk, subject.node.name) else State.DERIVED,
        subject.packet,
        evidence,
        short=f"{_asked(walk, subject)} denied, but policy audit mode lets it pass",
    )
    walk.finding(
        Severity.WARNING,
        f"{subject.name} would deny {who} at {subject.what} without policy audit mode",
        f"{because}PolicyAuditMode is Enabled: every verdict is logged, and no packet is dropped. "
        "`hubble observe -t policy-verdict` shows what would be denied.",
        evidence,
    )


def doubtful(
    walk: PathBuilder,
    subject: PolicySubject,
    verdict: policy.PolicyVerdict,
    doubt: str,
    evidence: tuple[Evidence, ...],
) -> None:
    """Warn of a packet that the map denies, and that may pass all the same: `doubt` says why."""
    walk.finding(
        Severity.WARNING,
        f"the policy map of {subject.name} denies {subject.direction} {subject.side} "
        f"{_who(walk, subject)} at {subject.what} ({verdict.reason}), but {doubt}",
        "In policy audit mode a packet that is denied is logged and passes; without it, it is "
        "dropped.",
        evidence,
    )


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
    who = identity_name(walk.cluster, remote) if remote is not None else _who(walk, subject)
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
    because = f" {named.cause}." if named.by else nameless
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
        f"{subject.direction} policy denies {who} at {subject.what} for {subject.name}: "
        f"{verdict.reason}{by}",
        State.DERIVED,
        subject.packet,
        evidence + named.evidence,
        title=f"policy drops the packet: {subject.name}, {subject.direction}, "
        f"{_who(walk, subject)} at {subject.what}",
        detail=f"{subject.name[0].upper()}{subject.name[1:]}{mine}: {rule}.{because}{unread} "
        f"`{show}` in the agent on {subject.node.name} shows the drops as they happen.",
        cause=cause + ("" if audit_read else "; whether it is in policy audit mode was not read"),
        fix=(looked_up.fix if looked_up is not None else None)
        or _fix(walk, subject, verdict, named),
        object=named.object,
        short=f"{_asked(walk, subject)} {_denied_by(subject, verdict, named)}",
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


def _asked(walk: PathBuilder, subject: PolicySubject) -> str:
    """Return `egress to world:80/TCP`, `egress to world at ICMP`."""
    identity = subject.remote.identity
    who = str(subject.remote.address)
    if identity is not None:
        who = peer_name(walk.cluster, identity)
    plain = subject.what[:1].isdigit() and not {",", ":"} & set(who)
    joint = ":" if plain else " at "
    return f"{subject.direction} {subject.side} {who}{joint}{subject.what}"


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
    what = f"{subject.what} {subject.side} {_who(walk, subject)}"
    whose = "the node" if "host" in subject.name else "the pod"
    if verdict.entry is None and room.policy_map_full(subject.node, subject.endpoint_id):
        return Fix(
            "Raise bpf-policy-map-max, or let the policies select fewer identities and ports: an "
            f"entry that allows {what} may not have fitted.",
            subject.node.cilium(f"bpf policy get {subject.endpoint_id} -n"),
        )
    broken = verdict.entry is None and (_is_empty(subject) or _enforced(subject) is False)
    if named.fix is not None and (named.by or not broken):
        return named.fix
    allow = f"Allow {what} in a policy that selects {whose}."
    if verdict.entry is None:
        lacks_rule = not named.disagreement  # else a rule allows it already
        if lacks_rule and (_enforced(subject) or not broken):
            return Fix(allow)
        who, node = subject.name, subject.node.name
        anew = f"The agent on {node} writes the whole map of {who} when it starts: restart it."
        if lacks_rule and _enforced(subject) is None:
            anew = f"{allow} Where none selects {whose}, its map is broken. {anew}"
        agents = f"-l {'='.join(AGENT_LABEL)} {commands.pods_on(node)}"
        return Fix(anew, f"kubectl delete pods -A {agents}")
    return Fix(
        f"Take {what} out of the {subject.direction}Deny rule that selects {whose}: a deny wins "
        "over what other rules allow."
    )


def _who(walk: PathBuilder, subject: PolicySubject) -> str:
    identity = subject.remote.identity
    if identity is None:
        return f"{subject.remote.address} (identity not known)"
    return identity_text(walk.cluster, identity)


def answered_under_policies(walk: PathBuilder) -> bool:
    """Tell whether the flow is answered now, and since the newest change of a network policy: then
    something lets pass what the map denies. An older answer proves nothing of the map."""
    attempt = walk.attempt
    if attempt is None or attempt.age is None or not walk.answered_now():
        return False
    cluster = walk.cluster
    if not cluster.kube.network_policies:
        return cluster.api_record("ciliumnetworkpolicies") is None
    try:
        record = cluster.bundle.numbered(attempt.evidence[0].record)
        answered = datetime.fromisoformat(record.started) - timedelta(seconds=attempt.age)
        policies = cluster.kube.network_policies
        changes = [datetime.fromisoformat(time) for each in policies for time in each.changed]
        return all(answered > change + REALIZED for change in changes)
    except (ValueError, TypeError, IndexError, OverflowError):  # no times, or none of this world
        return False


def passed_now(walk: PathBuilder, node: str) -> tuple[Evidence, ...]:
    """Cite the entry that Cilium's conntrack on a node has of the newest attempt, where that was
    answered within the last minute: the policy there let it pass, as it is now."""
    attempt = walk.attempt
    if attempt is None or not walk.answered_now():
        return ()
    port = attempt.flow.flow.source_port
    for flow in walk.flows:
        if (flow.node, flow.flow.source_port) == (node, port) and flow.cilium_ct is not None:
            return flow.evidence[:1]
    return ()
