"""Names of objects without the objects, for completion: the server prints the list as a table.

Source: Kubernetes docs, "Kubernetes API concepts": tables (since Kubernetes 1.15), and
`resourceVersion=0`, which answers from the server's cache, whole.
"""

from __future__ import annotations

from kubectl_ebpfnet.cluster.client.failures import refusal
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.errors import ApiError, ParseError
from kubectl_ebpfnet.model import json_members
from kubectl_ebpfnet.model.untrusted import json_value

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_QUERY = {"includeObject": "None", "resourceVersion": "0"}


def listed_names(session: Session, path: str) -> list[str]:
    """Return the names of the objects of a collection, which a path leads to.

    Raises:
        ApiError: no answer, a refusal, or no table.
    """
    response = session.request("GET", path, _QUERY, accept=_TABLE)
    if not 200 <= response.status < 300:
        raise refusal(response.status, response.body, "GET", path, session.server)
    try:
        table = json_value(response.body, path)
    except ParseError as error:
        raise ApiError(response.status, f"{path}: {error.problem}") from error
    columns = json_members.items(table, "columnDefinitions")
    heads = [json_members.text(column, "name") for column in columns]
    if "Name" not in heads:
        raise ApiError(response.status, f"{path} was answered without a table")
    at = heads.index("Name")
    rows = (json_members.items(row, "cells") for row in json_members.items(table, "rows"))
    return [cells[at] for cells in rows if at < len(cells) and isinstance(cells[at], str)]
