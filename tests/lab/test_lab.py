"""The lab is what docs/lab.md says: a real Kubernetes whose network looks like Cilium's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.control import manifests
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.image import images
from tests.lab.cluster.kubectl import apply
from tests.lab.conftest import Lab, wait_until

pytestmark = [pytest.mark.side_by_side, pytest.mark.lab_itself]
FETCH = ("curl", "-sS", "--max-time", "3")


def endpoint(pod: str) -> dict[str, object]:
    return policy.endpoint("default", pod)


def web(lab: Lab) -> str:
    """Name of the pod of Deployment web."""
    pods = lab.get("pods", "-l", "app=web")["items"]
    return str(next(p["metadata"]["name"] for p in pods if p["status"]["phase"] == "Running"))


def address(lab: Lab, pod: str) -> str:
    return str(lab.get("pod", pod)["status"]["podIP"])


def exits(lab: Lab, pod: str, *argv: str) -> int:
    return lab.kubectl("exec", pod, "--", *argv).returncode


def test_nodes_are_ready(lab: Lab) -> None:
    for node in lab.get("nodes")["items"]:
        states = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        assert states["Ready"] == "True", node["metadata"]["name"]


def test_three_nodes(our_lab: Lab) -> None:
    names = [node["metadata"]["name"] for node in our_lab.get("nodes")["items"]]
    assert sorted(names) == ["node1", "node2", "node3"]


def test_pod_network_is_like_ciliums(our_lab: Lab) -> None:
    node, mine = NODES[0], endpoint("client")
    routes = our_lab.run("client", "ip", "route")
    assert f"default via {node.router} dev eth0" in routes
    assert f"{node.router} dev eth0 scope link" in routes
    assert f"inet {mine['address']}/32 " in our_lab.run("client", "ip", "addr", "show", "eth0")
    # The gateway answers with the MAC of the pod's own lxc device, not of cilium_host.
    our_lab.run("client", *FETCH, f"http://{WORLD_ADDRESS}/")
    neighbour = our_lab.run("client", "ip", "neigh", "show", node.router)
    link = json.loads(our_lab.in_agent("node1", "ip", "-j", "link", "show", str(mine["device"])))[0]
    assert link["address"] in neighbour
    assert link["ifindex"] == int(our_lab.run("client", "cat", "/sys/class/net/eth0/iflink"))
    assert re.fullmatch("lxc[0-9a-f]{12}", link["ifname"])


@pytest.mark.parametrize(
    ("pod", "node"), [("client", NODES[0]), ("client2", NODES[1]), ("client3", NODES[2])]
)
def test_world_sees_the_node(our_lab: Lab, pod: str, node: object) -> None:
    seen = our_lab.run(pod, *FETCH, f"http://{WORLD_ADDRESS}/")
    host, port = seen.strip().split(":")
    assert host == node.address  # type: ignore[attr-defined]
    mine = endpoint(pod)
    tracked = our_lab.in_agent(node.name, "cat", "/proc/net/nf_conntrack")  # type: ignore[attr-defined]
    flows = [
        line
        for line in tracked.splitlines()
        if f"src={mine['address']} dst={WORLD_ADDRESS}" in line
        and f"src={WORLD_ADDRESS} dst={host} sport=80 dport={port}" in line
    ]
    assert flows, tracked


def test_masquerading_rule_counts(our_lab: Lab) -> None:
    rules = our_lab.in_agent("node1", "iptables-save", "-c", "-t", "nat")
    (rule,) = [line for line in rules.splitlines() if "cilium masquerade non-cluster" in line]
    assert "-A CILIUM_POST_nat" in rule
    assert rule.endswith("-j MASQUERADE")
    assert '"cilium-feeder: CILIUM_POST_nat"' in rules
    before = int(rule[1:].split(":")[0])
    our_lab.run("client", *FETCH, f"http://{WORLD_ADDRESS}/")
    rules = our_lab.in_agent("node1", "iptables-save", "-c", "-t", "nat")
    (rule,) = [line for line in rules.splitlines() if "cilium masquerade non-cluster" in line]
    assert int(rule[1:].split(":")[0]) > before


@pytest.mark.parametrize(("pod", "node"), [("client", "node1"), ("client2", "node2")])
def test_conntrack_entry_is_in_the_map_and_in_the_list(our_lab: Lab, pod: str, node: str) -> None:
    port = our_lab.run(
        pod, *FETCH, "-o", "/dev/null", "-w", "%{local_port}", f"http://{WORLD_ADDRESS}/"
    )
    mine = endpoint(pod)
    listed = our_lab.in_agent(node, "cilium-dbg", "bpf", "ct", "list", "global", "-d")
    (line,) = [
        line
        for line in listed.splitlines()
        if line.startswith(f"TCP OUT {mine['address']}:{port} -> {WORLD_ADDRESS}:80 ")
    ]
    assert f"SourceSecurityID={mine['identity']} " in line
    assert "RxClosing TxClosing SeenNonSyn" in line
    assert re.search(r"\(remaining: -?\d+ sec\(s\)\)", line)
    # The stored key has the addresses the other way round, and the ports not (cilium-facts 3.2).
    dump = json.loads(
        our_lab.in_agent(
            node,
            "bpftool",
            "-j",
            "map",
            "dump",
            "pinned",
            "/sys/fs/bpf/tc/globals/cilium_ct4_global",
        )
    )
    keys = {bytes(int(b, 16) for b in entry["key"]) for entry in dump}
    mine_bytes = bytes(map(int, str(mine["address"]).split(".")))
    world = bytes(map(int, WORLD_ADDRESS.split(".")))
    assert mine_bytes + world + (80).to_bytes(2) + int(port).to_bytes(2) + bytes([6, 0]) in keys


def test_tc_on_node1(our_lab: Lab) -> None:
    device = str(endpoint("client")["device"])
    for dev, way, program in (
        (device, "ingress", "cil_from_container"),
        ("eth0", "ingress", "cil_from_netdev"),
        ("eth0", "egress", "cil_to_netdev"),
        ("cilium_host", "egress", "cil_from_host"),
        ("cilium_host", "ingress", "cil_to_host"),
    ):
        shown = our_lab.in_agent("node1", "tc", "filter", "show", "dev", dev, way)
        assert f"handle 0x1 {program}-{dev} direct-action" in shown
        assert "direct-action" in shown
    assert not list((policy.bpffs("node1") / "cilium").rglob("links/*"))


def test_tcx_on_node2(our_lab: Lab) -> None:
    mine = endpoint("client2")
    assert (
        our_lab.in_agent("node2", "tc", "filter", "show", "dev", str(mine["device"]), "ingress")
        == ""
    )
    pins = our_lab.in_agent("node2", "ls", "-R", "/sys/fs/bpf")
    assert f"/sys/fs/bpf/cilium/endpoints/{mine['id']}/links:\ncil_from_container" in pins
    assert "/sys/fs/bpf/cilium/devices/eth0/links:\ncil_from_netdev\ncil_to_netdev\n" in pins
    links = json.loads(our_lab.in_agent("node2", "bpftool", "-j", "link", "show"))
    programs = json.loads(our_lab.in_agent("node2", "bpftool", "-j", "prog", "show"))
    names = {p["id"]: p.get("name", "") for p in programs}
    # Debian 12's bpftool does not know tcx links: their type is a number there.
    tcx = [names.get(link["prog_id"], "") for link in links if link["type"] in (11, "tcx")]
    assert any(name.startswith("cil_from_contai") for name in tcx)


def test_pod_to_pod(our_lab: Lab) -> None:
    there = address(our_lab, web(our_lab))
    for pod in ("client", "client2", "client3"):  # the same node, other nodes
        assert "HTTP/1.0 200" in our_lab.run(pod, *FETCH, "-i", f"http://{there}:8080/")
    mine = endpoint("client2")
    receiving = our_lab.in_agent("node1", "cilium-dbg", "bpf", "ct", "list", "global")
    assert re.search(
        rf"TCP IN {mine['address']}:\d+ -> {there}:8080 .*SourceSecurityID={mine['identity']} ",
        receiving,
    )


def test_ping(our_lab: Lab) -> None:
    our_lab.run("client", "ping", "-c", "1", "-W", "3", WORLD_ADDRESS)
    mine = endpoint("client")
    listed = our_lab.in_agent("node1", "cilium-dbg", "bpf", "ct", "list", "global")
    assert re.search(rf"ICMP OUT {mine['address']}:\d+ -> {WORLD_ADDRESS}:0 expires=", listed)


def test_cluster_ip(our_lab: Lab) -> None:
    virtual = our_lab.get("service", "web")["spec"]["clusterIP"]
    for pod in ("client", "client2", "client3"):
        assert "HTTP/1.0 200" in our_lab.run(pod, *FETCH, "-i", f"http://{virtual}/")
    assert exits(
        our_lab,
        "client",
        *FETCH,
        f"http://{our_lab.get('service', 'nobackend')['spec']['clusterIP']}/",
    )


def test_bare_image_has_nothing(our_lab: Lab) -> None:
    for argv in (("sh",), ("ip", "route"), ("cat", "/proc/net/route")):
        assert exits(our_lab, "bare", *argv) != 0
    fetched = our_lab.run("bare-client", "/bare", "fetch", address(our_lab, "bare"), "8080")
    assert fetched.endswith("bare\n")


def test_pods_that_are_special(our_lab: Lab) -> None:
    assert our_lab.get("pod", "pending")["status"]["phase"] == "Pending"
    assert address(our_lab, "hostnet") == NODES[0].address


def test_rights(our_lab: Lab, sre: Path, nobody: Path) -> None:
    def may(kubeconfig: Path, *words: str) -> bool:
        return our_lab.kubectl(*words, kubeconfig=kubeconfig).returncode == 0

    agent = our_lab.agent("node1")
    assert may(sre, "get", "pods", "-A")
    assert may(sre, "exec", "-n", "kube-system", agent, "--", "cilium-dbg", "version")
    assert may(sre, "get", "ciliumendpoints")
    assert not may(sre, "get", "secrets")
    assert not may(sre, "delete", "pod", "client", "--dry-run=server")
    assert not may(nobody, "get", "pods")


def test_the_replay_says_so(our_lab: Lab) -> None:
    assert "replay (kubectl-ebpfnet lab)" in our_lab.in_agent("node1", "cilium-dbg", "version")
    pod = our_lab.get("pod", "-n", "kube-system", our_lab.agent("node2"))
    assert pod["metadata"]["annotations"]["ebpfnet.dev/replay"] == "true"


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_what_the_replay_answers(our_lab: Lab, node: object) -> None:
    name: str = node.name  # type: ignore[attr-defined]

    def asked(*words: str) -> object:
        return json.loads(our_lab.in_agent(name, "cilium-dbg", *words, "-o", "json"))

    status = asked("status")
    assert status["attach-mode"] == node.attach  # type: ignore[attr-defined,index,call-overload]
    assert status["masquerading"]["mode"] == "iptables"  # type: ignore[index,call-overload]
    endpoints = asked("endpoint", "list")
    assert f"default/client{node.number if node.number > 1 else ''}" in str(endpoints)  # type: ignore[attr-defined]
    nodes = asked("node", "list")
    assert [one["name"] for one in nodes] == ["node1", "node2", "node3"]  # type: ignore[attr-defined]
    identities = {one["id"]: one["labels"] for one in asked("identity", "list")}  # type: ignore[attr-defined]
    assert identities[2] == ["reserved:world"]
    assert "k8s:app=client" in identities[endpoint("client")["identity"]]
    services = asked("service", "list")
    frontends = {one["status"]["realized"]["frontend-address"]["ip"] for one in services}  # type: ignore[attr-defined]
    assert our_lab.get("service", "web")["spec"]["clusterIP"] in frontends
    for words in (("bpf", "nat", "list"), ("no", "such", "command")):
        done = our_lab.kubectl(
            "exec", "-n", "kube-system", our_lab.agent(name), "--", "cilium-dbg", *words
        )
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")


def test_cilium_objects_follow_the_pods(our_lab: Lab) -> None:
    found = {e["metadata"]["name"]: e["status"] for e in our_lab.get("ciliumendpoints")["items"]}
    mine = endpoint("client")
    assert found["client"]["id"] == mine["id"]
    assert found["client"]["networking"]["addressing"] == [{"ipv4": mine["address"]}]
    pods = wait_until(lambda: our_lab.get("ciliumnodes")["items"])
    assert [node["metadata"]["name"] for node in pods] == ["node1", "node2", "node3"]


def ipcache(lab: Lab) -> str:
    """What node1 knows of the other node's pods."""
    return lab.in_agent("node1", "cilium-dbg", "bpf", "ipcache", "list")


def test_a_pod_comes_and_goes(our_lab: Lab) -> None:
    pod = manifests.pod("comes-and-goes", "node2", ["/bare"], images.BARE)
    apply([pod])
    try:
        wait_until(lambda: "running" in str(our_lab.get("pod", "comes-and-goes")["status"]))
        mine = endpoint("comes-and-goes")
        pins = policy.bpffs("node2")
        assert (pins / f"cilium/endpoints/{mine['id']}/links/cil_from_container").exists()
        row = rf"{mine['address']}/32 +identity={mine['identity']} "
        wait_until(lambda: re.search(row, ipcache(our_lab)))
        names = {e["metadata"]["name"] for e in our_lab.get("ciliumendpoints")["items"]}
        assert "comes-and-goes" in names
    finally:
        our_lab.kubectl("delete", "pod", "comes-and-goes", "--now")
    devices = our_lab.in_agent("node2", "ls", "/sys/class/net")
    assert str(mine["device"]) not in devices
    assert not (pins / f"cilium/endpoints/{mine['id']}").exists()
    assert not (pins / f"tc/globals/cilium_policy_v2_{mine['id']:05d}").exists()
    wait_until(lambda: f"{mine['address']}/32" not in ipcache(our_lab))
    wait_until(lambda: "comes-and-goes" not in str(our_lab.get("ciliumendpoints")["items"]))


def test_policy_drops(our_lab: Lab, egress_policy: Callable[..., None]) -> None:
    fetch = (*FETCH, f"http://{WORLD_ADDRESS}/")
    echo = ("nc", "-z", "-w", "2", WORLD_ADDRESS, "7777")
    assert exits(our_lab, "client", *echo) == 0
    egress_policy("client", "80/TCP")
    assert exits(our_lab, "client", *fetch) == 0
    before = dropped(our_lab, "node1")
    assert exits(our_lab, "client", *echo) != 0
    assert dropped(our_lab, "node1") > before
    mine = endpoint("client")
    maps = json.loads(
        our_lab.in_agent("node1", "cilium-dbg", "bpf", "policy", "get", "--all", "-o", "json")
    )
    (own,) = [one for one in maps if one["EndpointID"] == str(mine["id"])]
    egress = [e["Key"] for e in own["Content"] if e["Key"]["TrafficDirection"] == 1]
    assert [(k["Identity"], k["Nexthdr"], k["DestPortNetwork"]) for k in egress] == [(0, 6, 20480)]
    models = json.loads(our_lab.in_agent("node1", "cilium-dbg", "endpoint", "list", "-o", "json"))
    (model,) = [one for one in models if one["id"] == mine["id"]]
    assert model["status"]["policy"]["realized"]["policy-enabled"] == "egress"
    policy.clear("default", "client")
    assert exits(our_lab, "client", *echo) == 0


def dropped(lab: Lab, node: str) -> int:
    """Packets that this node dropped by policy, as `cilium-dbg bpf metrics list` says."""
    rows = lab.in_agent(node, "cilium-dbg", "bpf", "metrics", "list").splitlines()
    found = [re.split(r"\s{2,}", row.strip()) for row in rows]
    return sum(int(row[2]) for row in found if row[:2] == ["Policy denied", "EGRESS"])
