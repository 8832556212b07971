"""A FAKE cluster behind the fake API server, with namespaces, pods, secrets and nodes.

Pods run at once, unless `pod_status` returns another status; deleted pods vanish at once, or stay
`Terminating` while their node is in `silent`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.cluster.fake_api_server import FakeApiServer, Reply, Seen, status_reply

Object = dict[str, Any]
Refusal = Callable[[Seen], Reply | None]
RUNNING: Object = {
    "phase": "Running",
    "containerStatuses": [{"name": "node", "state": {"running": {}}}],
}


def waiting(reason: str, message: str = "") -> Object:
    """Return the status of a pod with a waiting container."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "node", "state": state}]}


def unschedulable(message: str) -> Object:
    """Return the status of a pod that fits no node."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {"phase": "Pending", "conditions": [{**condition, "message": message}]}


def ended(code: int, reason: str = "Error", message: str = "") -> Object:
    """Return the status of a pod with an ended container."""
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    phase = "Failed" if code else "Succeeded"
    return {"phase": phase, "containerStatuses": [{"name": "node", "state": state}]}


class FakeCluster:
    """The objects and answers of a FakeApiServer."""

    def __init__(self, server: FakeApiServer) -> None:
        self.server = server
        self.objects: dict[str, Object] = {}
        """Objects by path."""
        self.pod_status: Callable[[str], Object] = lambda node: RUNNING
        self.refuses: Refusal = lambda seen: None
        self.silent: set[str] = set()
        self._lock = threading.Lock()
        server.answer = self.answer  # type: ignore[method-assign]

    def below(self, plural: str) -> list[Object]:
        """Return the objects of a kind, in all namespaces."""
        return [each for path, each in self.objects.items() if path.split("/")[-2] == plural]

    def asked(self, method: str) -> list[str]:
        """Return the paths of a method's requests, in order."""
        return [seen.path for seen in self.server.seen if seen.method == method]

    def grace(self, path: str) -> list[list[str]]:
        """Return the grace periods of a path's deletions."""
        return [
            seen.parameters("gracePeriodSeconds")
            for seen in self.server.seen
            if (seen.method, seen.path) == ("DELETE", path)
        ]

    def node(self, name: str, ready: bool = True) -> None:
        """Add a node."""
        condition = {"type": "Ready", "status": "True" if ready else "Unknown"}
        condition |= {
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": "2026-11-21T09:00:00Z",
        }
        self.objects[f"/api/v1/nodes/{name}"] = {"status": {"conditions": [condition]}}

    def age(self, path: str, seconds: float) -> None:
        """Make an object older."""
        then = datetime.now(UTC) + timedelta(seconds=self.server.ahead - seconds)
        self.objects[path]["metadata"]["creationTimestamp"] = then.strftime("%Y-%m-%dT%H:%M:%SZ")

    def answer(self, seen: Seen) -> Reply:
        """Answer a request as the API server would."""
        refusal = self.refuses(seen)
        if refusal is not None:
            return refusal
        with self._lock:
            match seen.method:
                case "POST":
                    return self._create(seen)
                case "DELETE":
                    return self._delete(seen)
            return self._get(seen)

    def _create(self, seen: Seen) -> Reply:
        made = json.loads(seen.body)
        path = f"{seen.path}/{made['metadata']['name']}"
        if path in self.objects:
            return status_reply(409, "AlreadyExists", f"{path} already exists")
        made["metadata"]["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if made["kind"] == "Pod":
            terms = made["spec"]["affinity"]["nodeAffinity"]
            terms = terms["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
            [made["spec"]["nodeName"]] = terms[0]["matchFields"][0]["values"]
            made["status"] = self.pod_status(made["spec"]["nodeName"])
        if seen.parameters("dryRun") != ["All"]:
            self.objects[path] = made
        return Reply(201, made)

    def _delete(self, seen: Seen) -> Reply:
        found = self.objects.get(seen.path)
        if found is None:
            return status_reply(404, "NotFound", "not found")
        if seen.parameters("dryRun") == ["All"]:
            return Reply(200, found)
        stays = found["kind"] == "Pod" and found["spec"].get("nodeName") in self.silent
        if stays and seen.parameters("gracePeriodSeconds") != ["0"]:
            found["metadata"]["deletionTimestamp"] = "2026-11-21T09:00:00Z"
        else:
            del self.objects[seen.path]
        return Reply(200, found)

    def _get(self, seen: Seen) -> Reply:
        if seen.path in self.objects:
            return Reply(200, self.objects[seen.path])
        *_, plural = seen.path.split("/")
        if plural not in ("namespaces", "pods", "secrets", "nodes"):
            return status_reply(404, "NotFound", "not found")
        everywhere = seen.path == f"/api/v1/{plural}"
        wanted = dict(
            part.split("=") for text in seen.parameters("labelSelector") for part in text.split(",")
        )
        items = [
            each
            for path, each in self.objects.items()
            if (everywhere and path.split("/")[-2] == plural)
            or path.rpartition("/")[0] == seen.path
            if wanted.items() <= (each["metadata"].get("labels") or {}).items()
        ]
        kind = {"pods": "PodList", "namespaces": "NamespaceList"}.get(plural, "List")
        return Reply(200, {"kind": kind, "apiVersion": "v1", "metadata": {}, "items": items})
