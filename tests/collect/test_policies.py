"""Policies are read once a namespace; what their rules call by a name only where one does."""

from __future__ import annotations

from typing import Any, cast

from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.policies import MOST_SERVICES, PolicyReads


class FakeApi:
    """Answers lists of Cilium's policies, and keeps what it was asked."""

    def __init__(self, **policies: list[dict[str, Any]]) -> None:
        self.policies = policies
        self.asked: list[str] = []

    def cilium(self, resource: str, namespace: str = "") -> list[dict[str, Any]] | None:
        self.asked.append(f"{resource} {namespace}".strip())
        return self.policies.get(namespace or "cluster")

    def list(self, path: str) -> list[dict[str, Any]]:
        self.asked.append(path)
        return []

    def cidr_groups(self) -> None:
        self.asked.append("groups")

    def endpoint_slices(self, namespace: str, name: str) -> None:
        self.asked.append(f"slices {namespace}/{name}")


def reads(**policies: list[dict[str, Any]]) -> tuple[FakeApi, PolicyReads]:
    api = FakeApi(**policies)
    return api, PolicyReads(cast(RecordingApi, api))


def policy(*rules: dict[str, Any], member: str = "egress") -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "p"}, "spec": {member: list(rules)}}


def test_a_namespace_is_read_once() -> None:
    api, these = reads()
    for call in [*these.clusterwide(), *these.of_namespaces(["shop", "", "shop"])]:
        call()
    assert these.of_namespaces(["shop"]) == []
    assert len(these.of_namespaces(["shop", "bank"])) == 2
    assert api.asked == [
        "ciliumclusterwidenetworkpolicies",
        "ciliumnetworkpolicies shop",
        "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies",
    ]


def test_groups_are_read_where_a_rule_names_one() -> None:
    named = policy({"toCIDRSet": [{"cidr": "192.0.2.0/24"}, {"cidrGroupRef": "partners"}]})
    chosen = policy({"fromCIDRSet": [{"cidrGroupSelector": {}}]}, member="ingressDeny")
    for shop, cluster in (([named], []), ([], [chosen]), ([named], [chosen])):
        api, these = reads(shop=shop, cluster=cluster)
        for call in [*these.clusterwide(), *these.of_namespaces(["shop"])]:
            call()
        assert api.asked.count("groups") == 1
    api, these = reads(shop=[policy({"toCIDR": ["192.0.2.0/24"]}), {"spec": None, "specs": 7}])
    these.of_namespaces(["shop"])[0]()
    assert "groups" not in api.asked


def test_services_of_rules_are_read_a_few() -> None:
    by_name = [{"k8sService": {"serviceName": f"s{n}", "namespace": "bank"}} for n in range(20)]
    own = {"k8sService": {"serviceName": "db"}}
    odd: list[Any] = [{"k8sServiceSelector": {"selector": {}}}, 7]
    api, these = reads(shop=[policy({"toServices": [own, own, *odd, *by_name]})])
    these.of_namespaces(["shop"])[0]()
    slices = [each for each in api.asked if each.startswith("slices")]
    assert slices[:2] == ["slices shop/db", "slices bank/s0"]
    assert len(slices) <= MOST_SERVICES
