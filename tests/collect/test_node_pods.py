"""A live path where a node pod that an earlier run kept answers for the source and its node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.nodepods import manifest
from kubectl_ebpfnet.collect.ask.node_access import Mode, NodeAccess
from kubectl_ebpfnet.collect.path import collect_path
from kubectl_ebpfnet.model.evidence import PlaceKind, agent_place, node_place, pod_place
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import PathRequest
from kubectl_ebpfnet.model.protocol.questions import PROGRAM, PROTOCOL
from tests.cluster.fake_api_server import ExecEnd, Reply, Seen
from tests.collect.conftest import Opened

RUN = manifest.Run(who="a test")
TO_WEB = PathRequest(
    "pod/client", "default", "client", "pod/web", "pod", TCP,
    destination_namespace="default", destination_name="web", port=8080,
)  # fmt: skip


def kept_pod(node: str, number: int) -> dict[str, Any]:
    made = manifest.pod(RUN, node, number, manifest.NodePodOptions(keep=True), True)
    made["metadata"]["namespace"] = RUN.namespace
    made["spec"]["nodeName"] = node
    made["status"] = {"containerStatuses": [{"name": "node", "state": {"running": {}}}]}
    return made


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.POD])
def test_a_node_pod_is_asked_about_the_pod_and_the_node_at_once(
    cluster: Opened, mode: Mode
) -> None:
    session, replay = cluster("vxlan-kpr")
    pods = [kept_pod("node1", 1), kept_pod("node2", 2)][mode is Mode.AUTO :]
    asked: dict[str, list[dict[str, Any]]] = {}
    real = replay.answer

    def answer(seen: Seen) -> Reply:
        if any(__version__ in selector for selector in seen.parameters("labelSelector")):
            return Reply(200, {"kind": "PodList", "apiVersion": "v1", "items": pods})
        return real(seen)

    def node_side(end: ExecEnd, pod: str) -> bool:
        if end.argv != [PROGRAM]:
            return False
        text = b""
        for piece in end.stdin():
            text += piece
            if b'"end"' in text:
                break
        requests = [json.loads(line) for line in text.splitlines()][:-1]
        asked.setdefault(pod, []).extend(requests)
        lines = [{"protocol": PROTOCOL, "version": __version__}]
        lines += [{"id": each["id"], "bytes": 0, "exit_code": 0} for each in requests]
        end.write(1, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        end.end()
        return True

    replay.answer, replay.before = answer, node_side  # type: ignore[method-assign]
    _, bundle = collect_path(session, TO_WEB, access=NodeAccess(mode), timeout=50)
    agents = {place.node for place in bundle.places(PlaceKind.AGENT)}
    nodes = {place.node for place in bundle.places(PlaceKind.NODE)}
    assert (agents, nodes) == (
        ({"node1"}, {"node2"}) if mode is Mode.AUTO else (set(), {"node1", "node2"})
    )
    # Nobody entered the pod: the node pod knows its namespace, and looks the packet up there.
    assert "client" not in [pod for _, pod, _ in replay.execs]
    words = {record.argv[1] for record in bundle.at(pod_place("default", "client"))}
    assert words == {"links", "addresses", "routes", "rules", "neighbours", "fib"}
    of_node = {record.argv[1] for record in bundle.at(node_place("node2")) if record.argv[1:]}
    assert {"links", "routes", "forward", "ct", "conntrack", "attachments"} <= of_node
    assert bundle.at(agent_place("node2")) == ()
    source = asked["node-2"]
    client = replay.pod("client")
    spaces = {json.dumps(each.get("netns")) for each in source}
    assert len(spaces) == 2
    assert any(client["metadata"].get("uid", "") in space for space in spaces)
    by_flow = [each for each in source if each["argv"][1:] in (["ct"], ["nat"], ["conntrack"])]
    address = client["status"]["podIP"]
    assert [each["flows"][0]["address"] for each in by_flow] == [address] * 3
    assert {r.line_filter for r in bundle.records if r.argv[1:] == ("ct",)} == {(address,)}
