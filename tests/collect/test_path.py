"""A live run against a fake cluster that replays scenarios: what is asked, and what goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.errors import ApiUnreachable, Forbidden, NotFound
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import (
    API,
    Bundle,
    PlaceKind,
    Record,
    agent_place,
    bundle_of,
    pod_place,
)
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import PathRequest
from tests.cluster.fake_api_server import ExecEnd, status_reply
from tests.collect.conftest import Opened
from tests.collect.looking import looked
from tests.collect.replay_cluster import ReplayCluster

CLIENT_POD = pod_place("default", "client")


def request(destination: str = "1.1.1.1", port: int | None = 80, **more: Any) -> PathRequest:
    words: dict[str, Any] = {
        "source": "pod/client",
        "source_namespace": "default",
        "source_name": "client",
        "destination": destination,
        "destination_kind": "address",
        "protocol": TCP,
        "port": port,
    }
    if more.get("destination_kind", "address") == "address":
        words["destination_address"] = ip_address(destination)
    return PathRequest(**{**words, **more})


def to_object(kind: str, name: str, port: int | None = None) -> PathRequest:
    return request(
        f"{kind}/{name}",
        port,
        destination_kind=kind,
        destination_name=name,
        destination_namespace="default",
    )


def collected(session: Session, asked: PathRequest, timeout: float | None = 50) -> Bundle:
    return looked(session, asked, timeout=timeout)[1]


def failures(bundle: Bundle) -> list[Record]:
    return [r for r in bundle.records if not r.ran and r.place.kind is not PlaceKind.API]


def one_failure(bundle: Bundle) -> Record:
    (failed,) = failures(bundle)
    return failed


# --- the way it should go -------------------------------------------------------------------------


def test_a_live_bundle_says_what_the_scenario_says(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    talk: list[str] = []
    asked, bundle = looked(session, request(), timeout=50, progress=talk.append)
    assert asked == request()
    assert talk[0] == "asking the API server"
    assert failures(bundle) == []
    agent = agent_place("node2")
    compared = 0
    for record in bundle.records:
        recorded = replay.bundle.record(record.place, record.argv)
        if record.place == API or recorded is None:
            continue
        expected = recorded.stdout.read()
        if record.line_filter and record.argv not in (*q.IPCACHE.forms, *q.LB_MAP.forms):
            lines = expected.splitlines(keepends=True)
            expected = b"".join(
                x for x in lines if any(k.encode() in x for k in record.line_filter)
            )
        assert record.stdout.read() == expected, record.command
        assert record.stderr == recorded.stderr, record.command
        assert record.exit_code == recorded.exit_code
        assert record.started.endswith("Z")
        compared += 1
    assert compared > 25
    for question in (q.CT, q.NAT, q.CONNTRACK):
        flows = q.best_record(bundle, agent, question)
        assert flows is not None
        assert flows.line_filter == ("10.244.1.160",)
    # One exec for the pod and three for its agent; the other node is not on the way.
    assert [pod for _, pod, _ in replay.execs if not pod.startswith("cilium-")] == ["client"]
    assert len(replay.execs) == 2
    assert {r.place for r in bundle.records} == {API, CLIENT_POD, agent}


@pytest.mark.parametrize("scenario", ["vxlan-kpr", "native-iptables", "vxlan-kpr-egress-policy"])
@pytest.mark.parametrize(
    "asked",
    [request(), to_object("pod", "web", 8080), to_object("service", "web", 80)],
    ids=["world", "pod", "service"],
)
def test_live_and_from_a_capture_the_answer_is_the_same(
    cluster: Opened, scenario: str, asked: PathRequest
) -> None:
    session, replay = cluster(scenario)
    request, bundle = looked(session, asked, timeout=50)
    live = explain(request, bundle)
    # What a monitor printed before is in the recording alone: nobody waits for events live. The
    # policies' lists, which name what selects an endpoint, are not in this recording.
    asked_live = [r for r in replay.bundle.records if not q.MONITOR.is_answered_by(r.argv)]
    asked_live += [r for r in bundle.records if r.place == API and "policies" in r.command]
    stored = explain(asked, bundle_of(asked_live))
    assert [(h.number, h.kind, h.where, h.summary, h.state) for h in live.hops] == [
        (h.number, h.kind, h.where, h.summary, h.state) for h in stored.hops
    ]
    assert (live.verdict, live.reason) == (stored.verdict, stored.reason)
    assert [f.title for f in live.findings] == [f.title for f in stored.findings]
    assert len(live.flows) == len(stored.flows)


def test_the_far_end_is_asked_too(cluster: Opened) -> None:
    session, _ = cluster("vxlan-kpr")
    for asked in (to_object("pod", "web"), to_object("service", "web", 80), request("10.96.0.1")):
        bundle = collected(session, asked)
        asked_nodes = {p.node for p in bundle.places(PlaceKind.AGENT)}
        expected = {"node2"} if asked.destination == "10.96.0.1" else {"node1", "node2"}
        assert asked_nodes == expected
    web = collected(session, to_object("pod", "web"))
    names = [r.argv for r in web.records if "ciliumendpoints" in r.argv]
    assert sorted(argv[-1] for argv in names) == ["client", "web"]


def test_a_clusters_own_address_is_looked_up(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    web = replay.pod("web")["status"]["podIP"]
    address = next(
        o["spec"]["clusterIP"]
        for o in replay.objects
        if o["kind"] == "Service" and o["metadata"]["name"] == "web"
    )
    for word in (web, address, "172.30.0.11"):
        bundle = collected(session, request(word))
        assert {p.node for p in bundle.places(PlaceKind.AGENT)} == {"node1", "node2"}, word


def test_a_workload_gives_one_of_its_pods(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    replay.objects.append(
        {
            "kind": "Deployment",
            "metadata": {"name": "c", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "client"}}, "replicas": 1},
        }
    )
    said: list[str] = []
    asked, bundle = looked(
        session,
        request(source="deploy/c", source_name="c", source_kind="Deployment"),
        timeout=50,
        warn=said.append,
    )
    assert (asked.source_kind, asked.source, asked.source_name) == ("pod", "pod/client", "client")
    assert said == ["deployment/c: taking pod/client; 1 of 1 pods are ready"]
    assert bundle.at(CLIENT_POD)


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_pod_that_does_not_run(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    pod = replay.pod("client")
    del pod["spec"]["nodeName"]
    pod["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
    }
    failed = one_failure(collected(session, request()))
    assert failed.place == CLIENT_POD
    assert failed.error == "no container of it runs: Unschedulable"
    assert replay.execs == []


def test_a_pod_in_its_nodes_namespace(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    pod = replay.pod("client")
    pod["spec"]["hostNetwork"] = True
    pod["status"]["podIPs"] = [{"ip": "172.30.0.12"}]
    bundle = collected(session, request())
    assert bundle.at(CLIENT_POD) == ()
    ct = q.best_record(bundle, agent_place("node2"), q.CT)
    assert ct is not None
    # Its source is what the route says, which is not read yet: the destination selects lines too.
    assert set(ct.line_filter) == {"1.1.1.1", "172.30.0.12"}


def test_the_container_that_runs_is_asked(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    pod = replay.pod("client")
    pod["spec"]["containers"] = [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    running = [{"name": n, "state": {"running": {}}} for n in "bc"]
    pod["status"]["containerStatuses"] = [{"name": "a", "state": {"waiting": {}}}, *running]
    containers: list[list[str]] = []

    def note(end: ExecEnd, name: str) -> bool:
        if name == "client":
            containers.append(end.seen.parameters("container"))
        return False

    replay.before = note
    collected(session, request())
    pod["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "c"}
    collected(session, request())
    assert containers == [["b"], ["c"]]


def test_no_agent_on_the_node_and_none_at_all(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    agents = [o for o in replay.objects if o["metadata"].get("labels", {}).get("k8s-app")]
    replay.objects.remove(next(a for a in agents if a["spec"]["nodeName"] == "node2"))
    failed = one_failure(collected(session, request()))
    assert (failed.place, failed.error) == (agent_place("node2"), "no Cilium agent on node2")
    for agent in agents:
        if agent in replay.objects:
            replay.objects.remove(agent)
    failed = one_failure(collected(session, request()))
    assert failed.error == "no Cilium agent runs in this cluster"


def test_an_agent_that_crashes(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    agent = next(
        o
        for o in replay.objects
        if o["metadata"].get("labels", {}).get("k8s-app") and o["spec"]["nodeName"] == "node2"
    )
    (status,) = agent["status"]["containerStatuses"]
    status |= {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 7}
    failed = one_failure(collected(session, request()))
    assert failed.error.endswith("does not run: CrashLoopBackOff, restarted 7 times")
    assert agent["metadata"]["name"] in failed.error


def test_agents_that_may_not_be_looked_for(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    real = replay.answer

    def answer(seen: Any) -> Any:
        if seen.parameters("labelSelector"):
            return status_reply(403, "Forbidden", "no")
        return real(seen)

    replay.answer = answer  # type: ignore[method-assign]
    bundle = collected(session, request())
    failed = one_failure(bundle)
    assert failed.error.startswith("Cilium's agents could not be looked for: this user may not")
    assert any(r.denied == "list pods" for r in bundle.records)


@pytest.mark.parametrize("programs", [{"cat"}, {"ip", "cat"}, set()], ids=["cat", "ip", "none"])
def test_an_image_without_a_shell(cluster: Opened, programs: set[str]) -> None:
    session, replay = cluster("vxlan-kpr")
    replay.images["client"] = programs
    bundle = collected(session, request())
    said = {r.argv: r for r in bundle.at(CLIENT_POD)}
    if not programs:
        (only,) = said.values()
        assert only.error == "the image has no shell, and none of cat, ip"
        assert only.exit_code is None
        return
    routes = q.best_record(bundle, CLIENT_POD, q.POD_ROUTES)
    assert routes is not None
    assert routes.ok
    assert routes.argv[0] == ("ip" if "ip" in programs else "cat")
    assert {r.argv[0] for r in said.values() if r.ok} == programs
    assert all(r.error == "the image has no shell and no ip" for r in said.values() if not r.ran)


def test_exec_is_denied(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    message = 'pods "x" is forbidden: User "u" cannot create resource "pods/exec" in API group ""'
    refuse(replay, lambda: status_reply(403, "Forbidden", message))
    bundle = collected(session, request())
    denied = {r.place: r.denied for r in failures(bundle)}
    assert denied == {
        CLIENT_POD: "create pods/exec in namespace default",
        agent_place("node2"): "create pods/exec in namespace kube-system",
    }
    assert all("may not create pods/exec" in r.error for r in failures(bundle))


def refuse(replay: ReplayCluster, reply: Callable[[], Any]) -> None:
    # The fake server's own hook, before the upgrade to a websocket.
    replay.fake.exec_refusal = lambda _: reply()


def test_a_node_that_is_gone(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")

    def lost(end: ExecEnd, pod: str) -> bool:
        if not pod.startswith("cilium-"):
            return False
        nonce = end.argv[2]
        end.write(1, b"first\n\n" + nonce.encode() + b" 1 0 0\nhalf")
        end.reset()
        return True

    replay.before = lost
    bundle = collected(session, request())
    node = bundle.at(agent_place("node2"))
    done = [r for r in node if r.ran]
    assert {r.stdout.read() for r in done} == {b"first\n"}
    cut = [r for r in node if not r.ran]
    assert len(done) == len(cut) == 1
    assert all("the connection broke" in r.error for r in cut)
    assert all(r.stdout.read() == b"half" for r in cut)
    assert q.best_record(bundle, CLIENT_POD, q.POD_ROUTES) is not None


def test_a_place_that_does_not_answer(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")

    def silent(end: ExecEnd, pod: str) -> bool:
        if pod.startswith("cilium-"):
            end.wait_for_client_to_leave()
            return True
        return False

    replay.before = silent
    began = time.monotonic()
    bundle = collected(session, request(), timeout=3)
    assert time.monotonic() - began < 15
    cut = failures(bundle)
    assert {r.place for r in cut} == {agent_place("node2")}
    assert {r.error for r in cut} == {"no answer within the 3 s that --timeout allows"}
    assert q.best_record(bundle, CLIENT_POD, q.POD_ROUTES) is not None


def test_what_ends_the_run(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    with pytest.raises(NotFound, match='pod "nobody" not found in namespace default'):
        collected(session, request(source_name="nobody"))
    with pytest.raises(NotFound, match='service "none" not found'):
        collected(session, to_object("service", "none"))
    replay.refused = {"services"}
    with pytest.raises(Forbidden, match="may not get services"):
        collected(session, to_object("service", "web"))
    replay.refused = {"pods"}
    with pytest.raises(Forbidden, match="may not get pods"):
        collected(session, request())


def test_an_api_server_that_does_not_answer_in_time(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    gone = threading.Event()
    replay.answer = lambda _: gone.wait(30) and None  # type: ignore[method-assign,assignment,return-value]
    try:
        with pytest.raises(
            ApiUnreachable, match=r": no answer within the 0\.5 s that --timeout allows"
        ):
            collected(session, request(), timeout=0.5)
    finally:
        gone.set()


def test_no_node_pod_is_deployed_when_agents_are_not_known_in_time(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    real, gone, methods = replay.answer, threading.Event(), set()

    def answer(seen: Any) -> Any:
        methods.add(seen.method)
        if seen.parameters("labelSelector"):
            gone.wait(30)
        return real(seen)

    replay.answer = answer  # type: ignore[method-assign]
    said: list[str] = []
    try:
        # What is read without a selector has to be there by then, on a busy machine too.
        _, bundle = looked(
            session, request(), timeout=3, warn=said.append, access=NodeAccess(Mode.AUTO)
        )
    finally:
        gone.set()
    assert {r.error for r in failures(bundle) if r.place.kind is PlaceKind.NODE} == {
        "no node pod within the 3 s that --timeout allows"
    }
    assert methods == {"GET"}
    assert said == []


def test_everything_optional_may_be_denied(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    replay.refused = {
        "nodes",
        "configmaps",
        "ciliumnodes",
        "ciliumendpoints",
        "ciliumnetworkpolicies",
        "ciliumclusterwidenetworkpolicies",
        "networkpolicies",
    }
    bundle = collected(session, request())
    assert failures(bundle) == []
    denied = {r.denied for r in bundle.records if r.denied}
    assert "get configmaps in namespace kube-system" in denied
    assert "list nodes" in denied
    # The agent names the nodes when the API server does not.
    assert q.best_record(bundle, agent_place("node2"), q.CILIUM_NODES) is not None


def test_a_service_whose_endpoints_may_not_be_read_is_asked_where_its_pods_are(
    cluster: Opened,
) -> None:
    session, replay = cluster("vxlan-kpr")
    nodes = {}
    for refused in (set(), {"endpointslices"}):
        replay.refused = refused
        bundle = collected(session, to_object("service", "web", 80))
        nodes[len(refused)] = {place.node for place in bundle.places(PlaceKind.AGENT)}
    assert nodes[1] == nodes[0] == {"node1", "node2"}


def test_no_device_of_this_machine_is_in_a_bundle(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    filters = ("tc", "filter", "show", "dev")
    recorded = {r.argv[4] for r in replay.bundle.records if r.argv[:4] == filters}
    found = {r.argv[4] for r in collected(session, request()).records if r.argv[:4] == filters}
    assert found <= recorded


def test_the_far_pod_is_asked_beside_its_node(cluster: Opened) -> None:
    session, _ = cluster("vxlan-kpr")
    bundle = collected(session, to_object("service", "web", 80))
    (web,) = {p for p in bundle.places(PlaceKind.POD) if p.pod.startswith("web")}
    routes = q.best_record(bundle, web, q.POD_ROUTES)
    assert routes is not None
    assert routes.ok
    path = explain(to_object("service", "web", 80), bundle)
    assert path.answer is not None
    assert path.answer.hops[0].where == f"default/{web.pod}"
    assert path.answer.hops[0].kind == "route"


def test_a_far_pod_without_a_shell_costs_one_exec_and_is_presumed(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    replay.images["web"] = set()
    bundle = collected(session, to_object("pod", "web"))
    (record,) = (r for r in bundle.records if r.place.pod == replay.pod("web")["metadata"]["name"])
    assert record.error == "the image has no shell"
    path = explain(to_object("pod", "web"), bundle)
    assert path.answer is not None
    assert path.answer.state == "returns"
    assert path.answer.hops[0].kind == "program"  # the pod's own route was not read
    assert not any("could not be asked" in finding.title for finding in path.findings)
