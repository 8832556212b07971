"""The body and the warnings of an HTTP answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

ANSWER_LIMIT = 512 << 20
"""Bytes of an unpacked answer: a page of 500 objects of 1 MiB; etcd stores 1.5 MiB at most."""
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


_MANAGED = re.compile(
    rb'(?<!\\)"managedFields":\s*+'
    rb'(?P<list>\[[^]["]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^]["]*+)*+\])',
    re.DOTALL,
)
"""The member with its list: of no further lists, since `fieldsV1` has objects alone. A quote within
a text follows a backslash."""
_MANAGED_NAME = b'"managedFields":'


class TooLongError(Exception):
    """The answer is longer than ANSWER_LIMIT, which the message tells."""


def content_of(response: Any, deadline: float | None) -> bytes:
    """Read the whole body of a urllib3 response and return its connection to the pool."""
    pieces, size = [], 0
    try:
        for piece in response.stream(1 << 16, decode_content=True):
            pieces.append(piece)
            size += len(piece)
            if size > ANSWER_LIMIT:
                raise TooLongError(f"{ANSWER_LIMIT >> 20} MiB")
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("the answer did not end within the time-out")
    except BaseException:
        response.close()  # half read: no other request can use the connection
        raise
    response.release_conn()
    return b"".join(pieces)


def warnings(header: str) -> Iterator[str]:
    """Yield the texts of a Warning header (RFC 7234 5.5) of code 299, as client-go reads it
    (k8s.io/apimachinery, util/net)."""
    for match in _WARNING.finditer(header):
        yield match[1].replace('\\"', '"')


def without_managed_fields(body: bytes) -> bytes:
    """Return the JSON of API objects with empty lists of `managedFields`, which nobody here reads:
    they are nine tenths of a CiliumNode, and reading JSON is most of the work with a long list.

    A list that is written in another way stays, and so do all behind it.
    """
    pieces, at = [], 0
    while (found := body.find(_MANAGED_NAME, at)) >= 0:
        match = _MANAGED.match(body, found)
        if match is None:
            break
        pieces.append(body[at : match.start("list")])
        at = match.end()
    return b"[]".join([*pieces, body[at:]])
