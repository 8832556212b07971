"""Which nodes may take a node pod, by their objects."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from kubectl_ebpfnet.cluster.nodepods.nodes import why_no_node_pods
from tests.cluster.fake_api_server import FakeApiServer, Reply, Seen, status_reply
from tests.cluster.fake_cluster import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    server = FakeApiServer()
    yield FakeCluster(server)
    server.close()


def why(cluster: FakeCluster, *nodes: str, seconds: float | None = 5) -> dict[str, str]:
    with Session.open(ConnectionOptions(server=cluster.server.url)) as session:
        return why_no_node_pods(Api(session), nodes, seconds)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ({"metadata": {"labels": {"kubernetes.io/os": "linux", "type": "worker"}}}, ""),
        ({"spec": {"unschedulable": True, "taints": [{"key": "x", "effect": "NoExecute"}]}}, ""),
        ({"metadata": {"labels": {"kubernetes.io/os": "windows"}}}, "it runs Windows"),
        ({"metadata": {"labels": {"type": "virtual-kubelet"}}}, "it is a virtual kubelet"),
        ({"metadata": {"labels": {"eks.amazonaws.com/compute-type": "fargate"}}}, "it is Fargate"),
    ],
    ids=["plain", "cordoned and tainted", "windows", "virtual kubelet", "fargate"],
)
def test_what_a_nodes_object_says(cluster: FakeCluster, node: dict[str, Any], reason: str) -> None:
    cluster.node("n1")
    cluster.objects["/api/v1/nodes/n1"] |= node
    found = why(cluster, "n1")
    assert found.get("n1", "").startswith(f"no node pod can start on n1: {reason}" * bool(reason))
    assert bool(found) == bool(reason)


def test_not_ready_and_gone(cluster: FakeCluster) -> None:
    cluster.node("late", ready=False)
    cluster.node("n1")
    cluster.refuses = lambda seen: (
        status_reply(404, "NotFound", "not found") if seen.path.endswith("/nodes/gone") else None
    )
    assert why(cluster, "late", "n1", "gone") == {
        "late": "no node pod can start on late: not Ready since 2026-11-21T09:00:00Z: Kubelet "
        "stopped posting node status.",
        "gone": "no node pod can start on gone: there is no such node",
    }


def test_who_may_not_read_nodes_or_gets_no_answer_learns_it_by_trying(cluster: FakeCluster) -> None:
    cluster.node("n1", ready=False)

    def refuse(seen: Seen) -> Reply | None:
        return status_reply(403, "Forbidden", "nodes is forbidden")

    def hang(seen: Seen) -> Reply | None:
        time.sleep(2)  # who waits for it learns that n1 is not Ready
        return None

    cluster.refuses = refuse
    assert why(cluster, "n1") == {}
    cluster.refuses = hang
    assert why(cluster, "n1", seconds=0.2) == {}
