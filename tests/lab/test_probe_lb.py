"""`kubectl ebpfnet probe-lb` in the lab: the seed's whole story, and each fault with its row.

What the probe says is held against what a client outside meets through the same node (its frames
go there by a route of the world's namespace), and against what a plain client on a node is told.

What asks healthy Services stands first and runs side by side: a client outside has one address a
test. Faults are everybody's, so each is alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.lab.cluster.config import (
    LB_CLUSTER_ADDRESS,
    LB_LOCAL_ADDRESS,
    NODES,
    UDP_CLUSTER_ADDRESS,
    UDP_LOCAL_ADDRESS,
    UDP_TARGET_PORT,
)
from tests.lab.cluster.tools import lb_faults
from tests.lab.cluster.tools.live import address
from tests.lab.conftest import Lab
from tests.lab.test_loadbalancer_lab import (
    PATIENCE_S,
    SILENCE_S,
    ask,
    outside,
    outside_udp,
)

LOCAL, CLUSTER = "web-lb-local", "web-lb-cluster"
UDP_LOCAL, UDP_CLUSTER = "udp-lb-local", "udp-lb-cluster"
NODE1, NODE2, NODE3 = NODES
WAIT = ("--wait", "1s")
PATIENT = ("--wait", "3s")
"""For what runs beside others: it overrides WAIT."""
beside = pytest.mark.side_by_side


@pytest.fixture(scope="module", autouse=True)
def _kept(lab: Lab) -> Iterator[None]:
    """Node pods on every node, which the first probe keeps for the others."""
    if lab.ours:
        probed(lab, LOCAL)
    yield
    if lab.ours:
        lab.ebpfnet("cleanup", "--yes")


def probed(lab: Lab, service: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document of one probe."""
    done = lab.ebpfnet(
        "probe-lb",
        service,
        "--keep",
        *WAIT,
        "--exit-code",
        *words,
        "-o",
        "json",
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def rows(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows by node."""
    return {row["node"]: row for row in document["items"]}


def titles(document: dict[str, Any]) -> str:
    """What the findings say."""
    return "\n".join(f"{f['title']}\n{f['detail']}" for f in document["findings"])


def web(lab: Lab) -> str:
    """The only pod behind the load-balancers; it is on node1."""
    (pod,) = lab.get("pods", "-l", "app=web")["items"]
    assert pod["spec"]["nodeName"] == NODE1.name
    return str(pod["metadata"]["name"])


@beside
def test_local_answers_only_through_the_node_with_the_pod_and_keeps_the_source(
    our_lab: Lab,
) -> None:
    code, document = probed(our_lab, LOCAL, *PATIENT)
    assert (code, document["verdict"]) == (0, "as-asked"), titles(document)
    found = rows(document)
    assert list(found) == [node.name for node in NODES]
    for node in NODES:
        row = found[node.name]
        seconds = PATIENCE_S if node is NODE1 else SILENCE_S
        answers = outside(node, LB_LOCAL_ADDRESS, seconds).code == 0
        assert (row["outcome"] == "connected") == answers == (node is NODE1)
        assert row["from_node"] != node.name
        assert row["health"]["status"] == (200 if answers else 503)
        assert row["health"]["local_endpoints"] == int(answers)
    (attempt,) = found["node1"]["attempts"]
    assert found["node1"]["source"] == "preserved"
    # The backend itself told, and the node's table says the same.
    assert attempt["source_from"] == "http"
    assert attempt["source_seen"] == attempt["source"] == NODE2.address
    assert attempt["source_seen_port"] == attempt["source_port"]
    assert attempt["backend"] == address(our_lab, web(our_lab))
    # A plain client on the node is fooled: kube-proxy sends the node's own traffic to any endpoint.
    assert ask(NODE2.netns, LB_LOCAL_ADDRESS).code == 0


@beside
def test_cluster_answers_everywhere_and_the_source_is_the_nodes(our_lab: Lab) -> None:
    code, document = probed(our_lab, CLUSTER, *PATIENT)
    assert (code, document["verdict"]) == (0, "as-asked"), titles(document)
    for node in NODES:
        row = rows(document)[node.name]
        seen = outside(node, LB_CLUSTER_ADDRESS)
        assert seen.code == 0
        assert row["outcome"] == "connected"
        assert row["source"] == "node"
        # A client outside is masqueraded to the same address as the probe is.
        assert row["source_seen"] == [seen.source]


@beside
def test_udp_local_answers_only_through_the_node_with_the_pod(our_lab: Lab) -> None:
    code, document = probed(our_lab, UDP_LOCAL, "--protocol", "udp", *PATIENT)
    assert (code, document["verdict"]) == (0, "as-asked"), titles(document)
    found = rows(document)
    for node in NODES:
        row = found[node.name]
        answers = outside_udp(node, UDP_LOCAL_ADDRESS).code == 0
        # The node asks by ARP for the address, 3 s long, and then sends an ICMP error: within
        # --wait where somebody's packet had it ask before (docs/lab.md).
        assert row["outcome"] in ({"connected"} if answers else {"timeout", "icmp"})
        assert answers == (node is NODE1)
        assert row["target"]["protocol"] == "UDP"
        assert row["health"]["status"] == (200 if answers else 503)
    (attempt,) = found["node1"]["attempts"]
    assert found["node1"]["source"] == "preserved"
    # The server itself told, and the node's table says the same.
    assert attempt["source_from"] == "udp"
    assert attempt["source_seen"] == attempt["source"] == NODE2.address
    assert attempt["source_seen_port"] == attempt["source_port"]
    assert attempt["backend"] == address(our_lab, web(our_lab))


@beside
def test_udp_cluster_answers_everywhere_and_the_source_is_the_nodes(our_lab: Lab) -> None:
    code, document = probed(our_lab, UDP_CLUSTER, *PATIENT)
    assert (code, document["verdict"]) == (0, "as-asked"), titles(document)
    for node in NODES:
        row = rows(document)[node.name]
        assert (row["outcome"], row["source"]) == ("connected", "node")
        assert row["source_seen"] == [outside_udp(node, UDP_CLUSTER_ADDRESS).source]


@beside
def test_without_another_node_nothing_is_sent_and_the_row_says_why(our_lab: Lab) -> None:
    only = ("--nodes", "kubernetes.io/hostname=node1", "--from-node", "node/node1")
    code, document = probed(our_lab, LOCAL, *only, *PATIENT)
    assert (code, document["verdict"]) == (4, "unknown")
    row = rows(document)["node1"]
    assert row["outcome"] == "not-tried"
    assert any("no other node" in text for text in (row["detail"], *row["notes"]))


@beside
def test_node_ports_are_probed_when_asked_for(our_lab: Lab) -> None:
    code, document = probed(
        our_lab, CLUSTER, "--node-port", "--nodes", "kubernetes.io/hostname=node2", *PATIENT
    )
    assert code == 0, titles(document)
    kinds = {row["target"]["kind"]: row for row in document["items"]}
    assert set(kinds) == {"ingress", "node-port"}
    assert kinds["node-port"]["attempts"][0]["destination"] == NODE2.address
    assert kinds["node-port"]["outcome"] == "connected"


@beside
@pytest.mark.parametrize("service", [LOCAL, UDP_CLUSTER], ids=["tcp", "udp"])
def test_both_policies_on_copies_which_are_gone_afterwards(our_lab: Lab, service: str) -> None:
    before = our_lab.get("service", service)
    done = our_lab.kubectl(
        "ebpfnet", "probe-lb", service, "--verify-policies", "--keep", "--exit-code",
        *PATIENT, "-o", "json", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(done.stdout)["items"]
    assert [report["policy"] for report in reports] == ["Local", "Cluster"]
    answered = [
        {row["node"] for row in report["items"] if row["outcome"] == "connected"}
        for report in reports
    ]
    assert answered == [{"node1"}, {node.name for node in NODES}]
    names = {service["metadata"]["name"] for service in our_lab.get("services")["items"]}
    assert not [name for name in names if name.startswith(f"{service}-ebpfnet")]
    after = our_lab.get("service", service)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


@beside
def test_a_plan_deploys_nothing(our_lab: Lab) -> None:
    done = our_lab.ebpfnet("probe-lb", LOCAL, "--dry-run=client")
    assert (done.returncode, done.stderr) == (0, "")
    assert "yes, preserved" in done.stdout
    assert "not tried" in done.stdout


@beside
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("nope",), 'service "nope" not found'),
        (("web",), "is a ClusterIP Service"),
        ((LOCAL, "--port", "81"), "has no port 81"),
        ((LOCAL, "--protocol", "udp"), "has no port UDP"),
        ((UDP_LOCAL, "--protocol", "tcp"), "has no port TCP"),
        ((LOCAL, "--from-node", "node/node9"), 'node "node9" not found'),
        ((LOCAL, "--nodes", "a=b"), "no node fits"),
    ],
)
def test_mistakes_say_what_to_do(our_lab: Lab, words: tuple[str, ...], complaint: str) -> None:
    done = our_lab.ebpfnet("probe-lb", *words)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert complaint in done.stderr
    assert "hint:" in done.stderr or words == ("nope",)


def faults(lab: Lab) -> dict[str, tuple[str, AbstractContextManager[None]]]:
    """Name → Service, and the fault."""
    pod = web(lab)
    port = lb_faults.health_check_port(LOCAL)
    there = address(lab, pod)
    return {
        "not ready": (LOCAL, lb_faults.endpoint_not_ready(pod)),
        "dropped": (CLUSTER, lb_faults.dropped_in_forward(NODE3, there, 8080)),
        "health blocked": (LOCAL, lb_faults.health_check_blocked(NODE1, port)),
        "health lies": (LOCAL, lb_faults.health_check_lies(NODE2, port, 200, 1)),
        "udp not ready": (UDP_LOCAL, lb_faults.endpoint_not_ready(pod)),
        "udp dropped": (
            UDP_CLUSTER,
            lb_faults.dropped_in_forward(NODE3, there, UDP_TARGET_PORT, "udp"),
        ),
        "deaf": (UDP_CLUSTER, lb_faults.deaf(pod, UDP_TARGET_PORT)),
        "nobody listens": (UDP_CLUSTER, lb_faults.nobody_listens(pod, UDP_TARGET_PORT)),
        "excluded": (CLUSTER, lb_faults.excluded(NODE3)),
        "rp_filter": (
            CLUSTER,
            lb_faults.strict_rp_filter(NODE3, [NODE1.address, NODE2.address]),
        ),
    }


def under(lab: Lab, name: str, *words: str) -> tuple[int, dict[str, Any]]:
    """What a probe says under a fault."""
    service, fault = faults(lab)[name]
    with fault:
        return probed(lab, service, *words)


def test_an_endpoint_that_is_not_ready_is_expected_not_to_answer(our_lab: Lab) -> None:
    code, document = under(our_lab, "not ready")
    assert code == 0, titles(document)
    row = rows(document)["node1"]
    assert (row["expected"]["answers"], row["judgement"]) == ("no", "as-asked")
    assert row["endpoints"]["local_not_ready"] == 1
    assert row["outcome"] != "connected"
    assert row["health"]["status"] == 503


@pytest.mark.parametrize("fault", ["dropped", "udp dropped"])
def test_a_drop_in_forward_is_found_with_its_rule(our_lab: Lab, fault: str) -> None:
    code, document = under(our_lab, fault)
    assert (code, document["verdict"]) == (3, "contradicted")
    found = rows(document)
    assert {name: row["judgement"] for name, row in found.items()} == {
        "node1": "as-asked", "node2": "as-asked", "node3": "contradicted",
    }  # fmt: skip
    assert found["node3"]["outcome"] == "timeout"
    finding = next(f for f in document["findings"] if "node3" in f["title"])
    assert finding["severity"] == "error"
    assert "FORWARD" in finding["title"] + finding["detail"]
    excerpts = [line for proof in finding["evidence"] for line in proof["excerpt"]]
    assert any("-j DROP" in line and "FORWARD" in line for line in excerpts)


def test_udp_to_no_endpoint_is_refused_by_icmp(our_lab: Lab) -> None:
    """Which the node itself says, by kube-proxy's REJECT; silence would be another thing."""
    code, document = under(our_lab, "udp not ready")
    assert (code, document["verdict"]) == (0, "as-asked"), titles(document)
    for node in NODES:
        row = rows(document)[node.name]
        assert (row["outcome"], row["expected"]["answers"]) == ("refused", "no")
        assert row["detail"] == f"ICMP port unreachable, said by {node.address}"


def test_udp_that_nobody_answers_is_no_contradiction_and_shows_where_it_went(our_lab: Lab) -> None:
    """The server is silent: every node did its part, as conntrack shows."""
    there = address(our_lab, web(our_lab))
    code, document = under(our_lab, "deaf")
    assert (code, document["verdict"]) == (4, "unknown"), titles(document)
    for node in NODES:
        row = rows(document)[node.name]
        assert (row["outcome"], row["judgement"]) == ("timeout", "unknown")
        assert f"the node sent it on to {there}, and nothing came back" in row["notes"]
        assert (row["source"], row["source_seen"]) == ("node", [node.address])
    assert document["findings"] == []


def test_udp_to_a_port_where_nobody_listens_is_refused(our_lab: Lab) -> None:
    """The pod says so; on its way back netfilter gives its words the Service's address."""
    code, document = under(our_lab, "nobody listens", "--nodes", "kubernetes.io/hostname=node2")
    assert (code, document["verdict"]) == (3, "contradicted")
    row = rows(document)["node2"]
    assert row["outcome"] == "refused"
    assert row["detail"] == f"ICMP port unreachable, said by {UDP_CLUSTER_ADDRESS}"
    assert f"nothing listens on its port {UDP_TARGET_PORT} (targetPort)" in titles(document)


def test_a_health_check_that_says_no_keeps_traffic_away_from_a_node_that_answers(
    our_lab: Lab,
) -> None:
    code, document = under(our_lab, "health blocked")
    assert code == 3
    row = rows(document)["node1"]
    assert (row["outcome"], row["judgement"]) == ("connected", "contradicted")
    assert row["health"]["status"] is None
    assert "health check" in titles(document)


def test_a_health_check_that_lies_brings_traffic_to_a_node_that_drops_it(our_lab: Lab) -> None:
    code, document = under(our_lab, "health lies")
    assert code == 3
    row = rows(document)["node2"]
    assert (row["health"]["status"], row["judgement"]) == (200, "contradicted")
    assert "node2" in titles(document)


def test_a_node_that_is_kept_from_load_balancers_says_so_in_its_row(our_lab: Lab) -> None:
    code, document = under(our_lab, "excluded")
    assert code == 0, titles(document)
    assert "exclude-from-external-load-balancers" in rows(document)["node3"]["expected"]["excluded"]


def test_strict_rp_filter_is_named_as_a_cause(our_lab: Lab) -> None:
    # The counter that shows it is one that agents are not asked for.
    code, document = under(our_lab, "rp_filter", "--node-access", "pod")
    assert code == 3
    assert rows(document)["node3"]["judgement"] == "contradicted"
    assert "rp_filter" in titles(document)


def test_who_may_not_deploy_is_told_the_verb(our_lab: Lab, sre: Any) -> None:
    done = our_lab.ebpfnet("cleanup", "--yes")
    assert done.returncode == 0, done.stderr
    done = our_lab.ebpfnet("probe-lb", LOCAL, "--exit-code", kubeconfig=sre)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no probe was sent: no node pod: this user may not create namespaces" in done.stderr
