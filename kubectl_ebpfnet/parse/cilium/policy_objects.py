"""The specs of Cilium's network policies, namespaced and clusterwide.

Nothing is raised: what is not understood makes its rule undecidable (`odd`).

Source: Cilium pkg/policy/api (rules, their sanitizing), pkg/policy/rule.go (mergeIngress),
pkg/k8s/apis/cilium.io/utils/utils.go (which selectors Cilium makes of them).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.policy import (
    NAMESPACE_LABELS,
    POD_NAMESPACE,
    Peers,
    PolicyPort,
    PolicyRule,
    PolicySpec,
    Requirement,
    Selector,
    ServicePeer,
)
from kubectl_ebpfnet.parse import policy_parts as parts
from kubectl_ebpfnet.parse.cilium.proxy import l7_rules

_DIRECTIONS = {
    "ingress": ("ingress", False),
    "egress": ("egress", False),
    "ingressDeny": ("ingress", True),
    "egressDeny": ("egress", True),
}
_SPEC = {
    "endpointSelector", "nodeSelector", "labels", "description", "enableDefaultDeny", "log",
    *_DIRECTIONS,
}  # fmt: skip
_RULE = {"toPorts", "icmps", "authentication"}
_L3 = ("Endpoints", "Nodes", "CIDR", "CIDRSet", "Entities")


def spec(spec: Any, path: tuple[str | int, ...], namespace: str) -> PolicySpec:
    """Return a spec of a policy.

    Args:
        spec: the object.
        path: its place in the policy's object.
        namespace: of the policy, "" for a clusterwide one.
    """
    pods, nodes = js.dig(spec, "endpointSelector"), js.dig(spec, "nodeSelector")
    subject: Selector | None = None
    init = False
    if isinstance(pods, dict):
        found = parts.selector(pods)
        init = any((r.source, r.key) == ("reserved", "init") for r in found)
        if namespace:  # a policy selects in its own namespace, whatever it says
            found = [r for r in found if (r.source, r.key) != ("k8s", POD_NAMESPACE)]
            found.append(parts.in_namespace(namespace))
        subject = tuple(found)
    elif isinstance(nodes, dict):
        subject = tuple(parts.selector(nodes))
    ruled = {of for member, (of, _) in _DIRECTIONS.items() if js.items(spec, member)}
    denies = set(ruled)
    for direction in ("ingress", "egress"):
        said = js.flag(spec, "enableDefaultDeny", direction)
        if said is not None:
            (denies.add if said else denies.discard)(direction)
    unknown = sorted(set(spec) - _SPEC) if isinstance(spec, dict) else ["no object"]
    odd = f"it has {', '.join(unknown)}" if unknown else ""
    if isinstance(pods, dict) and isinstance(nodes, dict):
        odd = odd or "it has endpointSelector and nodeSelector, and Cilium takes one of them"
    by_node = subject is not None and not isinstance(pods, dict)
    read = partial(_rules, spec, path, namespace, init)
    return PolicySpec(subject, by_node, frozenset(ruled), frozenset(denies), odd, read)


def _rules(
    spec: Any, path: tuple[str | int, ...], namespace: str, init: bool
) -> tuple[PolicyRule, ...]:
    return tuple(
        _rule(item, (*path, member, index), *meaning, namespace, init)
        for member, meaning in _DIRECTIONS.items()
        for index, item in enumerate(js.items(spec, member))
    )


def _rule(
    value: Any,
    path: tuple[str | int, ...],
    direction: str,
    deny: bool,
    namespace: str,
    init: bool,
) -> PolicyRule:
    side = "from" if direction == "ingress" else "to"
    rule = value if isinstance(value, dict) else {}
    members = {key for key, item in rule.items() if item is not None}
    peers, requires = _peers(rule, side, namespace, init)
    ports, odd_ports = _ports(rule)
    odd = "" if isinstance(value, dict) else "it is no object"
    if not members:
        peers = Peers()  # an empty rule selects nobody
    elif all(rule.get(side + name) is None for name in _L3) and not (
        peers.names or peers.services or peers.other
    ):
        # It restricts nobody if it has ports: one without both selects nobody (mergeIngress).
        peers = Peers(anyone=ports is not None)
    elif any(rule.get(side + name) == [] for name in _L3):
        odd = odd or "it has an empty list, which versions of Cilium read differently"
    known = {side + name for name in (*_L3, "Requires", "Groups")} | _RULE
    unknown = sorted(members - known - {"toServices", "toFQDNs"})
    odd = odd or (f"it has {', '.join(unknown)}" if unknown else "")
    proxy = ", ".join(sorted({word for item in js.items(rule, "toPorts") for word in _proxy(item)}))
    allows = [
        word for item in js.items(rule, "toPorts") for word in l7_rules(js.dig(item, "rules"))[1]
    ]
    return PolicyRule(
        path,
        direction,
        deny,
        peers,
        ports,
        proxy,
        requires,
        odd,
        odd_ports,
        tuple(dict.fromkeys(allows)),
    )


def _peers(
    rule: dict[str, Any], side: str, namespace: str, init: bool
) -> tuple[Peers, tuple[Selector, ...]]:
    blocks = [parts.cidr({"cidr": text}) for text in js.texts(rule, f"{side}CIDR")]
    blocks += [parts.cidr(item) for item in js.items(rule, f"{side}CIDRSet")]
    names = [
        js.text(item, "matchName") or js.text(item, "matchPattern")
        for item in js.items(rule, "toFQDNs")
    ]
    services = []
    for item in js.items(rule, "toServices"):
        by_name, by_labels = js.dig(item, "k8sService"), js.dig(item, "k8sServiceSelector")
        own = by_name if isinstance(by_name, dict) else by_labels
        within = js.text(own, "namespace") or namespace
        services.append(ServicePeer(within, js.text(by_name, "serviceName")))
    peers = Peers(
        endpoints=tuple(
            _endpoints(item, namespace, init) for item in js.items(rule, f"{side}Endpoints")
        ),
        nodes=tuple(tuple(parts.selector(item)) for item in js.items(rule, f"{side}Nodes")),
        entities=js.texts(rule, f"{side}Entities"),
        cidrs=tuple(blocks),
        names=tuple(name for name in names if name),
        services=tuple(services),
        other=(f"{side}Groups",) if js.items(rule, f"{side}Groups") else (),
    )
    requires = js.items(rule, f"{side}Requires")
    return peers, tuple(_endpoints(item, namespace, init) for item in requires)


def _endpoints(value: Any, namespace: str, init: bool) -> Selector:
    """Return a selector of other ends, in the namespace that it implies."""
    found = parts.selector(value)
    if any(r.source == "reserved" for r in found) or _names_namespace(found, labels=False):
        return tuple(found)
    if not namespace:
        return tuple(found) if init else (*found, parts.has_namespace())
    if _names_namespace(found, labels=True):
        return tuple(found)
    return (*found, parts.in_namespace(namespace))


def _names_namespace(selector: list[Requirement], *, labels: bool) -> bool:
    """Tell whether a selector says itself which namespaces it means, or by which labels."""
    return any(
        r.source in ("any", "k8s")
        and (r.key == POD_NAMESPACE or (labels and r.key.startswith(NAMESPACE_LABELS)))
        for r in selector
    )


def _ports(rule: dict[str, Any]) -> tuple[tuple[PolicyPort, ...] | None, str]:
    """Return the ports and ICMP types of a rule, and why they are not understood."""
    found: list[PolicyPort] = []
    odd = ""
    by_port, by_type = js.items(rule, "toPorts"), js.items(rule, "icmps")
    for item in by_port:
        ports = js.items(item, "ports")
        if not ports:
            odd = "its toPorts names no port"
        for each in ports:
            name, end = js.text(each, "protocol") or "ANY", js.number(each, "endPort")
            port = parts.port(js.dig(each, "port"), name, end)
            if port is None:
                odd = "a port is not understood"
            else:
                found.append(port)
    for item in by_type:
        for each in js.items(item, "fields"):
            kind = parts.icmp(each)
            if kind is None:
                odd = "an ICMP type is not understood"
            else:
                found.append(kind)
    return (tuple(found) if by_port or by_type else None), odd


def _proxy(item: Any) -> Iterator[str]:
    """Yield what of a port rule an L7 proxy decides."""
    rules = js.dig(item, "rules")
    yield from sorted(rules) if isinstance(rules, dict) else ()
    for member in ("listener", "serverNames", "terminatingTLS", "originatingTLS"):
        if js.dig(item, member):
            yield member
