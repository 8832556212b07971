"""The lab's API server in plain JSON over HTTP, as much of it as the lab's daemon needs."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from typing import Any

from tests.lab.cluster.config import ADMIN_CONFIG, BRIDGE_ADDRESS, STATE

Object = dict[str, Any]


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
