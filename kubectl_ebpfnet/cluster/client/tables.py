"""Lists as the server prints them for kubectl: a table of a few columns instead of the objects.

A Node of a kubelet that reports 50 images is 11 KB, its row 0.3 KB.

Source: Kubernetes docs, "Kubernetes API concepts": tables (since Kubernetes 1.15), their pages, and
`resourceVersion=0`, which answers from the server's cache, whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubectl_ebpfnet.cluster.client.failures import refusal
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.errors import ApiError, ParseError
from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.untrusted import json_value

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_ALONE = {"includeObject": "None"}
_ROWS = 2000
"""Rows a page."""
_PAGES = 1000
"""Pages after which a list is called endless."""


def listed_names(session: Session, path: str) -> list[str]:
    """Return the names of the objects of a collection, which a path leads to; of the server's
    cache, for completion.

    Raises:
        ApiError: no answer, a refusal, or no table.
    """
    table = _page(session, path, {"resourceVersion": "0"})
    return [name for (name,) in _cells(table, ["Name"], path)]


def listed_rows(session: Session, path: str, columns: Sequence[str]) -> list[list[str]]:
    """Return the cells of the columns that are named, of each object of a collection.

    Args:
        session: the connection.
        path: of the collection.
        columns: by the server's names, e.g. `Internal-IP`.

    Raises:
        ApiError: no answer, a refusal, no table, or one without these columns.
    """
    rows: list[list[str]] = []
    query = {"limit": str(_ROWS)}
    for _ in range(_PAGES):
        table = _page(session, path, query)
        rows += _cells(table, columns, path)
        token = json_members.text(table, "metadata", "continue")
        if not token:
            return rows
        query["continue"] = token
    raise ApiError(200, f"{path} was answered with an endless table")


def _page(session: Session, path: str, query: dict[str, str]) -> Any:
    response = session.request("GET", path, {**_ALONE, **query}, accept=_TABLE)
    if not 200 <= response.status < 300:
        raise refusal(response.status, response.body, "GET", path, session.server)
    try:
        return json_value(response.body, path)
    except ParseError as error:
        raise ApiError(response.status, f"{path}: {error.problem}") from error


def _cells(table: Any, columns: Sequence[str], path: str) -> list[list[str]]:
    """Return the named cells of each row whose cells are text."""
    defined = json_members.items(table, "columnDefinitions")
    heads = [json_members.text(column, "name") for column in defined]
    if any(column not in heads for column in columns):
        raise ApiError(200, f"{path} was answered without a table")
    places = [heads.index(column) for column in columns]
    found: list[list[str]] = []
    for row in json_members.items(table, "rows"):
        cells = json_members.items(row, "cells")
        texts = [cells[at] for at in places if at < len(cells) and isinstance(cells[at], str)]
        if len(texts) == len(places):
            found.append(texts)
    return found
