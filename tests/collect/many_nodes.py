"""A FAKE cluster of many nodes, each with an agent, behind the fake API server of tests/cluster.

An exec is answered as the script of collect/ask/shell_script.py would: the first form of every
question succeeds, and prints what `output` gives for it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.cluster.fake_api_server import ExecEnd, FakeApiServer, Reply, Seen, status_reply

LINE = b"10.0.0.1 a line of some table, as long as lines of tables are\n"
PROGRAMS = "\n".join(("ip", "tc", "bpftool", "iptables-save", "conntrack", "cilium-dbg")).encode()


def questions(argv: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the first form of each question of a script's argv, with the number of the command."""
    number, words = 0, argv[9:]
    while words:
        number += 1
        if words[0] == "@":
            words = words[1:]
            continue
        kind, count = words[0], int(words[1])
        if kind == "n":
            yield number, words[4 : 4 + count]
        words = words[4 + count :]


def output(argv: list[str], lines: int) -> bytes:
    """What a command prints: the programs that are there for `doctor`, else a table."""
    if argv[0] == "sh":
        return PROGRAMS
    return b"{}" if "json" in argv or "-j" in argv else LINE * lines


class ManyNodes:
    """The answers of a FakeApiServer.

    Attributes:
        execs: names of the pods that were asked, in order.
        most: how many execs ran beside each other at most.
        before: takes an exec, and tells whether it answered it.
    """

    def __init__(self, server: FakeApiServer, count: int, lines: int = 1, images: int = 0) -> None:
        self.execs: list[str] = []
        self.most = self._running = 0
        self.before: Callable[[ExecEnd, str], bool] = lambda end, pod: False
        self._lines = lines
        self._lock = threading.Lock()
        names = [f"n{number:04}" for number in range(count)]
        agents, self._client = [_agent(name) for name in names], _client(names[0])
        self._lists = {
            "/api/v1/nodes": [_node(name, number, images) for number, name in enumerate(names)],
            "/api/v1/pods": [self._client, *agents],
        }
        self._selected = {"k8s-app=cilium": agents}
        server.answer = self._answer  # type: ignore[method-assign]
        server.program = self._run

    def _answer(self, seen: Seen) -> Reply:
        if seen.path == "/version":
            return Reply(200, {"gitVersion": "v1.31.2"})
        if seen.path.endswith("/selfsubjectaccessreviews"):
            return Reply(201, {"status": {"allowed": True}})
        if seen.path.endswith("/default/pods/client"):
            return Reply(200, self._client)
        found = self._lists.get(seen.path)
        if found is None:
            return status_reply(404, "NotFound", "not found")
        if seen.parameters("labelSelector"):
            found = self._selected.get(seen.parameters("labelSelector")[0], [])
        if seen.parameters("fieldSelector"):
            found = []
        start = int((seen.parameters("continue") or ["0"])[0])
        limit = int((seen.parameters("limit") or ["0"])[0]) or len(found) or 1
        more = {"continue": str(start + limit)} if start + limit < len(found) else {}
        kind = "NodeList" if seen.path.endswith("nodes") else "PodList"
        page = found[start : start + limit]
        return Reply(200, {"kind": kind, "apiVersion": "v1", "metadata": more, "items": page})

    def _run(self, end: ExecEnd) -> None:
        pod = end.seen.path.split("/")[6]
        end.script()
        with self._lock:
            self.execs.append(pod)
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            if not self.before(end, pod):
                self._print(end)
        finally:
            with self._lock:
                self._running -= 1

    def _print(self, end: ExecEnd) -> None:
        nonce = end.argv[2].encode()
        out = err = b""
        for number, argv in questions(end.argv):
            mark = b"\n%b %d 0 0\n" % (nonce, number)
            out += output(argv, self._lines) + mark
            err += mark
        end.write(2, err)
        for at in range(0, len(out), 30_000):
            end.write(1, out[at : at + 30_000])
        end.end()


def _node(name: str, number: int, images: int) -> dict[str, Any]:
    address = f"10.{number >> 8}.{number & 255}.1"
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDRs": [f"10.{128 + (number >> 8)}.{number & 255}.0/24"]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "images": [
                {"names": [f"registry.example/team/app{n}@sha256:{n:064}"], "sizeBytes": 99999999}
                for n in range(images)
            ],
        },
    }


def _agent(node: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"cilium-{node}",
            "namespace": "kube-system",
            "labels": {"k8s-app": "cilium"},
        },
        "spec": {"nodeName": node, "hostNetwork": True, "containers": [{"name": "cilium-agent"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "cilium-agent", "state": {"running": {}}}],
        },
    }


def _client(node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": "default", "uid": "c1"},
        "spec": {"nodeName": node, "containers": [{"name": "c"}]},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": "10.128.0.7"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "state": {"running": {}}}],
        },
    }


def serve(count: int, lines: int, images: int) -> None:
    """Print the server's address, and serve until stdin ends."""
    server = FakeApiServer()
    ManyNodes(server, count, lines, images)
    print(server.url, flush=True)
    sys.stdin.read()
    server.close()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
