"""Policies of any shape are read; what is not understood is said to be so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.explain.policy import text
from kubectl_ebpfnet.explain.policy.evaluate import Enforcement, evaluate
from kubectl_ebpfnet.explain.policy.party import Party
from kubectl_ebpfnet.explain.policy.peers import Surroundings
from kubectl_ebpfnet.explain.policy.ports import Traffic
from kubectl_ebpfnet.parse import kube, policies

WORDS = (
    "spec", "specs", "metadata", "namespace", "name", "status", "conditions", "type",
    "endpointSelector", "nodeSelector", "podSelector", "matchLabels", "matchExpressions", "key",
    "operator", "values",
    "ingress", "egress", "ingressDeny", "egressDeny", "from", "to", "ports", "port", "endPort",
    "protocol", "toPorts", "icmps", "fields", "family", "rules", "fromEndpoints", "toEntities",
    "toCIDRSet", "cidr", "except", "cidrGroupRef", "cidrGroupSelector", "toFQDNs", "matchName",
    "toServices", "k8sService", "policyTypes", "enableDefaultDeny", "ipBlock", "namespaceSelector",
    "fromRequires", "toNodes", "In", "80", "TCP", "Valid", "False", "10.0.0.0/8", "reserved:host",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2**70), st.text(max_size=5), st.sampled_from(WORDS)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    ),
    max_leaves=30,
)


@pytest.mark.parametrize("kind", policies.KINDS)
@given(value=JSON, spec=JSON)
def test_any_object_is_read_and_asked(kind: str, value: Any, spec: Any) -> None:
    whole = {**(value if isinstance(value, dict) else {}), "spec": spec}
    policy = policies.policy(whole, kind)
    policies.cidr_group(value)
    pod = Party(frozenset({"k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"}), outside=False)
    for direction in ("ingress", "egress"):
        said = evaluate(
            [policy], pod, pod, direction, Traffic(6, 80), Surroundings(), Enforcement()
        )
        for each in said.rules:
            assert text.rule(each.rule)


def test_times_and_refusals_of_a_policy() -> None:
    value = {
        "kind": "CiliumNetworkPolicy",
        "metadata": {
            "namespace": "shop", "name": "p", "uid": "u",
            "creationTimestamp": "2026-11-30T04:54:09Z",
            "deletionTimestamp": "2026-11-30T05:54:09Z",
            "managedFields": [{"time": "2026-11-30T04:55:09Z"}],
        },
        "status": {"conditions": [
            {"type": "Valid", "status": "False", "message": "bad", "lastTransitionTime": "x"}]},
        "spec": {"endpointSelector": {}},
    }  # fmt: skip
    (policy,) = kube.objects(json.dumps(value).encode()).network_policies
    assert policy.changed == ("2026-11-30T04:54:09Z", "2026-11-30T04:55:09Z", "x")
    assert (policy.invalid, policy.deleting, policy.uid) == ("bad", True, "u")
    group = {"kind": "CiliumCIDRGroup", "metadata": {"name": "g", "labels": {"a": "b"}},
             "spec": {"externalCIDRs": ["10.0.0.0/8", "x"]}}  # fmt: skip
    (found,) = kube.objects(json.dumps(group).encode()).cidr_groups
    assert (found.name, found.labels, list(map(str, found.prefixes))) == (
        "g", (("a", "b"),), ["10.0.0.0/8"],
    )  # fmt: skip
