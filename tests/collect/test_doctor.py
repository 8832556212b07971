"""What `doctor` asks of a fake cluster: rights side by side, agents, nothing that changes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.collect.doctor import checkup
from kubectl_ebpfnet.errors import ApiUnreachable, Unauthorized
from kubectl_ebpfnet.explain.doctor.report import examine
from kubectl_ebpfnet.model.catalogue import TOOLS
from kubectl_ebpfnet.model.doctor import Checkup, Level
from kubectl_ebpfnet.model.evidence import PlaceKind
from kubectl_ebpfnet.model.rights import RIGHTS
from tests.cluster.fake_api_server import ExecEnd, Reply, Seen, status_reply
from tests.collect.conftest import Opened
from tests.collect.replay_cluster import ReplayCluster

AUTO = NodeAccess(Mode.AUTO)
Judge = Callable[[dict[str, Any]], bool]


class Server:
    """The fake cluster's API, and what doctor asks besides."""

    def __init__(self, replay: ReplayCluster, judge: Judge = lambda _: True) -> None:
        self.replay, self.judge = replay, judge
        self.user: dict[str, Any] = {}
        self.version = Reply(200, {"gitVersion": "v1.31.2"})
        self.reviews: list[dict[str, Any]] = []
        self.changes: list[str] = []
        replay.fake.routes = self  # type: ignore[assignment]

    def get(self, _: str) -> Callable[[Seen], Reply]:
        return self.answer

    def answer(self, seen: Seen) -> Reply:
        if seen.path == "/version":
            return self.version
        if seen.path.endswith("/selfsubjectaccessreviews"):
            asked = json.loads(seen.body)["spec"]["resourceAttributes"]
            self.reviews.append(asked)
            return Reply(201, {"status": {"allowed": self.judge(asked)}})
        if seen.path.endswith("/selfsubjectreviews"):
            if "/v1beta1/" in seen.path and self.user:
                return Reply(201, {"status": {"userInfo": self.user}})
            return status_reply(404, "NotFound", "the server could not find the resource")
        if seen.method != "GET":
            self.changes.append(f"{seen.method} {seen.path}")
        return self.replay.answer(seen)


def reported(session: Session, access: NodeAccess = AUTO) -> Checkup:
    return examine(checkup(session, access, timeout=30))


def test_a_cluster_where_everything_is_allowed(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    server = Server(replay)
    server.user = {"username": "jane", "groups": ["sre"], "extra": {"secret": ["hunter2"]}}
    bundle = checkup(session, AUTO, timeout=30)
    report = examine(bundle)
    assert report.verdict is Level.FULL
    assert len(server.reviews) == len(RIGHTS)
    assert all(right.allowed for right in report.rights)
    assert report.connection.kubernetes == "v1.31.2"
    assert (report.connection.user, report.connection.groups) == ("jane", ("sre",))
    assert report.connection.server == session.server
    assert [node.name for node in report.nodes] == ["node1", "node2"]
    assert all(node.agent_exec and node.by == "agent" for node in report.nodes)
    assert dict(report.cilium.features)["routing"] == "tunnel (vxlan)"
    assert len(replay.execs) == 2
    assert server.changes == []
    assert all(b"hunter2" not in record.stdout.read() for record in bundle.records)
    assert any(record.argv == TOOLS.forms[0] and record.ok for record in bundle.records)


def test_what_is_not_allowed_everywhere_is_asked_where_it_counts(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    own = {"pods", "services"}
    server = Server(replay, lambda a: a["resource"] in own and a.get("namespace") == "default")
    report = reported(session)
    by_words = {right.words: right for right in report.rights}
    assert by_words["get pods"].namespaces == ("default",)
    assert by_words["get nodes"].namespaces == ()
    asked = {(a["resource"], a.get("namespace", "")) for a in server.reviews}
    assert ("nodes", "default") not in asked
    assert {("pods", ""), ("pods", "default"), ("pods", "kube-system")} <= asked
    config = [a for a in server.reviews if a["resource"] == "configmaps"]
    assert {a["name"] for a in config} == {"cilium-config"}
    (exec_,) = {a["subresource"] for a in server.reviews if a.get("subresource")}
    assert exec_ == "exec"


def test_reviews_that_fail_are_told_of(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    server = Server(replay)

    def broken(seen: Seen) -> Reply:
        if seen.path.endswith("accessreviews"):
            return status_reply(500, "InternalError", "the authorizer is tired")
        return Server.answer(server, seen)

    server.answer = broken  # type: ignore[method-assign]
    report = reported(session)
    assert {right.allowed for right in report.rights} == {None}
    assert "the authorizer is tired" in report.missing[0]
    assert report.verdict is Level.FULL


def test_where_nothing_can_be_read(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    Server(replay, lambda _: False).version = status_reply(403, "Forbidden", "no")
    replay.refused = {"pods", "nodes", "configmaps"}
    report = reported(session)
    assert report.nodes == ()
    assert report.verdict is Level.BLIND
    assert report.cilium.found is None
    assert replay.execs == []
    assert [note.partition(":")[0] for note in report.missing] == ["the version", "the nodes"]


def test_an_exec_that_fails_is_that_nodes_alone(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    Server(replay)
    (broken,) = (
        o["metadata"]["name"]
        for o in replay.objects
        if o["metadata"].get("labels", {}).get("k8s-app") == "cilium"
        and o["spec"]["nodeName"] == "node2"
    )

    def before(end: ExecEnd, pod: str) -> bool:
        if pod == broken:
            end.end({"metadata": {}, "status": "Failure", "message": "no such luck", "code": 500})  # type: ignore[attr-defined]
        return pod == broken

    replay.before = before
    report = reported(session)
    one, two = report.nodes
    assert (one.agent_exec, two.agent_exec) == (True, False)
    assert "no such luck" in two.agent_problem
    assert two.reach("path").level is Level.BLIND
    assert report.verdict is Level.BLIND


def test_an_image_without_a_shell(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    Server(replay)
    for each in replay.objects:
        if each["metadata"].get("labels", {}).get("k8s-app") == "cilium":
            replay.images[each["metadata"]["name"]] = {"cilium-dbg"}
    report = reported(session)
    assert all(node.agent_exec for node in report.nodes)
    assert report.nodes[0].tools == ("cilium-dbg",)


@pytest.mark.parametrize("mode", [Mode.NONE, Mode.AUTO, Mode.AGENT])
def test_nothing_is_deployed(cluster: Opened, mode: Mode) -> None:
    session, replay = cluster("vxlan-kpr")
    server = Server(replay)
    replay.objects = [
        o for o in replay.objects if o["metadata"].get("labels", {}).get("k8s-app") != "cilium"
    ]
    bundle = checkup(session, NodeAccess(mode), timeout=30)
    report = examine(bundle)
    assert server.changes == []
    assert report.cilium.found is False
    by = "new node pod" if mode is Mode.AUTO else ""
    assert {node.by for node in report.nodes} == {by}
    assert bundle.places(PlaceKind.NODE) == ()


def test_who_has_no_cluster_is_told(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    Server(replay).version = status_reply(401, "Unauthorized", "who are you")
    with pytest.raises(Unauthorized):
        checkup(session, AUTO)
    nobody = Session.open(ConnectionOptions(server="http://127.0.0.1:9"))
    with nobody, pytest.raises(ApiUnreachable):
        checkup(nobody, AUTO)
