"""Words and proof for the names behind a verdict of a policy map."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.policy import text
from kubectl_ebpfnet.explain.policy.evaluate import PolicyAnswer, RuleAnswer
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.names import address_text
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.policy import Policy
from kubectl_ebpfnet.model.shell import word

SHOWN = 3
"""Policies, and rules, that are named."""


def what(cluster: ClusterView, subject: PolicySubject) -> str:
    """Return `80/TCP to 10.0.1.7 (pod shop/web)`."""
    address = subject.remote.address
    who = address_text(cluster, address) if address is not None else "it"
    return f"{subject.what} {subject.side} {who}"


def rules(answers: Sequence[RuleAnswer]) -> str:
    """Name rules with their policies, the first few."""

    def named(each: RuleAnswer) -> str:
        return f"{each.policy.title} {text.rule(each.rule)}"

    return few(answers, SHOWN, named, "more rules")


def rule(each: RuleAnswer, answer: PolicyAnswer) -> str:
    """Name a rule, and its policy where there are several."""
    policies = {one.policy for one in answer.rules} | set(answer.denying_by_default)
    return text.rule(each.rule) if len(policies) == 1 else rules([each])


def edit(policy: Policy) -> str:
    """Return the command that edits a policy."""
    within = f" -n {word(policy.namespace)}" if policy.namespace else ""
    return f"kubectl edit {policy.kind.lower()}{within} {word(policy.name)}"


def cited(cluster: ClusterView, answers: Sequence[RuleAnswer]) -> tuple[Evidence, ...]:
    """Cite rules, the first few."""
    found: tuple[Evidence, ...] = ()
    for each in answers[:SHOWN]:
        record = cluster.api_record_of(each.policy)
        found += cite.of(record, each.policy.span.member(*each.rule.path))
    return found


def cited_whole(cluster: ClusterView, policies: Sequence[Policy]) -> tuple[Evidence, ...]:
    """Cite policies, the first few."""
    found: tuple[Evidence, ...] = ()
    for policy in policies[:SHOWN]:
        found += cite.of(cluster.api_record_of(policy), policy.span.member("spec"))
    return found
