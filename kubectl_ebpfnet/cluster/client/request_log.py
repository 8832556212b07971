"""Log HTTP requests as kubectl does with -v=6 to -v=10, without secrets.

Lines: klog's header (k8s.io/klog/v2), and the words of client-go's transport/round_trippers.go and
rest/request.go as of kubectl 1.37. Where kubectl prints cookies and the bodies of Secrets, nothing
of them is printed; of other bodies what a capture would keep (capture/secrets.py): people put
secrets into a pod's environment, too.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from http import HTTPStatus
from typing import Any

from kubectl_ebpfnet.capture.secrets import strip
from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.untrusted import json_value

REQUESTS, HEADERS, BODIES, LONG_BODIES = 6, 7, 8, 9
_CUT = {BODIES: 1024, LONG_BODIES: 10240}
"""Characters of a body at a level; client-go's truncateBody."""
_LONGEST_URL = 1000
"""Characters: an exec's URL has all commands in it."""
_SECRET_HEADER = re.compile(r"auth|cookie|token|secret|password|api-?key", re.IGNORECASE)
_USER = re.compile(r"//[^/@]*@")

Headers = Iterable[tuple[str, str]]


class RequestLog:
    """Writes a line for each request. Threads may share it."""

    def __init__(self, level: int, write: Callable[[str], object]) -> None:
        """Prepare a log.

        Args:
            level: of -v, REQUESTS or more.
            write: takes lines without the last newline; its caller escapes control characters.
        """
        self._level = level
        self._write = write

    def request(self, method: str, url: str, headers: Headers, body: object = None) -> float:
        """Log a request that is about to be sent; return the time of it, for `response`.

        Args:
            method: the HTTP method.
            url: with its query.
            headers: names and values; a name may be repeated.
            body: JSON value, None for no body.
        """
        if self._level >= BODIES and body is not None:
            self._line(f'"Request Body" body={_quoted(self._body(url, json.dumps(body).encode()))}')
        if self._level >= HEADERS:
            self._line(
                f'"Request" verb="{method}" url={_quoted(_url(url))} headers={_headers(headers)}'
            )
        return time.monotonic()

    def response(
        self, method: str, url: str, began: float, status: int, headers: Headers, body: bytes
    ) -> None:
        """Log an answer.

        Args:
            method, url: of the request.
            began: what `request` returned.
            status: HTTP status code.
            headers: names and values.
            body: the whole body, unpacked.
        """
        shown = f" headers={_headers(headers)}" if self._level >= BODIES else ""
        phrase = f"{status} {_PHRASES.get(status, '')}".strip()
        self._answered(method, url, began, f'status="{phrase}"{shown}')
        if self._level >= BODIES:
            self._line(f'"Response Body" body={_quoted(self._body(url, body))}')

    def failure(self, method: str, url: str, began: float, error: BaseException) -> None:
        """Log that no answer came, and why."""
        self._answered(method, url, began, f'status="" err={_quoted(str(error))}')

    def _answered(self, method: str, url: str, began: float, said: str) -> None:
        asked = f' verb="{method}" url={_quoted(_url(url))}' if self._level != HEADERS else ""
        self._line(f'"Response"{asked} {said} milliseconds={(time.monotonic() - began) * 1000:.0f}')

    def _body(self, url: str, body: bytes) -> str:
        text = _without_secrets(url, body)
        most = _CUT.get(self._level, len(text))
        return text if len(text) <= most else f"{text[:most]} [truncated {len(text) - most} chars]"

    def _line(self, text: str) -> None:
        frame = inspect.currentframe()
        line = frame.f_back.f_lineno if frame is not None and frame.f_back is not None else 0
        # The process stands where klog has the thread's number, as there.
        when = datetime.now().strftime("%m%d %H:%M:%S.%f")
        self._write(f"I{when} {os.getpid():>7} request_log.py:{line}] {text}")


_PHRASES = {each.value: each.phrase for each in HTTPStatus}


def _url(url: str) -> str:
    bare = _USER.sub("//", url, count=1)
    if len(bare) <= _LONGEST_URL:
        return bare
    return f"{bare[:_LONGEST_URL]} [truncated {len(bare) - _LONGEST_URL} chars]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _headers(headers: Headers) -> str:
    lines = [f"\t{name}: {_header_value(name, value)}\n" for name, value in sorted(headers)]
    return f"<\n{''.join(lines)} >"


def _header_value(name: str, value: str) -> str:
    if not _SECRET_HEADER.search(name):
        return value
    scheme = value.partition(" ")[0] if name.lower() == "authorization" and " " in value else ""
    return f"{scheme} <masked>".lstrip()


def _without_secrets(url: str, body: bytes) -> str:
    """Return a body as text, without what may be a secret."""
    if not body:
        return ""
    if "/secrets" in url.partition("?")[0]:
        return "<not shown: Secrets>"
    try:
        value: Any = json_value(body, url)
    except ParseError:
        return f"<not shown: {len(body)} bytes that are not JSON>"
    if not isinstance(value, dict):
        return f"<not shown: {len(body)} bytes of JSON that is no object>"
    kind = str(value.get("kind", ""))
    # What the server says of a request, and of this user's rights, is shown whole.
    shown = value if kind in ("Status", "SelfSubjectAccessReview") else strip(value)
    return json.dumps(shown, separators=(",", ":"))
