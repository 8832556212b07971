"""A session with a fake cluster that replays a scenario."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "cluster"))  # the fake API server's folder

from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from tests.cluster.fake_api_server import FakeApiServer
from tests.collect.replay_cluster import ReplayCluster

Opened = Callable[[str], tuple[Session, ReplayCluster]]


@pytest.fixture
def cluster(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opened]:
    """`cluster(scenario)` gives a session and the fake cluster behind it."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeApiServer()
    sessions: list[Session] = []

    def opened(scenario: str) -> tuple[Session, ReplayCluster]:
        replay = ReplayCluster(fake, tmp_path_factory.mktemp("replay"), scenario)
        sessions.append(Session.open(ConnectionOptions(server=fake.url)))
        return sessions[-1], replay

    yield opened
    for session in sessions:
        session.close()
    fake.close()
