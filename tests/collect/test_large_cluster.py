"""What a cluster of many objects is asked for: which lists come whole, and how much is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from kubectl_ebpfnet.collect.ask.api import RecordingApi, RecordsAlone
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import bundle_of
from kubectl_ebpfnet.model.request import PathRequest
from tests.cluster.fake_api_server import FakeApiServer
from tests.collect.large_cluster import LargeCluster
from tests.collect.looking import looked
from tests.collect.test_path import request, to_object

Large = tuple[Session, FakeApiServer]
NODES, PODS = 120, 1200
OF_ALL = {"nodes", "ciliumnodes"}
"""Lists that grow with the cluster and that `path` reads whole (docs/architecture.md says why)."""
SHORT = {
    "ciliumclusterwidenetworkpolicies",
    "ciliumegressgatewaypolicies",
    "ciliumnetworkpolicies",
    "networkpolicies",
}


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Large]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeApiServer()
    LargeCluster(fake, tmp_path, "vxlan-kpr", NODES, PODS)
    with Session.open(ConnectionOptions(server=fake.url)) as session:
        yield session, fake
    fake.close()


def whole_lists(fake: FakeApiServer) -> set[str]:
    """The lists that were asked for without a selector, by resource."""
    return {
        seen.path.rpartition("/")[2]
        for seen in fake.seen
        if seen.method == "GET"
        and seen.parameters("limit")
        and not seen.parameters("labelSelector")
        and not seen.parameters("fieldSelector")
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
    assert len(cluster.kube.nodes) == NODES + 2
    # The agents of one page, and the pods at the ends: 1,200 others are nobody's business.
    assert len({(pod.namespace, pod.name) for pod in cluster.kube.pods}) < 120


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
