"""What hangs: no command outlives its --timeout, and nothing that had come is lost."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods import deployment
from kubectl_ebpfnet.collect import gatherer as gathering
from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.capture import capture
from kubectl_ebpfnet.collect.doctor import checkup
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.lists import survey_target
from kubectl_ebpfnet.collect.scope import flows_scope
from kubectl_ebpfnet.errors import ApiUnreachable
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Bundle, agent_place, node_place, pod_place
from tests.cluster.fake_api_server import Reply, Seen
from tests.collect.conftest import Opened
from tests.collect.looking import looked
from tests.collect.replay_cluster import ReplayCluster
from tests.collect.test_doctor import AUTO, Server
from tests.collect.test_gatherer import NOBODY, Target, Told, asked, to_service

LIMIT = 0.5
LONG = 100
"""Seconds that a hanging answer takes, where nobody gives up on it; pytest allows a test 120."""
MISSED = f"no answer within the {LIMIT:g} s that --timeout allows"


class Hanging:
    """The server's answers, of which some do not come before the test's end."""

    def __init__(self, replay: ReplayCluster) -> None:
        self.hangs: Callable[[Seen], bool] = lambda _: False
        self.release = threading.Event()
        self._server = Server(replay)
        replay.fake.routes = self  # type: ignore[assignment]

    def get(self, _: str) -> Callable[[Seen], Reply]:
        return self.answer

    def answer(self, seen: Seen) -> Reply:
        if self.hangs(seen):
            self.release.wait(LONG)
        return self._server.answer(seen)


@pytest.fixture
def hanging(cluster: Opened) -> Iterator[tuple[Session, Hanging]]:
    session, replay = cluster("vxlan-kpr")
    server = Hanging(replay)
    yield session, server
    server.release.set()


def doctor(session: Session, _: Path) -> None:
    checkup(session, AUTO, timeout=LIMIT)


def flows(session: Session, _: Path) -> None:
    with Gatherer(session, AUTO, timeout=LIMIT) as gatherer:
        survey_target(gatherer, Target("pod", "client"), lambda a: flows_scope(a, ()))


def whole_capture(session: Session, folder: Path) -> None:
    capture(session, [], folder / "x.zip", timeout=LIMIT)


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (doctor, "/version"),
        (flows, "/api/v1/namespaces/default/pods/client"),
        (whole_capture, "/api/v1/"),
    ],
)
def test_an_api_server_that_hangs(
    hanging: tuple[Session, Hanging],
    tmp_path: Path,
    command: Callable[[Session, Path], None],
    path: str,
) -> None:
    session, server = hanging
    server.hangs = lambda seen: seen.path.startswith(path)
    begin = time.monotonic()
    with pytest.raises(ApiUnreachable, match=MISSED) as caught:
        command(session, tmp_path)
    assert time.monotonic() - begin < LONG / 2
    assert "--timeout" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_namespace_that_is_never_created(
    hanging: tuple[Session, Hanging], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "REMOVAL_SECONDS", 0.2)
    session, server = hanging
    server.hangs = lambda seen: seen.method == "POST"
    begin = time.monotonic()
    access = NodeAccess(Mode.POD)
    _, bundle = looked(session, to_service(), access=access, timeout=LIMIT)
    assert time.monotonic() - begin < LONG / 2
    errors = {place: bundle.at(place)[0].error for place in map(node_place, ("node1", "node2"))}
    assert set(errors.values()) <= {f"no node pod: {MISSED}", MISSED.replace("answer", "node pod")}
    assert f"no node pod: {MISSED}" in errors.values()


def path_to_service(session: Session, timeout: float) -> Bundle:
    return looked(session, to_service(), timeout=timeout)[1]


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (path_to_service, "/apis/cilium.io/v2/ciliumnodes"),
        (path_to_service, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"),
        (lambda session, timeout: checkup(session, AUTO, timeout=timeout), "/api/v1/nodes"),
    ],
    ids=["path: nodes", "path: endpoints", "doctor"],
)
def test_a_list_that_hangs_leaves_time_to_ask_places(
    hanging: tuple[Session, Hanging], command: Callable[[Session, float], Bundle], path: str
) -> None:
    session, server = hanging
    begin = time.monotonic()
    command(session, LONG)
    whole = time.monotonic() - begin
    server.hangs = lambda seen: seen.path == path
    bundle = command(session, 4 + 8 * whole)  # as slow as the machine is
    assert any(record.ok for record in bundle.at(agent_place("node2")))


def test_a_name_that_the_pod_resolves_is_not_waited_for_here(
    cluster: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, replay = cluster("vxlan-kpr")
    replay.also["getent", "ahosts", "web.test"] = b"10.96.0.1 STREAM web\n"
    real, gate = socket.getaddrinfo, threading.Event()

    def look_up(host: Any, *rest: Any, **options: Any) -> Any:
        if host == "web.test":
            gate.wait(LONG)
        return real(host, *rest, **options)

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    begin = time.monotonic()
    named = to_service(destination_kind="name", destination_name="web.test", destination="web.test")
    looked(session, named, timeout=LONG)
    assert time.monotonic() - begin < LONG / 2
    gate.set()


def test_a_read_that_hangs_holds_back_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_GRACE_SECONDS", 0.0)
    gate = threading.Event()
    places = [Told(f"p{n}") for n in range(gathering._UNREAD + 100)]
    with Gatherer(NOBODY, timeout=10) as gatherer:
        gatherer.read([lambda: gate.wait(60)])
        asked(gatherer, places)
        records = gatherer.records()
        early = {next(records).place for _ in places}
        assert early == {place.place for place in places}
        assert not gatherer.deadline.over
        gate.set()
        assert list(records) == []


def test_every_place_that_a_node_pod_answers_for_is_late() -> None:
    node, pod = node_place("n"), pod_place("default", "x")
    gate = threading.Event()
    slow = Told("", gate)
    slow.place = node
    with Gatherer(NOBODY, timeout=0.0) as gatherer:
        gatherer.ask(slow, [Question(q.POD_ROUTES, pod), Question(q.ROUTES, node)])
        late = list(gatherer.records())
        gate.set()
    assert [(r.place, r.error) for r in late] == [
        (place, "no answer within the 0 s that --timeout allows") for place in (pod, node)
    ]
