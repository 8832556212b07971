"""Ends of a path and their policy, each on a recorded cluster with one thing changed."""

from __future__ import annotations

import json
import re

import pytest

from tests.explain.path.changed import (
    NATIVE,
    VXLAN,
    Change,
    ask,
    changed,
    dropped_at,
    finding,
    without,
)
from tests.explain.path.variants import edit, host_network, json_edit, says, shown

# ruff: noqa: E501 -- what programs print in one line stays in one line here


@pytest.mark.parametrize(
    ("scenario", "address"), [(VXLAN, "10.244.1.160"), (NATIVE, "10.244.1.53")]
)
def test_a_host_network_pod_sends_as_its_node(scenario: str, address: str) -> None:
    bundle = changed(scenario, host_network(address), without("client"))
    path = ask(bundle, "client", "pod/web:8080")
    assert path.verdict.let_through
    assert "hostNetwork pod" in path.hops[0].summary
    assert not any(hop.place == "pod" for hop in path.hops[:-1])
    (policy,) = [hop for hop in path.hops if hop.kind == "policy"]
    # The node itself is identity 1; to other nodes it is a remote node (bpf/lib/encap.h).
    assert "from identity 6 (remote-node)" in policy.summary
    outside = ask(bundle, "client", "1.1.1.1:80")
    assert str(outside.hops[-1].packet.flow.source) == "172.30.0.12"


@pytest.mark.parametrize("destination", ["pod/web:8080", "svc/web"])
def test_a_host_network_pod_sends_to_pods_as_its_route_says(destination: str) -> None:
    """Cilium's routes to the pod CIDRs have cilium_host's address as `src`."""

    def of_cilium_host(text: str) -> str:
        return text.replace("OUT 10.244.1.160:", "OUT 10.244.1.122:")

    listed = "cilium-dbg bpf ct list global -d"
    path = ask(
        changed(VXLAN, host_network("10.244.1.160"), edit("node2", listed, of_cilium_host)),
        "client",
        destination,
    )
    assert str(path.hops[-1].packet.flow.source) == "10.244.1.122"
    assert path.verdict == "delivered", path.reason
    assert "10.244.1.122:47068" in path.reason


@pytest.mark.parametrize(("role", "name"), [("source", "client"), ("destination", "web")])
def test_a_pending_pod_is_named_with_its_reason(role: str, name: str) -> None:
    def pend(value: dict[str, list[dict[str, dict[str, object]]]]) -> None:
        for pod in value["items"]:
            if pod["metadata"]["name"] == name:
                pod["spec"].pop("nodeName")
                pod["status"] = {
                    "phase": "Pending",
                    "conditions": [
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                         "message": "0/2 nodes are available"}
                    ],
                }  # fmt: skip

    path = ask(changed(VXLAN, json_edit("api", "get pods", pend)), "client", "pod/web:8080")
    assert path.verdict == "unknown"
    assert path.hops == ()
    found = finding(path, f"{role} pod default/{name} is Pending")
    assert "0/2 nodes are available" in found.title
    assert f"kubectl describe pod -n default {name}" in found.detail


def beside_the_client() -> list[Change]:
    """Pod web on the client's node: its Pod object, endpoint, policy map, device and ipcache."""

    def move(value: dict[str, list[dict[str, dict[str, object]]]]) -> None:
        (web,) = [pod for pod in value["items"] if pod["metadata"]["name"] == "web"]
        web["spec"]["nodeName"] = "node2"
        web["status"].update({"podIP": "10.244.1.200", "podIPs": [{"ip": "10.244.1.200"}]})

    def policy(value: list[dict[str, object]]) -> None:
        value.append({**value[0], "EndpointID": "1200"})

    def link(value: list[dict[str, object]]) -> None:
        value.append(
            {"ifindex": 15, "ifname": "lxcweb", "address": "ca:f7:8c:79:e1:5c",
             "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], "mtu": 1500, "operstate": "UP"}
        )  # fmt: skip

    endpoint = ("10.244.1.200:0   id=1200  sec_id=1395  flags=0x0000 ifindex=15  "
                "mac=1A:71:FF:C7:49:AA nodemac=CA:F7:8C:79:E1:5C parent_ifindex=0     \n")  # fmt: skip
    entry = "10.244.1.200/32     identity=1395 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>\n"
    return [
        json_edit("api", "get pods", move),
        json_edit("node2", "cilium-dbg bpf policy get --all -o json", policy),
        json_edit("node2", "ip -j -d link", link),
        edit("node2", "cilium-dbg bpf endpoint list", lambda t: t.rstrip("\n") + "\n" + endpoint),
        edit("node2", "cilium-dbg bpf ipcache list", lambda t: t.rstrip("\n") + "\n" + entry),
        edit(
            "web",
            "ip addr",
            lambda t: re.sub(r"@if\d+", "", re.sub(r"10\.244\.0\.\d+/32", "10.244.1.200/32", t)),
        ),
    ]


def test_two_pods_on_one_node_meet_no_stack() -> None:
    bundle = changed(VXLAN, *beside_the_client())
    path = ask(bundle, "client", "pod/web:8080")
    assert path.verdict.let_through
    assert {hop.node for hop in path.hops} == {"node2"}
    assert [hop.kind for hop in path.hops[3:]] == [
        "program", "policy", "route", "policy", "link", "delivery",
    ]  # fmt: skip
    handed = path.hops[5]
    assert "is endpoint 1200 on this node" in handed.summary
    assert says(bundle, handed.evidence, "10.244.1.200:0   id=1200")
    assert "ingress policy of endpoint 1200" in path.hops[6].summary


def test_ingress_policy_on_the_same_node_drops() -> None:
    def closed(value: list[dict[str, list[dict[str, dict[str, int]]]]]) -> None:
        for block in value:
            if block["EndpointID"] == "1200":
                entries = block["Content"]
                block["Content"] = [e for e in entries if e["Key"]["TrafficDirection"] == 1]

    close = json_edit("node2", "cilium-dbg bpf policy get --all -o json", closed)
    path = ask(changed(VXLAN, *beside_the_client(), close), "client", "pod/web:8080")
    assert (
        "ingress policy denies app=client (identity 60735) at 8080/TCP for endpoint 1200"
        in dropped_at(path).summary
    )


@pytest.mark.parametrize("destination", ["pod/client:8080", "127.0.0.1:80", "10.244.1.160:1"])
def test_what_a_pod_sends_to_itself_stays_in_it(destination: str) -> None:
    path = ask(changed(VXLAN), "client", destination)
    assert path.verdict.let_through
    (hop,) = path.hops
    assert (hop.kind, hop.place) == ("delivery", "pod")


def test_an_address_of_a_pod_that_is_gone() -> None:
    """No endpoint of node1 has it; the ipcache knows only the node's prefix."""
    path = ask(changed(VXLAN), "client", "10.244.0.77:8080")
    hop = dropped_at(path)
    assert (hop.node, hop.where) == ("node1", "cilium_host")
    assert "no endpoint has 10.244.0.77 on node1: Stale or unroutable IP" in hop.summary
    assert finding(path, "10.244.0.77 is in node1's pod CIDR").severity == "error"


@pytest.mark.parametrize(
    ("destination", "protocol", "asked"),
    [
        ("10.111.111.129:81", "tcp", "port 81/TCP"),
        ("10.111.111.129:80", "udp", "port 80/UDP"),
        ("10.111.111.129", "icmp", "ICMP"),
    ],
)
def test_a_port_that_a_load_balancers_address_does_not_serve(
    destination: str, protocol: str, asked: str
) -> None:
    """Cilium's map has a row of port 0 for the address, which leads to nobody."""
    path = ask(changed(VXLAN), "client", destination, protocol)
    assert path.verdict == "unknown"
    assert f"10.111.111.129 is svc default/web-lb, which does not serve {asked}" in path.reason

    def without_it(text: str) -> str:
        return "\n".join(line for line in text.split("\n") if ":0/ANY" not in line)

    older = changed(VXLAN, edit("node2", "cilium-dbg bpf lb list", without_it))
    assert ask(older, "client", destination, protocol).verdict == "leaves"


def test_a_port_that_the_service_does_not_serve() -> None:
    path = ask(changed(VXLAN), "client", "10.96.51.4:81")
    assert path.verdict == "unknown"
    found = finding(path, "svc default/web does not serve port 81/TCP")
    assert "It serves 80/TCP" in found.detail


POLICY_MAPS = "cilium-dbg bpf policy get --all -o json"


def egress_entry(
    identity: int, protocol: int, port: int, *, deny: int = 0, proxy: int = 0
) -> dict[str, object]:
    """An entry as `bpf policy get -o json` has it before 1.19: no precedence, ports swapped."""

    def swapped(number: int) -> int:
        return int.from_bytes(number.to_bytes(2, "big"), "little")

    length = 64 if port else 48 if protocol else 40
    return {
        "ProxyPortNetwork": swapped(proxy), "Flags": deny, "AuthRequirement": 0, "Packets": 0,
        "Bytes": 0,
        "Key": {"Prefixlen": length, "Identity": identity, "TrafficDirection": 1,
                "Nexthdr": protocol, "DestPortNetwork": swapped(port)},
    }  # fmt: skip


def client_policy(*entries: dict[str, object]) -> Change:
    """The policy map of the client's endpoint."""

    def replaced(value: list[dict[str, object]]) -> None:
        for block in value:
            if block["EndpointID"] == "1174":
                block["Content"] = list(entries)

    return json_edit("node2", POLICY_MAPS, replaced)


@pytest.mark.parametrize(
    ("entry", "verdict"),
    [
        (egress_entry(0, 1, 8), "leaves"),
        (egress_entry(0, 1, 0), "leaves"),
        (egress_entry(0, 1, 3), "dropped"),
        (egress_entry(0, 6, 8), "dropped"),
    ],
    ids=["echo request", "any type", "unreachable", "TCP"],
)
def test_icmp_goes_by_its_type(entry: dict[str, object], verdict: str) -> None:
    path = ask(changed(VXLAN, client_policy(entry)), "client", "9.9.9.9", "icmp")
    assert path.verdict == verdict


def test_an_old_deny_wins_over_a_narrower_allow() -> None:
    bundle = changed(VXLAN, client_policy(egress_entry(2, 6, 80), egress_entry(0, 0, 0, deny=1)))
    path = ask(bundle, "client", "9.9.9.9:80")
    hop = dropped_at(path)
    assert "Policy denied by denylist" in hop.summary
    assert says(bundle, hop.evidence, '"Flags": 1')
    found = finding(path, "policy drops the packet: endpoint 1174, egress, identity 2 (world)")
    assert "its entry “deny egress to any identity at any port” matches" in found.detail


def test_an_identity_of_a_cidr_rule() -> None:
    row = "9.9.9.0/24          identity=16777218 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>\n"
    ipcache = edit("node2", "cilium-dbg bpf ipcache list", lambda t: t.rstrip("\n") + "\n" + row)
    bundle = changed(VXLAN, client_policy(egress_entry(16777218, 6, 80)), ipcache)
    assert ask(bundle, "client", "9.9.9.9:80").verdict.let_through
    assert "denies world (identity 2)" in dropped_at(ask(bundle, "client", "9.9.8.9:80")).summary


def test_a_proxy_decides_after_the_map() -> None:
    bundle = changed(VXLAN, client_policy(egress_entry(0, 6, 80, proxy=10000)))
    path = ask(bundle, "client", "9.9.9.9:80")
    assert "through the L7 proxy at port 10000" in shown(path, "policy")[0]
    assert path.verdict == "unknown"
    assert "the L7 proxy of node2 (port 10000) decides" in path.reason
    assert finding(path, "the L7 proxy of node2 decides").severity == "info"


@pytest.mark.parametrize(
    ("word", "text", "command"),
    [
        ("web:80", "svc/web:80 or pod/web-7c469c57c9-54wmd:80?", "pod/client svc/web:80"),
        ("hp", "Did you mean pod/hp?", "pod/client pod/hp"),
        ("hubble-peer", "svc/hubble-peer?", "svc/hubble-peer --to-namespace kube-system"),
    ],
)
def test_a_bare_word_that_is_an_objects_name_suggests_the_object(
    word: str, text: str, command: str
) -> None:
    path = ask(changed("../features/services/agent.zip"), "client", word)
    assert path.verdict == "unknown"
    assert path.fix is not None
    assert path.fix.text.startswith(f"{word.partition(':')[0]} alone is taken for a DNS name. Did")
    assert text in path.fix.text
    assert path.fix.command.endswith(command)


def test_a_bare_word_that_nothing_is_called_suggests_the_kinds() -> None:
    path = ask(changed("../features/services/agent.zip"), "client", "nobody")
    assert path.fix is not None
    assert path.fix.text.endswith("or name the object: svc/NAME, pod/NAME.")


def test_a_node_without_a_port_is_the_node_itself_and_none_of_its_node_ports() -> None:
    """The newest flow to node1 went to its hostPort."""
    path = ask(changed("../features/services/agent.zip"), "client", "node/node1")
    assert path.hops[-1].summary == "delivered to node node1 itself"
    assert path.destination.port is None
    assert path.hops[-1].packet.flow.destination_port is None


def test_a_pod_that_is_on_no_node_says_what_to_do_to_a_client_outside() -> None:
    def pending(value: dict[str, object]) -> None:
        assert isinstance(value["items"], list)
        for item in value["items"]:
            if item["metadata"]["name"] == "ws1":
                item["spec"].pop("nodeName")
                item["status"] = {"phase": "Pending"}

    bundle = changed("../features/services/agent.zip", json_edit("api", "get pods -A", pending))
    path = ask(bundle, "172.31.7.200", "pod/ws1:8080")
    assert path.verdict == "unknown"
    assert path.cause == "pod default/ws1 is on no node (Pending)"
    assert path.fix is not None
    assert path.fix.command == "kubectl describe pod -n default ws1"


SERVICES = "../features/services/agent.zip"


def web_again(phase: str) -> Change:
    """A pod of node2, listed first, that has the address of node1's pod web."""

    def change(value: dict[str, object]) -> None:
        assert isinstance(value["items"], list)
        web = next(i for i in value["items"] if i["metadata"]["name"].startswith("web-"))
        job = json.loads(json.dumps(web))
        job["metadata"]["name"], job["spec"]["nodeName"] = "job", "node2"
        job["status"]["phase"] = phase
        value["items"].insert(0, job)

    return json_edit("api", "get pods -A", change)


@pytest.mark.parametrize(("phase", "pod"), [("Succeeded", "web-"), ("Failed", "web-")])
def test_a_pod_that_has_ended_has_its_address_no_more(phase: str, pod: str) -> None:
    path = ask(changed(SERVICES, web_again(phase)), "client", "svc/web")
    assert path.verdict == "reachable"
    assert f"to pod default/{pod}" in path.reason
    assert path.hops[-1].node == "node1"


def not_ready(name: str) -> Change:
    def change(value: dict[str, object]) -> None:
        assert isinstance(value["items"], list)
        for item in value["items"]:
            for condition in item["status"]["conditions"]:
                if item["metadata"]["name"] == name and condition["type"] == "Ready":
                    condition |= {"status": "Unknown", "message": "Kubelet stopped posting."}

    return json_edit("api", "get nodes", change)


@pytest.mark.parametrize(
    ("source", "to", "node"),
    [("client", "svc/web", "node1"), ("172.31.7.200", "172.31.7.242:80", "node2")],
)
def test_a_node_on_the_way_that_is_not_ready_is_a_warning(source: str, to: str, node: str) -> None:
    path = ask(changed(SERVICES, not_ready(node)), source, to)
    found = [f for f in path.findings if f.title.startswith(f"node {node} is not Ready")]
    assert [f.severity for f in found] == ["warning"]
    assert "Kubelet stopped posting" in found[0].title


def test_a_receiving_pod_that_is_being_deleted_is_a_warning() -> None:
    def deleting(value: dict[str, object]) -> None:
        assert isinstance(value["items"], list)
        for item in value["items"]:
            if item["metadata"]["name"] == "hp":
                item["metadata"]["deletionTimestamp"] = "2026-11-30T04:50:00Z"

    bundle = changed(SERVICES, json_edit("api", "get pods -A", deleting))
    found = finding(ask(bundle, "client", "pod/hp:8080"), "default/hp is being deleted")
    assert found.severity == "warning"
