"""`kubectl ebpfnet path` on a live cluster: what is there is what it says, hop by hop.

Compared with what the kernel's own tools say in the agent and with what the world outside saw.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.lab.cluster.config import NODES, ONE_OF_EACH, WORLD_ADDRESS, Node
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import FETCH, address, bpftool_names_tcx, path, pod_of_our_own
from tests.lab.conftest import Lab

pytestmark = pytest.mark.side_by_side
WORLD = f"{WORLD_ADDRESS}:80"


def programs(lab: Lab, node: str) -> dict[int, tuple[str, str]]:
    """Name and tag of the programs that the node's bpftool knows, by id."""
    shown = json.loads(lab.in_agent(node, "bpftool", "-j", "prog", "show"))
    return {one["id"]: (one.get("name", ""), one["tag"]) for one in shown}


def tcx_ids(lab: Lab, node: str, folder: str) -> set[int]:
    """Ids of the programs behind the links that are pinned in a folder of Cilium's, by bpftool.

    Debian 12's bpftool does not know tcx: it says type 11 and leaves the device out, so the folder
    says which device it is.
    """
    root = f"/sys/fs/bpf/cilium/{folder}/links"
    found = set()
    for name in lab.in_agent(node, "ls", root).split():
        show = ("bpftool", "-j", "link", "show", "pinned", f"{root}/{name}")
        # bpftool 7.5 prints the link and exits with 255; the text is what counts.
        done = lab.kubectl("exec", "-n", "kube-system", lab.agent(node), "--", *show)
        found.add(int(json.loads(done.stdout)["prog_id"]))
    return found


def id_and_tag(summary: str) -> tuple[int, str]:
    """Id and tag of the program that a hop names."""
    match = re.search(r"id (\d+), tag ([0-9a-f]{16})", summary)
    assert match, summary
    return int(match[1]), match[2]


@pytest.mark.parametrize("node", ONE_OF_EACH, ids=lambda node: node.name)
def test_pod_to_world(our_lab: Lab, node: Node) -> None:
    """By a pod of its own, whose flows are this test's alone."""
    with pod_of_our_own(our_lab, "e2e-walker", node.name) as pod:
        goes_to_the_world(our_lab, pod, node)


def goes_to_the_world(our_lab: Lab, pod: str, node: Node) -> None:
    """Every hop of a pod's fetch is what the agent and the world saw."""
    seen = our_lab.run(pod, *FETCH, f"http://{WORLD_ADDRESS}/").strip()
    answer = path(our_lab, f"pod/{pod}", WORLD)
    assert answer.code == 0
    assert answer.kinds() == [
        ("pod", "route"),
        ("pod", "neighbour"),
        ("pod", "link"),
        ("cilium", "program"),
        ("cilium", "conntrack"),
        ("cilium", "policy"),
        ("node", "route"),
        ("node", "rule"),
        ("node", "nat"),
        ("cilium", "program"),
        ("node", "neighbour"),
        ("world", "delivery"),
    ]
    mine = policy.endpoint("default", pod)
    # The gateway's MAC is the lxc device's, as the agent's own ip says.
    link = json.loads(our_lab.in_agent(node.name, "ip", "-j", "link", "show", str(mine["device"])))[
        0
    ]
    gateway = answer.hops[1]
    assert gateway["state"] == "observed"
    assert gateway["summary"] == f"{node.router} is at {link['address']} on eth0"
    assert f"eth0 ↔ {mine['device']} (" in answer.hops[2]["summary"]
    # What was really rewritten, and what the world really saw.
    tracked, nat, outside = answer.hops[4], answer.hops[8], answer.hops[11]
    assert (tracked["state"], nat["state"], outside["state"]) == ("observed",) * 3
    port = seen.rpartition(":")[2]
    assert f"CT entry (egress) TCP {mine['address']}:{port} → {WORLD}" in tracked["summary"]
    assert f"identity {mine['identity']}" in tracked["summary"]
    assert f"rewrites the source to {seen} by CILIUM_POST_nat" in nat["summary"]
    assert f"{nat['packet']['source']}:{nat['packet']['source_port']}" == seen
    assert f"sees {seen}, and answered" in outside["summary"]
    assert f"leaves the cluster as {seen}" in answer.document["reason"]
    # The same flow in three tables. Nodes where netfilter masquerades have no snat map.
    (flow,) = answer.document["flows"]
    assert (flow["node"], flow["flow"]["source"]) == (node.name, mine["address"])
    assert flow["cilium_ct"]["source_identity"] == mine["identity"]
    assert flow["cilium_ct"]["flow"] == flow["netfilter"]["original"] == flow["flow"]
    assert flow["netfilter"]["reply"]["destination"] == node.address
    assert f"{flow['translated']['source']}:{flow['translated']['source_port']}" == seen
    assert flow["cilium_nat"] is None
    assert "Cilium does no NAT here" in str(answer.document["tracking"])


def test_programs_by_tc(our_lab: Lab) -> None:
    answer = path(our_lab, "pod/client", WORLD)
    known = programs(our_lab, "node1")
    device = str(policy.endpoint("default", "client")["device"])
    for hop, dev, way in (
        (answer.one("program", "cil_from_container"), device, "ingress"),
        (answer.one("program", "cil_to_netdev"), "eth0", "egress"),
    ):
        number, tag = id_and_tag(hop["summary"])
        assert known[number][1] == tag
        shown = our_lab.in_agent("node1", "tc", "filter", "show", "dev", dev, way)
        assert re.search(rf" id {number} ", shown), shown
        assert f"(clsact/{way}," in hop["summary"]
        assert hop["state"] == "observed"


def test_programs_by_tcx(our_lab: Lab) -> None:
    answer = path(our_lab, "pod/client2", WORLD)
    known = programs(our_lab, "node2")
    mine = policy.endpoint("default", "client2")
    for hop, folder, way in (
        (answer.one("program", "cil_from_container"), f"endpoints/{mine['id']}", "ingress"),
        (answer.one("program", "cil_to_netdev"), "devices/eth0", "egress"),
    ):
        number, tag = id_and_tag(hop["summary"])
        assert known[number][1] == tag
        assert number in tcx_ids(our_lab, "node2", folder)
        assert f"(tcx/{way}," in hop["summary"]
        assert hop["state"] == ("observed" if bpftool_names_tcx() else "unknown")


def test_pod_to_pod_on_the_same_node(our_lab: Lab) -> None:
    there = address(our_lab, "bare")
    port = our_lab.run(
        "client", *FETCH, "-o", "/dev/null", "-w", "%{local_port}", f"http://{there}:8080/"
    )
    answer = path(our_lab, "pod/client", "pod/bare:8080")
    assert answer.code == 0
    assert {hop["node"] for hop in answer.hops} <= {"node1", ""}
    mine, theirs = (policy.endpoint("default", name) for name in ("client", "bare"))
    flow = f"TCP {mine['address']}:{port} → {there}:8080"
    assert f"CT entry (egress) {flow}" in answer.summaries()
    assert f"CT entry (ingress) {flow}" in answer.summaries()
    egress, ingress = answer.all("policy")
    assert f"egress policy of endpoint {mine['id']} allows" in egress["summary"]
    assert f"to identity {theirs['identity']} (app=bare)" in egress["summary"]
    assert f"ingress policy of endpoint {theirs['id']} allows" in ingress["summary"]
    assert f"from identity {mine['identity']} (app=client)" in ingress["summary"]
    assert not answer.all("nat")
    assert answer.hops[-1]["kind"] == "delivery"
    assert answer.hops[-1]["state"] == "observed"


def test_pod_to_pod_on_another_node(our_lab: Lab) -> None:
    there = address(our_lab, "bare")
    our_lab.run("client2", *FETCH, "-o", "/dev/null", f"http://{there}:8080/")
    answer = path(our_lab, "pod/client2", "pod/bare:8080")
    assert answer.code == 0
    nodes = [hop["node"] for hop in answer.hops if hop["node"]]
    assert nodes == sorted(nodes, reverse=True), "node2's hops first, then node1's"
    assert set(nodes) == {"node1", "node2"}
    assert f"via {NODES[0].address} dev eth0" in answer.summaries()
    assert "(tcx/egress," in answer.one("program", "cil_to_netdev")["summary"]
    assert "(clsact/ingress," in answer.one("program", "cil_from_netdev")["summary"]
    assert not answer.all("nat")
    assert not answer.all("tunnel")
    assert answer.hops[-1]["state"] == "observed"


def test_world_that_was_never_asked_is_derived(our_lab: Lab) -> None:
    answer = path(our_lab, "pod/client", f"{WORLD_ADDRESS}:4242")
    assert answer.code == 0
    assert answer.one("nat")["state"] == "derived"
    assert answer.hops[-1]["state"] == "derived"
