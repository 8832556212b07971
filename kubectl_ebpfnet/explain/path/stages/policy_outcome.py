"""What becomes of a packet at an endpoint's policy: a hop for each verdict, and what to do then."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import fqdn, policy
from kubectl_ebpfnet.explain.path.redirect import Redirect
from kubectl_ebpfnet.explain.path.stages import mutual_auth, policy_words
from kubectl_ebpfnet.explain.path.stages.policy_names import Names
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import identity_text, peer_name
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
        f"{subject.direction} policy of {subject.name} {subject.side} {who(walk, subject)} "
        f"at {subject.what}",
        State.UNKNOWN,
        subject.packet,
        evidence,
        reason=verdict.reason + should,
        decides=Decides.DROP,
        fix=Fix(
            "List the map with numeric identities, and the labels of the identities.",
            subject.node.in_agent(f"bpf policy get {subject.endpoint_id} -n"),
        ),
        short=asked(walk, subject),
    )


def refused(walk: PathBuilder, subject: PolicySubject, named: Names) -> None:
    """Warn of policies that would select the endpoint, and that Cilium refuses."""
    for policy_ in named.refused:
        record = walk.cluster.api_record_of(policy_)
        walk.finding(
            Severity.WARNING,
            f"Cilium refuses {policy_.title}, which would select {subject.name}",
            f"As it is, it decides nothing: {policy_.invalid}. An agent that had an older version "
            "of it keeps that until it starts anew.",
            cite.of(record, policy_.span.member("status")),
        )


def allowed(
    walk: PathBuilder,
    subject: PolicySubject,
    verdict: policy.PolicyVerdict,
    evidence: tuple[Evidence, ...],
    named: Names,
    behind: str,
    *,
    audit: bool | None,
) -> bool:
    """Add the hop of a packet that may pass, or may after more was decided; return whether it goes
    on.

    Args:
        walk: takes the hop.
        subject: whose policy is asked about what.
        verdict: of its map.
        evidence: the proof.
        named: what the policies add.
        behind: why the map may be older than the policies, "" where it is not.
        audit: it is in policy audit mode; None when not known.
    """
    entry = verdict.entry
    assert entry is not None
    summary = (
        f"{subject.direction} policy of {subject.name} allows it {subject.side} "
        f"{who(walk, subject)}: {policy.describe(entry)}{named.by}"
    )
    allowing = {each.policy.abbreviated for each in named.allowing}
    by = f" by {allowing.pop()}" if len(allowing) == 1 else ""
    short = f"{asked(walk, subject)} allowed{by}"
    contrary = named.disagreement or ("" if behind else named.older)
    evidence += () if contrary else named.evidence
    known = fqdn.allowed_by(subject.node, subject.endpoint_id, subject.packet.flow.destination)
    if known and subject.direction == "egress" and entry.identity:
        summary += f"; it is {known} in the FQDN cache"
    if contrary:
        _does_not_follow(walk, subject, named, contrary)
    seen = passed_now(walk, subject.node.name)
    where = subject.where
    never = mutual_auth.why_never(walk.cluster, subject, entry) if entry.auth and not seen else ""
    if never and not audit:
        _not_authenticated(walk, subject, named, evidence, never)
        return False
    if entry.auth and not seen:
        walk.hop(
            *where, f"{summary}, after mutual authentication ({entry.auth})", State.UNKNOWN,
            subject.packet, evidence, decides=Decides.DROP,
            reason="the entry wants mutual authentication, and whether the two nodes have it was "
            "not read",
            fix=Fix("List the authentications.", subject.node.in_agent("bpf auth list")),
            short=f"{short}, after mutual authentication",
        )  # fmt: skip
        return True
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
    return True


def _not_authenticated(
    walk: PathBuilder,
    subject: PolicySubject,
    named: Names,
    evidence: tuple[Evidence, ...],
    never: str,
) -> None:
    """Drop a packet that passes after mutual authentication alone, which nobody gives it."""
    policies = dict.fromkeys(each.policy for each in named.allowing)
    by = f" ({', '.join(policy.title for policy in policies)})" if policies else ""
    other = who(walk, subject)
    why = f"wants mutual authentication of {other} at {subject.what}{by}, and {never}"
    walk.drop(
        *subject.where,
        f"{subject.direction} policy of {subject.name} {why}: Authentication required",
        State.DERIVED,
        subject.packet,
        evidence,
        title=f"nobody authenticates what the {subject.direction} policy of {subject.name} allows",
        detail=f"It {why}. The packet is dropped, and so is each one after it.",
        cause=f"the {subject.direction} policy of {subject.name} {why}",
        fix=Fix(
            "Take authentication out of the rule, or enable mutual authentication with SPIRE "
            "(Helm: authentication.mutual.spire.enabled).",
            policy_words.edit(next(iter(policies))) if policies else "",
        ),
        object=next((policy.title for policy in policies), ""),
        short=f"{asked(walk, subject)} wants mutual authentication, which nobody gives",
        by=f"by the {subject.direction} policy of {subject.name} on {subject.node.name}",
    )


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
    other = who(walk, subject)
    because = f"{named.cause}. " if named.cause else ""
    walk.hop(
        *subject.where,
        f"{subject.direction} policy of {subject.name} would deny it {subject.side} {other} at "
        f"{subject.what} ({verdict.reason}{f', by {named.by}' if named.by else ''}): policy audit "
        "mode logs it and lets it pass",
        State.OBSERVED if passed_now(walk, subject.node.name) else State.DERIVED,
        subject.packet,
        evidence,
        short=f"{asked(walk, subject)} denied, but policy audit mode lets it pass",
    )
    walk.finding(
        Severity.WARNING,
        f"{subject.name} would deny {other} at {subject.what} without policy audit mode",
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
        f"{who(walk, subject)} at {subject.what} ({verdict.reason}), but {doubt}",
        "In policy audit mode a packet that is denied is logged and passes; without it, it is "
        "dropped.",
        evidence,
    )


def asked(walk: PathBuilder, subject: PolicySubject) -> str:
    """Return `egress to world:80/TCP`, `egress to world at ICMP`."""
    identity = subject.remote.identity
    other = str(subject.remote.address)
    if identity is not None:
        other = peer_name(walk.cluster, identity)
    plain = subject.what[:1].isdigit() and not {",", ":"} & set(other)
    joint = ":" if plain else " at "
    return f"{subject.direction} {subject.side} {other}{joint}{subject.what}"


def who(walk: PathBuilder, subject: PolicySubject) -> str:
    """Return the other end of a verdict in words: `identity 1234 (app=web)`."""
    identity = subject.remote.identity
    if identity is None:
        return f"{subject.remote.address} (identity not known)"
    return identity_text(walk.cluster, identity)


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
