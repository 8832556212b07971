"""The connection of an exec: a websocket after its upgrade, on a socket of the session.

RFC 6455 by websocket-client; the request is the API server's `connect` on pods/exec (Kubernetes API
reference v1, Pod).
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.cluster.client.failures import refusal, unreachable
from kubectl_ebpfnet.cluster.client.session import TRIES, Session, retry_after
from kubectl_ebpfnet.cluster.exec.protocol import V4, V5
from kubectl_ebpfnet.errors import ClusterError, ExecError, ExecTimeout

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.exec.target import Container


_LONGEST_FRAME = 16 << 20
"""Bytes; the library buffers a frame until it is complete. Kubelets send 32 KiB."""


def prepare() -> None:
    """Import what every connection needs, while there is nothing else to do."""
    import websocket  # noqa: F401


def connect(
    session: Session, container: Container, argv: Sequence[str], has_stdin: bool, seconds: float
) -> tuple[Any, socket.socket]:
    """Start a program; return its websocket.WebSocket after the upgrade, and the socket.

    Args:
        session: the connection to the cluster.
        container: the container to run in.
        argv: the program and its arguments.
        has_stdin: whether stdin will be sent.
        seconds: time-out of each of connection, TLS and upgrade.

    Raises:
        ExecError, ExecTimeout, Forbidden, NotFound, Unauthorized, ApiError, ApiUnreachable: as
            run.exec_stream.
    """
    import websocket

    path, query = _exec_request(container, argv, has_stdin)
    deadline, renewed = time.monotonic() + seconds, False
    for tries in range(1, TRIES + 2):  # once more with new credentials
        sock = session.dial(seconds)
        ws = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
        _limit_frames(ws)
        url, headers, log = session.websocket_url(path, query), session.headers(), session.log
        began = log.request("GET", url, headers) if log else 0.0
        try:
            ws.connect(  # type: ignore[no-untyped-call]
                url,
                socket=sock,
                timeout=seconds,
                subprotocols=[V5, V4],
                header=[f"{name}: {value}" for name, value in headers],
                suppress_origin=True,
                redirect_limit=0,
            )
        except websocket.WebSocketBadStatusException as e:
            session.hang_up(sock)
            if log:
                answered = (e.resp_headers or {}).items()
                log.response("GET", url, began, e.status_code, answered, e.resp_body or b"")
            if e.status_code == 401 and not renewed and session.renew():
                renewed = True
                continue
            wanted = retry_after(e.status_code, (e.resp_headers or {}).get("retry-after"))
            if wanted is not None and tries < TRIES and session.pause(wanted, deadline):
                continue
            body = e.resp_body or b""
            raise refusal(e.status_code, body, "GET", path, session.server) from None
        except (websocket.WebSocketException, OSError) as e:
            session.hang_up(sock)
            if log:
                log.failure("GET", url, began, e)
            raise _failure(e, session, seconds) from e
        except BaseException:
            session.hang_up(sock)
            raise
        if log:
            log.response("GET", url, began, ws.status or 101, (ws.headers or {}).items(), b"")
        return ws, sock
    raise AssertionError("the last attempt returns or raises")


def _failure(error: Exception, session: Session, seconds: float) -> ClusterError:
    """Return the error for an upgrade that got no HTTP answer."""
    import websocket

    if isinstance(error, websocket.WebSocketTimeoutException):
        return ExecTimeout(
            f"no answer to exec within {seconds:g} s",
            hint="check that the API server reaches the node's kubelet",
        )
    if isinstance(error, websocket.WebSocketConnectionClosedException):
        return ExecError("the server closed the connection instead of starting exec")
    if isinstance(error, websocket.WebSocketException):
        return ExecError(
            f"the server does not speak exec over websockets ({' '.join(str(error).split())})",
            hint="it needs v4.channel.k8s.io; a proxy in front must pass websocket upgrades",
        )
    return unreachable(session.server, error)


def _limit_frames(ws: Any) -> None:
    from websocket import WebSocketPayloadException

    frames = ws.frame_buffer
    recv_length = frames.recv_length

    def bounded() -> None:
        recv_length()
        if frames.length > _LONGEST_FRAME:
            raise WebSocketPayloadException(f"the server started a frame of {frames.length} bytes")

    frames.recv_length = bounded


def binary_frame(message: bytes) -> bytes:
    """Return a message as a client's frame: whole and masked."""
    from websocket import ABNF

    return ABNF.create_frame(message, ABNF.OPCODE_BINARY).format()


class Outgoing:
    """Frames to send to the server; the caller waits until the socket is writable.

    A started frame is sent to its end before any other. TLS requires this even when no byte was
    reported as sent: an unfinished write must be repeated with the same bytes (SSL_write(3)); other
    bytes fail with "bad length", and the session is lost.

    Only the newest ping is answered (RFC 6455, 5.5.3), so pings of a server that does not read
    cannot pile up.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames: deque[bytes] = deque()
        self._pong = b""
        self._current = memoryview(b"")  # the unsent rest of the started frame
        self._is_pong = False

    def __bool__(self) -> bool:
        return bool(self._current or self._pong or self._frames)

    def add(self, frame: bytes) -> None:
        """Queue a frame."""
        self._frames.append(frame)

    def answer(self, ping: Any) -> None:
        """Queue the pong for a ping (websocket.ABNF) before all frames that are not started."""
        self._pong = ping.create_frame(ping.data, ping.OPCODE_PONG).format()

    def send(self) -> int:
        """Send as much of a frame as the non-blocking socket takes, so that a pong waits for one
        frame at most.

        Returns:
            The number of bytes sent, 0 for those of a pong.

        Raises:
            OSError: the connection takes no more; queued frames are dropped.
        """
        try:
            if not self._current:
                self._is_pong = bool(self._pong)
                self._current = memoryview(self._pong or self._frames.popleft())
                self._pong = b""
            count = self._sock.send(self._current)
            self._current = self._current[count:]
            return 0 if self._is_pong else count
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except OSError:
            self._frames.clear()
            self._pong, self._current = b"", memoryview(b"")
            raise


def _exec_request(
    container: Container, argv: Sequence[str], has_stdin: bool
) -> tuple[str, list[tuple[str, str]]]:
    from urllib.parse import quote

    if not argv:
        raise ValueError("argv is empty")
    namespace, pod = quote(container.namespace, safe=""), quote(container.pod, safe="")
    query = [("command", word) for word in argv]
    if container.name:
        query.append(("container", container.name))
    if has_stdin:
        query.append(("stdin", "true"))
    query += [("stdout", "true"), ("stderr", "true")]
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/exec", query
