"""Policies of Cilium's egress gateway: objects of the API server.

Sources: model/egress_policy.py. Labels of a namespace are asked of the pod's identity, which has
them under a prefix (pkg/egressgateway/policy.go, ParseCEGP).
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.egress_policy import EgressNode, EgressPolicy, EgressSource
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.policy import NAMESPACE_LABELS, Selector
from kubectl_ebpfnet.parse.policy_parts import selector


def policy(value: Any, kind: str, span: Span = NOWHERE) -> EgressPolicy:
    """Parse a CiliumEgressGatewayPolicy, or the CiliumEgressNATPolicy of before.

    Args:
        value: the object.
        kind: of the object.
        span: its place in the record.
    """
    spec = js.dig(value, "spec")
    own = js.dig(spec, "egressGateway")
    gateways = [own] if isinstance(own, dict) else []
    gateways += [item for item in js.items(spec, "egressGateways") if isinstance(item, dict)]
    before = js.text(spec, "egressSourceIP")
    old = (EgressNode(None, js.address(before)),) if before else ()
    return EgressPolicy(
        kind,
        js.text(value, "metadata", "name"),
        tuple(_source(item) for name in ("selectors", "egress") for item in js.items(spec, name)),
        js.networks(js.texts(spec, "destinationCIDRs")),
        js.networks(js.texts(spec, "excludedCIDRs")),
        (*(_gateway(item) for item in gateways), *old),
        span,
    )


def _source(item: Any) -> EgressSource:
    namespaces = selector(js.dig(item, "namespaceSelector"), prefix=f"{NAMESPACE_LABELS}.")
    pods = (*namespaces, *selector(js.dig(item, "podSelector")))
    return EgressSource(pods, _nodes(item))


def _gateway(item: dict[str, Any]) -> EgressNode:
    return EgressNode(
        _nodes(item), js.address(js.text(item, "egressIP") or None), js.text(item, "interface")
    )


def _nodes(item: Any) -> Selector | None:
    chosen = js.dig(item, "nodeSelector")
    return tuple(selector(chosen)) if isinstance(chosen, dict) else None
