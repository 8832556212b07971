"""What a cluster of many objects is asked for: which lists come whole, and how much is held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as PathOf
from threading import Event

import pytest

from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from kubectl_ebpfnet.collect import nodes, packet
from kubectl_ebpfnet.collect.ask.api import RecordingApi, RecordsAlone
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.nodes import WITHOUT_CILIUM
from kubectl_ebpfnet.explain.path.walk import explain, explained
from kubectl_ebpfnet.explain.views import lists
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import Bundle, agent_place, bundle_of
from kubectl_ebpfnet.model.path import Path
from kubectl_ebpfnet.model.request import Further, PathRequest
from tests.cluster.fake_api_server import FakeApiServer, Reply, Seen
from tests.collect.large_cluster import LargeCluster
from tests.collect.looking import looked
from tests.collect.test_path import request, to_object

Patch = pytest.MonkeyPatch
Large = tuple[Session, FakeApiServer]
FEW, NODES, PODS = 100, 120, 1200
TABLE = "nodes -o wide"
OF_ALL = {"ciliumnodes", TABLE}
"""Lists that grow with the cluster and that `path` reads whole (docs/architecture.md says why)."""
SHORT = {
    "ciliumclusterwidenetworkpolicies",
    "ciliumegressgatewaypolicies",
    "ciliumnetworkpolicies",
    "networkpolicies",
}


@pytest.fixture(autouse=True)
def _fewer(monkeypatch: Patch) -> None:
    monkeypatch.setattr(nodes, "FEW", FEW)


@pytest.fixture
def large(tmp_path: PathOf, monkeypatch: Patch) -> Iterator[Large]:
    with opened(tmp_path, monkeypatch, NODES) as (session, fake, _):
        yield session, fake


@contextmanager
def opened(
    folder: PathOf, monkeypatch: Patch, count: int
) -> Iterator[tuple[Session, FakeApiServer, LargeCluster]]:
    """A cluster of so many further nodes."""
    monkeypatch.setenv("HOME", str(folder / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeApiServer()
    cluster = LargeCluster(fake, folder, "vxlan-kpr", count, PODS)
    with Session.open(ConnectionOptions(server=fake.url)) as session:
        yield session, fake, cluster
    fake.close()


def whole_lists(fake: FakeApiServer) -> set[str]:
    """The lists that were read without a selector to their end, by resource."""
    whole = set()
    for seen in fake.seen:
        if seen.method != "GET" or not seen.parameters("limit"):
            continue
        if seen.parameters("labelSelector") + seen.parameters("fieldSelector"):
            continue
        name = seen.path.rpartition("/")[2] + (" -o wide" if is_table(seen) else "")
        first = seen.parameters("limit") == ["25"] and name in ("nodes", "ciliumnodes")
        whole |= set() if first else {name}
    return whole


def is_table(seen: Seen) -> bool:
    return "as=Table" in "".join(seen.values("Accept"))


def named(fake: FakeApiServer, resource: str) -> set[str]:
    """The objects that were asked for by name."""
    return {
        selector.removeprefix("metadata.name=")
        for seen in fake.seen
        for selector in seen.parameters("fieldSelector")
        if seen.path.endswith(f"/{resource}")
    }


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request("10.244.0.161", 8080),
        request("10.128.5.4", 8080),
        to_object("pod", "web", 8080),
        to_object("service", "web", 80),
    ],
    ids=["world", "no pod", "further pod", "pod", "service"],
)
def test_path_asks_by_name_and_selector(large: Large, asked: PathRequest) -> None:
    session, fake = large
    _, bundle = looked(session, asked, timeout=50)
    more = {"services", "servicecidrs"} if asked.destination_kind == "address" else set()
    found = whole_lists(fake)
    assert found >= OF_ALL
    assert found <= OF_ALL | SHORT | more
    cluster = ClusterView(bundle)
    assert lists.of_nodes(cluster) is not None
    assert len(cluster.listed_nodes) == len(cluster.kube.cilium_nodes) == NODES + 2
    on_the_way = {node for node in cluster.recorded_nodes if cluster.bundle.at(agent_place(node))}
    assert on_the_way >= {"node2"}
    assert {node.name for node in cluster.kube.nodes} == on_the_way == named(fake, "nodes")
    assert named(fake, "ciliumnodes") == on_the_way
    # The agents of one page, and the pods at the ends: 1,200 others are nobody's business.
    assert len({(pod.namespace, pod.name) for pod in cluster.kube.pods}) < 120


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request("10.244.0.161", 8080),
        request("10.64.5.1", 8080),
        request("10.128.5.4", 8080),
        to_object("pod", "web", 8080),
        to_object("service", "web", 80),
        to_object("node", "node1", 8080),
    ],
    ids=["world", "no pod", "further node", "further pod", "pod", "service", "node"],
)
def test_rows_and_nodes_by_name_give_the_answer_of_all_nodes(
    tmp_path: PathOf, monkeypatch: Patch, asked: PathRequest
) -> None:
    monkeypatch.setattr(packet, "MOST_ROWS", 60)  # the fake takes 16 KiB of an address
    found = []
    for few in (FEW, 10 * NODES):
        monkeypatch.setattr(nodes, "FEW", few)
        (tmp_path / f"{few}").mkdir()
        folder = tmp_path / f"{few}"
        with opened(folder, monkeypatch, NODES) as (session, _, _):
            resolved, bundle = looked(session, asked, timeout=50, further=further_of)
        whole = len(ClusterView(bundle).kube.nodes) > NODES
        assert whole == (few > NODES)
        found.append(repr(told(explain(resolved, bundle))).replace(str(folder), ""))
    assert found[0] == found[1]


def further_of(asked: PathRequest, bundle: Bundle) -> Further:
    return explained(asked, bundle).further


def told(path: Path) -> object:
    """What an answer says, without its evidence: records have other numbers."""
    return (
        path.verdict, path.reason,
        [(hop.node, hop.kind, hop.summary, hop.state) for hop in path.hops],
        [(finding.severity, finding.title, finding.detail) for finding in path.findings],
    )  # fmt: skip


def test_a_cluster_of_few_nodes_is_read_whole(tmp_path: PathOf, monkeypatch: Patch) -> None:
    few = FEW - 2
    with opened(tmp_path, monkeypatch, few) as (session, fake, _):
        _, bundle = looked(session, request(), timeout=50)
    cluster = ClusterView(bundle)
    assert len(cluster.kube.nodes) == len(cluster.kube.cilium_nodes) == FEW
    assert lists.read(cluster, "nodes") is not None
    assert not named(fake, "nodes")
    assert TABLE not in whole_lists(fake)


@pytest.mark.parametrize("without", [1, 40])
def test_nodes_without_a_cilium_node_are_read(
    tmp_path: PathOf, monkeypatch: Patch, without: int
) -> None:
    """As virtual ones: of these, no CiliumNode tells all addresses and prefixes."""
    with opened(tmp_path, monkeypatch, NODES) as (session, fake, large):
        large.lists["ciliumnodes"] = large.lists["ciliumnodes"][without:]
        _, bundle = looked(session, request(), timeout=50)
    cluster = ClusterView(bundle)
    assert lists.of_nodes(cluster) is not None
    assert cluster.kube_node("filler-0000") is not None
    assert ("nodes" in whole_lists(fake)) == (without > WITHOUT_CILIUM)


def test_without_cilium_nodes_all_nodes_are_read(tmp_path: PathOf, monkeypatch: Patch) -> None:
    with opened(tmp_path, monkeypatch, NODES) as (session, _, large):
        large.refused = {"ciliumnodes"}
        _, bundle = looked(session, request(), timeout=50)
    cluster = ClusterView(bundle)
    assert len(cluster.kube.nodes) == NODES + 2
    assert lists.of_nodes(cluster) is not None


def test_a_server_without_tables_lists_the_nodes(tmp_path: PathOf, monkeypatch: Patch) -> None:
    with opened(tmp_path, monkeypatch, NODES) as (session, _, large):
        large.tables = False
        _, bundle = looked(session, request(), timeout=50)
    assert len(ClusterView(bundle).kube.nodes) == NODES + 2


def test_rows_alone_do_not_tell_all_nodes(large: Large) -> None:
    session, _ = large
    _, bundle = looked(session, request(), timeout=50)
    lost = bundle_of([r for r in bundle.records if r.argv[:2] != ("get", "ciliumnodes")])
    assert ClusterView(lost).listed_nodes
    assert lists.of_nodes(ClusterView(lost)) is None


def test_records_alone_hold_no_object(large: Large) -> None:
    session, _ = large
    api = RecordingApi(session)
    whole = api.pods()
    assert RecordsAlone(api).pods() == []
    first, second = api.take()
    assert first.argv == second.argv == ("get", "pods", "-A")
    assert first.stdout.read() == second.stdout.read()
    assert len(ClusterView(bundle_of([second])).kube.pods) == len(whole) > NODES + PODS


def test_a_list_is_taken_page_by_page(large: Large) -> None:
    session, _ = large
    sizes = RecordingApi(session).list_of("/api/v1/pods", lambda page: [len(page)])
    assert sizes[:-1] == [500, 500]
    assert 0 < sizes[-1] < 500


@pytest.mark.parametrize("of", [1500, None])
def test_progress_says_how_far_a_long_list_is(large: Large, of: int | None) -> None:
    session, fake = large
    told = Event()
    lines: list[str] = []

    def answer(seen: Seen) -> Reply:
        if seen.parameters("continue"):
            assert told.wait(30)
            return Reply(200, {"kind": "PodList", "metadata": {}, "items": []})
        more: dict[str, object] = {"continue": "next"}
        more |= {} if of is None else {"remainingItemCount": of - 500}
        return Reply(200, {"kind": "PodList", "metadata": more, "items": [{}] * 500})

    def progress(line: str) -> None:
        lines.append(line)
        if line.startswith("reading"):
            told.set()

    fake.routes = {"/api/v1/pods": answer}
    with Gatherer(session, progress=progress) as gatherer:
        found = gatherer.needed(gatherer.start(gatherer.api.pods))
        assert gatherer.api.reading == {}
    assert len(found) == 500
    assert set(lines) == {"reading pods: 500" + (" of 1,500" if of else "")}
