"""Rules in words."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_ebpfnet.explain.policy import text
from kubectl_ebpfnet.parse import policies

META = {"namespace": "shop", "name": "p"}


@pytest.mark.parametrize(
    ("kind", "member", "rule", "words"),
    [
        ("NetworkPolicy", "egress", {}, "egress[0] (to anyone)"),
        (
            "NetworkPolicy", "ingress",
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}},
                      {"namespaceSelector": {}},
                      {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}},
                      {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
             "ports": [{"port": 80}, {"port": "dns", "protocol": "UDP"},
                       {"port": 1, "endPort": 9}]},
            "ingress[0] (from app=web in namespace shop or every pod in every namespace or every "
            "pod in namespaces with team=a or 10.0.0.0/8 but 10.1.0.0/16 at 80/TCP, "
            "port dns/UDP, 1-9/TCP)",
        ),
        ("CiliumNetworkPolicy", "ingress", {}, "ingress[0] (from nobody)"),
        (
            "CiliumNetworkPolicy", "egressDeny",
            {"toEntities": ["world", "host"], "toPorts": [{"ports": [{"port": "0"}]}]},
            "egressDeny[0] (to world or host at any port)",
        ),
        (
            "CiliumNetworkPolicy", "egress",
            {"toFQDNs": [{"matchPattern": "*.example.com"}],
             "toPorts": [{"ports": [{"port": "443"}], "rules": {"http": [{}]}}]},
            "egress[0] (to the addresses of *.example.com at port 443, with http rules of the "
            "proxy)",
        ),
        (
            "CiliumNetworkPolicy", "ingress",
            {"fromNodes": [{"matchLabels": {"node:zone": "a"}}],
             "icmps": [{"fields": [{"type": 8}]}]},
            "ingress[0] (from nodes with node:zone=a at ICMP type 8)",
        ),
        (
            "CiliumNetworkPolicy", "egress",
            {"toCIDRSet": [{"cidrGroupRef": "g", "except": ["10.0.0.0/8"]},
                           {"cidrGroupSelector": {"matchLabels": {"k": "v"}}}, {"cidr": "x"}],
             "toServices": [{"k8sService": {"serviceName": "db", "namespace": "bank"}}]},
            "egress[0] (to CiliumCIDRGroup g but 10.0.0.0/8 or CiliumCIDRGroups with k=v or "
            "a CIDR or Service bank/db)",
        ),
        (
            "CiliumNetworkPolicy", "ingress",
            {"fromEndpoints": [{"matchExpressions": [
                {"key": "a", "operator": "In", "values": ["b", "c"]},
                {"key": "d", "operator": "NotIn", "values": ["e"]},
                {"key": "f", "operator": "Exists"}, {"key": "g", "operator": "DoesNotExist"}]}]},
            "ingress[0] (from a=b|c, d≠e, f, no g in namespace shop)",
        ),
    ],
)  # fmt: skip
def test_rules(kind: str, member: str, rule: dict[str, Any], words: str) -> None:
    spec = {"podSelector": {}, "endpointSelector": {}, member: [rule]}
    (one,) = policies.policy({"metadata": META, "spec": spec}, kind).specs[0].rules
    assert text.rule(one) == words
