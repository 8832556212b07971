"""A FAKE API server on loopback: REST from a table, exec as a kubelet answers it.

REST is http.server; the server's end of exec is the `websockets` library without its sockets
(websockets.server.ServerProtocol), so a test controls every frame. Each connection has a thread.
A program in a container is a Python function that gets an `ExecEnd`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from kubectl_ebpfnet.cluster.client.session import Session

Opener = Callable[..., Session]
"""Opens a Session with these ConnectionOptions (a fixture of conftest.py)."""
CERTS = Path(__file__).with_name("certs")
V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"


@dataclass
class Seen:
    """A received request."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    body: bytes = b""

    def values(self, header: str) -> list[str]:
        return [value for name, value in self.headers if name.lower() == header.lower()]

    def parameters(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]


@dataclass
class Reply:
    """An answer; a dict becomes JSON."""

    status: int = 200
    body: dict[str, Any] | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def status_reply(code: int, reason: str, message: str, **details: str) -> Reply:
    """Return a failure as API servers send it: a metav1.Status.

    Args:
        code: HTTP status code.
        reason: reason of the Status, e.g. NotFound.
        message: message of the Status.
        details: details of the Status.
    """
    return Reply(
        code,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details,
            "code": code,
        },
    )


SUCCESS = {"metadata": {}, "status": "Success"}


def exited(code: int) -> dict[str, Any]:
    """Return the kubelet's status of a program that exited with `code`."""
    if code == 0:
        return SUCCESS
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


class ExecEnd:
    """The program's end of one exec."""

    def __init__(self, sock: socket.socket, protocol: ServerProtocol, seen: Seen) -> None:
        """Take over a connection after its upgrade.

        Args:
            sock: socket of the connection.
            protocol: protocol state of the websocket.
            seen: the exec request.
        """
        self.sock = sock
        self.protocol = protocol
        self.seen = seen
        self.argv = seen.parameters("command")
        self.version = protocol.subprotocol
        self.stdin_closed = False

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.sock.sendall(data)

    def write(self, channel: int, data: bytes) -> None:
        """Send a message on a channel."""
        self.protocol.send_binary(bytes((channel,)) + data)
        self._flush()

    def write_fragments(self, *pieces: bytes) -> None:
        """Send a message in fragments; the first starts with the channel byte, or is empty."""
        first, *rest = pieces
        self.protocol.send_binary(first, fin=not rest)
        for number, piece in enumerate(rest, start=1):
            self.protocol.send_continuation(piece, fin=number == len(rest))
        self._flush()

    def ping(self, data: bytes = b"") -> None:
        self.protocol.send_ping(data)
        self._flush()

    def end(self, status: dict[str, Any] | bytes = SUCCESS) -> None:
        """Send the status, then the close frame."""
        raw = status if isinstance(status, bytes) else json.dumps(status).encode()
        self.write(3, raw)
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.protocol.send_close(1000)
            self._flush()

    def reset(self) -> None:
        """Send a TCP RST, as when a node dies."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def frames(self) -> Iterator[Frame]:
        """Yield the client's frames until it closes."""
        while True:
            yield from (e for e in self.protocol.events_received() if isinstance(e, Frame))
            self._flush()
            data = self.sock.recv(1 << 16)
            if not data:
                return
            self.protocol.receive_data(data)

    def stdin(self) -> Iterator[bytes]:
        """Yield pieces of stdin until its half-close, or until the client disconnects."""
        for frame in self.frames():
            if frame.opcode is Opcode.BINARY and frame.data[:1] == b"\0":
                yield bytes(frame.data[1:])
            elif frame.opcode is Opcode.BINARY and bytes(frame.data) == b"\xff\0":
                self.stdin_closed = True
                return

    def script(self) -> bytes | None:
        """Read the script of a shell that reads one; None for any other program."""
        if self.argv[:2] != ["sh", "-s"]:
            return None
        # A socket that is closed with something unread in it sends a RST. On v4 stdin has no end.
        return next(self.stdin()) if self.version == V4 else b"".join(self.stdin())

    def wait_for_client_to_leave(self) -> None:
        with contextlib.suppress(OSError):
            for _ in self.frames():
                pass


Program = Callable[[ExecEnd], None]
Route = Callable[[Seen], Reply]


class FakeApiServer:
    """The server. `routes` maps a path to a Reply or a function; other paths are 404."""

    def __init__(self, *, tls: bool = False, client_certificate: bool = False) -> None:
        self.routes: dict[str, Reply | Route] = {}
        self.program: Program = lambda end: end.end()
        self.protocols = [V5, V4]
        self.exec_refusal: Route | None = None
        self.seen: list[Seen] = []
        self.peer_names: list[str] = []
        self.ahead = 0.0  # seconds of its clock, of which `Date` is
        self._tls = tls
        self._http = _Server(("127.0.0.1", 0), _connection_class(self))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTS / "server.pem", CERTS / "server.key")
            context.load_verify_locations(CERTS / "ca.pem")
            if client_certificate:
                context.verify_mode = ssl.CERT_REQUIRED
            self._http.context = context
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, seen: Seen) -> Reply:
        route = self.routes.get(seen.path)
        if route is None:
            return Reply(404, b"404 page not found\n", {"Content-Type": "text/plain"})
        return route if isinstance(route, Reply) else route(seen)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's thread: a slow TLS handshake must not block others.
        if self.context is not None:
            request = self.context.wrap_socket(request, server_side=True)
        try:
            super().finish_request(request, client_address)
        finally:
            if self.context is not None:
                request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect: many tests do so."""


def _connection_class(fake: FakeApiServer) -> type[BaseHTTPRequestHandler]:
    class Connection(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        rbufsize = 0  # bytes after an upgrade must not stay in a buffer
        disable_nagle_algorithm = True

        def _seen(self) -> Seen:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            seen = Seen(
                self.command,
                url.path,
                parse_qsl(url.query, keep_blank_values=True),
                self.headers.items(),
                self.rfile.read(length) if length else b"",
            )
            fake.seen.append(seen)
            if isinstance(self.connection, ssl.SSLSocket):
                subject = (self.connection.getpeercert() or {}).get("subject", ())
                names = [value for part in subject for _, value in part]
                fake.peer_names.append(str(names[0]) if names else "")
            return seen

        def _reply(self, reply: Reply) -> None:
            raw = reply.raw  # once: a test may change the object that is sent
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            seen = self._seen()
            if self.headers.get("Upgrade", "").lower() == "websocket":
                self._exec(seen)
            else:
                self._reply(fake.answer(seen))

        def do_POST(self) -> None:
            self._reply(fake.answer(self._seen()))

        def do_DELETE(self) -> None:
            self._reply(fake.answer(self._seen()))

        def _exec(self, seen: Seen) -> None:
            self.close_connection = True
            refusal = fake.exec_refusal(seen) if fake.exec_refusal else None
            if refusal is not None:
                self._reply(refusal)
                return
            protocol = ServerProtocol(subprotocols=fake.protocols, max_size=None)  # type: ignore[arg-type]
            head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            protocol.receive_data(f"{self.requestline}\r\n{head}\r\n".encode("latin-1"))
            [request] = protocol.events_received()
            protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
            for data in protocol.data_to_send():
                self.connection.sendall(data)
            if isinstance(protocol.handshake_exc, InvalidHandshake):
                return
            end = ExecEnd(self.connection, protocol, seen)
            with contextlib.suppress(OSError):
                fake.program(end)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + fake.ahead)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    return Connection
