"""An ipcache that leads a pod's packets elsewhere than to its node: recorded clusters with one row
changed. The healthy control is each scenario of tests/features."""

from __future__ import annotations

import re

import pytest

from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import Change, ask, changed, dropped_at, finding, say, without
from tests.explain.path.variants import edit

RECORDED = "../features/services/agent.zip"
IPCACHE, CT = "cilium-dbg bpf ipcache list", "cilium-dbg bpf ct list global -d"
WEB, CLIENT = "10.44.0.5/32", "10.44.1.144/32"


def behind(node: str, pod: str, old: str, new: str) -> Change:
    """A node's ipcache has a pod behind another tunnel endpoint."""

    def change(text: str) -> str:
        return "".join(
            row.replace(f"tunnelendpoint={old}", f"tunnelendpoint={new}") if pod in row else row
            for row in text.splitlines(True)
        )

    return edit(node, IPCACHE, change)


def answer(*changes: Change) -> Path:
    unseen = (say(node, CT, "") for node in ("node1", "node2"))
    return ask(changed(RECORDED, *unseen, *changes), "client", "svc/web")


def test_a_tunnel_to_nobody_is_a_drop_and_the_agents() -> None:
    path = answer(behind("node2", WEB, "172.31.7.11", "172.31.7.99"))
    assert "172.31.7.99 is no node of the cluster" in dropped_at(path).summary
    said = "the ipcache of node2 has 10.44.0.5 behind tunnel endpoint 172.31.7.99, which is no node"
    assert said in path.cause
    assert finding(path, said).severity == "error"
    assert path.drop is not None
    assert path.drop.object.startswith("Pod kube-system/cilium-")


def test_a_tunnel_to_nobody_is_open_where_the_pods_node_was_not_read() -> None:
    path = answer(
        behind("node2", WEB, "172.31.7.11", "172.31.7.99"), without("node1", "ip -j addr")
    )
    assert path.verdict == "unknown"
    assert "no node of the cluster, unless node1 has that address" in path.reason


def test_a_pod_of_another_cluster_with_the_same_address() -> None:
    """Prefixes of pods of two clusters overlap: somebody may answer, and no agent is behind."""

    def of_cluster_2(text: str) -> str:
        return "".join(
            re.sub(r"identity=\d+", "identity=131073", row) if WEB in row else row
            for row in text.splitlines(True)
        )

    there = behind("node2", WEB, "172.31.7.11", "192.168.9.4")
    path = answer(there, edit("node2", IPCACHE, of_cluster_2))
    assert path.verdict == "unknown"
    assert "by its identity, 10.44.0.5 is a pod of cluster 2 of the clustermesh" in path.cause
    assert path.fix is not None
    assert path.fix.text.startswith("Give each cluster of the clustermesh prefixes of pods of its")
    assert not [one for one in path.findings if "is behind" in one.detail]


def test_an_answer_into_a_tunnel_to_nobody_is_lost() -> None:
    path = answer(behind("node1", CLIENT, "172.31.7.12", "172.31.7.99"))
    assert path.verdict == "dropped"
    assert path.drop is not None
    assert path.drop.direction == "answer"
    assert "the ipcache of node1 has 10.44.1.144 behind tunnel endpoint 172.31.7.99" in path.cause


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("172.31.7.12", "behind tunnel endpoint 172.31.7.12, which is node2's own"),
        ("0.0.0.0", "without a tunnel endpoint, as its own"),
    ],
)
def test_a_pod_of_another_node_that_the_ipcache_has_as_its_own(end: str, said: str) -> None:
    path = answer(behind("node2", WEB, "172.31.7.11", end))
    assert path.verdict == "unknown"
    assert said in path.reason
    assert "runs on node1" in path.reason
    assert path.fix is not None
    assert path.fix.text.startswith("See why Cilium's agent on node2 is behind")


def test_a_tunnel_to_where_the_pod_runs_is_no_finding() -> None:
    path = answer()
    assert path.verdict == "reachable"
    assert not [found for found in path.findings if found.severity != "info"]


def test_a_tunnel_to_nobody_for_a_node_is_a_drop() -> None:
    def lead_away(text: str) -> str:
        return "".join(
            row.replace("0.0.0.0 flags=<none>", "172.31.7.99 flags=hastunnel")
            if row.startswith("172.31.7.11/32")
            else row
            for row in text.splitlines(True)
        )

    unseen = (say(node, CT, "") for node in ("node1", "node2"))
    bundle = changed(RECORDED, *unseen, edit("node2", IPCACHE, lead_away))
    path = ask(bundle, "client", "172.31.7.11:10250")
    assert "172.31.7.99 is no node of the cluster" in dropped_at(path).summary
    assert path.fix is not None
    assert path.fix.text.startswith("See why Cilium's agent on node2 is behind")
