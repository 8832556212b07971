"""`path` from a node and from a client outside, against what real connections do.

The client is the world's namespace; which node its frames meet is a route of its own
(tests/lab/test_loadbalancer_lab.py). What answers is kube-proxy's rules in each node's netfilter.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.lab.cluster.config import (
    LB_CLUSTER_ADDRESS,
    LB_LOCAL_ADDRESS,
    NODES,
    WORLD_NODE_ADDRESS,
    Node,
)
from tests.lab.cluster.tools import lb_faults
from tests.lab.cluster.tools.live import address, in_node, path
from tests.lab.conftest import Lab
from tests.lab.test_loadbalancer_lab import PATIENCE_S, ask, outside
from tests.lab.test_terminal_live import columns, on_a_terminal

SERVING, OTHERS = NODES[0], NODES[1:]
EACH = pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
GOOD = ("delivered", "reachable")


def web_pod(lab: Lab) -> str:
    pods = lab.get("pods", "-l", "app=web")["items"]
    return str(pods[0]["metadata"]["name"])


@EACH
def test_a_client_outside_by_one_node(our_lab: Lab, node: Node) -> None:
    """With externalTrafficPolicy Cluster every node answers; `path` sees this very connection."""
    real = outside(node, LB_CLUSTER_ADDRESS)
    answer = path(our_lab, WORLD_NODE_ADDRESS, "svc/web-lb-cluster", "--via", f"node/{node.name}")
    assert real.code == 0
    assert (answer.code, answer.verdict) == (0, "delivered"), answer.document["reason"]
    assert f"{WORLD_NODE_ADDRESS}:{real.local_port} → " in answer.document["reason"]
    (entry,) = answer.document["outside"]["entries"]
    assert (entry["node"], answer.hops[0]["place"]) == (node.name, "world")
    # The backend sees the node's address, as the hops say.
    assert answer.hops[-1]["packet"]["source"] == real.source
    assert answer.document["answer"]["state"] == "returns"
    assert answer.document["answer"]["hops"][-1]["packet"]["source"] == LB_CLUSTER_ADDRESS


def test_a_client_outside_by_every_node_that_it_may_enter_by(our_lab: Lab) -> None:
    for node in NODES:  # an answer of now: an old bpftool does not show what is attached on node2
        assert outside(node, LB_CLUSTER_ADDRESS).code == 0
    answer = path(our_lab, WORLD_NODE_ADDRESS, "svc/web-lb-cluster")
    assert answer.verdict in GOOD, answer.document["reason"]
    assert {e["node"]: e["verdict"] in GOOD for e in answer.document["outside"]["entries"]} == (
        dict.fromkeys((node.name for node in NODES), True)
    )
    local = path(our_lab, WORLD_NODE_ADDRESS, f"{LB_LOCAL_ADDRESS}:80")
    assert outside(SERVING, LB_LOCAL_ADDRESS).source == WORLD_NODE_ADDRESS
    assert local.verdict in GOOD, local.document["reason"]
    assert [e["node"] for e in local.document["outside"]["entries"]] == [SERVING.name]
    assert {c["node"] for c in local.document["outside"]["closed"]} == {n.name for n in OTHERS}
    assert local.hops[-1]["packet"]["source"] == WORLD_NODE_ADDRESS  # Local keeps the client's


def test_a_node_without_an_endpoint_is_not_said_to_serve(our_lab: Lab) -> None:
    real = outside(OTHERS[0], LB_LOCAL_ADDRESS, 0.5)
    answer = path(our_lab, WORLD_NODE_ADDRESS, "svc/web-lb-local", "--via", OTHERS[0].name)
    assert real.code != 0
    assert answer.verdict in ("dropped", "unknown"), answer.document["reason"]
    assert not [t for t in answer.titles if "masquerading" in t]


def test_a_node_that_drops_what_others_let_through(our_lab: Lab) -> None:
    """A rule on one node alone: customers fail or not as the network leads them."""
    pod, bad = address(our_lab, web_pod(our_lab)), OTHERS[1]
    with lb_faults.dropped_in_forward(bad, pod, 8080):
        assert outside(bad, LB_CLUSTER_ADDRESS, 0.5).code != 0
        assert outside(SERVING, LB_CLUSTER_ADDRESS).code == 0
        answer = path(our_lab, WORLD_NODE_ADDRESS, "svc/web-lb-cluster")
        alone = path(our_lab, WORLD_NODE_ADDRESS, "svc/web-lb-cluster", "--via", bad.name)
    assert (answer.code, answer.verdict) == (4, "unknown")
    assert "depends on the node" in answer.document["reason"]
    assert f"dropped by {bad.name}" in answer.document["reason"]
    assert answer.document["outside"]["shown"] == bad.name
    assert any("drops what others let through" in title for title in answer.titles)
    assert (alone.code, alone.verdict, alone.document["drop"]["node"]) == (3, "dropped", bad.name)
    assert "FORWARD" in alone.document["drop"]["by"]


@EACH
def test_a_node_port_and_a_pod_from_outside(our_lab: Lab, node: Node) -> None:
    port = our_lab.get("service", "web-np")["spec"]["ports"][0]["nodePort"]
    real = ask("ebl-world", f"{node.address}:{port}", PATIENCE_S)
    answer = path(our_lab, WORLD_NODE_ADDRESS, f"node/{node.name}:{port}")
    assert (real.code, answer.verdict) == (0, "delivered"), answer.document["reason"]
    assert answer.hops[-1]["packet"]["source"] == real.source
    to_pod = path(our_lab, WORLD_NODE_ADDRESS, f"pod/{web_pod(our_lab)}:8080")
    assert to_pod.verdict in GOOD, to_pod.document["reason"]
    assert any("network outside leads" in text for text in to_pod.document["presumed"])


@EACH
def test_a_node_as_kubelets_probes(our_lab: Lab, node: Node) -> None:
    name = web_pod(our_lab)
    pod = address(our_lab, name)
    real = ask(node.netns, f"{pod}:8080")
    answer = path(our_lab, f"node/{node.name}", f"pod/{name}:8080")
    assert (real.code, answer.verdict) == (0, "delivered"), answer.document["reason"]
    assert answer.document["source"]["kind"] == "node"
    assert answer.hops[0]["place"] == "node"
    assert answer.hops[-1]["packet"]["source"] == real.source
    fooled = path(our_lab, f"node/{node.name}", f"{LB_LOCAL_ADDRESS}:80")
    assert (ask(node.netns, LB_LOCAL_ADDRESS).code, fooled.code) == (0, 0), fooled.document


def test_to_a_node_and_to_a_closed_port_of_it(our_lab: Lab) -> None:
    there = NODES[1]
    shown = in_node(NODES[0], "curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}",
                    f"https://{there.address}:10250/healthz")  # fmt: skip
    assert shown.strip() in ("200", "401", "403")
    kept = ("--node-access", "pod", "--keep")
    try:
        for source in ("pod/client", f"node/{NODES[0].name}", "pod/hostnet"):
            answer = path(our_lab, source, f"node/{there.name}:10250", *kept)
            assert answer.verdict in GOOD, answer.document["reason"]
            closed = path(our_lab, source, f"node/{there.name}:9", *kept)
            assert (closed.code, closed.verdict) == (3, "dropped"), closed.document["reason"]
    finally:
        our_lab.ebpfnet("cleanup", "--yes")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("203.0.113.9:80", "svc/web"), 2, "a source has no port"),
        (("svc/web", "pod/client"), 2, "cannot be a source"),
        (("127.0.0.1", "svc/web"), 2, "loopback"),
        (("pod/client", "svc/web", "--via", "node1"), 2, "inside of the cluster"),
        (("203.0.113.9", "svc/web-lb-local", "--via", "pod/x"), 2, "enters by a node"),
        (("203.0.113.9", "svc/web-lb-local", "--via", "node9"), 1, '"node9" not found'),
        (("node/node9", "svc/web"), 1, '"node9" not found'),
        (("172.30.0.12", "svc/web-lb-local"), 2, "node node2 has it"),
        (("172.30.0.241", "svc/web-lb-local"), 2, "svc default/web-lb-local has it"),
        (("203.0.113.9", "svc/nowhere"), 1, '"nowhere" not found'),
        (("203.0.113.9", "svc/web-lb-local:81"), 2, "has no port 81"),
        (("203.0.113.9", "svc/web-lb-local", "-6"), 2, "is an IPv4 address"),
        (("203.0.113.9", "example.com"), 2, "looked up as a pod does it"),
        (("2001:db8::9", "svc/web-lb-local"), 4, ""),
    ],
)
def test_wrong_words(our_lab: Lab, words: tuple[str, ...], code: int, says: str) -> None:
    done = our_lab.ebpfnet("path", *words)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr + done.stdout


def test_a_terminal_of_80_columns_and_json(our_lab: Lab) -> None:
    words = ("path", WORLD_NODE_ADDRESS, "svc/web-lb-cluster")
    code, text = on_a_terminal(our_lab, ["ebpfnet", *words, "--color", "never"])
    assert code in (0, 4)
    assert "Enters" in text
    assert [line for line in text.split("\n") if columns(line) > 80] == []
    done: subprocess.CompletedProcess[str] = our_lab.ebpfnet(*words, "-o", "json")
    document = json.loads(done.stdout)
    cited = {e["record"] for entry in document["outside"]["entries"] for hop in entry["hops"]
             for e in hop["evidence"]}  # fmt: skip
    assert cited <= {record["number"] for record in document["records"]}
