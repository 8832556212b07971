"""What the policies of a cluster say of a packet at an endpoint, in one direction: which of them
select it, and which rules allow, deny, or do neither.

Pure functions of objects and labels, with three values: an object, a label or a setting that was
not read leaves undecided what it would change. The policy map of the endpoint is what Cilium made
of the same (explain/path/policy.py), and decides the packet's way; the names come from here.

Source: Cilium pkg/policy (repository.go: computePolicyEnforcementAndRules; rule.go: mergeIngress,
mergeEgress; distillery: AllowLocalhost).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from kubectl_ebpfnet.explain.policy.party import NO, Hit, Party, all_of, selects
from kubectl_ebpfnet.explain.policy.peers import Surroundings, holds
from kubectl_ebpfnet.explain.policy.ports import Traffic, port_hit
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.policy import Policy, PolicyRule, PolicySpec


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Cilium's settings about policies, and what was read of them.

    Attributes:
        mode: `default`, `always`, `never`; "" when not known.
        kubernetes: NetworkPolicies are enforced.
        allow_localhost: a node may always reach its own pods; None when not known.
        unread: kinds of policies that may select the endpoint and were not read, and why.
    """

    mode: str = "default"
    kubernetes: bool = True
    allow_localhost: bool | None = True
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleAnswer:
    """A rule of a policy that selects the endpoint, or may select it.

    Attributes:
        policy, rule: whose rule it is.
        hit: whether it matches the packet.
        by_peer, by_port: whether its peers, and its ports, do.
        sure: the policy surely selects the endpoint.
    """

    policy: Policy
    rule: PolicyRule
    hit: Hit
    by_peer: Hit
    by_port: Hit
    sure: bool = True


@dataclass(frozen=True)
class PolicyAnswer:
    """What the policies say of a packet.

    Attributes:
        allowed: None where that cannot be told.
        why: why it cannot be told; for what is allowed without a rule, by what.
        selecting: policies that surely select the endpoint in this direction.
        denying_by_default: those of them that deny what no rule allows.
        perhaps: policies that may select it, each with the reason.
        invalid: policies that would select it, and that Cilium refuses.
        rules: of all these, in their order.
        unread: as of Enforcement.
    """

    allowed: bool | None
    why: str = ""
    selecting: tuple[Policy, ...] = ()
    denying_by_default: tuple[Policy, ...] = ()
    perhaps: tuple[tuple[Policy, str], ...] = ()
    invalid: tuple[Policy, ...] = ()
    rules: tuple[RuleAnswer, ...] = ()
    unread: tuple[str, ...] = ()

    def matching(self, *, deny: bool) -> list[RuleAnswer]:
        """Return the rules that surely match, of policies that surely select the endpoint."""
        return [a for a in self.rules if a.rule.deny is deny and a.hit.matches and a.sure]

    def undecided(self, *, deny: bool) -> list[RuleAnswer]:
        """Return the rules that may match."""
        return [
            a
            for a in self.rules
            if a.rule.deny is deny and (a.hit.matches is None or (a.hit.matches and not a.sure))
        ]

    @property
    def lacking(self) -> list[RuleAnswer]:
        """The rules that allow something else, those for the same peers first."""
        found = [a for a in self.rules if not a.rule.deny and a.hit.matches is False]
        return sorted(found, key=lambda a: (a.by_peer.matches is False, a.by_port.matches is False))


@dataclass
class _Found:
    selecting: list[Policy] = field(default_factory=list)
    by_default: list[Policy] = field(default_factory=list)
    perhaps: list[tuple[Policy, str]] = field(default_factory=list)
    perhaps_default: bool = False
    invalid: list[Policy] = field(default_factory=list)
    rules: list[RuleAnswer] = field(default_factory=list)


def evaluate(
    policies: Iterable[Policy],
    subject: Party,
    remote: Party,
    direction: str,
    traffic: Traffic,
    around: Surroundings,
    enforcement: Enforcement,
) -> PolicyAnswer:
    """Tell what policies say of a packet at an endpoint.

    Args:
        policies: all that were read.
        subject: the endpoint.
        remote: the other end.
        direction: `ingress` or `egress`, seen from the endpoint.
        traffic: protocol and port.
        around: what rules depend on besides.
        enforcement: Cilium's settings, and which policies were not read.
    """
    if enforcement.mode == "never":
        return PolicyAnswer(True, "policies are not enforced (enable-policy: never)")
    found = _Found()
    for policy in policies:
        if policy.kind != "NetworkPolicy" or enforcement.kubernetes:
            for spec in policy.specs:
                _add(found, policy, spec, subject, remote, direction, traffic, around)
    allowed, why = _decide(found, subject, remote, direction, enforcement)
    return PolicyAnswer(
        allowed,
        why,
        tuple(dict.fromkeys(found.selecting)),
        tuple(dict.fromkeys(found.by_default)),
        tuple(found.perhaps),
        tuple(dict.fromkeys(found.invalid)),
        tuple(found.rules),
        enforcement.unread,
    )


def _add(
    found: _Found,
    policy: Policy,
    spec: PolicySpec,
    subject: Party,
    remote: Party,
    direction: str,
    traffic: Traffic,
    around: Surroundings,
) -> None:
    """Add what one spec says."""
    is_node = subject.has("reserved", "host").matches
    if spec.subject is None or spec.of_nodes is not bool(is_node):
        return
    by_default = direction in spec.default_deny
    if direction not in spec.ruled and not by_default and not spec.odd:
        return
    selected = selects(spec.subject, subject)
    if selected.matches is False:
        return
    if policy.invalid:
        found.invalid.append(policy)
        return
    # One that is being deleted holds until its finalizers are gone: agents see its end alone.
    why = selected.why or spec.odd
    sure = bool(selected.matches) and not why
    if sure:
        found.selecting.append(policy)
    else:
        found.perhaps.append((policy, why))
    if by_default and sure:
        found.by_default.append(policy)
    found.perhaps_default |= by_default and not sure
    rules = [rule for rule in spec.rules if rule.direction == direction]
    required = [selector for rule in rules for selector in rule.requires]
    for rule in rules:
        by_peer = holds(rule.peers, remote, around)
        if required and by_peer.matches and rule.peers.endpoints:
            by_peer = all_of((by_peer, *(selects(selector, remote) for selector in required)))
            if by_peer.matches is False:
                by_peer = Hit(None, "fromRequires and toRequires bind every rule, or none")
        by_peer = Hit(None, rule.odd) if rule.odd else by_peer
        by_port = port_hit(rule, traffic)
        hit = all_of((by_peer, by_port))
        found.rules.append(RuleAnswer(policy, rule, hit, by_peer, by_port, sure))


def _decide(
    found: _Found, subject: Party, remote: Party, direction: str, enforcement: Enforcement
) -> tuple[bool | None, str]:
    allow = [a for a in found.rules if not a.rule.deny]
    deny = [a for a in found.rules if a.rule.deny]
    mode = (
        [] if enforcement.mode else ["whether policies are enforced was not read (enable-policy)"]
    )
    if any(a.hit.matches and a.sure for a in deny):
        return (None, mode[0]) if mode else (False, "")
    doubts = [a.hit.why or _may_select(a) for a in deny if a.hit.matches is not False]
    doubts += list(enforcement.unread)
    local = _localhost(subject, remote, direction, enforcement)
    if any(a.hit.matches and a.sure for a in allow) or local.matches:
        return (None, doubts[0]) if doubts else (
            True, "a node may always reach its own pods" if local.matches else ""
        )  # fmt: skip
    may = [a.hit.why or _may_select(a) for a in allow if a.hit.matches is not False]
    may += [local.why] if local.matches is None else []
    if found.by_default or enforcement.mode == "always":
        doubts = may + list(enforcement.unread) + mode
        return (None, doubts[0]) if doubts else (False, "")
    if found.perhaps_default:
        doubts += [why or f"{each.title} may select the endpoint" for each, why in found.perhaps]
    doubts += mode
    if doubts:
        return None, doubts[0]
    if found.selecting:
        return True, "no policy that selects it denies by default"
    return True, f"no policy selects it for {direction}"


def _may_select(answer: RuleAnswer) -> str:
    return f"{answer.policy.title} may select the endpoint"


def _localhost(subject: Party, remote: Party, direction: str, enforcement: Enforcement) -> Hit:
    """Tell whether the node of a pod is let in whatever the policies say."""
    if direction != "ingress" or subject.has("reserved", "host").matches:
        return NO
    is_host = remote.has("reserved", "host")
    if is_host.matches is False or enforcement.allow_localhost is False:
        return NO
    if enforcement.allow_localhost is None:
        return Hit(None, "whether a node may always reach its pods was not read (allow-localhost)")
    return is_host
