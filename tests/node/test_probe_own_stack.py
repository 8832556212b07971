"""`ebpfnet-node probe … own yes`: connections as any process of the node makes them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.probe.attempts import probe

HOST = {4: "127.0.0.1", 6: "::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
BOTH = pytest.mark.parametrize("version", [4, 6])


def own(version: int, port: int, *words: str) -> ConnectAttempt:
    argv = node_argv("probe", HOST[version], str(port), "wait", "0.3", "own", "yes", *words)
    (found,) = probe(NodeRequest(0, argv))
    return found


@contextlib.contextmanager
def server(version: int, kind: int, *, answers: bool = True) -> Iterator[int]:
    """A server on this machine's own address; its port."""
    with socket.socket(FAMILY[version], kind) as sock:
        sock.bind((HOST[version], 0))
        sock.settimeout(5)

        def serve() -> None:
            with contextlib.suppress(OSError):
                if kind == socket.SOCK_DGRAM:
                    _, client = sock.recvfrom(99)
                    if answers:
                        sock.sendto(f"{client[0]}:{client[1]}".encode(), client)
                    return
                peer, client = sock.accept()
                with peer:
                    peer.recv(999)
                    peer.sendall(f"HTTP/1.1 200 OK\r\n\r\n{client[0]}".encode())

        if kind == socket.SOCK_STREAM:
            sock.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield sock.getsockname()[1]
        thread.join(5)


@BOTH
def test_it_asks_by_http_and_tells_its_own_address(version: int) -> None:
    with server(version, socket.SOCK_STREAM) as port:
        found = own(version, port, "http", "/clientip")
    assert (found.outcome, found.detail) == ("connected", "")
    assert found.answer.startswith("HTTP/1.1 200 OK")
    assert found.answer.endswith(HOST[version])
    assert found.source == ip_address(HOST[version])
    assert found.source_port
    assert found.seconds is not None


@BOTH
def test_over_udp_an_answer_or_silence(version: int) -> None:
    with server(version, socket.SOCK_DGRAM) as port:
        found = own(version, port, "udp", "yes")
    assert (found.outcome, found.answer) == ("connected", f"{HOST[version]}:{found.source_port}")
    with server(version, socket.SOCK_DGRAM, answers=False) as port:
        found = own(version, port, "udp", "yes")
    assert (found.outcome, found.detail) == ("timeout", "silence for 0.3 s")


@BOTH
@pytest.mark.parametrize("udp", [(), ("udp", "yes")])
def test_a_closed_port_refuses(version: int, udp: tuple[str, ...]) -> None:
    with socket.socket(FAMILY[version]) as closed:
        closed.bind((HOST[version], 0))  # bound, and nobody listens
        found = own(version, closed.getsockname()[1], *udp)
    assert (found.outcome, found.detail) == ("refused", "connection refused")


def test_no_route_is_unreachable_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(113, "No route to host")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = own(4, 80)
    assert (found.outcome, found.detail, found.source) == ("unreachable", "No route to host", None)
