"""Sessions with the fake API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from tests.cluster.fake_api_server import FakeApiServer, Opener


@pytest.fixture(autouse=True)
def _no_cluster_of_the_developer(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # No test may reach a real cluster or use a proxy of this machine.
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def fake() -> Iterator[FakeApiServer]:
    server = FakeApiServer()
    yield server
    server.close()


@pytest.fixture
def open_session() -> Iterator[Opener]:
    """Give `open_session(server=…, …)`, which opens a Session that is closed after the test."""
    sessions = []

    def opened(**options: object) -> Session:
        session = Session.open(ConnectionOptions(**options))  # type: ignore[arg-type]
        sessions.append(session)
        return session

    yield opened
    for session in sessions:
        session.close()


@pytest.fixture
def session(fake: FakeApiServer, open_session: Opener) -> Session:
    return open_session(server=fake.url)
