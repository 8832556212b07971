"""The names behind a verdict of a policy map: which policies select the endpoint, which of their
rules decides, and what a person would edit; and where map and policies disagree.

The map decides the packet's way: it is what the datapath looks at. The objects say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from kubectl_ebpfnet.explain.path.policy import PolicyVerdict, Remote
from kubectl_ebpfnet.explain.path.stages import (
    policy_ends,
    policy_lacking,
    policy_map,
    policy_settings,
)
from kubectl_ebpfnet.explain.path.stages import policy_words as words
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import Where
from kubectl_ebpfnet.explain.policy.evaluate import PolicyAnswer, RuleAnswer, evaluate
from kubectl_ebpfnet.explain.policy.party import Party
from kubectl_ebpfnet.explain.policy.ports import Traffic
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import PolicyEntry
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.path import Evidence, Fix, Packet
from kubectl_ebpfnet.model.policy import Policy

REALIZED = timedelta(seconds=3)
"""How long an agent takes to put a changed policy into its endpoints' maps."""
_WORLD = (2, 9, 10)
"""Reserved identities of what is outside, and has no identity of its own."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the objects add to a verdict of the map.

    Attributes:
        by: the policy and rule that the verdict comes from, "" where nothing can be said.
        cause: the same as a sentence, for a verdict that denies, or that the map does not tell.
        object: what a person would edit, "" for nothing.
        fix: how.
        evidence: the rules.
        disagreement: why map and policies disagree, "" where they do not, or nobody can tell.
        older: why the map is that of older policies, though these allow the packet too.
        unknown: why the name is not known, "" where it is.
        allowing: the rules that allow the packet.
        fqdns: names of toFQDNs that rules allow at this port.
        dns_rules: a rule has the look-ups of the endpoint pass the DNS proxy, or may have.
        refused: policies that would select the endpoint, and that Cilium refuses.
    """

    by: str = ""
    cause: str = ""
    object: str = ""
    fix: Fix | None = None
    evidence: tuple[Evidence, ...] = ()
    disagreement: str = ""
    older: str = ""
    unknown: str = ""
    allowing: tuple[RuleAnswer, ...] = ()
    fqdns: tuple[str, ...] = ()
    dns_rules: bool = True
    refused: tuple[Policy, ...] = ()


def names(cluster: ClusterView, subject: PolicySubject, verdict: PolicyVerdict) -> Names:
    """Return the names behind a verdict.

    Args:
        cluster: has the policies.
        subject: whose policy is asked about what.
        verdict: of the policy map.
    """
    answer, other = said_by_policies(cluster, subject)
    if verdict.allowed is None:
        found = _undecided(cluster, subject, answer)
    elif verdict.allowed:
        assert verdict.entry is not None
        found = _allowed(cluster, subject, answer, verdict.entry)
    else:
        found = _denied(cluster, subject, verdict, answer, other)
        allow = [a.rule for a in answer.rules if not a.rule.deny and a.by_port.matches is not False]
        fqdns = tuple(dict.fromkeys(name for rule in allow for name in rule.peers.names))
        sure = not answer.unread and not answer.perhaps
        dns = not sure or any("dns" in each.rule.proxy for each in answer.rules)
        found = replace(found, fqdns=fqdns, dns_rules=dns)
    return replace(found, refused=answer.invalid)


def said_by_policies(cluster: ClusterView, subject: PolicySubject) -> tuple[PolicyAnswer, Party]:
    """Return what the policies say of a packet, and its other end."""
    own = policy_ends.subject(cluster, subject.node, subject.endpoint_id)
    other = policy_ends.remote(cluster, subject.node, subject.remote)
    return _said(cluster, subject, own, other), other


def without_map(cluster: ClusterView, where: Where, packet: Packet, direction: str) -> str:
    """Return what the policies say where no map was read, in words; "" where that cannot be told.

    Args:
        cluster: has the policies.
        where: of the hop.
        packet: as the policy would see it.
        direction: `ingress` or `egress`, seen from the pod.
    """
    flow = packet.flow
    ends = (flow.source, flow.destination)
    at, far = ends if direction == "egress" else ends[::-1]
    pod = cluster.pod_with(at)
    if pod is None:
        return ""
    subject = PolicySubject(
        where, cluster.node(pod.node), 0, f"pod {pod.namespace}/{pod.name}", direction,
        Remote(None, address=far), packet,
    )  # fmt: skip
    parties = (policy_ends.at_address(cluster, each) for each in (at, far))
    answer = _said(cluster, subject, *parties)
    if answer.allowed is None:
        return ""
    if answer.allowed:
        rules = answer.matching(deny=False)
        why = words.rules(rules) if rules else answer.why
        return f"by the policies in the cluster it is allowed ({why})"
    return f"by the policies in the cluster it is denied: {_why_denied(cluster, subject, answer)}"


def _said(cluster: ClusterView, subject: PolicySubject, own: Party, other: Party) -> PolicyAnswer:
    egress = subject.direction == "egress"
    traffic = Traffic(
        subject.packet.flow.protocol, subject.port, (other if egress else own).ports, egress
    )
    return evaluate(
        cluster.kube.network_policies,
        own,
        other,
        subject.direction,
        traffic,
        policy_settings.around(cluster),
        policy_settings.enforcement(cluster, own),
    )


# --- what the map allows --------------------------------------------------------------------------


def _allowed(
    cluster: ClusterView, subject: PolicySubject, answer: PolicyAnswer, entry: PolicyEntry
) -> Names:
    rules = answer.matching(deny=False)
    if answer.allowed is False:
        denied = f"{_why_denied(cluster, subject, answer)}, but its policy map allows it"
        return Names(
            disagreement=f"{denied}: {_behind(subject, answer)}",
            evidence=words.cited(cluster, answer.matching(deny=True)),
            object=_first(answer),
        )
    older = _older(answer, rules, entry)
    if older:
        why = f"{words.rules(rules)} would allow it, but {older}: {_behind(subject, answer)}"
        return Names(older=why, evidence=words.cited(cluster, rules))
    if rules:
        return Names(
            f", by {words.rules(rules)}",
            evidence=words.cited(cluster, rules),
            allowing=tuple(rules),
        )
    if answer.allowed:
        return Names(f" ({answer.why})")
    may = answer.undecided(deny=False)
    if may and not answer.unread:
        one = f"by {words.rules(may)}" if len(may) == 1 else f"by one of {words.rules(may)}"
        allowing = tuple(may) if len(may) == 1 else ()
        return Names(f", {one}", evidence=words.cited(cluster, may), allowing=allowing)
    if entry.identity == 0 and not entry.protocol:
        return Names()  # as without a policy
    return Names(f" (by which policy is not known: {answer.why})", unknown=answer.why)


def _older(answer: PolicyAnswer, rules: Sequence[RuleAnswer], entry: PolicyEntry) -> str:
    """Say what of an entry none of the rules that allow the packet would make, "" for nothing."""
    known = answer.allowed and answer.denying_by_default and not answer.undecided(deny=False)
    if not rules or not known:
        return ""
    if entry.identity == 0 and not entry.protocol and not any(map(_is_for_all, rules)):
        return "its policy map allows everything, as that of an endpoint without policies does"
    if not entry.proxy_port and all(each.rule.proxy for each in rules):
        return "its policy map lets it pass without the proxy"
    return ""


def _is_for_all(answer: RuleAnswer) -> bool:
    """Tell whether a rule makes an entry for everyone at every port."""
    peers, ports = answer.rule.peers, answer.rule.ports
    everyone = peers.anyone or "all" in peers.entities or () in peers.endpoints
    return everyone and (ports is None or any(each.high - each.low == 0xFFFF for each in ports))


# --- what it denies -------------------------------------------------------------------------------


def _denied(
    cluster: ClusterView,
    subject: PolicySubject,
    verdict: PolicyVerdict,
    answer: PolicyAnswer,
    other: Party,
) -> Names:
    denying = answer.matching(deny=True)
    if not denying and verdict.entry is not None and answer.allowed is not True:
        denying = answer.undecided(deny=True)  # the map shows that one does
    if denying:
        return _denied_by_rule(cluster, subject, denying)
    if answer.allowed:
        return _denied_against(cluster, subject, answer)
    if verdict.entry is None and answer.denying_by_default:
        return _denied_by_default(cluster, subject, answer, other)
    if verdict.entry is None and answer.allowed is False:
        return _denied_by_mode(cluster, subject, answer)
    return Names(unknown=answer.why or "no policy that was read denies it")


def _denied_by_mode(cluster: ClusterView, subject: PolicySubject, answer: PolicyAnswer) -> Names:
    """No policy asks for it: Cilium denies by default what no rule allows."""
    allow = f"{words.what(cluster, subject)} in a policy that selects it"
    return Names(
        "enable-policy: always",
        _why_denied(cluster, subject, answer),
        fix=Fix(f"If it may pass, allow {allow}, or set policyEnforcementMode: default (Helm)."),
    )


def _denied_by_rule(
    cluster: ClusterView, subject: PolicySubject, denying: Sequence[RuleAnswer]
) -> Names:
    first = denying[0]
    fix = Fix(
        f"Take {words.what(cluster, subject)} out of {first.rule.place} of {first.policy.title}: a "
        "deny wins over what other rules allow.",
        words.edit(first.policy),
    )
    by = words.rules(denying)
    return Names(by, f"{by} denies it", first.policy.title, fix, words.cited(cluster, denying))


def _denied_by_default(
    cluster: ClusterView, subject: PolicySubject, answer: PolicyAnswer, other: Party
) -> Names:
    lack = policy_lacking.lacking(cluster, subject, answer, other)
    # The policy that would be edited comes first.
    by = tuple(sorted(answer.denying_by_default, key=lambda policy: policy != lack.policy))
    cause = _why_denied(cluster, subject, replace(answer, denying_by_default=by)) + lack.text
    fix = lack.fix
    if may := _may_allow(answer, subject):
        cause += f"; whether {words.rules(may)} should is not known: {may[0].hit.why}"
        fix = replace(
            fix,
            text=f"See whether {words.rules(may)} should allow it: then the agent on "
            f"{subject.node.name} is behind the policies. Else: {fix.text}",
        )
    named = ", ".join(policy.title for policy in by[: words.SHOWN])
    evidence = words.cited(cluster, lack.rules) or words.cited_whole(cluster, by)
    return Names(named, cause, lack.policy.title, fix, evidence)


def _may_allow(answer: PolicyAnswer, subject: PolicySubject) -> list[RuleAnswer]:
    """Return the rules that allow the packet for all that is known, though the map does not. What
    is plainly `world` is in no CIDR that the agent knows; of DNS names its cache tells more."""
    if subject.remote.identity in _WORLD:
        return []
    return [each for each in answer.undecided(deny=False) if not each.rule.peers.names]


def _denied_against(cluster: ClusterView, subject: PolicySubject, answer: PolicyAnswer) -> Names:
    rules = answer.matching(deny=False)
    if answer.invalid and not rules:
        return _denied_by_older(cluster, answer)
    why = f"{answer.why}, so that it should be let through"
    if rules:
        why = f"{words.rules(rules)} allows it, but its policy map does not"
    node, number = subject.node, subject.endpoint_id
    if policy_map.entries(node, number):  # an empty map is nobody's policy
        why += f": {_behind(subject, answer)}"
    fix = Fix(
        f"The agent on {node.name} is behind the policies: ask it what endpoint {number} waits "
        "for. An agent that starts anew writes the whole map.",
        node.in_agent(f"endpoint log {number}"),
    )
    return Names("", why, "", fix, words.cited(cluster, rules), disagreement=why)


def _denied_by_older(cluster: ClusterView, answer: PolicyAnswer) -> Names:
    """Policies that Cilium refuses as they are may hold in the version before."""
    first = answer.invalid[0]
    why = f"{answer.why}; {_kept_before(answer)}"
    fix = Fix(
        f"Correct {first.title}: {first.invalid}. An agent that starts anew without that enforces "
        "nothing of it.",
        words.edit(first),
    )
    return Names(
        "", why, first.title, fix, words.cited_whole(cluster, answer.invalid), disagreement=why
    )


def _kept_before(answer: PolicyAnswer) -> str:
    """Say of policies that Cilium refuses that agents keep what they were before
    (pkg/policy/k8s/cilium_network_policy.go: what cannot be parsed changes nothing)."""
    named = few(answer.invalid, words.SHOWN, lambda policy: policy.title)
    return (
        f"{named} would select it, and Cilium refuses it as it is: an agent that had an older "
        "version of it keeps that until it starts anew"
    )


def _why_denied(cluster: ClusterView, subject: PolicySubject, answer: PolicyAnswer) -> str:
    denying = answer.matching(deny=True)
    if denying:
        return f"{words.rules(denying)} denies it"
    by = answer.denying_by_default
    what = f"no {subject.direction} rule allows {words.what(cluster, subject)}"
    if not by:
        return f"policies are always enforced (enable-policy: always), and {what}"
    named = few(by, words.SHOWN, lambda policy: policy.title)
    whose = subject.name
    if subject.endpoint_id:
        whose = policy_ends.title(cluster, subject.node, subject.endpoint_id)
    said = f"{named} {'select' if len(by) > 1 else 'selects'} {whose}, and {what}"
    ending = [policy for policy in by if policy.deleting]
    if ending:
        few_ending = few(ending, words.SHOWN, lambda policy: policy.title)
        said += f", though {few_ending} is being deleted: it holds until its finalizers are gone"
    return said


def _undecided(cluster: ClusterView, subject: PolicySubject, answer: PolicyAnswer) -> Names:
    if answer.allowed is None:
        return Names(unknown=answer.why)
    if answer.allowed:
        rules = answer.matching(deny=False)
        return Names(cause=f"{words.rules(rules)} allows it" if rules else answer.why)
    return Names(cause=_why_denied(cluster, subject, answer))


def _first(answer: PolicyAnswer) -> str:
    """Return the title of a policy that denies, "" where none is (enable-policy: always)."""
    denying = [each.policy for each in answer.matching(deny=True)]
    return next((each.title for each in (*denying, *answer.denying_by_default)), "")


def _behind(subject: PolicySubject, answer: PolicyAnswer) -> str:
    """Say why a map may not be what the policies ask for."""
    node = subject.node
    endpoint = policy_map.endpoint(node, subject.endpoint_id)
    if endpoint is not None and endpoint.state not in ("", "ready"):
        return f"the endpoint is {endpoint.state}, so its map is that of an older policy"
    if answer.invalid:
        return _kept_before(answer)
    relevant = {each.policy for each in answer.rules} | set(answer.selecting)
    record = node[q.POLICY_MAPS].record
    for policy in sorted(relevant, key=lambda each: each.title):
        age = _age(policy, record.started if record is not None else "")
        if age is not None and age < REALIZED:
            return f"{policy.title} was changed about when the map was read: ask again"
    if answer.denying_by_default and (
        policy_map.enforces(node, subject.endpoint_id, subject.direction) is False
    ):
        return f"the agent on {node.name} enforces no {subject.direction} policy for it"
    return f"the agent on {node.name} is behind"


def _age(policy: Policy, read: str) -> timedelta | None:
    try:
        at = datetime.fromisoformat(read)
        return at - max(datetime.fromisoformat(time) for time in policy.changed)
    except (ValueError, TypeError):  # no times, or times without a zone
        return None
