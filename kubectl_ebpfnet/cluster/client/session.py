"""A connection to a cluster: a REST pool and sockets for exec, with the same TLS and identity.

REST goes through the `kubernetes` library's own pool (kubernetes.client.rest over urllib3), which
knows proxies and TLS names. Everything that `kubernetes.client` adds on top (models, one header
per name, `call_api` swapped under a running exec) is left out (figures: ecosystem.md 2.5).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.client.access import Access, ConnectionOptions
from kubectl_ebpfnet.cluster.client.answer import (
    TooLongError,
    content_of,
    warnings,
)
from kubectl_ebpfnet.cluster.client.clock import ServerClock
from kubectl_ebpfnet.cluster.client.credentials import Credentials, Header
from kubectl_ebpfnet.cluster.client.failures import root_cause, unreachable
from kubectl_ebpfnet.cluster.client.kubeconfig import load
from kubectl_ebpfnet.cluster.client.transport import (
    proxy_tunnel,
    rest_client,
    server_url,
    tls_context,
)
from kubectl_ebpfnet.errors import ApiError, ApiUnreachable, KubeconfigError, ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.untrusted import integer

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.client.request_log import RequestLog

__all__ = ["ConnectionOptions", "Response", "Session"]

CONNECT_SECONDS = 10.0
"""Time for TCP and TLS together, unless --request-timeout is shorter."""
READ_SECONDS = 60.0
"""Longest silence of a request without --request-timeout."""
_LOGS_REQUESTS = 6
TRIES = 4
"""How often a busy server is asked, a stale connection aside."""
_LONGEST_WAIT_SECONDS = 5.0

Query = Iterable[tuple[str, str]] | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer.

    Attributes:
        status: HTTP status code.
        body: bytes of the body, unpacked.
        retry_after: seconds of a Retry-After header, None without one.
    """

    status: int
    body: bytes
    retry_after: float | None = None


class Session:
    """A connection to a cluster. Threads may share it; close it, or use it in a `with`.

    Attributes:
        server: URL of the API server, without a trailing slash.
        namespace: default namespace: of the flag, the context or "default".
        context: name of the context, "" without one.
        log: logs its requests, None for no log.
        clock: of the API server.
    """

    def __init__(self, access: Access, options: ConnectionOptions) -> None:
        """Prefer `Session.open`. Raises KubeconfigError."""
        self.context = access.context
        self.namespace = access.namespace
        self.log = _log(options)
        self.clock = ServerClock()
        self._options = options
        self._timeout = options.request_timeout or None
        self._credentials = Credentials(access)
        self.server = server_url(access.cluster, self._credentials.certificate is not None)
        self._url = urlsplit(self.server)
        self._tls_name = access.cluster.text("tls-server-name")
        self._tls = (
            tls_context(access.cluster, self._credentials.certificate)
            if self._url.scheme == "https"
            else None
        )
        self._rest, self._proxy = rest_client(self.server, access.cluster, self._tls)
        self._route = self.server + (f" through {self._proxy.url}" if self._proxy else "")
        names = [name for name, _ in self.headers()]
        if self._tls is None and self._proxy and len(names) > len(set(names)):
            # urllib3 folds headers of one name into one line here: groups would be lost.
            raise KubeconfigError("impersonation through a proxy needs an https:// API server")
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @classmethod
    def open(cls, options: ConnectionOptions | None = None) -> Session:
        """Read the kubeconfig and prepare a connection; only a credential plugin uses the network.

        Raises:
            KubeconfigError: see kubeconfig.load and credentials.Credentials.
        """
        options = options or ConnectionOptions()
        return cls(load(options), options)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection. Commands that still run in other threads end at once."""
        self._closed.set()
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            _shut_down(each)
        self._rest.close()

    def headers(self) -> list[Header]:
        """Return the Authorization and Impersonate-* headers; a name may be repeated."""
        return self._credentials.headers()

    def renew(self) -> bool:
        """Load the credentials again after a 401. Return whether they changed."""
        return self._credentials.renew()

    def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: object | None = None,
        accept: str = "application/json",
    ) -> Response:
        """Send a request, and repeat it after a 401 with new credentials, after a stale connection
        (GET and DELETE), and after a `Retry-After`.

        Args:
            method: GET, POST or DELETE.
            path: absolute, below the server's URL, without a query.
            query: query parameters, in order.
            body: JSON body, None for no body.
            accept: the form of the answer.

        Returns:
            The answer, with any status.

        Raises:
            ApiUnreachable: no answer came.
            ApiError: the answer is longer than answer.ANSWER_LIMIT.
            KubeconfigError: credentials could not be renewed.
        """
        parameters = urlencode(list(query.items()) if isinstance(query, Mapping) else list(query))
        url = self.server + path + (f"?{parameters}" if parameters else "")
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        renewed = stale = False
        for tries in range(1, TRIES + 1):
            try:
                response = self._send(method, url, body, accept, deadline)
            except ApiUnreachable as e:
                if stale or method == "POST" or not _went_stale(e.__cause__):
                    raise
                stale = True
                continue
            if response.status == 401 and not renewed and self.renew():
                renewed = True
                continue
            if response.retry_after is None or tries == TRIES:
                break
            if not self.pause(response.retry_after, deadline):
                break
        return response

    def pause(self, retry_after: float, deadline: float | None) -> bool:
        """Wait as a `Retry-After` asks, _LONGEST_WAIT_SECONDS at most.

        Args:
            retry_after: seconds.
            deadline: time.monotonic() by which an answer is needed, None for no limit.

        Returns:
            Whether to ask again: False when there is no time for it, or the session was closed.
        """
        seconds = min(retry_after, _LONGEST_WAIT_SECONDS)
        if deadline is not None and time.monotonic() + seconds >= deadline:
            return False
        return not self._closed.wait(seconds)

    def _send(
        self, method: str, url: str, body: object | None, accept: str, deadline: float | None
    ) -> Response:
        import urllib3

        # http.client sends latin-1; the API server, like Go's clients, expects UTF-8.
        headers = urllib3.HTTPHeaderDict(
            (name, value.encode().decode("latin-1")) for name, value in self.headers()
        )
        headers.add("Accept", accept)
        headers.add("Accept-Encoding", "identity" if self._options.disable_compression else "gzip")
        headers.add("User-Agent", f"kubectl-ebpfnet/{__version__}")
        if body is not None:
            headers.add("Content-Type", "application/json")
        seconds = READ_SECONDS if deadline is None else max(deadline - time.monotonic(), 0.001)
        limits = (min(CONNECT_SECONDS, seconds), seconds)
        began = self.log.request(method, url, headers.items(), body) if self.log else 0.0
        asked = datetime.now(UTC)
        try:
            response = self._rest.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=limits
            )
            content = content_of(response.response, deadline)
        except TooLongError as e:
            raise ApiError(
                response.status, f"{self.server} answered {method} with more than {e}"
            ) from None
        except Exception as e:  # urllib3 and the library each have their own exceptions
            cause = root_cause(e)
            if self.log:
                self.log.failure(method, url, began, cause)
            raise unreachable(self._route, e, self._timeout) from cause
        if self.log:
            answered = response.response.headers.items()
            self.log.response(method, url, began, response.status, answered, content)
        if self._options.warn is not None:
            for warning in warnings(response.response.headers.get("Warning", "")):
                self._options.warn(warning)
        self.clock.learn(response.response.headers.get("Date", ""), asked)
        retry = retry_after(response.status, response.headers.get("Retry-After"))
        return Response(response.status, content, retry)

    # --- sockets for exec ---------------------------------------------------------------------

    def dial(self, seconds: float = CONNECT_SECONDS) -> socket.socket:
        """Return a new socket connected to the API server, with TLS, through the proxy if any.

        Close it with `hang_up`. Its time-out is `seconds`.

        Raises:
            ApiUnreachable: no connection; the message has the reason.
        """
        host = self._url.hostname or ""
        port = self._url.port or (443 if self._tls else 80)
        raw = None
        try:
            if self._proxy is None:
                raw = socket.create_connection((host, port), seconds)
            else:
                raw = proxy_tunnel(self._proxy, host, port, seconds)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                name = self._tls_name or host
                raw = self._tls.wrap_socket(raw, server_hostname=name)
        except (OSError, ValueError) as e:
            if raw is not None:
                raw.close()
            raise unreachable(self._route, e, seconds) from e
        with self._lock:
            self._sockets.add(raw)
        if self._closed.is_set():
            self.hang_up(raw)
            raise ApiUnreachable(f"the session with {self.server} was closed")
        return raw

    def hang_up(self, connection: socket.socket) -> None:
        """Close a socket of `dial`."""
        with self._lock:
            self._sockets.discard(connection)
        connection.close()

    def websocket_url(self, path: str, query: Query) -> str:
        """Return the ws:// or wss:// URL of a path below the server's URL."""
        parameters = urlencode(list(query.items()) if isinstance(query, Mapping) else list(query))
        scheme = "wss" if self._tls else "ws"
        return f"{scheme}://{self._url.netloc}{self._url.path}{path}?{parameters}"


def _log(options: ConnectionOptions) -> RequestLog | None:
    if options.log_level < _LOGS_REQUESTS:
        return None
    from kubectl_ebpfnet.cluster.client.request_log import RequestLog

    return RequestLog(options.log_level, options.log)


def _went_stale(cause: BaseException | None) -> bool:
    return isinstance(cause, ConnectionError) and not isinstance(cause, ConnectionRefusedError)


def retry_after(status: int, text: Any) -> float | None:
    """Return the seconds of a busy server's Retry-After header, None without one."""
    if status not in (429, 503):
        return None
    try:
        return float(integer(text, "Retry-After"))
    except ParseError:
        return None


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
