"""The MAC that a node sends to, against the devices of the node that is meant.

Each test changes what the sender (node2, whose eth0 is 0a:5e:53:30:6c:64) has as node1's MAC, which
is 36:f7:b2:7b:3d:0f. node1 has node2's own MAC as node2's: nothing between them translates.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, agent_place, bundle_of
from kubectl_ebpfnet.model.path import Path as Answer
from tests.explain.path.changed import NATIVE, VXLAN, Change, ask, changed, finding, say, without
from tests.explain.path.variants import json_edit

ROUTES = "ip -j route show table all"
NEIGHBOURS, LINKS = "ip -j neigh", "ip -j -d link"
RIGHT, OWN, NOBODYS = "36:f7:b2:7b:3d:0f", "0a:5e:53:30:6c:64", "02:00:00:00:be:ef"
WORLD, HOST = "3a:17:64:51:08:51", "02:00:00:00:00:77"
NODE1 = "172.30.0.11"


def entries(*more: dict[str, Any], mac: str, state: str) -> Change:
    """What `ip neigh` says on node2: node1 with this MAC, the world (its gateway), a host."""
    gateway = {"dst": "172.30.0.200", "dev": "eth0", "lladdr": WORLD, "state": ["REACHABLE"]}
    host = {"dst": "172.30.0.77", "dev": "eth0", "lladdr": HOST, "state": ["STALE"]}
    node1 = {"dst": NODE1, "dev": "eth0", "lladdr": mac, "state": [state]}
    return say("node2", NEIGHBOURS, json.dumps([node1, host, gateway, *more]))


def to_web(*changes: Change) -> Answer:
    return ask(changed(NATIVE, *changes), "client", "pod/web:8081")


SILENT_OWNER = say("node1", NEIGHBOURS, "[]")
CASES = [
    ("nobody's, by hand, and the owner sees us", NOBODYS, "PERMANENT", (), "dropped"),
    ("its own MAC", OWN, "REACHABLE", (), "dropped"),
    ("nobody's, by hand, but something may translate", NOBODYS, "PERMANENT",
     (SILENT_OWNER,), "unknown"),
    ("another host's, by hand", HOST, "PERMANENT", (), "unknown"),
    ("the router's, by hand", WORLD, "PERMANENT", (), "unknown"),
    ("the router's, learned: proxy ARP", WORLD, "STALE", (), "reachable"),
    ("nobody's, learned: a proxy that nobody listed", NOBODYS, "REACHABLE", (), "reachable"),
    ("right, by hand", RIGHT, "PERMANENT", (), "reachable"),
    ("the owner's devices were not read", NOBODYS, "PERMANENT",
     (without("node1", LINKS), without("node1", "ip -j addr")), "reachable"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mac", "state", "more", "verdict"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_mac_is_weighed_by_who_has_it(
    mac: str, state: str, more: tuple[Change, ...], verdict: str
) -> None:
    path = to_web(entries(mac=mac, state=state), *more)
    assert path.verdict == verdict, path.reason
    errors = [f.title for f in path.findings if f.severity == "error"]
    assert bool(errors) == (verdict == "dropped")
    if verdict == "dropped":
        assert path.drop is not None
        assert path.drop.object == f"neighbour {NODE1} dev eth0 of node node2"
        assert path.fix is not None
        assert path.fix.command == f"ip neigh del {NODE1} dev eth0"
        assert f"eth0 of node1, which has {NODE1}, is at {RIGHT}, not at {mac}" in path.cause
    if verdict == "unknown":
        assert RIGHT in path.cause


def test_any_device_of_the_owner_may_answer() -> None:
    second = json.dumps({"ifindex": 77, "ifname": "eth1", "flags": ["UP", "LOWER_UP"],
                         "mtu": 1500, "address": NOBODYS})  # fmt: skip

    def with_second(record: Any) -> Any:
        if record.command != LINKS or record.place.node != "node1":
            return record
        said = record.stdout.read().decode().strip()
        return say("node1", LINKS, said[:-1] + "," + second + "]")(record)

    path = to_web(entries(mac=NOBODYS, state="PERMANENT"), with_second)
    assert path.verdict == "reachable"
    assert path.findings == to_web().findings


def third_node(bundle: Bundle, mac: str) -> Bundle:
    """The same with a node3 whose eth0 has this MAC."""
    link = {"ifindex": 2, "ifname": "eth0", "flags": ["UP", "LOWER_UP"], "address": mac}
    argv = tuple(LINKS.split())
    record = Record(0, agent_place("node3"), argv, 0, InMemory(json.dumps([link]).encode()))
    return bundle_of([*bundle.records, record])


@pytest.mark.parametrize("state", ["PERMANENT", "REACHABLE"])
def test_a_third_nodes_mac_arrives_only_if_that_node_forwards(state: str) -> None:
    bundle = third_node(changed(NATIVE, entries(mac=NOBODYS, state=state)), NOBODYS)
    path = ask(bundle, "client", "pod/web:8081")
    assert path.verdict == "unknown"
    assert "whether node3, which has that MAC, forwards it is not known" in path.reason
    assert finding(path, "node2 sends to a MAC that node1 does not have").severity == "warning"


def test_a_route_by_another_node_than_the_pods_is_told() -> None:
    """node3, which the route of node2 names, would have to send it on; nothing is read of it."""

    def by_node3(routes: Any) -> None:
        for route in routes:
            if route.get("gateway") == NODE1:
                route["gateway"] = "172.30.0.13"

    bundle = changed(NATIVE, json_edit("node2", ROUTES, by_node3))
    address = {"family": "inet", "local": "172.30.0.13", "prefixlen": 16, "scope": "global"}
    own = [{"ifname": "eth0", "addr_info": [address]}]
    argv = ("ip", "-j", "addr")
    addresses = Record(0, agent_place("node3"), argv, 0, InMemory(json.dumps(own).encode()))
    path = ask(bundle_of([*bundle.records, addresses]), "client", "pod/web:8081")
    assert path.verdict == "unknown"
    said = finding(path, "node2 sends 10.244.0.251, a pod of node1, to node3")
    assert said.severity == "warning"
    assert '"gateway": "172.30.0.13"' in said.evidence[0].excerpt[0]


@pytest.mark.parametrize(("state", "verdict"), [("PERMANENT", "dropped"), ("REACHABLE", "unknown")])
def test_a_wrong_mac_for_a_pod_of_the_node_itself(state: str, verdict: str) -> None:
    """With endpoint routes, the node's stack sends to the pod's device itself. Here Cilium has no
    program in that direction, which is all that keeps the second one from being reachable."""
    pod = {"dst": "10.244.0.251", "dev": "lxc454044f1d690"}
    entry = {**pod, "lladdr": NOBODYS, "state": [state]}
    routes = json_edit("node1", ROUTES, lambda listed: listed.append({**pod, "scope": "link"}))
    path = to_web(say("node1", NEIGHBOURS, json.dumps([entry])), routes)
    assert path.verdict == verdict, path.reason
    if path.drop is None:
        assert "no program of Cilium's is attached at lxc454044f1d690 (egress)" in path.reason
    else:
        assert path.drop.object == "neighbour 10.244.0.251 dev lxc454044f1d690 of node node1"


def test_ipv6_neighbours_count_alike() -> None:
    """node1 is reached by an IPv6 next hop, whose entry was written by hand."""
    address = ip_address("fd00::11")

    def on_node(name: str, host: str) -> Change:
        def add(record: Any) -> Any:
            if record.place.node != name or record.command != "ip -j addr":
                return record
            said = json.loads(record.stdout.read())
            eth0 = next(each for each in said if each["ifname"] == "eth0")
            eth0["addr_info"].append(
                {"family": "inet6", "local": host, "prefixlen": 64, "scope": "global"}
            )
            return say(name, "ip -j addr", json.dumps(said))(record)

        return add

    def via(record: Any) -> Any:
        if record.place.node != "node2" or record.command != "ip -j route show table all":
            return record
        said = json.loads(record.stdout.read())
        for route in said:
            if route.get("gateway") == NODE1:
                del route["gateway"]
                route["via"] = {"family": "inet6", "host": str(address)}
        return say("node2", "ip -j route show table all", json.dumps(said))(record)

    wrong = {"dst": str(address), "dev": "eth0", "lladdr": NOBODYS, "state": ["PERMANENT"]}
    seen = {"dst": "fd00::12", "dev": "eth0", "lladdr": OWN, "state": ["REACHABLE"]}
    path = to_web(
        on_node("node1", "fd00::11"),
        on_node("node2", "fd00::12"),
        via,
        entries(wrong, mac=RIGHT, state="REACHABLE"),
        say("node1", NEIGHBOURS, json.dumps([seen])),
    )
    assert path.drop is not None, path.reason
    assert path.drop.object == "neighbour fd00::11 dev eth0 of node node2"


@pytest.mark.parametrize(
    ("scenario", "gateway", "state", "verdict"),
    [
        (NATIVE, "10.244.1.114", "PERMANENT", "unknown"),
        (NATIVE, "10.244.1.114", "STALE", "reachable"),  # it is asked for again
        (VXLAN, "10.244.1.122", "PERMANENT", "reachable"),  # BPF sends it past the stack
    ],
)
def test_a_wrong_mac_in_the_pod_matters_where_the_stack_takes_the_packet(
    scenario: str, gateway: str, state: str, verdict: str
) -> None:
    entry = say("client", "ip neigh", f"{gateway} dev eth0 lladdr {NOBODYS} {state}\n")
    path = ask(changed(scenario, entry), "client", "pod/web:8081")
    assert path.verdict == verdict, path.reason
    assert finding(path, f"{gateway} is at {NOBODYS} in the pod").severity == "warning"
    if verdict == "unknown":
        assert f"PERMANENT entry has {NOBODYS}" in path.reason


def test_a_wrong_mac_in_the_far_pod_leaves_the_answer_open() -> None:
    entry = say("web", "ip neigh", f"10.244.0.180 dev eth0 lladdr {NOBODYS} PERMANENT\n")
    path = ask(changed(NATIVE, entry), "client", "pod/web:8081")
    assert path.verdict == "unknown"
    assert "of the way back: the stack drops what is for another MAC" in path.reason


def test_a_next_hop_that_does_not_answer_is_asked_by_hand() -> None:
    silent = json.dumps([{"dst": NODE1, "dev": "eth0", "state": ["FAILED"]}])
    path = to_web(say("node2", NEIGHBOURS, silent))
    assert path.verdict == "dropped"
    assert path.fix is not None
    assert path.fix.command == f"arping -I eth0 {NODE1}"
