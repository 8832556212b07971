"""Who answers for a node; who is asked before a node pod is deployed, and when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.collect.ask.node_access import NodeAnswerers
from kubectl_ebpfnet.collect.ask.node_pod import NodePodExec
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.evidence import Record
from tests.cluster.fake_api_server import FakeApiServer, Reply, Seen, status_reply
from tests.cluster.fake_cluster import FakeCluster, ended


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    server = FakeApiServer()
    one = FakeCluster(server)
    for name in ("n1", "n2"):
        one.node(name)

    def reviews(seen: Seen) -> Reply | None:
        asked = seen.path.endswith("/selfsubjectaccessreviews")
        return Reply(201, {"status": {"allowed": True}}) if asked else None

    one.refuses = reviews
    yield one
    server.close()


@pytest.fixture
def session(cluster: FakeCluster) -> Iterator[Session]:
    with Session.open(ConnectionOptions(server=cluster.server.url)) as one:
        yield one


def test_who_does_not_agree_gets_no_node_pod_and_is_asked_once(
    cluster: FakeCluster, session: Session
) -> None:
    asked: list[str] = []

    def agree(question: str) -> str:
        asked.append(question)
        time.sleep(0.3)  # somebody thinks about it
        return "not wanted"

    said: list[str] = []
    deadline = Deadline(5)
    with NodeAnswerers(session, NodeAccess(Mode.AUTO, agree=agree), said.append) as answerers:
        answerers.set_available({}, "", {})
        left = deadline.left or 0
        found = answerers.for_nodes(["n1"], deadline)["n1"]
        assert (deadline.left or 0) > left - 0.25  # that time is not the run's
        again = answerers.for_nodes(["n2"], deadline)["n2"]
    for record in (found, again):
        assert isinstance(record, Record)
        assert record.error == "no node pod: not wanted"
    (question,) = asked
    assert question.startswith("no Cilium agent runs there: deploy a node pod on n1 (image ")
    assert question.endswith(" for this run?")
    assert said == []
    assert cluster.below("namespaces") == []


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.POD])
def test_who_agrees_or_asked_for_it_gets_one(
    cluster: FakeCluster, session: Session, mode: Mode
) -> None:
    asked: list[str] = []

    def agree(question: str) -> str:
        asked.append(question)
        return ""

    said: list[str] = []
    with NodeAnswerers(session, NodeAccess(mode, agree=agree), said.append) as answerers:
        answerers.set_available({}, "", {})
        found = answerers.for_nodes(["n1"], Deadline(20))["n1"]
        assert isinstance(found, NodePodExec)
        assert found.wait(Deadline(20)).node == "n1"
        answerers.for_nodes(["n2"], Deadline(20))
    assert len(asked) == (mode is Mode.AUTO)
    assert ["deploying a node pod on n1" in said[0], len(said)] == [True, 2]


@pytest.mark.parametrize(
    ("status", "passes"), [(503, True), (429, True), (403, False)], ids=["503", "429", "forbidden"]
)
def test_a_look_after_one_that_was_refused_for_a_moment_deploys(
    cluster: FakeCluster, session: Session, status: int, passes: bool
) -> None:
    reviews, refusals = cluster.refuses, [status_reply(status, "", "not now")]

    def refuse_once(seen: Seen) -> Reply | None:
        at_namespaces = (seen.method, seen.path) == ("POST", "/api/v1/namespaces")
        return refusals.pop() if at_namespaces and refusals else reviews(seen)

    cluster.refuses = refuse_once
    with NodeAnswerers(session, NodeAccess(Mode.POD), lambda _: None) as answerers:
        answerers.set_available({}, "", {})
        first = answerers.for_nodes(["n1"], Deadline(20))["n1"]
        assert isinstance(first, Record)
        # The same look does not try again for each of its nodes.
        assert isinstance(answerers.for_nodes(["n1"], Deadline(20))["n1"], Record)
        answerers.set_available({}, "", {})
        second = answerers.for_nodes(["n1"], Deadline(20))["n1"]
        assert isinstance(second, NodePodExec) == passes
        if isinstance(second, NodePodExec):
            assert second.wait(Deadline(20)).node == "n1"
    assert cluster.below("namespaces") == []


@pytest.mark.parametrize("status", [None, ended(137, "OOMKilled")], ids=["deleted", "OOM-killed"])
def test_a_node_pod_that_ends_between_two_looks_is_deployed_anew(
    cluster: FakeCluster, session: Session, status: dict[str, Any] | None
) -> None:
    with NodeAnswerers(session, NodeAccess(Mode.POD), lambda _: None) as answerers:

        def look() -> NodePodExec:
            answerers.set_available({}, "", {})
            found = answerers.for_nodes(["n1"], Deadline(20))["n1"]
            assert isinstance(found, NodePodExec)
            return found

        first = look().wait(Deadline(20)).container.pod
        [path] = [path for path in cluster.objects if path.endswith(f"/pods/{first}")]
        if status is None:
            del cluster.objects[path]
        else:
            cluster.objects[path]["status"] = status
        # The look that meets it says so; it is no reason to try in a circle within one.
        with pytest.raises(ClusterError, match=r"was deleted|has ended: OOMKilled, exit code 137"):
            look().wait(Deadline(20))
        second = look().wait(Deadline(20)).container.pod
        assert second != first
    assert {*cluster.objects} == {"/api/v1/nodes/n1", "/api/v1/nodes/n2"}


def test_a_node_that_starts_no_pod_is_not_offered_one(
    cluster: FakeCluster, session: Session
) -> None:
    """Why not is the record's reason; nothing is asked, and nothing deployed there."""
    cluster.node("late", ready=False)
    asked: list[str] = []

    def agree(question: str) -> str:
        asked.append(question)
        return ""

    why = "no node pod can start on late: not Ready since 2026-11-21T09:00:00Z: Kubelet stopped"
    with NodeAnswerers(session, NodeAccess(Mode.AUTO, agree=agree), lambda _: None) as answerers:
        answerers.set_available({}, "", {})
        for late in (
            answerers.for_nodes(["late"], Deadline(20))["late"],
            answerers.instead_of_agent("late", Deadline(20)),
        ):
            assert isinstance(late, Record)
            assert late.error.startswith(why)
        assert (asked, cluster.below("namespaces")) == ([], [])
        both = answerers.for_nodes(["late", "n1"], Deadline(20))
        assert isinstance(both["late"], Record)
        assert isinstance(both["n1"], NodePodExec)
        both["n1"].wait(Deadline(20))
        assert ["on n1 (image" in question for question in asked] == [True]
        assert [pod["spec"]["nodeName"] for pod in cluster.below("pods")] == ["n1"]
        cluster.node("late")  # the next look of a watch finds it Ready
        answerers.set_available({}, "", {})
        assert isinstance(answerers.for_nodes(["late"], Deadline(20))["late"], NodePodExec)
