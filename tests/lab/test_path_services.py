"""`kubectl ebpfnet path` live: services, nodes, names, pods that are not like others."""

from __future__ import annotations

import json

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import (
    FETCH,
    Answer,
    address,
    bpftool_names_tcx,
    objects,
    path,
    pod_of_our_own,
)
from tests.lab.conftest import Lab, wait_until

pytestmark = pytest.mark.side_by_side
WORLD = f"{WORLD_ADDRESS}:80"


def web(lab: Lab) -> str:
    """The pod of Deployment web."""
    pods = lab.get("pods", "-l", "app=web", "--field-selector=status.phase=Running")["items"]
    return str(pods[0]["metadata"]["name"])


@pytest.mark.parametrize("pod", ["client", "client2"])
def test_cluster_ip_by_kube_proxy(our_lab: Lab, pod: str) -> None:
    virtual = our_lab.get("service", "web")["spec"]["clusterIP"]
    there = address(our_lab, web(our_lab))
    port = our_lab.run(pod, *FETCH, "-o", "/dev/null", "-w", "%{local_port}", f"http://{virtual}/")
    answer = path(our_lab, f"pod/{pod}", "svc/web")
    assert answer.code == 0
    balanced = answer.one("load-balancing")
    assert f"{virtual}:80" in balanced["summary"]
    assert f"{there}:8080" in balanced["summary"]
    assert balanced["packet"]["destination"] == there
    assert balanced["packet"]["destination_port"] == 8080
    mine = policy.endpoint("default", pod)
    sent = [(f["flow"]["source"], f["flow"]["source_port"]) for f in answer.document["flows"]]
    assert (mine["address"], int(port)) in sent
    assert "listens on TCP 0.0.0.0:8080" in answer.hops[-1]["summary"]
    assert web(our_lab) in answer.hops[-1]["summary"]


def test_service_without_a_backend(our_lab: Lab) -> None:
    virtual = our_lab.get("service", "nobackend")["spec"]["clusterIP"]
    refused = our_lab.kubectl("exec", "client", "--", *FETCH, f"http://{virtual}/")
    assert refused.returncode != 0
    answer = path(our_lab, "pod/client", "svc/nobackend")
    assert (answer.code, answer.verdict) == (3, "dropped")
    assert answer.hops[-1]["drops"]
    assert answer.hops[-1]["kind"] == "load-balancing"
    assert "svc default/nobackend has no ready backend" in answer.titles


def test_other_node(our_lab: Lab) -> None:
    with pod_of_our_own(our_lab, "e2e-any-port", "node1") as pod:  # without a flow that has a port
        anyport = path(our_lab, f"pod/{pod}", "node/node3")
    told = json.dumps([anyport.document["reason"], anyport.hops, anyport.document["answer"]])
    assert anyport.code == 4, told
    assert "port" in anyport.document["reason"], told
    answer = path(our_lab, "pod/client", "node/node3:10250")
    assert answer.code == 0
    assert "to identity 6 (remote-node)" in answer.one("policy")["summary"]
    # Cilium's ipset keeps the pod's own address towards nodes.
    mine = policy.endpoint("default", "client")
    assert answer.hops[-1]["packet"]["source"] == mine["address"]
    assert "delivered to node node3" in answer.one("delivery")["summary"]
    assert "node node3 listens on TCP 172.30.0.13:10250" in answer.hops[-1]["summary"]


def test_name_that_does_not_resolve(our_lab: Lab) -> None:
    answer = path(our_lab, "pod/client", "no-such-name.invalid:80")
    assert (answer.code, answer.verdict) == (4, "unknown")
    assert "no-such-name.invalid" in answer.document["reason"]
    assert not answer.hops


def test_no_ipv6(our_lab: Lab) -> None:
    answer = path(our_lab, "pod/client", "[2606:4700:4700::1111]:80")
    assert (answer.code, answer.verdict) == (4, "unknown")
    assert answer.document["reason"] == "the source pod has no IPv6 address"


def test_image_without_tools_as_a_source(our_lab: Lab) -> None:
    our_lab.run("bare-client", "/bare", "fetch", address(our_lab, "bare"), "8080")
    answer = path(our_lab, "pod/bare-client", WORLD, "--node-access", "agent")
    assert (answer.code, answer.verdict) == (4, "unknown")
    route = answer.hops[0]
    assert (route["kind"], route["state"]) == ("route", "unknown")
    assert "the image has no shell" in answer.document["reason"]
    # All the rest is there, from the agent and the node.
    mine = policy.endpoint("default", "bare-client")
    assert f"eth0 ↔ {mine['device']} (peer named by the agent)" in answer.summaries()
    observed = "observed" if bpftool_names_tcx() else "unknown"
    assert answer.one("program", "cil_from_container")["state"] == observed
    assert f"endpoint {mine['id']} allows" in answer.one("policy")["summary"]
    assert answer.hops[-1]["packet"]["source"] == NODES[1].address
    assert any("could not be asked" in title for title in answer.titles)


def test_image_without_tools_as_a_destination(our_lab: Lab) -> None:
    answer = path(our_lab, "pod/client", "pod/bare:8080")
    assert answer.code == 0
    assert answer.hops[-1]["where"] == "default/bare"


def test_host_network_pod(our_lab: Lab) -> None:
    answer = path(our_lab, "pod/hostnet", WORLD)
    assert answer.code == 0
    assert "hostNetwork" in answer.hops[0]["summary"]
    assert answer.hops[0]["packet"]["source"] == NODES[0].address
    assert not answer.all("nat")
    assert not answer.all("program", "cil_from_container")


def test_pending_pod(our_lab: Lab) -> None:
    for words in (("pod/pending", WORLD), ("pod/client", "pod/pending:80")):
        says_why(path(our_lab, *words))


def says_why(answer: Answer) -> None:
    """A Pending pod: unknown, with the scheduler's reason."""
    assert (answer.code, answer.verdict) == (4, "unknown")
    assert "is Pending: Unschedulable" in answer.document["reason"]
    assert "available" in answer.document["reason"]


def test_pending_pod_of_our_own(lab: Lab) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "e2e-pending", "namespace": "default"},
        "spec": {
            "nodeSelector": {"ebpfnet.dev/no-such": "node"},
            "containers": [{"name": "c", "image": "e2e.invalid/none"}],
        },
    }
    with objects(lab, pod):
        wait_until(lambda: lab.get("pod", "e2e-pending")["status"].get("conditions"))
        says_why(path(lab, "-n", "default", "pod/e2e-pending", "192.0.2.1:80"))


def test_missing_pod_names_the_similar(our_lab: Lab) -> None:
    answer = path(our_lab, "pod/cliemt", WORLD)
    assert (answer.code, answer.document) == (1, {})
    assert 'pod "cliemt" not found in namespace default' in answer.stderr
    assert "did you mean client, client2, client3" in answer.stderr


def test_missing_pod(lab: Lab) -> None:
    answer = path(lab, "-n", "default", "pod/e2e-never-there", "192.0.2.1:80")
    assert (answer.code, answer.document) == (1, {})
    assert 'pod "e2e-never-there" not found in namespace default' in answer.stderr


def test_deployment_as_a_source(our_lab: Lab) -> None:
    answer = path(our_lab, "deploy/web", WORLD)
    assert answer.code == 0
    assert f"taking pod/{web(our_lab)}" in answer.stderr
    assert answer.document["source"]["name"] == web(our_lab)


# --- alone: which of two flows to the same port is meant, nobody could tell ----------------------


@pytest.fixture
def node_port(our_lab: Lab) -> int:
    """Every node's port of Service web-np."""
    return int(our_lab.get("service", "web-np")["spec"]["ports"][0]["nodePort"])


@pytest.mark.parametrize("words", ["{address}:{port}", "node/node2:{port}"])
def test_node_port(our_lab: Lab, node_port: int, words: str) -> None:
    """kube-proxy on node2 takes it, changes both addresses, and sends it back to node1."""
    there = address(our_lab, web(our_lab))
    our_lab.run("client", *FETCH, "-o", "/dev/null", f"http://{NODES[1].address}:{node_port}/")
    answer = path(our_lab, "pod/client", words.format(address=NODES[1].address, port=node_port))
    assert answer.code == 0
    nodes = [hop["node"] for hop in answer.hops if hop["node"]]
    assert list(dict.fromkeys(nodes)) == ["node1", "node2"]
    assert nodes[-1] == "node1"
    balanced, masqueraded = answer.one("load-balancing"), answer.one("nat")
    assert "by netfilter's rules of kube-proxy (KUBE-SVC-" in balanced["summary"]
    assert "of svc default/web-np" in balanced["summary"]
    assert (balanced["node"], balanced["state"]) == ("node2", "observed")
    assert balanced["packet"]["destination"] == there
    assert (masqueraded["node"], masqueraded["state"]) == ("node2", "observed")
    assert masqueraded["packet"]["source"] == NODES[1].address
    # What the node's own nf_conntrack says of it.
    tracked = our_lab.in_agent("node2", "cat", "/proc/net/nf_conntrack")
    seen = f"src={there} dst={NODES[1].address} sport=8080 dport={{}} "
    assert seen.format(masqueraded["packet"]["source_port"]) in tracked
    assert web(our_lab) in answer.hops[-1]["summary"]
    assert "identity 6 (remote-node)" in answer.all("policy")[-1]["summary"]


def test_a_selector_that_misses_by_a_letter(our_lab: Lab) -> None:
    name = "webb-svc"
    our_lab.kubectl("create", "service", "clusterip", name, "--tcp=80:8080")
    try:
        selector = '{"spec":{"selector":{"app":"webb"}}}'
        assert our_lab.kubectl("patch", "service", name, "-p", selector).returncode == 0
        wait_until(lambda: path(our_lab, "pod/client", f"svc/{name}").verdict == "dropped", 30)
        answer = path(our_lab, "pod/client", f"svc/{name}")
        assert "matches its selector app=webb; pod web-" in answer.document["cause"]
        assert "has app=web where the selector has app=webb" in answer.document["cause"]
        assert answer.document["drop"]["object"] == f"Service default/{name}"
    finally:
        our_lab.kubectl("delete", "service", name)


def test_an_external_name_is_looked_up(our_lab: Lab) -> None:
    name = "alias-svc"
    out = "--external-name=ok.example.test"
    our_lab.kubectl("create", "service", "externalname", name, out)
    try:
        answer = path(our_lab, "pod/client", f"svc/{name}:8080")
        assert answer.code == 4
        start = (
            "svc default/alias-svc is an ExternalName, which cluster DNS gives as ok.example.test"
        )
        assert answer.document["reason"].startswith(start)
    finally:
        our_lab.kubectl("delete", "service", name)
