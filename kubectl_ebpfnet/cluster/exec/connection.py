"""The connection of an exec: a websocket that is past the upgrade, on a socket of the session.

RFC 6455 by websocket-client; the request is the API server's `connect` on pods/exec (Kubernetes API
reference v1, Pod).
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.cluster.client.failures import refusal, unreachable
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.protocol import V4, V5
from kubectl_ebpfnet.errors import ExecError, ExecTimeout

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.exec.target import Container


_LONGEST_FRAME = 16 << 20
"""Bytes; the library holds a frame until it is whole. Kubelets send 32 KiB."""


def connect(
    session: Session, container: Container, argv: Sequence[str], has_stdin: bool, seconds: float
) -> tuple[Any, socket.socket]:
    """Start a program; a websocket.WebSocket that is past the upgrade, and its socket.

    Args:
        session, container, argv: as for exec.exec_run.
        has_stdin: something will be sent to it.
        seconds: for the connection, TLS and the upgrade, each.

    Raises:
        ExecError, ExecTimeout, Forbidden, NotFound, Unauthorized, ApiError, ApiUnreachable: as
            exec.exec_run.
    """
    import websocket

    path, query = _exec_request(container, argv, has_stdin)
    refused = None
    for _ in range(2):  # the second time with new credentials
        sock = session.dial(seconds)
        ws = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
        _limit_frames(ws)
        try:
            ws.connect(  # type: ignore[no-untyped-call]
                session.websocket_url(path, query),
                socket=sock,
                timeout=seconds,
                subprotocols=[V5, V4],
                header=[f"{name}: {value}" for name, value in session.headers()],
                suppress_origin=True,
                redirect_limit=0,
            )
        except websocket.WebSocketBadStatusException as e:
            session.hang_up(sock)
            refused = refusal(e.status_code, e.resp_body or b"", "GET", path, session.server)
            if e.status_code == 401 and session.renew():
                continue
            raise refused from None
        except websocket.WebSocketTimeoutException as e:
            session.hang_up(sock)
            raise ExecTimeout(
                f"no answer to exec within {seconds:g} s",
                hint="can the API server reach the kubelet of that node?",
            ) from e
        except websocket.WebSocketConnectionClosedException as e:
            session.hang_up(sock)
            raise ExecError("the server closed the connection instead of starting exec") from e
        except websocket.WebSocketException as e:
            session.hang_up(sock)
            raise ExecError(
                f"the server does not speak exec over websockets ({' '.join(str(e).split())})",
                hint="it must know v4.channel.k8s.io; does a proxy before it pass upgrades on?",
            ) from e
        except OSError as e:
            session.hang_up(sock)
            raise unreachable(session.server, e) from e
        except BaseException:
            session.hang_up(sock)
            raise
        return ws, sock
    assert refused is not None
    raise refused


def _limit_frames(ws: Any) -> None:
    from websocket import WebSocketPayloadException

    frames = ws.frame_buffer
    recv_length = frames.recv_length

    def bounded() -> None:
        recv_length()
        if frames.length > _LONGEST_FRAME:
            raise WebSocketPayloadException(f"the server began a frame of {frames.length} bytes")

    frames.recv_length = bounded


def binary_frame(message: bytes) -> bytes:
    """A message as it travels from a client: whole, masked."""
    from websocket import ABNF

    return ABNF.create_frame(message, ABNF.OPCODE_BINARY).format()


class Outgoing:
    """Frames on their way to the server; the caller waits until the socket is writable.

    A frame that was begun is sent to its end before anything else. TLS demands it even where it
    reported no byte as sent: a write that it could not finish must be repeated with the same bytes
    (SSL_write(3)), another one fails with "bad length" and the session is lost.

    Only the newest ping is answered (RFC 6455, 5.5.3): pings of a server that does not read cannot
    pile up.
    """

    def __init__(self, sock: socket.socket, frames: Iterable[bytes] = ()) -> None:
        self._sock = sock
        self._frames = deque(frames)
        self._pong = b""
        self._current = memoryview(b"")  # what is left of the frame that was begun
        self._is_pong = False

    def __bool__(self) -> bool:
        return bool(self._current or self._pong or self._frames)

    def add(self, frame: bytes) -> None:
        """Send a frame after those that wait."""
        self._frames.append(frame)

    def answer(self, ping: Any) -> None:
        """Send the pong for a websocket.ABNF, before the frames that were not begun."""
        self._pong = ping.create_frame(ping.data, ping.OPCODE_PONG).format()

    def send(self) -> int:
        """Send what the socket, which must not block, takes now of one frame: so a ping is never
        behind more than the frame that was begun.

        Returns:
            How many bytes it took, 0 for those of a pong.

        Raises:
            OSError: the connection takes no more; what waited is dropped.
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
