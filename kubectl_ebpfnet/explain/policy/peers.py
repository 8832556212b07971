"""Whether the peers of a rule hold the other end of a packet.

Sources: Cilium pkg/policy/api (entity.go, cidr.go, egress.go), pkg/policy/selectorcache. CIDRs
select what is outside of the cluster alone: pods and nodes have identities of their own, unless
`policy-cidr-match-mode` adds nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kubectl_ebpfnet.explain.policy.party import NO, YES, Hit, Party, all_of, any_of, selects
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.policy import CidrGroup, CidrPeer, Peers, ServicePeer

CLUSTER = "io.cilium.k8s.policy.cluster"
"""The label of a pod's cluster."""
GROUP_NAME = "io.cilium.policy.cidrgroupname/"
_WORLD = ("world", "world-ipv4", "world-ipv6")
_OF_CLUSTER = ("host", "remote-node", "init", "health", "unmanaged")
_OF_NEWER_CLUSTER = ("ingress", "kube-apiserver")
"""Parts of the entity `cluster` since Cilium 1.11 and 1.13."""


@dataclass(frozen=True)
class Surroundings:
    """What the peers of rules depend on besides the other end itself.

    Attributes:
        cluster: the name of the cluster in Cilium's settings, "" when not known.
        groups: CiliumCIDRGroups, None where they were not read.
        no_groups: why they were not read.
        services: returns the addresses behind a Service (namespace, name), None where they were
            not read.
        nodes_by_cidr: CIDRs select nodes too; None when not known.
        local_cluster: selectors mean the local cluster unless they name one; None when not known.
        wider: entities that a setting gives more selectors (policy-entity-selectors).
    """

    cluster: str = ""
    groups: tuple[CidrGroup, ...] | None = None
    no_groups: str = ""
    services: Callable[[str, str], frozenset[Address] | None] = lambda *_: None
    nodes_by_cidr: bool | None = False
    local_cluster: bool | None = False
    wider: frozenset[str] = frozenset()


def holds(peers: Peers, party: Party, around: Surroundings) -> Hit:
    """Tell whether the peers of a rule hold an end."""
    return YES if peers.anyone else any_of(_each(peers, party, around))


def _each(peers: Peers, party: Party, around: Surroundings) -> Iterator[Hit]:
    for selector in peers.endpoints:
        hit = selects(selector, party)
        far = around.cluster and party.value("k8s", CLUSTER) not in (None, around.cluster)
        if hit.matches and far and all(r.key != CLUSTER for r in selector):
            if around.local_cluster:
                hit = NO
            elif around.local_cluster is None:
                hit = Hit(None, "whether selectors mean other clusters too was not read")
        yield hit
    for selector in peers.nodes:
        is_node = any_of((party.has("reserved", "host"), party.has("reserved", "remote-node")))
        yield all_of((is_node, selects(selector, party)))
    for entity in peers.entities:
        hit = _entity(entity, party, around)
        if hit.matches is False and entity in around.wider:
            hit = Hit(None, f"policy-entity-selectors adds to the entity {entity}")
        yield hit
    for cidr in peers.cidrs:
        yield _cidr(cidr, party, around)
    for name in peers.names:
        yield _name(name, party)
    for service in peers.services:
        yield _service(service, party, around)
    for words in peers.other:
        yield Hit(None, f"{words} is not followed")


def _entity(entity: str, party: Party, around: Surroundings) -> Hit:
    if entity == "all":
        return YES
    if entity == "none":
        return NO
    if entity == "world":
        return any_of(party.has("reserved", name) for name in _WORLD)
    if entity == "cluster":
        return _of_cluster(party, around)
    return party.has("reserved", entity)


def _of_cluster(party: Party, around: Surroundings) -> Hit:
    own = any_of(party.has("reserved", name) for name in _OF_CLUSTER)
    if own.matches:
        return YES
    there = party.has("k8s", CLUSTER)
    if there.matches:
        if not around.cluster:
            return Hit(None, "the name of the cluster was not read")
        return Hit(party.value("k8s", CLUSTER) == around.cluster)
    newer = any_of(party.has("reserved", name) for name in _OF_NEWER_CLUSTER)
    if newer.matches:
        newer = Hit(None, "versions of Cilium differ about what the entity cluster has")
    return any_of((own, there, newer))


def _cidr(cidr: CidrPeer, party: Party, around: Surroundings) -> Hit:
    if party.outside is False:
        is_node = any_of((party.has("reserved", "host"), party.has("reserved", "remote-node")))
        if around.nodes_by_cidr is False or is_node.matches is False:
            return NO
        inside = _in_prefixes(cidr, party, around)
        why = "whether CIDRs select nodes was not read (policy-cidr-match-mode)"
        if inside.matches is False or around.nodes_by_cidr:
            return inside
        return Hit(None, why)
    inside = _in_prefixes(cidr, party, around)
    if party.outside is None and inside.matches is not False:
        return Hit(None, party.why)
    return inside


def _in_prefixes(cidr: CidrPeer, party: Party, around: Surroundings) -> Hit:
    address = party.address
    if address is None:
        return Hit(None, "the address of the other end is not known")
    if any(address in prefix for prefix in cidr.exceptions):
        return NO
    if cidr.prefix is not None:
        if cidr.prefix.prefixlen == 0 and cidr.prefix.version != address.version:
            # It selects reserved:world as well, which is one for both in a single stack.
            other = f"world-ipv{cidr.prefix.version}"
            return NO if party.has("reserved", f"world-ipv{address.version}").matches else Hit(
                None, f"whether the world of IPv{address.version} is {other} was not read"
            )  # fmt: skip
        return Hit(address in cidr.prefix)
    if not cidr.group and cidr.groups is None:
        return Hit(None, "a CIDR is not understood")
    return _in_groups(cidr, address, party, around)


def _in_groups(cidr: CidrPeer, address: Address, party: Party, around: Surroundings) -> Hit:
    if cidr.group and party.has("cidrgroup", f"{GROUP_NAME}{cidr.group}").matches:
        return YES
    if around.groups is None:
        named = f"CiliumCIDRGroup {cidr.group}" if cidr.group else "CiliumCIDRGroups"
        return Hit(None, f"{named} was not read: {around.no_groups}")
    return any_of(
        all_of((_is_meant(cidr, group), Hit(any(address in prefix for prefix in group.prefixes))))
        for group in around.groups
    )


def _is_meant(cidr: CidrPeer, group: CidrGroup) -> Hit:
    if cidr.group or cidr.groups is None:
        return Hit(cidr.group == group.name)
    of_group = Party(frozenset(f"cidrgroup:{key}={value}" for key, value in group.labels))
    return selects(cidr.groups, of_group)


def _name(pattern: str, party: Party) -> Hit:
    """Tell whether an end is an address of a DNS name: its identity says so since Cilium 1.16, in
    lower case or as the rule spells it."""
    if party.outside is False:
        return NO
    plain = _plain_name(pattern)
    if any("fqdn" in of and _plain_name(key) == plain for key, of in party.values.items()):
        return YES
    return Hit(
        None,
        f"whether {party.address} is an address of {pattern} is in the agent's DNS cache alone "
        "(`cilium-dbg fqdn cache list`)",
    )


def _plain_name(name: str) -> str:
    return name.rstrip(".").lower()


def _service(service: ServicePeer, party: Party, around: Surroundings) -> Hit:
    behind = around.services(service.namespace, service.name)
    if not service.name or behind is None or party.address is None:
        named = f"Service {service.namespace}/{service.name}" if service.name else "a Service"
        return Hit(None, f"the endpoints of {named} (toServices) were not read")
    # Which Services toServices may name, those with a selector too, differs between versions.
    return Hit(None, "versions of Cilium follow toServices differently") if (
        party.address in behind
    ) else NO  # fmt: skip
