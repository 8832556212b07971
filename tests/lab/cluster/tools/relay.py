"""What may stand between a laptop and an API server: relays of the test's own on loopback, before
the lab's real API server.

`Relay` passes TLS through as it is, and may be slow, silent or cut. `Busy` ends TLS, with the
server's own certificate, and answers 429 as an API server with too many requests in flight does
(k8s.io/apiserver, pkg/server/filters/maxinflight.go); what it lets pass, the real one answers.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

from tests.lab.cluster.config import API_SERVER, STATE

SERVER = urlsplit(API_SERVER)
_HEAD = b"\r\n\r\n"


class Relay:
    """A relay of TCP; everything passes until told. Use it in a `with`.

    Attributes:
        delay: seconds before each piece is passed on, either way.
        silent: nothing passes any more, and nothing is closed: packets are lost.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self.silent = False
        self._closed = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def kubeconfig(self, original: Path, folder: Path) -> Path:
        """Write a kubeconfig whose server is this relay."""
        port = self._listener.getsockname()[1]
        here = f'"https://127.0.0.1:{port}", tls-server-name: "{SERVER.hostname}"'
        text = original.read_text()
        assert f'"{API_SERVER}"' in text
        file = folder / "relay.conf"
        file.touch(mode=0o600)
        file.write_text(text.replace(f'"{API_SERVER}"', here))
        return file

    def cut(self) -> None:
        """End every connection that is there; new ones pass."""
        for each in list(self._sockets):
            _end(each)

    def far(self) -> socket.socket:
        """A connection to the API server."""
        sock = socket.create_connection((SERVER.hostname, SERVER.port), 5)
        sock.settimeout(None)
        return sock

    def serve(self, near: socket.socket) -> None:
        """Serve one connection."""
        self.join(near, self.far())

    def join(self, near: socket.socket, far: socket.socket) -> None:
        """Pass everything on both ways until an end. In one thread, as TLS wants it."""
        self._sockets += [near, far]
        others = {near: far, far: near}
        try:
            while not self._closed.is_set():
                for one in select.select([near, far], [], [], 0.1)[0]:
                    data = _pieces(one)
                    self._closed.wait(self.delay if data else 0)
                    if self.silent:
                        self._closed.wait()  # an end is not heard of either
                    elif data is None:
                        return
                    else:
                        others[one].sendall(data)
        finally:
            for each in (near, far):
                self._sockets.remove(each)
                each.close()

    def _start(self, work: object, *words: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=words, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(OSError):
                near, _ = self._listener.accept()
                near.settimeout(None)
                self._start(self._served, near)

    def _served(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.serve(near)


class Busy(Relay):
    """A relay that answers 429. Each connection takes one request.

    Attributes:
        always: every request is refused; else the first of each method and path.
        seconds: of Retry-After.
        refused: how many requests were.
    """

    def __init__(self, seconds: int, *, always: bool) -> None:
        self.seconds, self.always, self.refused = seconds, always, 0
        self._seen: set[bytes] = set()
        self._near = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._near.load_cert_chain(STATE / "pki/server.crt", STATE / "pki/server.key")
        self._far = ssl.create_default_context(cafile=str(STATE / "pki/ca.crt"))
        super().__init__()

    def far(self) -> socket.socket:
        """A connection to the API server, with TLS."""
        return self._far.wrap_socket(super().far(), server_hostname=SERVER.hostname)

    def serve(self, near: socket.socket) -> None:
        """Serve one request."""
        with self._near.wrap_socket(near, server_side=True) as secure:
            request = _request(secure)
            line, _, rest = request.partition(b"\r\n")
            asked = line.split(b"?")[0]
            if self.always or asked not in self._seen:
                self._seen.add(asked)
                self.refused += 1
                secure.sendall(self._refusal())
                return
            if b"upgrade: websocket" not in rest.lower():
                line += b"\r\nConnection: close"
            far = self.far()
            far.sendall(line + b"\r\n" + rest)
            self.join(secure, far)

    def _refusal(self) -> bytes:
        text = b"Too many requests, please try again later."
        head = (
            f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: {self.seconds}\r\n"
            f"Content-Type: text/plain\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        return head.encode() + text


def _request(sock: socket.socket) -> bytes:
    """Read a request with its body."""
    data = b""
    while _HEAD not in data:
        piece = sock.recv(1 << 16)
        if not piece:
            raise OSError("no request")
        data += piece
    head, _, body = data.partition(_HEAD)
    lengths = [
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    ]
    while len(body) < sum(lengths):
        body += sock.recv(1 << 16)
    return head + _HEAD + body


def _pieces(sock: socket.socket) -> bytes | None:
    """What has come, b"" for nothing of the connection's user, None at its end."""
    data = b""
    sock.settimeout(0)
    try:
        while piece := sock.recv(1 << 16):
            data += piece
        return data or None
    except (BlockingIOError, ssl.SSLWantReadError):
        return data
    except OSError:
        return data or None
    finally:
        sock.settimeout(None)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
