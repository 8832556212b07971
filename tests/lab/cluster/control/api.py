"""The API server in plain JSON over HTTP, as much of it as the lab and its tests need."""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlencode

from tests.lab.cluster.config import ADMIN_CONFIG, BRIDGE_ADDRESS, STATE

Object = dict[str, Any]
_GROUPS = {
    "/api/v1": "endpoints namespaces nodes pods secrets serviceaccounts services",
    "/apis/apps/v1": "daemonsets",
    "/apis/cilium.io/v2": "ciliumendpoints ciliumnodes",
    "/apis/discovery.k8s.io/v1beta1": "endpointslices",
}
_AT = {kind: group for group, kinds in _GROUPS.items() for kind in kinds.split()}
"""Where the API server has each kind."""
_OF_NO_NAMESPACE = ("namespaces", "nodes", "ciliumnodes")
_MINE = threading.local()


class Api:
    """The API server, as the lab's admin, in plain JSON."""

    def __init__(self) -> None:
        text = ADMIN_CONFIG.read_text()
        self.token = text.split("token: ")[1].split("}")[0]
        self.context = ssl.create_default_context(cafile=str(STATE / "pki/ca.crt"))
        self.kept: http.client.HTTPSConnection | None = None

    def open(self, timeout: float) -> http.client.HTTPSConnection:
        """A new connection."""
        return http.client.HTTPSConnection(
            BRIDGE_ADDRESS, 6443, context=self.context, timeout=timeout
        )

    def ask(
        self, method: str, path: str, body: Object | None = None, form: str = "application/json"
    ) -> tuple[int, Object]:
        """Status and document of one request on the kept connection; `form` is the body's type."""
        self.kept = self.kept or self.open(30)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": form}
        try:
            self.kept.request(method, path, json.dumps(body) if body else None, headers)
            answer = self.kept.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            self.kept.close()
            self.kept = None
            raise

    def items(self, path: str) -> list[Object]:
        """The objects of a list; [] when the kind is not there."""
        status, document = self.ask("GET", path)
        return list(document["items"]) if status == 200 else []

    def watch(self, path: str, changed: threading.Event) -> None:
        """Set `changed` whenever an object changes; for ever."""
        while True:
            try:
                connection = self.open(600)
                headers = {"Authorization": f"Bearer {self.token}"}
                connection.request("GET", f"{path}?watch=1&timeoutSeconds=300", headers=headers)
                for _ in connection.getresponse():
                    changed.set()
            except (OSError, http.client.HTTPException):
                time.sleep(1)


def get(*words: str) -> tuple[int, Object]:
    """Status and document of what `kubectl get` would ask for, by the connection of this thread."""
    made = ADMIN_CONFIG.stat().st_mtime_ns  # another lab has other tokens
    if getattr(_MINE, "made", 0) != made:
        _MINE.api, _MINE.made = Api(), made
    try:
        return _MINE.api.ask("GET", path(*words))  # type: ignore[no-any-return]
    except (OSError, http.client.HTTPException):  # the server has closed it meanwhile
        return _MINE.api.ask("GET", path(*words))  # type: ignore[no-any-return]


def path(*words: str) -> str:
    """The path of what `kubectl get` would ask for by these words.

    Raises:
        StopIteration: a kind that is not in the table above.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("-n", default="default")
    parser.add_argument("-A", action="store_true")
    parser.add_argument("-l", dest="labelSelector")
    parser.add_argument("--field-selector", dest="fieldSelector")
    asked = vars(parser.parse_intermixed_args(words))
    kind = next(each for each in (asked["kind"], asked["kind"] + "s") if each in _AT)
    inside = f"/namespaces/{asked['n']}" if not asked["A"] and kind not in _OF_NO_NAMESPACE else ""
    name = f"/{asked['name']}" if asked["name"] else ""
    selected = {key: asked[key] for key in ("labelSelector", "fieldSelector") if asked[key]}
    query = f"?{urlencode(selected)}" if selected else ""
    return f"{_AT[kind]}{inside}/{kind}{name}{query}"
