"""Rules of policies in words: `egress[0] (to app=web at 80/TCP)`."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.model.net import ICMP, ICMPV6, protocol_name
from kubectl_ebpfnet.model.policy import (
    NAMESPACE_LABELS,
    POD_NAMESPACE,
    CidrPeer,
    Peers,
    PolicyPort,
    PolicyRule,
    Requirement,
    Selector,
)

_LONGEST = 240
"""Characters of a rule that are shown."""
_SHOWN = 4
"""Peers, and ports, of a rule that are named."""


def rule(one: PolicyRule) -> str:
    """Return a rule's place and what it is about."""
    side = "from" if one.direction == "ingress" else "to"
    peers = list(_peers(one.peers))
    who = "anyone" if one.peers.anyone else _some(peers, " or ") or "nobody"
    where = "" if one.ports is None else f" at {_some(list(map(port, one.ports)), ', ') or 'none'}"
    proxy = f", with {one.proxy} rules of the proxy" if one.proxy else ""
    about = f"{side} {who}{where}{proxy}"
    return f"{one.place} ({about[:_LONGEST]}{'…' if len(about) > _LONGEST else ''})"


def _some(words: list[str], joint: str) -> str:
    more = f"{joint}{len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return joint.join(words[:_SHOWN]) + more


def _peers(peers: Peers) -> Iterator[str]:
    for chosen in peers.endpoints:
        yield selector(chosen)
    for chosen in peers.nodes:
        yield f"nodes with {selector(chosen)}" if chosen else "every node"
    yield from peers.entities
    for cidr in peers.cidrs:
        yield _cidr(cidr)
    if peers.names:
        yield f"the addresses of {_some(list(peers.names), ', ')}"
    for service in peers.services:
        named = f"{service.namespace}/{service.name}"
        yield f"Service {named}" if service.name else f"Services of namespace {service.namespace}"
    yield from peers.other


def _cidr(cidr: CidrPeer) -> str:
    but = ", ".join(map(str, cidr.exceptions[:_SHOWN]))
    more = " …" if len(cidr.exceptions) > _SHOWN else ""
    besides = f" but {but}{more}" if but else ""
    if cidr.prefix is not None:
        return f"{cidr.prefix}{besides}"
    if cidr.group:
        return f"CiliumCIDRGroup {cidr.group}{besides}"
    if cidr.groups is not None:
        return f"CiliumCIDRGroups with {selector(cidr.groups)}{besides}"
    return "a CIDR"


def selector(chosen: Selector) -> str:
    """Return a selector of pods: `app=web in namespace shop`."""
    labels = [_requirement(r, r.key) for r in chosen if not _of_namespace(r)]
    spaces = []
    for r in chosen:
        if r.key == POD_NAMESPACE and _of_namespace(r):
            named = ", ".join(r.values)
            spaces.append(
                f"in namespace {named}" if r.operator == "In" else
                "in every namespace" if r.operator == "Exists" else
                f"in namespaces with {_requirement(r, r.key)}"
            )  # fmt: skip
        elif _of_namespace(r):
            key = r.key.removeprefix(f"{NAMESPACE_LABELS}.")
            spaces.append(f"in namespaces with {_requirement(r, key)}")
    who = ", ".join(labels[:_SHOWN]) + (" …" if len(labels) > _SHOWN else "")
    return " ".join([who or ("every pod" if spaces else "every endpoint"), *spaces])


def _of_namespace(r: Requirement) -> bool:
    return r.source in ("any", "k8s") and (
        r.key == POD_NAMESPACE or r.key.startswith(NAMESPACE_LABELS)
    )


def _requirement(r: Requirement, key: str) -> str:
    source = "" if r.source in ("any", "k8s") else f"{r.source}:"
    name, values = f"{source}{key}", "|".join(r.values)
    if r.operator == "In":
        return f"{name}={values}" if values or source == "" else name
    if r.operator == "NotIn":
        return f"{name}≠{values}"
    return {"Exists": name, "DoesNotExist": f"no {name}"}.get(r.operator, f"{name} {r.operator}")


def port(one: PolicyPort) -> str:
    """Return `80/TCP`, `8000-8100/TCP`, `port http of TCP`, `any port`, `ICMP type 8`."""
    if one.protocol in (ICMP, ICMPV6):
        name = protocol_name(one.protocol)
        return name if (one.low, one.high) == (0, 0xFFFF) else f"{name} type {one.low}"
    protocol = protocol_name(one.protocol) if one.protocol is not None else ""
    if one.name:
        return f"port {one.name}{f'/{protocol}' if protocol else ''}"
    if (one.low, one.high) == (0, 0xFFFF):
        return protocol or "any port"
    numbers = str(one.low) if one.low == one.high else f"{one.low}-{one.high}"
    return f"{numbers}/{protocol}" if protocol else f"port {numbers}"
