"""What runs ask of the API server, beside what a tier gives: nothing is refused, nothing unused.

The API server is a FAKE one, which enforces the roles as RBAC does and records each request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client.failures import api_request
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods.installed import manifests
from kubectl_ebpfnet.cluster.nodepods.manifest import NodePodOptions
from kubectl_ebpfnet.collect.ask.access import BY_AGENT, Mode, NodeAccess
from kubectl_ebpfnet.collect.capture import capture
from kubectl_ebpfnet.errors import NotFound
from kubectl_ebpfnet.model.node_pods import INSTALLED_NAMESPACE
from kubectl_ebpfnet.model.tiers import AGENTS_NAMESPACE, EXEC, PLACE, ROLES, Tier
from tests.cluster.fake_api_server import Reply, Seen, status_reply
from tests.collect.conftest import Opened
from tests.collect.looking import looked
from tests.collect.replay_cluster import ReplayCluster
from tests.collect.test_capture import Place
from tests.collect.test_from_anywhere import from_node, from_outside, to
from tests.collect.test_node_pods import node_pods
from tests.collect.test_path import request

Right = tuple[str, str, str]


class Rbac:
    """Who has a tier, bound as `doctor --print-rbac` says, for pods of `default`."""

    def __init__(self, replay: ReplayCluster, tier: Tier = Tier.AGENTS) -> None:
        self.tier = tier
        self.used: set[Right] = set()
        self.refused: list[str] = []
        answer = replay.answer
        replay.answer = lambda seen: self.check(seen) or answer(seen)  # type: ignore[method-assign]
        replay.fake.exec_refusal = self.check  # type: ignore[assignment]

    def check(self, seen: Seen) -> Reply | None:
        """Refuse what no role gives."""
        asked = api_request(seen.method, seen.path)
        for role in ROLES[self.tier]:
            places = ["default" if place == PLACE else place for place in role.namespaces]
            for right in role.rights:
                if (right.verb, right.resource) != (asked.verb, asked.resource):
                    continue
                if right.name in ("", asked.name) and (not places or asked.namespace in places):
                    self.used.add((right.verb, right.resource, right.name))
                    return None
        self.refused.append(f"{asked.verb} {asked.resource} in {asked.namespace}")
        return status_reply(403, "Forbidden", f"cannot {asked.verb} {asked.resource}")


def more_to_read(replay: ReplayCluster) -> None:
    """A policy whose rule names a CIDR group, and a Service with an address for clients outside."""
    replay.objects.append(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
    )
    replay.named("Service", "web")["spec"]["type"] = "LoadBalancer"
    status = {"loadBalancer": {"ingress": [{"ip": "172.30.0.99"}]}}
    replay.named("Service", "web")["status"] = status
    replay.objects.append(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "groups", "namespace": "default"},
            "spec": {
                "endpointSelector": {},
                "egress": [{"toCIDRSet": [{"cidrGroupRef": "partners"}]}],
            },
        }
    )


def runs(session: Session, folder: Path, access: NodeAccess = BY_AGENT) -> list[Callable[[], Any]]:
    """A capture, and a path of each kind of source and destination."""
    workloads = ("deployment", "statefulset", "daemonset", "replicaset", "job")
    paths = [
        request(),
        request(**to("service", "web", 80)),
        request(**to("pod", "web", 8080)),
        from_node("node2", **to("node", "node1", 22)),
        from_outside(**to("service", "web", 80)),
        *(
            request(source=f"{kind}/nobody", source_kind=kind, source_name="nobody")
            for kind in workloads
        ),
    ]
    return [
        lambda: capture(session, [Place("pod", "client")], folder / "x.zip", access=access),
        *(lambda asked=asked: looked(session, asked, access=access, timeout=50) for asked in paths),  # type: ignore[misc]
    ]


def test_a_run_with_tier_agents_is_refused_nothing_and_uses_every_right(
    cluster: Opened, tmp_path: Path
) -> None:
    session, replay = cluster("vxlan-kpr")
    more_to_read(replay)
    rbac = Rbac(replay)
    for run in runs(session, tmp_path):
        with contextlib.suppress(NotFound):  # workloads that are not there: their like are listed
            run()
    assert rbac.refused == []
    given = {(r.verb, r.resource, r.name) for role in ROLES[Tier.AGENTS] for r in role.rights}
    # Servers before Kubernetes 1.35 check exec for get alone, as the fake one does.
    assert given - rbac.used == {("create", EXEC, "")}


def test_a_run_with_tier_node_pods_asks_those_alone_and_uses_every_right(
    cluster: Opened, tmp_path: Path
) -> None:
    session, replay = cluster("vxlan-kpr")
    more_to_read(replay)
    installed = []
    for node in ("node1", "node2"):
        (namespace, pod) = manifests(INSTALLED_NAMESPACE, node, NodePodOptions())
        pod["spec"]["nodeName"] = node
        pod["status"] = {"containerStatuses": [{"name": "node", "state": {"running": {}}}]}
        installed.append(pod)
    replay.objects.append(namespace)
    asked = node_pods(replay, installed)
    rbac = Rbac(replay, Tier.NODE_PODS)
    of_capture, *of_paths = runs(session, tmp_path, NodeAccess(Mode.AUTO))
    of_capture()  # and how the pod resolves names, which stands in its own files
    assert rbac.refused == ["get pods/exec in default"]
    for run in of_paths:
        with contextlib.suppress(NotFound):
            run()
    assert rbac.refused[1:] == []
    assert {*asked} == {"ebpfnet-node1", "ebpfnet-node2"}
    given = {(r.verb, r.resource, r.name) for role in ROLES[Tier.NODE_PODS] for r in role.rights}
    assert given - rbac.used == {("create", EXEC, "")}


@pytest.mark.parametrize("namespace", [AGENTS_NAMESPACE, "default"])
def test_the_fake_one_refuses_what_no_role_gives(cluster: Opened, namespace: str) -> None:
    """The check above can fail."""
    _, replay = cluster("vxlan-kpr")
    rbac = Rbac(replay)
    secrets = Seen("GET", f"/api/v1/namespaces/{namespace}/secrets/x", [], [])
    there = Seen("GET", f"/api/v1/namespaces/{namespace}/pods/x/exec", [], [])
    elsewhere = Seen("GET", "/api/v1/namespaces/shop/pods/x/exec", [], [])
    assert [rbac.check(each) is None for each in (secrets, there, elsewhere)] == [
        False, True, False,
    ]  # fmt: skip
