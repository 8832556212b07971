"""Names of a cluster: a fake API server; bench/completion.py asks a real one."""

from __future__ import annotations

import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_ebpfnet.cli.completion import main, names
from tests.cli.completion.test_words import answer
from tests.cli.console import BIN, environment, run_process
from tests.cluster.fake_api_server import FakeApiServer, Reply, status_reply

NAMESPACE = "/api/v1/namespaces/shop"
WEB = {
    "spec": {
        "ports": [
            {"name": "http", "port": 80},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "broken"},
        ]
    }
}


@pytest.fixture
def fake() -> Iterator[FakeApiServer]:
    server = FakeApiServer()
    yield server
    server.close()


def table(*cells: str) -> Reply:
    """What the API server answers to a request for a table."""
    rows = [{"cells": [cell, "1/1"], "object": None} for cell in cells]
    columns = [{"name": "Name", "type": "string"}, {"name": "Ready", "type": "string"}]
    return Reply(200, {"kind": "Table", "columnDefinitions": columns, "rows": rows})


@pytest.mark.parametrize(
    ("words", "path", "values"),
    [
        (["path", "pod/c"], f"{NAMESPACE}/pods", ["pod/client", "pod/client1"]),
        (["path", "cl"], f"{NAMESPACE}/pods", ["client", "client1"]),
        (["path", "other/c"], "/api/v1/namespaces/other/pods", ["other/client", "other/client1"]),
        (["flows", "sts/"], "/apis/apps/v1/namespaces/shop/statefulsets",
         ["sts/client", "sts/client1"]),
        (["path", "job/"], "/apis/batch/v1/namespaces/shop/jobs", ["job/client", "job/client1"]),
        (["netkat", "node/"], "/api/v1/nodes", ["node/client", "node/client1"]),
        (["node-pods", "node/"], "/api/v1/nodes", ["node/client", "node/client1"]),
        (["path", "pod/x", "svc/"], f"{NAMESPACE}/services", ["svc/client", "svc/client1"]),
        (["path", "--to-namespace", "cl"], "/api/v1/namespaces", ["client", "client1"]),
    ],
)  # fmt: skip
def test_one_table_of_names_is_asked_for(
    fake: FakeApiServer, words: list[str], path: str, values: list[str]
) -> None:
    fake.routes[path] = table("client1", "client", "b\x1bad", "../x")
    assert answer("-n", "shop", "--server", fake.url, "--token=t", *words)[0] == values
    (seen,) = fake.seen
    assert seen.values("Accept") == ["application/json;as=Table;v=v1;g=meta.k8s.io"]
    assert sorted(seen.query) == [("includeObject", "None"), ("resourceVersion", "0")]
    assert seen.values("Authorization") == ["Bearer t"]


def test_ports_of_a_service_and_a_pod(fake: FakeApiServer) -> None:
    fake.routes[f"{NAMESPACE}/services/web"] = Reply(200, WEB)
    to = ("path", "--server", fake.url, "-n", "shop", "pod/x")
    expected = ["svc/web:http", "svc/web:80", "svc/web:dns", "svc/web:53/udp"]
    assert answer(*to, "svc/web:") == (expected, ":4")
    pod = {"spec": {"containers": [{"ports": [{"containerPort": 8080}]}, {}]}}
    fake.routes[f"{NAMESPACE}/pods/web"] = Reply(200, pod)
    assert answer(*to, "pod/web:") == (["pod/web:8080"], ":4")


@pytest.mark.parametrize(
    "reply",
    [
        status_reply(403, "Forbidden", "no"),
        status_reply(401, "Unauthorized", "no"),
        Reply(200, b"<html>log in</html>", {"Content-Type": "text/html"}),
        Reply(200, {"kind": "PodList", "items": []}),
        Reply(200, {"columnDefinitions": 1, "rows": [{"cells": 2}]}),
    ],
)
def test_a_refusal_offers_nothing(fake: FakeApiServer, reply: Reply) -> None:
    fake.routes[f"{NAMESPACE}/pods"] = reply
    assert answer("path", "--server", fake.url, "-n", "shop", "pod/") == ([], ":4")


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as dead:
        url = f"http://127.0.0.1:{dead.getsockname()[1]}"
        begun = time.monotonic()
        assert answer("path", "--server", url, "pod/") == ([], ":4")
    assert time.monotonic() - begun < main.LONGEST


def test_a_credential_plugin_that_hangs_is_ended(tmp_path: Path) -> None:
    """The program itself: within its time, silent, and the plugin does not stay behind."""
    plugin, alive = tmp_path / "plugin", tmp_path / "alive"
    plugin.write_text(f"#!/bin/sh\necho complaint >&2\necho $$ >{alive}\nexec sleep 600\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    config = tmp_path / "config"
    config.write_text(
        f"""
contexts: [{{name: a, context: {{cluster: a, user: a}}}}]
current-context: a
clusters: [{{name: a, cluster: {{server: "http://127.0.0.1:1"}}}}]
users: [{{name: a, user: {{exec: {{command: {plugin}, interactiveMode: Never,
  apiVersion: client.authentication.k8s.io/v1}}}}}}]
"""
    )
    program = (str(BIN / "kubectl_complete-ebpfnet"),)
    env = environment(KUBECONFIG=str(config))
    done = run_process("path", "pod/", env=env, program=program)
    assert (done.returncode, done.stdout, done.stderr) == (0, ":4\n", "")
    process = Path("/proc", alive.read_text().strip())
    until = time.monotonic() + 5
    while process.exists() and b"Z" not in (process / "stat").read_bytes().split()[2:3]:
        assert time.monotonic() < until, "the plugin still runs"
