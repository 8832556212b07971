"""The node of a pod by the API server, by the ipcache and by the endpoint map, where they disagree,
in each mode of the datapath: the walk follows the maps, and no verdict is without a word of it. The
healthy control is each scenario of tests/features."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, NamedTuple

import pytest

from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import Change, ask, changed, finding, say
from tests.explain.path.test_owners import ENDPOINT_LIST, LXC, PODS, named, objects
from tests.explain.path.test_tunnel_end import CT, IPCACHE, RECORDED
from tests.explain.path.variants import edit

MODES = {
    "tunnel": RECORDED,
    "tunnel legacy": "../features/kpr-off-iptables/agent.zip",
    "native": "../features/native-egw-socklb/agent.zip",
    "native endpoint-routes": "../features/multi-pool/agent.zip",
}
IN_TUNNEL = ["tunnel", "tunnel legacy"]
ADDRESS = {"node1": "172.31.7.11", "node2": "172.31.7.12"}


class Web(NamedTuple):
    """A pod of node1; `client1` is another one there, `client` one of node2."""

    name: str
    address: str

    @property
    def target(self) -> str:
        return f"{self.address}:8080"


@cache
def web(mode: str) -> Web:
    for record in changed(MODES[mode]).records:
        if record.command == PODS:
            for pod in json.loads(record.stdout.read())["items"]:
                if pod["metadata"]["name"].startswith("web-"):
                    return Web(pod["metadata"]["name"], pod["status"]["podIP"])
    raise AssertionError(mode)


def answer(mode: str, source: str, *changes: Change) -> Path:
    unseen = (say(node, CT, "") for node in ("node1", "node2"))
    return ask(changed(MODES[mode], *unseen, *changes), source, web(mode).target)


def leads(mode: str, node: str, end: str) -> Change:
    """A node's ipcache has web behind a tunnel endpoint."""
    flags = "<none>" if end == "0.0.0.0" else "hastunnel"

    def change(text: str) -> str:
        row = re.compile(
            rf"^({re.escape(web(mode).address)}/32 .*)tunnelendpoint=.*$", re.MULTILINE
        )
        assert row.search(text)
        return row.sub(rf"\g<1>tunnelendpoint={end} flags={flags}", text)

    return edit(node, IPCACHE, change)


def runs_on(mode: str, node: str) -> Change:
    """The API server has web on a node."""

    def change(items: list[dict[str, Any]]) -> None:
        named(items, web(mode).name)["spec"]["nodeName"] = node

    return objects(PODS, change)


def without_endpoint(mode: str) -> list[Change]:
    """node1's endpoint map and its agent have no web."""
    address = web(mode).address

    def row(text: str) -> str:
        return "".join(line for line in text.splitlines(True) if not line.startswith(f"{address}:"))

    def listed(text: str) -> str:
        return json.dumps([one for one in json.loads(text) if address not in json.dumps(one)])

    return [edit("node1", LXC, row), edit("node1", ENDPOINT_LIST, listed)]


@pytest.mark.parametrize("end", [ADDRESS["node2"], "172.31.7.99"])
@pytest.mark.parametrize("mode", MODES)
def test_the_endpoint_map_delivers_and_the_row_speaks_against_it(mode: str, end: str) -> None:
    """The endpoint map is looked up before the ipcache."""
    path = answer(mode, "client1", leads(mode, "node1", end))
    whose = "node2's" if end == ADDRESS["node2"] else "no node"
    said = f"has {web(mode).address} behind tunnel endpoint {end}, which is {whose}, and pod"
    assert f"but the ipcache of node1 {said}" in path.reason
    assert finding(path, said).severity == "warning"
    healthy = answer(mode, "client1")
    assert path.verdict == healthy.verdict
    assert "ipcache" not in healthy.reason


@pytest.mark.parametrize("source", ["client1", "node/node1"])
@pytest.mark.parametrize("mode", IN_TUNNEL)
def test_without_an_endpoint_of_its_own_the_row_leads_into_the_tunnel(
    mode: str, source: str
) -> None:
    row = leads(mode, "node1", ADDRESS["node2"])
    path = answer(mode, source, row, *without_endpoint(mode))
    assert path.verdict == "dropped"
    assert "node2" in [hop.node for hop in path.hops]
    assert path.cause.startswith(f"the ipcache of node1 has {web(mode).address} behind tunnel")
    assert path.drop is not None
    assert path.drop.object.startswith("Pod kube-system/cilium-")


def test_native_routing_without_an_endpoint_of_its_own_enters_no_tunnel() -> None:
    mode = "native"
    row = leads(mode, "node1", ADDRESS["node2"])
    path = answer(mode, "node/node1", row, *without_endpoint(mode))
    assert path.verdict == "dropped"
    assert {hop.node for hop in path.hops} == {"node1"}
    assert "no endpoint has it" in path.cause


@pytest.mark.parametrize("source", ["client", "client1", "node/node1", "node/node2"])
@pytest.mark.parametrize("mode", MODES)
def test_an_endpoint_of_another_node_than_the_pods_is_open(mode: str, source: str) -> None:
    """The API server has the pod on the sender's own node or on another one, the maps do not."""
    path = answer(mode, source, runs_on(mode, "node2"))
    assert path.verdict == "unknown"
    said = f"node1 hands packets for {web(mode).address} to an endpoint of its own, and pod"
    assert said in path.reason
    assert finding(path, said).severity == "error"


def test_an_answer_that_the_pods_own_node_keeps_is_open() -> None:
    """node1 has an endpoint with the address of client, a pod of node2."""

    def another(text: str) -> str:
        row = next(line for line in text.splitlines() if line.startswith("10.44.0.132:"))
        return f"{text}{row.replace('10.44.0.132', '10.44.1.144')}\n"

    path = answer("tunnel", "client", edit("node1", LXC, another))
    assert path.verdict == "unknown"
    said = "node1 hands packets for 10.44.1.144 to an endpoint of its own, and pod default/client"
    assert said in path.reason
    assert finding(path, f"way back: {said}").severity == "error"


@pytest.mark.parametrize("end", ["0.0.0.0", ADDRESS["node2"]])
@pytest.mark.parametrize("source", ["client", "node/node2"])
@pytest.mark.parametrize("mode", IN_TUNNEL)
def test_a_row_that_has_a_pod_of_another_node_as_its_own_is_open(
    mode: str, source: str, end: str
) -> None:
    path = answer(mode, source, leads(mode, "node2", end))
    assert path.verdict == "unknown"
    assert f"the ipcache of node2 has {web(mode).address}" in path.reason
    assert "runs on node1" in path.reason
    assert path.fix is not None
    assert path.fix.text.startswith("See why Cilium's agent on node2 is behind")


@pytest.mark.parametrize("end", [ADDRESS["node2"], "172.31.7.99"])
@pytest.mark.parametrize("mode", ["native", "native endpoint-routes"])
def test_routes_lead_past_a_wrong_row_of_native_routing(mode: str, end: str) -> None:
    path = answer(mode, "client", leads(mode, "node2", end))
    assert path.verdict == "reachable"
    assert f"but the ipcache of node2 has {web(mode).address}" in path.reason
    assert finding(path, "runs on node1").severity == "warning"


@pytest.mark.parametrize("mode", ["native", "native endpoint-routes"])
def test_a_row_of_native_routing_without_a_tunnel_endpoint_is_told(mode: str) -> None:
    """It leads nowhere else, and nothing but the tunnel asks it."""
    path = answer(mode, "client", leads(mode, "node2", "0.0.0.0"))
    assert path.verdict == "reachable"
    assert finding(path, "without a tunnel endpoint, as its own").severity == "info"


@pytest.mark.parametrize("bpf", [True, False])
def test_endpoint_routes_ask_the_endpoint_map_by_bpf_host_routing_alone(bpf: bool) -> None:
    """Without ENABLE_ROUTING and ENABLE_HOST_ROUTING the row of the ipcache alone is asked."""
    mode = "tunnel" if bpf else "tunnel legacy"

    def on(text: str) -> str:
        value = json.loads(text)
        value["data"]["enable-endpoint-routes"] = "true"
        return json.dumps(value)

    routed = edit("api", "get configmaps -n kube-system cilium-config", on)
    row = leads(mode, "node1", "172.31.7.99")
    path = answer(mode, "client1", routed, row)
    assert ("172.31.7.99" in str([hop.packet.outer for hop in path.hops])) is not bpf
    assert f"the ipcache of node1 has {web(mode).address}" in path.reason + path.cause


@pytest.mark.parametrize("mode", IN_TUNNEL)
def test_a_node_behind_another_nodes_tunnel_endpoint_is_said(mode: str) -> None:
    address, own = ADDRESS["node1"], ADDRESS["node2"]

    def lead_away(text: str) -> str:
        return "".join(
            row.replace("0.0.0.0 flags=<none>", f"{own} flags=hastunnel")
            if row.startswith(f"{address}/32")
            else row
            for row in text.splitlines(True)
        )

    unseen = [say(node, CT, "") for node in ("node1", "node2")]
    asked = "client", f"{address}:10250"
    path = ask(changed(MODES[mode], *unseen, edit("node2", IPCACHE, lead_away)), *asked)
    said = f"the ipcache of node2 has {address} behind tunnel endpoint {own}, which is node2's own"
    assert path.verdict != "reachable"
    assert said in path.reason + path.cause
    assert finding(path, "and it is an address of node1")
    assert not finding_titles(ask(changed(MODES[mode], *unseen), *asked))


def finding_titles(path: Path) -> list[str]:
    return [one.title for one in path.findings if one.severity != "info"]
