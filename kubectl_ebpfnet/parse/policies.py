"""Network policies and CIDR groups, as JSON of the API server.

`policy` and `cidr_group` read decoded objects and raise nothing: what is missing or of another type
is empty, and what is not understood makes its rule undecidable (`odd`).

Source: Kubernetes networking/v1; Cilium pkg/k8s/network_policy.go (which selectors and rules Cilium
makes of a NetworkPolicy).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.policy import (
    NAMESPACE_LABELS,
    CidrGroup,
    CidrPeer,
    Peers,
    Policy,
    PolicyRule,
    PolicySpec,
    Selector,
)
from kubectl_ebpfnet.parse import policy_parts as parts
from kubectl_ebpfnet.parse.cilium import policy_objects

NETWORK_POLICY = "NetworkPolicy"
DIRECTIONS = ("ingress", "egress")
KINDS = (NETWORK_POLICY, "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")


def policy(value: Any, kind: str, span: Span = NOWHERE) -> Policy:
    """Return a policy.

    Args:
        value: the object.
        kind: one of KINDS.
        span: its place in its record.
    """
    namespace, name = (js.text(value, "metadata", key) for key in ("namespace", "name"))
    own = js.dig(value, "spec")
    if kind == NETWORK_POLICY:
        specs = [_kubernetes_spec(own, namespace)] if isinstance(own, dict) else []
    else:
        listed = enumerate(js.items(value, "specs"))
        specs = [policy_objects.spec(own, ("spec",), namespace)] if isinstance(own, dict) else []
        specs += [policy_objects.spec(item, ("specs", index), namespace) for index, item in listed]
    conditions = js.items(value, "status", "conditions")
    refused = (c for c in conditions if js.text(c, "type") == "Valid")
    invalid = next((c for c in refused if js.text(c, "status") == "False"), None)
    return Policy(
        kind,
        namespace,
        name,
        js.text(value, "metadata", "uid"),
        tuple(specs),
        tuple(_changes(value)),
        (js.text(invalid, "message") or "Cilium finds it invalid") if invalid else "",
        bool(js.text(value, "metadata", "deletionTimestamp")),
        span,
    )


def cidr_group(value: Any) -> CidrGroup:
    """Return a CiliumCIDRGroup."""
    return CidrGroup(
        js.text(value, "metadata", "name"),
        js.pairs(value, "metadata", "labels"),
        js.networks(js.texts(value, "spec", "externalCIDRs")),
    )


def _changes(value: Any) -> Iterator[str]:
    """Yield the times at which an object was made, changed, and found valid."""
    yield from filter(None, (js.text(value, "metadata", "creationTimestamp"),))
    for item in js.items(value, "metadata", "managedFields"):
        yield from filter(None, (js.text(item, "time"),))
    for condition in js.items(value, "status", "conditions"):
        yield from filter(None, (js.text(condition, "lastTransitionTime"),))


def _kubernetes_spec(spec: Any, namespace: str) -> PolicySpec:
    subject = (
        *parts.selector(js.dig(spec, "podSelector"), "k8s"),
        parts.in_namespace(namespace),
    )
    types = js.texts(spec, "policyTypes")
    ruled = {direction for direction in DIRECTIONS if js.items(spec, direction)}
    wanted = {each.lower() for each in types}
    if not types:  # the API's defaults
        wanted = {"ingress"} | ruled
    # Cilium heeds rules of a direction that policyTypes leaves out.
    odd = "policyTypes leaves out a direction that has rules" if ruled - wanted else ""
    read = partial(_kubernetes_rules, spec, namespace)
    denies = frozenset(wanted | ruled)
    return PolicySpec(subject, False, frozenset(ruled), denies, odd, read)


def _kubernetes_rules(spec: Any, namespace: str) -> tuple[PolicyRule, ...]:
    return tuple(
        _kubernetes_rule(item, direction, index, namespace)
        for direction in DIRECTIONS
        for index, item in enumerate(js.items(spec, direction))
    )


def _kubernetes_rule(value: Any, direction: str, index: int, namespace: str) -> PolicyRule:
    endpoints: list[Selector] = []
    cidrs: list[CidrPeer] = []
    listed = js.items(value, "from" if direction == "ingress" else "to")
    for peer in listed:
        pods, namespaces, block = (
            js.dig(peer, key) for key in ("podSelector", "namespaceSelector", "ipBlock")
        )
        if isinstance(namespaces, dict):
            by_labels = parts.selector(namespaces, "k8s", f"{NAMESPACE_LABELS}.")
            own = by_labels or [parts.has_namespace()]
            endpoints.append((*own, *parts.selector(pods, "k8s")))
        elif isinstance(pods, dict):
            endpoints.append((*parts.selector(pods, "k8s"), parts.in_namespace(namespace)))
        if isinstance(block, dict):
            cidrs.append(parts.cidr(block))
    ports = tuple(
        parts.port(
            js.dig(item, "port"), js.text(item, "protocol") or "TCP", js.number(item, "endPort")
        )
        for item in js.items(value, "ports")
    )
    return PolicyRule(
        ("spec", direction, index),
        direction,
        False,
        Peers(anyone=not listed, endpoints=tuple(endpoints), cidrs=tuple(cidrs)),
        tuple(port for port in ports if port is not None) if ports else None,
        odd="" if isinstance(value, dict) else "it is no object",
        odd_ports="a port is not understood" if None in ports else "",
    )
