"""What many places have in common: threads, a deadline, and faults that cost one answer alone."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cluster.client.clock import ServerClock
from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from kubectl_ebpfnet.cluster.pool import MOST
from kubectl_ebpfnet.collect import gatherer as gathering
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.unasked import unavailable_record
from kubectl_ebpfnet.collect.capture import capture
from kubectl_ebpfnet.collect.doctor import checkup
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.lists import survey_target
from kubectl_ebpfnet.collect.scope import flows_scope
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.explain.doctor.report import examine
from kubectl_ebpfnet.explain.flows import listing as flows
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import (
    API,
    Bundle,
    InMemory,
    Place,
    Record,
    agent_place,
    pod_place,
)
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import PathRequest
from tests.cluster.fake_api_server import ExecEnd, FakeApiServer, Seen, status_reply
from tests.collect.conftest import Opened
from tests.collect.looking import looked
from tests.collect.many_nodes import ManyNodes
from tests.collect.replay_cluster import ReplayCluster
from tests.collect.test_doctor import AUTO, Server

BROKEN = agent_place("node2")
EXEC_DENIED = "create pods/exec in namespace kube-system"
LIMIT = 4.0


def to_service(port: int | None = 80, **more: Any) -> PathRequest:
    words = {
        "destination": "svc/web",
        "destination_kind": "service",
        "destination_namespace": "default",
        "destination_name": "web",
        "protocol": TCP,
        "port": port,
    }
    return PathRequest("pod/client", "default", "client", **{**words, **more})


# --- faults ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    kind: str
    name: str


def path(session: Session, _: Path, limit: float | None) -> Bundle:
    return looked(session, to_service(), timeout=limit)[1]


def captured(session: Session, folder: Path, limit: float | None) -> Bundle:
    targets = [Target("pod", "client"), Target("node", "node1")]
    capture(session, targets, folder / "x.zip", overwrite=True, timeout=limit)
    return open_bundle(folder / "x.zip")


def doctor(session: Session, _: Path, limit: float | None) -> Bundle:
    return checkup(session, AUTO, timeout=limit)


def flow_list(session: Session, _: Path, limit: float | None) -> Bundle:
    with Gatherer(session, AUTO, timeout=limit) as gatherer:
        found = survey_target(gatherer, Target("pod", "client"), lambda a: flows_scope(a, ()))
        return found.bundle


def stopped(end: ExecEnd) -> None:
    end.wait_for_client_to_leave()


def cut(end: ExecEnd) -> None:
    end.write(1, b"first\n\n%b 1 0 0\nhalf" % end.argv[2].encode())
    end.reset()


def told(command: Callable[..., Bundle], bundle: Bundle) -> str:
    """What the command's answer says of places that failed."""
    if command is path:
        found = explain(to_service(), bundle).findings
        return "\n".join(f"{finding.title} {finding.detail}" for finding in found)
    if command is doctor:
        nodes = examine(bundle).nodes
        lacks = (lack.what for node in nodes for lack in node.reach("path").lacks)
        return "\n".join((*lacks, *(node.agent_problem for node in nodes)))
    if command is flow_list:
        return "\n".join(flows.of_pod("default", "client", bundle).missing)
    return "\n".join(f"{record.error} {record.denied}" for record in bundle.records)


def test_a_look_has_no_records_of_one_that_failed(cluster: Opened) -> None:
    session, _ = cluster("vxlan-kpr")
    with Gatherer(session, AUTO, timeout=50) as gatherer:
        before = gatherer.api
        before.nodes()
        gatherer.ask(unavailable_record(agent_place("node1"), "exec", "no agent"), ())
        gatherer.begin(50)
        before.nodes()  # an answer that came too late for its look
        assert gatherer.bundle().records == ()
        gatherer.api.nodes()
        assert len(gatherer.bundle().records) == 1


@pytest.mark.parametrize("command", [path, captured, doctor, flow_list])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (stopped, f"no answer within the {LIMIT:g} s that --timeout allows"),
        (cut, "the connection broke"),
        (None, "may not create pods/exec"),
    ],
    ids=["a stopped agent", "a cut stream", "a denied exec"],
)
def test_a_fault_costs_one_places_answer(
    cluster: Opened,
    tmp_path: Path,
    command: Callable[[Session, Path, float | None], Bundle],
    fault: Callable[[ExecEnd], None] | None,
    reason: str,
) -> None:
    session, replay = cluster("vxlan-kpr")
    Server(replay)
    good = outcomes(command(session, tmp_path, None))
    assert any(place == BROKEN and ran for (place, _), ran in good.items())
    agent = agent_pod(replay, BROKEN.node)

    def before(end: ExecEnd, pod: str) -> bool:
        if pod == agent and fault is not None:
            fault(end)
        return pod == agent and fault is not None

    def refusal(seen: Seen) -> Any:
        message = 'User "u" cannot create resource "pods/exec" in API group ""'
        refused = fault is None and f"/{agent}/" in seen.path
        return status_reply(403, "Forbidden", message) if refused else None

    replay.before, replay.fake.exec_refusal = before, refusal
    bundle = command(session, tmp_path, LIMIT if fault is stopped else None)
    assert others(outcomes(bundle)) == others(good)
    failed = [record for record in bundle.at(BROKEN) if not record.ran]
    assert failed
    assert all(reason in record.error for record in failed)
    assert reason in told(command, bundle)
    if fault is None:
        assert {record.denied for record in failed} == {EXEC_DENIED}
        assert command in (doctor, flow_list) or EXEC_DENIED in told(command, bundle)


def outcomes(bundle: Bundle) -> dict[tuple[Place, tuple[str, ...]], bool]:
    return {(record.place, record.argv): record.ran for record in bundle.records}


def others(found: dict[tuple[Place, tuple[str, ...]], bool]) -> dict[Any, bool]:
    return {key: ran for key, ran in found.items() if key[0] != BROKEN}


def agent_pod(replay: ReplayCluster, node: str) -> str:
    (name,) = (
        each["metadata"]["name"]
        for each in replay.objects
        if each["metadata"].get("labels", {}).get("k8s-app") == "cilium"
        and each["spec"]["nodeName"] == node
    )
    return str(name)


# --- what an object refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (to_service(None), "svc/web has several ports"),
        (to_service(81), "svc/web has no port 81"),
        (to_service(30991), "svc/web has no port 30991"),
        (to_service(None, port_name="dns"), "svc/web has no port dns"),
        (to_service(80, protocol=17), "svc/web offers 80 by TCP alone"),
    ],
)
def test_what_a_service_refuses_asks_nobody(cluster: Opened, asked: PathRequest, says: str) -> None:
    session, replay = cluster("vxlan-kpr")
    ports = replay.named("Service", "web")["spec"]["ports"]
    ports[0]["name"] = "http"
    ports.append({**ports[0], "name": "metrics", "port": 9090, "nodePort": 30991})
    with pytest.raises(UsageError, match=says) as refused:
        looked(session, asked, timeout=50)
    assert refused.value.hint
    assert replay.execs == []


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (30991, "its ports are 80, 9090 (metrics); 30991 is the nodePort of 9090: node/NAME:30991"),
        (8080, "its ports are 80, 9090 (metrics); 8080 is the targetPort of 80"),
        (81, "its ports are 80, 9090 (metrics)"),
    ],
)
def test_a_number_that_the_service_has_for_something_else_is_named(
    cluster: Opened, number: int, hint: str
) -> None:
    session, replay = cluster("vxlan-kpr")
    ports = replay.named("Service", "web")["spec"]["ports"]
    ports[0]["targetPort"] = 8080
    ports.append({**ports[0], "name": "metrics", "port": 9090, "nodePort": 30991, "targetPort": 1})
    with pytest.raises(UsageError) as refused:
        looked(session, to_service(number), timeout=50)
    assert refused.value.hint == hint


# --- many places ----------------------------------------------------------------------------------


@pytest.fixture
def many() -> Iterator[Callable[[int], tuple[Session, ManyNodes]]]:
    """`many(count)` gives a session and a fake cluster of so many nodes."""
    fake = FakeApiServer()
    sessions: list[Session] = []

    def opened(count: int) -> tuple[Session, ManyNodes]:
        sessions.append(Session.open(ConnectionOptions(server=fake.url)))
        return sessions[-1], ManyNodes(fake, count)

    yield opened
    for session in sessions:
        session.close()
    fake.close()


def test_many_nodes_are_asked_by_a_pools_threads_with_one_exec_each(
    many: Callable[[int], tuple[Session, ManyNodes]],
) -> None:
    session, nodes = many(150)
    full = threading.Barrier(MOST)
    threads: set[int] = set()

    def before(end: ExecEnd, pod: str) -> bool:
        if len(nodes.execs) <= MOST and not full.broken:
            full.wait(20)  # passes only if so many are asked beside each other
            threads.add(sum("(_work)" in thread.name for thread in threading.enumerate()))
        return False

    nodes.before = before
    report = examine(checkup(session, AUTO, timeout=100))
    assert nodes.most == MOST
    assert threads == {MOST}
    assert len(nodes.execs) == len(report.nodes) == 150
    assert all(node.agent_exec for node in report.nodes)
    assert [node.name for node in report.nodes] == sorted(node.name for node in report.nodes)


def test_a_few_nodes_are_asked_by_two_execs_each(
    many: Callable[[int], tuple[Session, ManyNodes]],
) -> None:
    session, nodes = many(2)
    checkup(session, AUTO, timeout=100)
    assert len(nodes.execs) == 2


class Told:
    """An answerer of a test: waits for `gate`, then answers with one record."""

    def __init__(self, name: str, gate: threading.Event | None = None) -> None:
        self.place = pod_place("default", name)
        self.gate, self.asked = gate, threading.Event()

    def lanes(self, questions: Sequence[Question]) -> list[Sequence[Question]]:
        return [questions]

    def ask(self, *_: object) -> list[Record]:
        self.asked.set()
        if self.gate is not None:
            assert self.gate.wait(60)
        return [unavailable_record(self.place, ("x",), "it has no answer")]


NOBODY: Any = SimpleNamespace(clock=ServerClock())


def about(answerer: Told) -> Question:
    return Question(q.LINKS, answerer.place)


def asked(gatherer: Gatherer, places: Sequence[Told]) -> None:
    for place in places:
        gatherer.ask(place, [about(place)])


def test_a_place_that_hangs_holds_back_no_other() -> None:
    gate = threading.Event()
    places = [Told("slow", gate), *(Told(f"p{n}") for n in range(100))]
    with Gatherer(NOBODY) as gatherer:
        asked(gatherer, places)
        records = gatherer.records()
        early = {next(records).place for _ in range(100)}
        assert early == {place.place for place in places[1:]}
        gate.set()
        assert [record.place for record in records] == [places[0].place]


def test_a_bundle_has_the_order_of_asking() -> None:
    gate = threading.Event()
    refusal = unavailable_record(pod_place("default", "b"), ("x",), "nobody answers for it")
    with Gatherer(NOBODY) as gatherer:
        asked(gatherer, [Told("a", gate)])
        gatherer.ask(refusal, [])
        last = Told("c")
        asked(gatherer, [last])
        assert last.asked.wait(20)
        gate.set()
        bundle = gatherer.bundle(unavailable_record(API, ("first",), "x"))
    assert [record.place.pod for record in bundle.records] == ["", "a", "b", "c"]


def test_answers_that_nobody_reads_are_bounded() -> None:
    places = [Told(f"p{n}") for n in range(500)]
    with Gatherer(NOBODY) as gatherer:
        asked(gatherer, places)
        records = gatherer.records()
        for read in range(1, 100):
            next(records)
            assert sum(place.asked.is_set() for place in places) <= gathering._UNREAD + read
        assert len(list(records)) == 500 - 99


def test_records_that_were_read_are_not_kept() -> None:
    size, count = 256 << 10, 400

    class Long(Told):
        def ask(self, *_: object) -> list[Record]:
            output = InMemory(bytes(size))
            return [Record(0, self.place, ("x",), 0, output)]

    tracemalloc.start()
    try:
        with Gatherer(NOBODY) as gatherer:
            asked(gatherer, [Long(f"p{n}") for n in range(count)])
            assert sum(record.ok for record in gatherer.records()) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (gathering._UNREAD + 16) * size < count * size / 4


def test_the_deadline_is_one_for_all_and_says_so_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "_GRACE_SECONDS", 0.0)
    gate = threading.Event()
    places = [Told(f"p{n}", gate) for n in range(gathering._UNREAD + 10)]
    with Gatherer(NOBODY, timeout=0.1) as gatherer:
        asked(gatherer, places)
        found = list(gatherer.records())
        assert [record.place for record in found] == [place.place for place in places]
        late, never = found[: gathering._UNREAD], found[gathering._UNREAD :]
        assert {r.error for r in late} == {"no answer within the 0.1 s that --timeout allows"}
        assert {r.error for r in never} == {"not asked within the 0.1 s that --timeout allows"}
        gate.set()
        gatherer.restart(0.0, "")
        asked(gatherer, [Told("again", threading.Event())])
        assert [record.error for record in gatherer.records()] == ["no answer within 0 s"]
        gatherer.restart(None)
        asked(gatherer, [Told("more")])
        assert [record.error for record in gatherer.records()] == ["it has no answer"]


def test_a_read_that_is_late_gives_the_same_sentence() -> None:
    never: Future[None] = Future()
    with Gatherer(NOBODY, timeout=0.0) as gatherer:
        assert gatherer.tried(never) == (None, "no answer within the 0 s that --timeout allows")
