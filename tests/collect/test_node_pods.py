"""A live path where a node pod that an earlier run kept answers for the source and its node."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cluster.nodepods import manifest
from kubectl_ebpfnet.collect.ask import container, shell_script
from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.collect.capture import capture
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import (
    Bundle,
    Place,
    PlaceKind,
    agent_place,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import PathRequest, Verdict
from tests.cluster.fake_api_server import ExecEnd, Reply, Seen
from tests.cluster.node_sessions import OURS, requests, session_words
from tests.cluster.node_sessions import answer as answer_session
from tests.collect.conftest import Opened
from tests.collect.looking import looked
from tests.collect.replay_cluster import ReplayCluster

RUN = manifest.Run("a test", datetime.now(UTC))
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


def node_pods(replay: ReplayCluster, pods: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Let node pods answer every question with nothing; return the requests, by their pod."""
    asked: dict[str, list[dict[str, Any]]] = {}
    real = replay.answer

    def answer(seen: Seen) -> Reply:
        if manifest.STANDING_SELECTOR in seen.parameters("labelSelector"):
            return Reply(200, {"kind": "PodList", "apiVersion": "v1", "items": pods})
        if seen.path == f"/api/v1/namespaces/{RUN.namespace}":
            return Reply(200, {"kind": "Namespace", "apiVersion": "v1", "metadata": {}})
        return real(seen)

    def node_side(end: ExecEnd, pod: str) -> bool:
        if session_words(end.argv) != []:
            return False
        questions = requests(end)
        asked.setdefault(pod, []).extend(questions)
        bare = ({"id": each["id"], "bytes": 0, "exit_code": 0} for each in questions)
        answer_session(end, OURS, *bare)
        return True

    replay.answer, replay.before = answer, node_side  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.POD])
def test_a_node_pod_is_asked_about_the_pod_and_the_node_at_once(
    cluster: Opened, mode: Mode
) -> None:
    session, replay = cluster("vxlan-kpr")
    asked = node_pods(replay, [kept_pod("node1", 1), kept_pod("node2", 2)][mode is Mode.AUTO :])
    _, bundle = looked(session, TO_WEB, access=NodeAccess(mode), timeout=50)
    agents = {place.node for place in bundle.places(PlaceKind.AGENT)}
    nodes = {place.node for place in bundle.places(PlaceKind.NODE)}
    assert (agents, nodes) == (
        ({"node1"}, {"node2"}) if mode is Mode.AUTO else (set(), {"node1", "node2"})
    )
    # Nobody entered the pod: the node pod knows its namespace, and looks the packet up there.
    assert "client" not in [pod for _, pod, _ in replay.execs]
    words = {record.argv[1] for record in bundle.at(pod_place("default", "client"))}
    of_netfilter = {"-c", "-j", "nft-chains"}
    of_devices = {"links", "addresses", "neighbours", "attachments", "qdiscs"}
    assert words == {"routes", "rules", "fib"} | of_devices | of_netfilter
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


def test_a_kept_node_pod_that_has_ended_is_said_and_another_one_asked(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    node_pods(replay, [kept_pod("node2", 2)])
    answers = replay.before

    def ended(end: ExecEnd, pod: str) -> bool:
        if session_words(end.argv) != []:
            return answers(end, pod)
        failure = {"status": "Failure", "reason": "NotFound", "code": 404,
                   "message": 'container not found ("node")'}  # fmt: skip
        end.end(failure)
        return True

    replay.before = ended  # type: ignore[method-assign]
    said: list[object] = []
    access = NodeAccess(Mode.AUTO)
    _, bundle = looked(session, TO_WEB, access=access, timeout=50, warn=said.append)
    assert said == ["the node pod that is on node2 does not answer: it may have ended"]
    assert {place.node for place in bundle.places(PlaceKind.AGENT)} == {"node1", "node2"}
    assert bundle.at(pod_place("default", "client"))
    refused = [r for r in bundle.at(node_place("node2")) if not r.ran]
    assert any("container not found" in record.error for record in refused)


def test_a_capture_has_the_look_ups_of_the_paths_that_it_is_for(
    cluster: Opened, tmp_path: Path
) -> None:
    """`path` asks the kernel about its one packet; the capture about those it is told of."""
    session, replay = cluster("vxlan-kpr")
    node_pods(replay, [kept_pod("node1", 1), kept_pod("node2", 2)])
    access, file = NodeAccess(Mode.POD), tmp_path / "x.zip"
    _, live = looked(session, TO_WEB, access=access, timeout=50)
    to = (
        arguments.destination("pod/web:8080"),
        arguments.destination("svc/web"),
        arguments.destination("1.1.1.1"),
    )
    client = arguments.pod_or_node("pod/client", "capture")
    capture(session, [client], file, destinations=to, access=access, timeout=50)
    kept = open_bundle(file)

    def lookups(bundle: Bundle) -> set[tuple[Place, tuple[str, ...]]]:
        asked = {(r.place, r.argv) for r in bundle.records}
        return {(place, argv) for place, argv in asked if argv[1:2] in (("fib",), ("forward",))}

    assert lookups(live)
    assert lookups(live) <= lookups(kept)
    destinations = {argv[2] for _, argv in lookups(kept)}
    assert {"1.1.1.1", replay.named("Service", "web")["spec"]["clusterIP"]} < destinations
    assert {place.node for place in kept.places(PlaceKind.NODE)} == {"node1", "node2"}


def test_a_capture_of_two_pods_looks_up_their_packets_to_each_other(
    cluster: Opened, tmp_path: Path
) -> None:
    session, replay = cluster("vxlan-kpr")
    node_pods(replay, [kept_pod("node1", 1), kept_pod("node2", 2)])
    targets = [arguments.pod_or_node(f"pod/{name}", "capture") for name in ("client", "web")]
    capture(session, targets, tmp_path / "x.zip", access=NodeAccess(Mode.POD), timeout=50)
    records = open_bundle(tmp_path / "x.zip").records
    addresses = {name: replay.pod(name)["status"]["podIP"] for name in ("client", "web")}
    asked = {(r.place.pod, *r.argv[2:]) for r in records if r.argv[1:2] == ("fib",)}
    assert asked == {
        ("client", addresses["web"], "from", addresses["client"]),
        ("web", addresses["client"], "from", addresses["web"]),
    }


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.AGENT])
def test_an_agent_that_hangs_costs_its_own_word_alone(
    cluster: Opened, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    monkeypatch.setattr(container, "HANG_SECONDS", 1)
    monkeypatch.setattr(shell_script, "HANG_SECONDS", 1)
    session, replay = cluster("vxlan-kpr")
    replay.hangs.add("node2")
    real, said = replay.answer, list[str]()

    def answer(seen: Seen) -> Reply:
        if seen.path.endswith("/selfsubjectaccessreviews"):
            return Reply(201, {"status": {"allowed": False}})
        return real(seen)

    replay.answer = answer  # type: ignore[method-assign]
    begun = time.monotonic()
    access = NodeAccess(mode)
    _, bundle = looked(session, TO_WEB, access=access, timeout=50, warn=said.append)
    assert time.monotonic() - begun < 8
    agent = agent_place("node2")
    late = {record.error for record in bundle.at(agent) if not record.ran}
    assert late == {
        "it did not answer within 1 s: the agent hangs", "not asked: the agent hangs"
    }  # fmt: skip
    for fact in (q.CT, q.LB_MAP, q.POLICY_MAPS, q.ENDPOINT_MAP, q.ROUTES):
        best = q.best_record(bundle, agent, fact)
        assert best is not None
        assert best.ok, fact.name
    # Who may deploy no node pod is told so, and not that one is being deployed.
    assert said == []
    refused = {(record.error, record.denied) for record in bundle.at(node_place("node2"))}
    no_pod = "no node pod: this user may not create namespaces"
    assert refused == ({(no_pod, "create namespaces")} if mode is Mode.AUTO else set())
    assert bundle.at(node_place("node1")) == ()
    path = explain(TO_WEB, bundle)
    assert path.verdict in (Verdict.DELIVERED, Verdict.REACHABLE), path.reason
