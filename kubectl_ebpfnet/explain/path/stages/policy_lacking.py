"""Which rule a packet lacks that policies deny by default: the nearest one, and what to add to it.

A CIDR of Cilium's selects what is outside of the cluster alone, and a NetworkPolicy has nothing
else that could select a node (docs.cilium.io, "Known missing features for Kubernetes Network
Policy").
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.path.stages import policy_settings
from kubectl_ebpfnet.explain.path.stages import policy_words as words
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.policy import text
from kubectl_ebpfnet.explain.policy.evaluate import PolicyAnswer, RuleAnswer
from kubectl_ebpfnet.explain.policy.party import Party
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Fix
from kubectl_ebpfnet.model.policy import Policy


@dataclass(frozen=True, slots=True)
class Lack:
    """What is missing.

    Attributes:
        policy: to edit.
        text: which rules there are, for the end of a sentence.
        fix: what to add.
        rules: those that are near, to cite.
    """

    policy: Policy
    text: str
    fix: Fix
    rules: Sequence[RuleAnswer]


def lacking(
    cluster: ClusterView, subject: PolicySubject, answer: PolicyAnswer, other: Party
) -> Lack:
    """Return what the policies that deny a packet by default lack.

    Args:
        cluster: names the ends.
        subject: whose policy is asked about what.
        answer: of the policies.
        other: the other end.
    """
    what = words.what(cluster, subject)
    # Names allow addresses by and by: a rule of names for the packet's port comes first.
    allow = (*answer.undecided(deny=False), *answer.lacking)
    by_name = [a for a in allow if a.rule.peers.names and a.by_port.matches]
    near = next((a for a in (*by_name, *answer.lacking) if _may_be_meant(a)), None)
    beside = _beside(answer, other, subject)
    one = beside or near
    policy = one.policy if one is not None else answer.denying_by_default[0]
    fix = _addition(subject, other, policy, what)
    if beside is not None:
        has = f"; {beside.policy.title} {text.rule(beside.rule)} has the"
        if other.address is not None and _has(beside, other.address):
            said = f"{has} address, but CIDRs of Cilium select no pods and nodes"
        else:
            said = f"{has} Service's address, but policies see that of its backend"
        return Lack(policy, said, fix, [beside])
    if near is not None:
        said = f"; the nearest is {words.rule(near, answer)}"
        if near.by_peer.matches and near.by_port.matches is False:
            place = f"{near.rule.place} of {policy.title}"
            add = f"If it may pass, add {subject.what} to {place}, or a rule of its own."
            if subject.asked is not None and _has_port(near, subject.asked[1]):
                said += ", which is the Service's port: policies see that of its backend"
            if not (_is_wide(near) and _is_api_server(other) and policy.kind != "NetworkPolicy"):
                fix = Fix(add, words.edit(policy))
        return Lack(policy, said + _not_there(cluster, subject, [near]), fix, [near])
    rules = [*answer.lacking, *answer.undecided(deny=False)]
    if not rules:
        return Lack(policy, "", fix, ())
    shown = few(rules, words.SHOWN, lambda each: words.rule(each, answer))
    gone = _not_there(cluster, subject, rules[: words.SHOWN])
    return Lack(policy, f"; the rules are {shown}{gone}", fix, rules)


def _not_there(cluster: ClusterView, subject: PolicySubject, rules: Sequence[RuleAnswer]) -> str:
    """Say which groups and names of ports that rules go by nobody has, "" for none."""
    said = ""
    groups = policy_settings.around(cluster).groups
    if groups is not None:
        named = [cidr.group for each in rules for cidr in each.rule.peers.cidrs if cidr.group]
        lost = dict.fromkeys(named).keys() - {group.name for group in groups}
        if lost:
            said = f"; there is no CiliumCIDRGroup {few(sorted(lost), words.SHOWN)}"
    pod = cluster.pod_with(subject.packet.flow.destination)
    if pod is None:
        return said
    wanted = {port.name for each in rules for port in each.rule.ports or () if port.name}
    lost_names = sorted(wanted - {port.name for port in pod.ports})
    if lost_names:
        few_names = few(lost_names, words.SHOWN)
        said += f"; no container of pod {pod.namespace}/{pod.name} names a port {few_names}"
    return said


def _may_be_meant(answer: RuleAnswer) -> bool:
    return bool(answer.rule.peers.names) or answer.by_peer.matches is not False


def _is_wide(answer: RuleAnswer) -> bool:
    """Tell whether a rule takes its peers by no more than entities: a port there lets all of the
    world, or of the cluster, have it."""
    peers = answer.rule.peers
    return peers.anyone or bool(peers.entities)


def _is_api_server(other: Party) -> bool:
    return other.has("reserved", "kube-apiserver").matches is True


def _addition(subject: PolicySubject, other: Party, policy: Policy, what: str) -> Fix:
    """Return which rule to add, by what selects the other end."""
    member = "toEntities" if subject.direction == "egress" else "fromEntities"
    nodes = ("kube-apiserver", "host", "remote-node")
    entity = next((name for name in nodes if other.has("reserved", name).matches), "")
    if entity and policy.kind == "NetworkPolicy":
        return Fix(
            f"A NetworkPolicy can select no node with Cilium: if it may pass, allow {what} by "
            f"{member} {entity} in a CiliumNetworkPolicy that selects the same endpoint."
        )
    by = f" by {member} {entity}" if entity else ""
    return Fix(
        f"If it may pass, add a rule that allows {what}{by} to {policy.title}.", words.edit(policy)
    )


def _beside(answer: PolicyAnswer, other: Party, subject: PolicySubject) -> RuleAnswer | None:
    """Return a rule whose CIDR has the address of a pod or a node, which it does not select, or
    that of the Service, which policies do not see."""
    meant = [other.address] if other.outside is False and other.address is not None else []
    meant += [subject.asked[0]] if subject.asked is not None else []
    return next((a for a in answer.lacking for each in meant if _has(a, each)), None)


def _has(answer: RuleAnswer, address: Address) -> bool:
    """Tell whether a CIDR of a rule has an address; one that has all is not about it."""
    return any(
        cidr.prefix is not None
        and cidr.prefix.prefixlen > 0
        and address in cidr.prefix
        and not any(address in prefix for prefix in cidr.exceptions)
        for cidr in answer.rule.peers.cidrs
    )


def _has_port(answer: RuleAnswer, port: int) -> bool:
    return any(each.low == port == each.high for each in answer.rule.ports or ())
