"""REST against the fake API server: paging, refusals, and a server that is none."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client.answer import without_managed_fields
from kubectl_ebpfnet.cluster.client.api import Api, MoreThanWanted
from kubectl_ebpfnet.cluster.client.failures import api_request
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.client.tables import listed_rows
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.errors import (
    ApiError,
    ApiUnreachable,
    Forbidden,
    KubeconfigError,
    NotFound,
    Unauthorized,
)
from tests.cluster.completed import exec_run
from tests.cluster.fake_api_server import CERTS, FakeApiServer, Opener, Reply, Seen, status_reply

PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
def api(session: Session) -> Api:
    return Api(session)


def pod_list(*names: str, token: str = "") -> Reply:
    items: list[dict[str, Any]] = [{"metadata": {"name": name}} for name in names]
    metadata = {"continue": token} if token else {}
    return Reply(
        200, {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items or None}
    )


def names(pods: list[dict[str, Any]]) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods]


# --- lists ----------------------------------------------------------------------------------------


def test_items_say_what_they_are(fake: FakeApiServer, api: Api) -> None:
    fake.routes[PODS] = pod_list("a")
    assert api.pods("default") == [{"metadata": {"name": "a"}, "kind": "Pod", "apiVersion": "v1"}]
    fake.routes[PODS] = pod_list()
    assert api.pods("default") == []


def test_selectors_and_pages_are_asked_for(fake: FakeApiServer, api: Api) -> None:
    fake.routes[PODS] = pod_list()
    api.pods("default", label_selector="a in (b,c),!d", field_selector="spec.nodeName=n1")
    query = fake.seen[0].query
    assert ("labelSelector", "a in (b,c),!d") in query
    assert ("fieldSelector", "spec.nodeName=n1") in query
    assert ("limit", "500") in query
    assert fake.seen[0].values("Accept") == ["application/json"]


def test_pages_are_followed_to_the_end(fake: FakeApiServer, api: Api) -> None:
    def pods(seen: Seen) -> Reply:
        match seen.parameters("continue"):
            case []:
                return pod_list("a", "b", token="one/=+")
            case ["one/=+"]:
                return pod_list("c", token="two")
            case ["two"]:
                return pod_list("d")
        raise AssertionError(seen.query)

    fake.routes[PODS] = pods
    assert names(api.pods("default", label_selector="x=y")) == ["a", "b", "c", "d"]
    assert all(seen.parameters("labelSelector") == ["x=y"] for seen in fake.seen)


NODES = "/api/v1/nodes"


def counted(left: int | None, *found: str) -> Reply:
    reply = pod_list(*found, token="next")
    assert isinstance(reply.body, dict)
    reply.body["metadata"] |= {} if left is None else {"remainingItemCount": left}
    return reply


def test_a_list_of_few_is_read_to_its_end(fake: FakeApiServer, api: Api) -> None:
    fake.routes[NODES] = lambda seen: (
        pod_list("b") if seen.parameters("continue") else counted(1, "a")
    )
    assert names(api.list_of(NODES, list, most=2)) == ["a", "b"]
    assert [seen.parameters("limit") for seen in fake.seen] == [["25"], ["500"]]


@pytest.mark.parametrize("left", [2, None])
def test_a_list_of_many_ends_with_its_first_page(
    fake: FakeApiServer, api: Api, left: int | None
) -> None:
    """Also where the server does not say how many are left."""
    fake.routes[NODES] = counted(left, "a")
    with pytest.raises(MoreThanWanted):
        api.list_of(NODES, list, most=2)
    assert len(fake.seen) == 1


def table(*rows: list[Any], token: str = "") -> Reply:
    columns = [{"name": name} for name in ("Name", "Status", "Internal-IP")]
    cells = [{"cells": row} for row in rows]
    return Reply(
        200,
        {"kind": "Table", "columnDefinitions": columns, "rows": cells}
        | {"metadata": {"continue": token} if token else {}},
    )


def test_rows_of_a_table_are_followed_to_the_end(fake: FakeApiServer, session: Session) -> None:
    fake.routes[NODES] = lambda seen: (
        table(["b", "Ready", "10.0.0.2"], ["short"], ["c", "Ready", 7])
        if seen.parameters("continue")
        else table(["a", "Ready", "10.0.0.1"], token="next")
    )
    rows = listed_rows(session, NODES, ["Name", "Internal-IP"])
    assert rows == [["a", "10.0.0.1"], ["b", "10.0.0.2"]]
    assert {seen.values("Accept")[0].partition(";")[2] for seen in fake.seen} == {
        "as=Table;v=v1;g=meta.k8s.io"
    }
    assert fake.seen[0].parameters("resourceVersion") == []  # of now, not of a cache


def test_no_table_is_an_error(fake: FakeApiServer, session: Session) -> None:
    for answer in (pod_list("a"), table(["a", "Ready", "10.0.0.1"])):
        fake.routes[NODES] = answer
        with pytest.raises(ApiError, match="without a table"):
            listed_rows(session, NODES, ["Name", "External-IP"])


MANAGED = [{"manager": 'k"[\\', "fieldsV1": {"f:a": {'k:{"type":"R]"}': {}, ".": {}}}}]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_managed_fields_are_cut_out(separators: tuple[str, str]) -> None:
    one = {"metadata": {"name": "a", "managedFields": MANAGED, "labels": {"managedFields": "[x]"}}}
    two = {"metadata": {"managedFields": [], "uid": "u"}, "spec": ['"managedFields":[1]']}
    text = json.dumps({"items": [one, two]}, separators=separators).encode()
    found = json.loads(without_managed_fields(text))
    one["metadata"]["managedFields"] = []
    assert found == {"items": [one, two]}


@pytest.mark.parametrize(
    "text",
    [
        b'{"managedFields":[[1]],"a":{"managedFields":[1]}}',
        b'{"managedFields":["',
        b'{"managedFields":7}',
        rb'{"\"managedFields":[1]}',
        b'{"managedFields":[1',
    ],
)
def test_what_is_not_surely_managed_fields_stays(text: bytes) -> None:
    assert without_managed_fields(text) == text


def test_hostile_managed_fields_take_no_square_of_the_time() -> None:
    text = b'"managedFields":["' * 200_000
    assert without_managed_fields(text) == text  # each one read to its end would take hours


GONE = status_reply(410, "Expired", "The provided continue parameter is too old")


def test_expired_pages_begin_anew(fake: FakeApiServer, api: Api) -> None:
    def pods(seen: Seen) -> Reply:
        if not seen.parameters("continue"):
            return pod_list("a", token=f"t{len(fake.seen)}")
        return GONE if len(fake.seen) < 3 else pod_list("b")

    fake.routes[PODS] = pods
    assert names(api.pods("default")) == ["a", "b"]


def test_pages_that_always_expire_end_in_one_whole_list(fake: FakeApiServer, api: Api) -> None:
    def pods(seen: Seen) -> Reply:
        if seen.parameters("continue"):
            return GONE
        return pod_list("a", token="t") if seen.parameters("limit") else pod_list("a", "b")

    fake.routes[PODS] = pods
    assert names(api.pods("default")) == ["a", "b"]


def test_410_of_the_whole_list_is_an_error(fake: FakeApiServer, api: Api) -> None:
    fake.routes[PODS] = GONE
    with pytest.raises(ApiError, match="too old") as caught:
        api.pods("default")
    assert caught.value.status == 410


def test_a_list_that_never_ends(
    fake: FakeApiServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_ebpfnet.cluster.client.api.LIST_LIMIT", 1 << 20)
    endless = {"kind": "PodList", "metadata": {"continue": "on"}, "items": []}
    fake.routes["/api/v1/pods"] = Reply(200, endless)
    with pytest.raises(ApiError, match="an endless list"):
        api.pods()
    assert 60 <= len(fake.seen) <= 64


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_an_answer_that_is_too_long(
    fake: FakeApiServer, api: Api, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr("kubectl_ebpfnet.cluster.client.answer.ANSWER_LIMIT", 1 << 20)
    text = b'{"items": []' + b" " * (2 << 20) + b"}"
    body, headers = text, dict[str, str]()
    if packed:
        body, headers = gzip.compress(text), {"Content-Encoding": "gzip"}
    fake.routes["/api/v1/pods"] = Reply(200, body, headers)
    with pytest.raises(ApiError, match="more than 1 MiB"):
        api.pods()


def test_compressed_answers(fake: FakeApiServer, api: Api) -> None:
    raw = gzip.compress(pod_list("a" * 1000).raw)
    fake.routes[PODS] = Reply(200, raw, {"Content-Encoding": "gzip"})
    assert names(api.pods("default")) == ["a" * 1000]
    assert fake.seen[0].values("Accept-Encoding") == ["gzip"]


def test_compressed_answers_in_chunks(open_session: Opener) -> None:
    # As a real API server sends lists of more than 128 KB.
    raw = gzip.compress(pod_list("a" * 1000).raw)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (raw[:20], raw[20:], b""))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    with server_that_says(head + chunks) as url:
        assert names(Api(open_session(server=url)).pods("default")) == ["a" * 1000]


# --- objects --------------------------------------------------------------------------------------


def test_objects_by_name(fake: FakeApiServer, api: Api) -> None:
    for path, call in (
        (f"{PODS}/a", lambda: api.pod("default", "a")),
        ("/api/v1/nodes/n", lambda: api.node("n")),
        ("/api/v1/namespaces/x", lambda: api.namespace("x")),
        ("/api/v1/namespaces/default/services/s", lambda: api.service("default", "s")),
        ("/api/v1/namespaces/k/configmaps/c", lambda: api.config_map("k", "c")),
        ("/apis/apps/v1/namespaces/d/deployments/w", lambda: api.workload("deployments", "d", "w")),
        ("/apis/batch/v1/namespaces/d/jobs/j", lambda: api.workload("jobs", "d", "j")),
    ):
        fake.routes[path] = Reply(200, {"kind": path})
        assert call() == {"kind": path}


def test_endpoint_slices_of_old_and_new_servers(fake: FakeApiServer, session: Session) -> None:
    def slices(version: str) -> Reply:
        document = {
            "kind": "EndpointSliceList",
            "apiVersion": f"discovery.k8s.io/{version}",
            "items": [{"metadata": {"name": version}}],
        }
        return Reply(200, document)

    path = "/apis/discovery.k8s.io/{}/namespaces/d/endpointslices"
    fake.routes[path.format("v1beta1")] = slices("v1beta1")
    old = Api(session)
    assert old.endpoint_slices("d", "web")[0]["apiVersion"] == "discovery.k8s.io/v1beta1"
    assert fake.seen[-1].parameters("labelSelector") == ["kubernetes.io/service-name=web"]
    asked_before = len(fake.seen)
    old.endpoint_slices("d")
    assert len(fake.seen) == asked_before + 1  # the version is remembered
    fake.routes[path.format("v1")] = slices("v1")
    assert names(Api(session).endpoint_slices("d")) == ["v1"]
    with pytest.raises(NotFound, match=r"endpointslices\.discovery\.k8s\.io"):
        Api(session).endpoint_slices("elsewhere")


def test_cilium_that_is_not_there(fake: FakeApiServer, api: Api) -> None:
    assert api.cilium("ciliumnodes") is None
    path = "/apis/cilium.io/v2/namespaces/d/ciliumendpoints"
    fake.routes[path] = Reply(
        200, {"kind": "CiliumEndpointList", "apiVersion": "cilium.io/v2", "items": []}
    )
    assert api.cilium("ciliumendpoints", "d") == []
    fake.routes[path] = status_reply(403, "Forbidden", "no")
    with pytest.raises(Forbidden) as caught:
        api.cilium("ciliumendpoints", "d")
    assert caught.value.resource == "ciliumendpoints.cilium.io"


def test_may_asks_the_server(fake: FakeApiServer, api: Api) -> None:
    def review(seen: Seen) -> Reply:
        attributes = json.loads(seen.body)["spec"]["resourceAttributes"]
        allowed = attributes == {
            "verb": "get",
            "resource": "pods",
            "subresource": "exec",
            "namespace": "kube-system",
        }
        return Reply(201, {"status": {"allowed": allowed}})

    fake.routes["/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"] = review
    assert api.allowed("get", "pods/exec", "kube-system")
    assert not api.allowed("list", "ciliumendpoints.cilium.io")
    last = json.loads(fake.seen[-1].body)["spec"]["resourceAttributes"]
    assert last == {"verb": "list", "resource": "ciliumendpoints", "group": "cilium.io"}


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/api/v1/pods", ("list", "pods", "", "")),
        ("GET", "/api/v1/namespaces/d/pods", ("list", "pods", "d", "")),
        ("GET", "/api/v1/namespaces/d/pods/x", ("get", "pods", "d", "x")),
        ("GET", "/api/v1/namespaces/d/pods/x/exec", ("get", "pods/exec", "d", "x")),
        ("GET", "/api/v1/namespaces", ("list", "namespaces", "", "")),
        ("GET", "/api/v1/namespaces/d", ("get", "namespaces", "", "d")),
        ("POST", "/apis/apps/v1/namespaces/d/deployments", ("create", "deployments.apps", "d", "")),
        ("GET", "/apis/cilium.io/v2/ciliumnodes/n", ("get", "ciliumnodes.cilium.io", "", "n")),
        ("GET", "/k8s/clusters/c-1/api/v1/nodes", ("list", "nodes", "", "")),
        ("GET", "/version", ("get", "", "", "")),
    ],
)
def test_requests_in_rbac_words(method: str, path: str, said: tuple[str, ...]) -> None:
    found = api_request(method, path)
    assert (found.verb, found.resource, found.namespace, found.name) == said


def test_forbidden_is_read_off_the_request(fake: FakeApiServer, api: Api) -> None:
    fake.routes[PODS] = Reply(403, b"<html>go away</html>")
    with pytest.raises(Forbidden, match="may not list pods in namespace default") as caught:
        api.pods("default")
    error = caught.value
    assert (error.verb, error.resource, error.namespace) == ("list", "pods", "default")


def test_not_found(fake: FakeApiServer, api: Api) -> None:
    with pytest.raises(NotFound, match='pod "x" not found in namespace default') as caught:
        api.pod("default", "x")
    assert (caught.value.kind, caught.value.name) == ("pod", "x")
    with pytest.raises(NotFound, match=r'resource "networkpolicies\.networking'):
        api.list("/apis/networking.k8s.io/v1/networkpolicies")


def test_unauthorized(fake: FakeApiServer, api: Api) -> None:
    fake.routes[PODS] = status_reply(401, "Unauthorized", "Unauthorized")
    with pytest.raises(Unauthorized, match=fake.url):
        api.pods("default")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, b""),
        status_reply(500, "InternalError", "etcd is gone"),
        Reply(502, b"\xff\xfe\x00 bad gateway"),
        Reply(302, b"", {"Location": "http://127.0.0.1:1/login"}),
        Reply(418, b"[" * 100_000),
    ],
)
def test_other_failures(fake: FakeApiServer, api: Api, reply: Reply) -> None:
    fake.routes[PODS] = reply
    with pytest.raises(ApiError) as caught:
        api.pods("default")
    assert caught.value.status == reply.status
    assert len(caught.value.message) < 800


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>log in</html>",
        b"[]",
        b'"x"',
        b'{"items": 5}',
        b'{"items": [5]}',
        b"{}",
        b'{"kind": "Status", "status": "Failure"}',
        b"\xff",
        b"[" * 200_000,
    ],
)
def test_answers_that_are_no_kubernetes(fake: FakeApiServer, api: Api, body: bytes) -> None:
    fake.routes[PODS] = Reply(200, body)
    with pytest.raises(ApiError, match="answered with") as caught:
        api.pods("default")
    assert "API server" in caught.value.hint


def test_busy_server_is_asked_again(fake: FakeApiServer, api: Api) -> None:
    def pods(seen: Seen) -> Reply:
        if len(fake.seen) < 3:
            return Reply(429, b"busy", {"Retry-After": "0"})
        return pod_list("a")

    fake.routes[PODS] = pods
    assert names(api.pods("default")) == ["a"]
    fake.routes[PODS] = Reply(503, b"down", {"Retry-After": "0"})
    with pytest.raises(ApiError, match="503"):
        api.pods("default")


# --- no answer ------------------------------------------------------------------------------------


@contextmanager
def server_that_says(answer: bytes, *, stay: bool = False) -> Iterator[str]:
    """One raw TCP server that answers everything with the same bytes; its URL."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(5)
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                    if stay:
                        stop.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


def test_refused(open_session: Opener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ApiUnreachable, match=f":{port}: connection refused"):
        Api(open_session(server=f"http://127.0.0.1:{port}")).nodes()


def test_name_that_does_not_resolve(open_session: Opener) -> None:
    with pytest.raises(ApiUnreachable, match="name does not resolve"):
        Api(open_session(server="https://api.cluster.invalid")).nodes()


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"],
)
def test_connection_that_breaks(open_session: Opener, answer: bytes) -> None:
    with (
        server_that_says(answer) as url,
        pytest.raises(ApiUnreachable, match="the connection broke"),
    ):
        Api(open_session(server=url)).nodes()


def test_slow_server(open_session: Opener) -> None:
    with (
        server_that_says(b"HTTP/1.1 200 OK\r\n", stay=True) as url,
        pytest.raises(ApiUnreachable, match=r"no answer within 0\.2 s"),
    ):
        Api(open_session(server=url, request_timeout=0.2)).nodes()


def test_answer_that_drips(fake: FakeApiServer, open_session: Opener) -> None:
    # Every read is quick, but the request as a whole takes longer than it may.
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                try:
                    while not stop.wait(0.01):
                        connection.sendall(b"1\r\n \r\n")
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ApiUnreachable, match=r"no answer within 0\.3 s"):
            Api(open_session(server=url, request_timeout=0.3)).nodes()
        assert time.monotonic() - begun < 5
        stop.set()
        thread.join()


def test_connection_that_went_stale_is_replaced(open_session: Opener) -> None:
    answers = [b"", b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"items": []}']
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        api = Api(open_session(server=f"http://127.0.0.1:{server.getsockname()[1]}"))
        assert api.nodes() == []
        thread.join()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"certificate_authority": str(CERTS / "ca.pem")}, "IP address mismatch"),
        ({"certificate_authority": str(CERTS / "ca.pem"), "tls_server_name": "x.y"}, "mismatch"),
        ({}, "certificate is not trusted"),
    ],
)
def test_tls_that_is_not_trusted(open_session: Opener, options: dict[str, str], said: str) -> None:
    fake = FakeApiServer(tls=True)
    try:
        with pytest.raises(ApiUnreachable, match=said) as caught:
            Api(open_session(server=fake.url, **options)).nodes()
        assert "certificate-authority" in caught.value.hint
    finally:
        fake.close()


def test_https_spoken_to_an_http_port(fake: FakeApiServer, open_session: Opener) -> None:
    session = open_session(server=fake.url.replace("http", "https"), insecure_skip_tls_verify=True)
    with pytest.raises(ApiUnreachable, match="TLS failed"):
        Api(session).nodes()


# --- proxies --------------------------------------------------------------------------------------


class FakeProxy:
    """A FAKE HTTP proxy: CONNECT alone, one tunnel a thread."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://user:p%40ss@127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(connection,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        with client:
            head = client.recv(1 << 16)
            self.heads.append(head)
            host, port = head.split(b" ")[1].decode().rsplit(":", 1)
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join(5)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_rest_and_exec_go_through_the_proxy(open_session: Opener) -> None:
    proxy, fake = FakeProxy(), FakeApiServer(tls=True)
    try:
        fake.routes["/api/v1/nodes"] = Reply(200, {"kind": "NodeList", "items": []})
        session = open_session(
            server=fake.url,
            proxy_url=proxy.url,
            certificate_authority=str(CERTS / "ca.pem"),
            tls_server_name="api.fake.test",
            as_user="jane",
            as_groups=("a", "b"),
        )
        assert Api(session).nodes() == []
        assert exec_run(session, Container("d", "p"), ["true"]).exit_code == 0
        assert [seen.values("Impersonate-Group") for seen in fake.seen] == [["a", "b"]] * 2
        assert len(proxy.heads) == 2
        for head in proxy.heads:
            assert head.startswith(f"CONNECT 127.0.0.1:{fake.port} HTTP/1.".encode())
            assert b"basic dxnlcjpwqhnz" in head.lower()  # user:p@ss
            assert b"mpersonate" not in head
    finally:
        fake.close()
        proxy.close()


def test_environment_proxy_is_not_for_loopback(
    fake: FakeApiServer, open_session: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    fake.routes["/api/v1/nodes"] = Reply(200, {"items": []})
    assert Api(open_session(server=fake.url)).nodes() == []


def test_environment_proxy_for_the_rest(
    open_session: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    server = "https://api.cluster.invalid:6443"
    with pytest.raises(
        ApiUnreachable, match=f"through http://127.0.0.1:{port}: connection refused"
    ):
        Api(open_session(server=server)).nodes()
    monkeypatch.setenv("NO_PROXY", ".invalid")
    with pytest.raises(ApiUnreachable, match="name does not resolve"):
        Api(open_session(server=server)).nodes()


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1", "https://proxy", "http://:x"])
def test_proxies_that_are_not_spoken_to(open_session: Opener, url: str) -> None:
    with pytest.raises(KubeconfigError, match="proxy"):
        open_session(server="https://10.0.0.1", proxy_url=url)


def test_impersonation_through_a_proxy_without_tls_is_refused(open_session: Opener) -> None:
    with pytest.raises(KubeconfigError, match="needs an https:// API server"):
        open_session(
            server="http://10.0.0.1",
            proxy_url="http://127.0.0.1:1",
            as_user="a",
            as_groups=("b", "c"),
        )
