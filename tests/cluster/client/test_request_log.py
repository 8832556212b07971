"""What -v=6 to -v=10 print of a request: never a secret."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client.request_log import RequestLog
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.errors import ApiUnreachable
from tests.cluster.completed import exec_run
from tests.cluster.fake_api_server import FakeApiServer, Opener, Reply

POD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {"name": "web"},
    "spec": {"containers": [{"name": "c", "env": [{"name": "KEY", "value": "hunter2"}]}]},
}
PATH = "/api/v1/namespaces/default/pods/web"
HEADERS = [("Authorization", "Bearer hunter2"), ("Cookie", "hunter2"), ("Accept", "x")]


def logged(level: int, url: str, body: bytes, asked: object = None) -> str:
    lines: list[str] = []
    log = RequestLog(level, lines.append)
    began = log.request("POST", url, HEADERS, asked)
    answered = [("Set-Cookie", "a=hunter2"), ("Audit-Id", "7")]
    log.response("POST", url, began, 201, answered, body)
    return "\n".join(re.sub(r"^I.*?\] ", "", line) for line in lines)


def test_each_level_says_more() -> None:
    url = "https://sre:hunter2@host/api"
    assert re.fullmatch(
        r'"Response" verb="POST" url="https://host/api" status="201 Created" milliseconds=\d+',
        logged(6, url, b"{}"),
    )
    assert logged(7, url, b"{}").startswith(
        '"Request" verb="POST" url="https://host/api" headers=<\n'
        "\tAccept: x\n\tAuthorization: Bearer <masked>\n\tCookie: <masked>\n >\n"
        '"Response" status="201 Created" milliseconds='
    )
    text = logged(8, url, b'{"kind":"Status","message":"no"}', {"kind": "Status"})
    assert text.startswith('"Request Body" body="{\\"kind\\":\\"Status\\"}"\n"Request"')
    assert "\tAudit-Id: 7\n\tSet-Cookie: <masked>\n" in text
    assert text.endswith('"Response Body" body="{\\"kind\\":\\"Status\\",\\"message\\":\\"no\\"}"')


@pytest.mark.parametrize("level", range(6, 11))
@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("https://a/api/v1/namespaces/x/secrets/pull", b'{"kind":"Secret","data":{"x":"hunter2"}}'),
        ("https://a/x", b'{"kind":"Secret","data":{"x":"hunter2"}}'),
        ("https://a/x", b'{"kind":"SecretList","items":[{"data":{"x":"hunter2"}}]}'),
        ("https://a/x", b"<html>hunter2"),
        ("https://a/x", b'["hunter2"]'),
        ("https://a/x", b'{"kind":"TokenReview","spec":{"token":"hunter2"}}'),
        ("https://a/x", b'{"kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"hunter2"}}'),
    ],
)
def test_no_secret_at_any_level(level: int, url: str, body: bytes) -> None:
    assert "hunter2" not in logged(level, url, body, POD)


def test_long_bodies_and_urls_are_cut() -> None:
    body = b'{"kind":"Status","message":"' + b"x" * 20000 + b'"}'
    assert 'truncated 19006 chars]"' in logged(8, "u", body)
    assert 'truncated 9790 chars]"' in logged(9, "u", body)
    assert "truncated" not in logged(10, "u", body)
    assert "[truncated 500 chars]" in logged(6, "u" * 1500, b"")


def test_of_a_session_with_exec_and_a_failure(fake: FakeApiServer, open_session: Opener) -> None:
    lines: list[str] = []

    fake.routes[PATH] = Reply(200, POD)
    session: Session = open_session(server=fake.url, token="hunter2", log_level=8, log=lines.append)
    session.request("GET", PATH)
    exec_run(session, Container("default", "web", "c"), ["true"])
    gone = open_session(server="http://127.0.0.1:9", token="hunter2", log_level=6, log=lines.append)
    with pytest.raises(ApiUnreachable):
        gone.request("POST", PATH, body=POD)
    text = "\n".join(lines)
    assert "hunter2" not in text
    assert 'status="200 OK"' in text
    assert "command=true" in text
    assert 'status="101 Switching Protocols"' in text
    assert 'status="" err=' in text
