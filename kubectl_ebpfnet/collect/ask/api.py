"""Reads of the API server that leave a record: the request, as words of `kubectl get`, and the
objects.

The record keeps only fields that capture/secrets.py allows, so a secret never enters a bundle.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator

from kubectl_ebpfnet.capture import secrets
from kubectl_ebpfnet.cluster.client.api import CORE, PAGE, Api, Made, Object, Objects, T
from kubectl_ebpfnet.cluster.client.failures import api_request
from kubectl_ebpfnet.cluster.client.session import Query, Session
from kubectl_ebpfnet.collect.ask.unasked import missing_permission
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.evidence import API, InMemory, Record, now
from kubectl_ebpfnet.model.kube import NODE_COLUMNS

_WITHOUT_NAMESPACE = (
    "nodes", "namespaces", "ciliumnodes", "ciliumidentities", "ciliumcidrgroups", "servicecidrs",
    "ciliumegressgatewaypolicies", "ciliumbgpadvertisements",
)  # fmt: skip


class RecordingApi(Api):
    """An Api that keeps a record of every object and list it reads. Shared by threads."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._records: list[Record] = []
        self._lock = threading.Lock()

    def take(self) -> list[Record]:
        """Return the records since the last call, in the order of the answers."""
        with self._lock:
            taken, self._records = self._records, []
        return taken

    def get(self, path: str, query: Query = ()) -> Object:
        """Read an object as Api.get does, and record it; pages of lists are not recorded here."""
        if not api_request("GET", path).name:
            return super().get(path, query)
        argv, started = get_argv(path), now()
        with self._failures_kept(argv):
            found = super().get(path, query)
        self.keep_value(argv, secrets.strip(found), started)
        return found

    def list_of(
        self,
        path: str,
        take: Callable[[Objects], Made[T]],
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE,
        first_page: bool = False,
        most: int | None = None,
    ) -> Made[T]:
        """Read a list as Api.list_of does, and record it as one list without pages.

        Args:
            path: of the list.
            take: as of Api.list_of.
            label_selector, field_selector: of the Kubernetes API; "" for all objects.
            limit: objects a page.
            first_page: leave the further pages out; the record does not tell that there were any.
            most: as of Api.list_of; a list of more leaves no record.
        """
        argv, started = get_argv(path, label_selector, field_selector), now()

        def kept(page: Objects) -> Made[tuple[bytes, Made[T]]]:
            texts = (json.dumps(secrets.strip(item), ensure_ascii=False) for item in page)
            return [(", ".join(texts).encode("utf-8", "surrogatepass"), take(page))]

        with self._failures_kept(argv):
            pages = super().list_of(
                path, kept, label_selector=label_selector, field_selector=field_selector,
                limit=limit, first_page=first_page, most=most,
            )  # fmt: skip
        items = b", ".join(text for text, _ in pages if text)
        self._keep(argv, b'{"apiVersion": "v1", "kind": "List", "items": [%b]}' % items, started)
        return [each for _, taken in pages for each in taken]

    def node_rows(self) -> list[list[str]]:
        """Return name, InternalIP and ExternalIP of each node, as `kubectl get nodes -o wide` does:
        of each kind the first address alone. The record has these columns of the server's table.

        Raises:
            ApiError: also where the server has no table of nodes.
        """
        from kubectl_ebpfnet.cluster.client.tables import listed_rows

        argv, started = ("get", "nodes", "-o", "wide"), now()
        with self._failures_kept(argv):
            rows = listed_rows(self.session, f"{CORE}/nodes", NODE_COLUMNS)
        heads = [{"name": name} for name in NODE_COLUMNS]
        table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": heads}
        self.keep_value(argv, {**table, "rows": [{"cells": row} for row in rows]}, started)
        return rows

    def allowed(self, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """Ask for a right as Api.allowed does, and record the answer.

        The record has the argv `auth can-i VERB RESOURCE …` and the stdout `{"allowed": true}`.

        Args:
            verb, resource: of the right.
            namespace: "" for the whole cluster.
            name: of one object, "" for all.
        """
        from kubectl_ebpfnet.model.rights import can_i  # costs 10 ms of the way to a first request

        argv = can_i(verb, resource, namespace, name)
        started = now()
        with self._failures_kept(argv):
            allowed = super().allowed(verb, resource, namespace, name)
        self.keep_value(argv, {"allowed": allowed}, started)
        return allowed

    def keep_value(self, argv: tuple[str, ...], value: Object, started: str) -> None:
        """Record a value as it is; secrets of an object are stripped before.

        Args:
            argv: the words of the record.
            value: JSON.
            started: RFC 3339 time of the request.
        """
        text = json.dumps(value, ensure_ascii=False)
        self._keep(argv, text.encode("utf-8", "surrogatepass"), started)

    def _keep(self, argv: tuple[str, ...], text: bytes, started: str) -> None:
        with self._lock:
            self._records.append(Record(0, API, argv, 0, InMemory(text), b"", started))

    @contextlib.contextmanager
    def _failures_kept(self, argv: tuple[str, ...]) -> Iterator[None]:
        try:
            yield
        except ClusterError as error:
            self.keep_failure(argv, error)
            raise

    def keep_failure(self, argv: tuple[str, ...], error: ClusterError) -> None:
        """Record a failed request."""
        record = Record(0, API, argv, None, error=str(error), denied=missing_permission(error))
        with self._lock:
            self._records.append(record)


class RecordsAlone(RecordingApi):
    """An Api for lists of which the records alone matter: no object is held, as 30,000 pods, with
    their environment and managedFields, take 1 GB."""

    def __init__(self, api: RecordingApi) -> None:
        """`api`: keeps the records."""
        super().__init__(api.session)
        self._keeper = api

    def list(
        self,
        path: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE,
        first_page: bool = False,
    ) -> Objects:
        """Record a list, and return no object. Args: as RecordingApi.list_of."""
        return self._keeper.list_of(
            path, lambda _: [], label_selector=label_selector, field_selector=field_selector,
            limit=limit, first_page=first_page,
        )  # fmt: skip


def get_argv(path: str, label_selector: str = "", field_selector: str = "") -> tuple[str, ...]:
    """Return the words of `kubectl get` for a path, e.g. `get pods -n default client`.

    Args:
        path: of an object or a list.
        label_selector, field_selector: of a list, "" for none.
    """
    what = api_request("GET", path)
    resource = what.resource.partition(".")[0]
    argv = ["get", resource]
    if what.namespace:
        argv += ["-n", what.namespace]
    elif not what.name and resource not in _WITHOUT_NAMESPACE and "cluster" not in resource:
        argv.append("-A")
    if what.name:
        argv.append(what.name)
    if label_selector:
        argv += ["-l", label_selector]
    if field_selector:
        argv += ["--field-selector", field_selector]
    return tuple(argv)
