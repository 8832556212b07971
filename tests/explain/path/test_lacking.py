"""What a node, a pod or a map lacks though another record says that it is there: recorded clusters
with one record changed. The healthy control is each scenario of tests/features."""

from __future__ import annotations

import json
import re

import pytest

from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import Change, ask, changed, dropped_at, finding, say
from tests.explain.path.variants import edit

RECORDED = "../features/services/agent.zip"
CT, ROUTES = "cilium-dbg bpf ct list global -d", "ip -j route show table all"
NODE1 = "172.31.7.11"


def answer(to: str, *changes: Change, source: str = "client") -> Path:
    unseen = (say(node, CT, "") for node in ("node1", "node2"))
    return ask(changed(RECORDED, *unseen, *changes), source, to)


def moved(command: str) -> Change:
    return edit("node1", command, lambda text: text.replace(NODE1, "172.31.7.13"))


def test_a_tunnel_to_an_address_that_the_node_lost_is_a_drop() -> None:
    path = answer("svc/web", moved("ip -j addr"), moved(ROUTES))
    assert dropped_at(path).summary == f"{NODE1}, the tunnel's other end, is no address of node1"
    assert path.cause == f"node node1 does not have {NODE1}, to which the tunnel leads"


def test_a_tunnel_to_an_address_that_a_local_route_has_comes_in() -> None:
    path = answer("svc/web", moved("ip -j addr"))
    assert path.verdict == "reachable"
    said = f"no device of node1 has {NODE1}, and a local route of it does"
    assert f"but {said}" in path.reason
    assert finding(path, said).severity == "warning"
    assert said not in answer("svc/web").reason


def test_a_pod_whose_local_route_has_its_address_takes_it() -> None:
    other = edit("client", "ip addr", lambda text: text.replace("10.44.1.144", "10.44.1.145"))
    local = edit("client", "ip route", lambda text: f"{text}local 10.44.1.144 dev lo\n")
    assert answer("pod/client:8080", other, local, source="ws1").verdict == "reachable"


@pytest.mark.parametrize(("to", "source"), [("pod/client:8080", "ws1"), ("pod/ws1:8080", "client")])
def test_a_pod_without_its_address_is_open(to: str, source: str) -> None:
    other = edit("client", "ip addr", lambda text: text.replace("10.44.1.144", "10.44.1.145"))
    path = answer(to, other, source=source)
    said = "no device of pod default/client has 10.44.1.144, its address by Kubernetes"
    assert path.verdict == "unknown"
    assert path.cause == said
    assert finding(path, said).severity == "error"


def test_an_endpoint_at_a_device_that_is_gone_is_a_drop() -> None:
    def gone(text: str) -> str:
        return re.sub(r"^(10\.44\.0\.5:0 .* ifindex)=\d+", r"\1=99", text, flags=re.MULTILINE)

    path = answer("svc/web", edit("node1", "cilium-dbg bpf endpoint list", gone))
    assert dropped_at(path).summary == "endpoint 605 is at ifindex 99 of node1, where no device is"
    assert path.fix is not None
    assert path.fix.command.endswith(" -- cilium-dbg endpoint regenerate 605")


def test_an_endpoint_whose_device_is_gone_has_its_pod_replaced() -> None:
    def gone(text: str) -> str:
        links = [one for one in json.loads(text) if one["ifname"] != "lxc6e4d77818aa2"]
        return json.dumps(links)

    path = answer("svc/web", edit("node1", "ip -j -d link", gone))
    assert path.cause == "lxc6e4d77818aa2, the host side of 10.44.0.5 on node1, is gone"
    assert path.fix is not None
    assert path.fix.text.startswith("Replace the pod")


def test_a_sender_that_the_endpoint_map_lacks_is_not_masqueraded() -> None:
    def without_client(text: str) -> str:
        return "".join(row for row in text.splitlines(True) if not row.startswith("10.44.1.144:"))

    path = answer("1.1.1.1:80", edit("node2", "cilium-dbg bpf endpoint list", without_client))
    assert path.verdict == "unknown"
    assert "(cilium_lxc) lacks 10.44.1.144, the sender: it is not masqueraded" in path.cause


@pytest.mark.parametrize("source", ["node/node1", "hostnet"])
def test_a_node_is_no_sender_that_the_endpoint_map_lacks(source: str) -> None:
    path = answer("9.9.9.9:443", source=source)
    assert path.verdict == "leaves"
    assert not path.findings


def test_a_node_without_a_route_to_the_world_asks_in_vain() -> None:
    default = '{"dst":"default","gateway":"172.31.7.200","dev":"eth0","flags":[]},'
    gone = edit("node2", ROUTES, lambda text: text.replace(default, ""))
    path = ask(changed(RECORDED, gone), "client", "1.1.1.1:80")
    assert path.verdict == "unknown"
    assert path.cause.startswith("node2 has no route to 1.1.1.1, and asks for its MAC on eth0")


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
@pytest.mark.parametrize("way", ["there", "back"])
def test_a_refused_destination_is_asked_for_in_vain_beside_a_default_route(
    kind: str, way: str
) -> None:
    client = "203.0.113.9"
    route = f'[{{"type":"{kind}","dst":"203.0.113.0/24","flags":[]}},'
    node = "node2" if way == "there" else "node1"
    change = edit(node, ROUTES, lambda text: route + text.lstrip()[1:])
    ends = ("client", f"{client}:80") if way == "there" else (client, "svc/web-lb-local")
    path = ask(changed(RECORDED, change), *ends)
    assert path.verdict == "unknown"
    said = f"the route 203.0.113.0/24 is {kind} on {node}, which asks for the MAC of {client}"
    assert said in path.cause
    assert path.fix is not None
    assert path.fix.command == f"ip route del {kind} 203.0.113.0/24 table main"


def test_a_refused_destination_that_a_route_says_to_be_on_the_link_may_answer() -> None:
    route = '[{"type":"blackhole","dst":"172.31.7.200","flags":[]},'
    change = edit("node2", ROUTES, lambda text: route + text.lstrip()[1:])
    path = ask(changed(RECORDED, change), "client", "172.31.7.200:80")
    assert path.verdict in ("leaves", "delivered")


def test_a_tunnel_that_a_route_leads_to_the_nodes_own_pods_is_open() -> None:
    route = '[{"dst":"172.31.7.11","dev":"cilium_host","scope":"link","flags":[]},'
    path = answer("svc/web", edit("node2", ROUTES, lambda text: route + text.lstrip()[1:]))
    assert path.verdict == "unknown"
    assert "leads what it sends to 172.31.7.11 to cilium_host" in path.cause
