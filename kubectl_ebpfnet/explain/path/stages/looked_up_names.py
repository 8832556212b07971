"""Why toFQDNs does not allow a packet that a policy denies (path/fqdn.py)."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path import fqdn, policy
from kubectl_ebpfnet.explain.path.stages.policy_names import Names
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import protocol_name


def why_denied(
    walk: PathBuilder, subject: PolicySubject, verdict: policy.PolicyVerdict, named: Names
) -> fqdn.NotLookedUp | None:
    """Return why names of toFQDNs do not allow a packet that no entry of the map allows; None where
    no rule has any for its port, or it stays in the cluster.

    Args:
        walk: takes what is to be read.
        subject: whose policy is asked about what.
        verdict: of its map.
        named: what the policies add.
    """
    address = subject.packet.flow.destination
    if verdict.entry is not None or subject.direction != "egress":
        return None
    if walk.cluster.in_cluster(address):
        return None
    rules = subject.node.having(q.ENDPOINT_RULES, subject.endpoint_id, "endpoint_id")
    protocols = ("ANY", protocol_name(subject.packet.flow.protocol).upper())
    at_port = [
        rule for rule in rules
        if rule.direction == "egress"
        and rule.port in (0, subject.port)
        and rule.protocol.upper() in protocols
    ]  # fmt: skip
    names = tuple(dict.fromkeys((*named.fqdns, *(n for rule in at_port for n in rule.names))))
    if not names:
        return None
    dns = named.dns_rules or any(rule.parser == "dns" for rule in rules)
    why = None if dns else fqdn.never_learnt(subject.node, subject.endpoint_id, names)
    if why is not None and named.fix is not None:
        why = replace(why, fix=replace(why.fix, command=named.fix.command))
    asked = walk.ends.name_asked
    why = why or fqdn.why_not(subject.node, subject.endpoint_id, names, address, asked)
    if why.unread is not None:
        walk.wanted.append((subject.node.name, why.unread))
    return why
