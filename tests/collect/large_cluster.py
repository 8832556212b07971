"""A FAKE cluster of many objects: a recorded one of three nodes or fewer, and beside it nodes, pods
and the objects that come with them, which nothing runs on.

Objects have the size that a real API server sends: a node lists the 50 images that its kubelet
reports, a pod its environment, volumes and managedFields. What the recorded nodes answer is as in
replay_cluster.py; agents of the others answer at once, as in many_nodes.py. Lists come in
pages, which were encoded before: they cost this server little.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.fake_api_server import ExecEnd, FakeApiServer, Reply, Seen
from tests.collect.many_nodes import output, questions
from tests.collect.replay_cluster import ReplayCluster

IMAGES = 50
NAMESPACE = "default"
"""The namespace of all pods: the worst for whoever asks for those of one."""
_MANAGED = [
    {
        "manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "time": "2026-11-21T05:19:36Z",
        "fieldsV1": {f"f:member{n}": {f"f:part{m}": {} for m in range(6)} for n in range(9)},
    }
    for manager in ("kube-controller-manager", "kubelet")
]  # fmt: skip
_COLUMNS = [
    {"name": name, "type": "string", "format": "", "description": "d" * 99, "priority": 0}
    for name in (
        "Name", "Status", "Roles", "Age", "Version", "Internal-IP", "External-IP", "OS-Image",
        "Kernel-Version", "Container-Runtime",
    )
]  # fmt: skip
_READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T05:19:36Z"}


class LargeCluster(ReplayCluster):
    """See the module."""

    def __init__(
        self, fake: FakeApiServer, folder: Path, scenario: str, nodes: int, pods: int
    ) -> None:
        super().__init__(fake, folder, scenario)
        names = [f"filler-{number:04}" for number in range(nodes)]
        numbered = list(enumerate(names))
        agents = [_agent(name, number) for number, name in numbered]
        filler = [_pod(number, names) for number in range(pods)] if names else []
        self.lists = {
            "nodes": _packed(_node(name, number) for number, name in numbered),
            "pods": _packed([*agents, *filler]),
            "ciliumnodes": _packed(_cilium_node(name, number) for number, name in numbered),
            "ciliumendpoints": _packed(map(_cilium_endpoint, filler)),
            "ciliumidentities": _packed(_identity(number) for number in range(nodes)),
            "services": _packed(_service(number) for number in range(nodes)),
            "endpointslices": _packed(
                _slice(number, filler[number::nodes]) for number in range(nodes)
            ),
        }
        self.agents = _packed(agents)
        self.tables = True  # the server prints nodes, if it is asked to
        self.rows = _packed(_row(_node(name, number)) for number, name in numbered)

    def answer(self, seen: Seen) -> Reply:
        """Answer as the recorded cluster does, with the further objects of a list after its own."""
        if seen.path == "/version":
            return Reply(200, {"gitVersion": "v1.31.2"})
        if seen.method == "POST":
            return Reply(201, {"status": {"allowed": True}})
        words = [word for word in seen.path.split("/") if word]
        words = words[2:] if words[0] == "api" else words[3:]
        if words[0] == "namespaces" and len(words) > 2:
            words = words[2:] if words[1] == NAMESPACE else ["of another namespace"]
        own = super().answer(seen)
        if len(words) > 1 or own.status != 200 or not isinstance(own.body, dict):
            return own
        items = own.body.get("items", [])
        if self.tables and "as=Table" in "".join(seen.values("Accept")):
            return self._page(seen, [*map(_row, items)], self.rows, table=True)
        return self._page(seen, items, self._selected(seen, words[0]))

    def _selected(self, seen: Seen, resource: str) -> Sequence[bytes]:
        every = self.lists.get(resource, ())
        for selector in seen.parameters("labelSelector"):
            every = self.agents if selector == "k8s-app=cilium" and resource == "pods" else ()
        for selector in seen.parameters("fieldSelector"):
            field, _, value = selector.partition("=")
            member = f'"{field.rpartition(".")[2]}": "{value}"'.encode()
            every = () if field == "status.podIP" else [one for one in every if member in one]
        return every

    def _page(
        self, seen: Seen, own: list[dict[str, Any]], others: Sequence[bytes], *, table: bool = False
    ) -> Reply:
        start = int((seen.parameters("continue") or ["0"])[0])
        limit = int((seen.parameters("limit") or ["0"])[0]) or len(own) + len(others)
        begin = max(0, start - len(own))
        end = max(0, start + limit - len(own))
        page = [json.dumps(one).encode() for one in own[start : start + limit]]
        page += others[begin:end]
        left = len(own) + len(others) - start - limit
        more: dict[str, Any] = {"continue": str(start + limit)} if left > 0 else {}
        if left > 0 and not seen.parameters("labelSelector") + seen.parameters("fieldSelector"):
            more["remainingItemCount"] = left
        if table:
            head = json.dumps({"kind": "Table", "columnDefinitions": _COLUMNS, "metadata": more})
        else:
            head = json.dumps({"kind": "List", "apiVersion": "v1", "metadata": more})
        items = "rows" if table else "items"
        body = head[:-1].encode() + b', "%b": [' % items.encode() + b",".join(page) + b"]}"
        return Reply(200, body, {"Content-Type": "application/json"})

    def run(self, end: ExecEnd) -> None:
        """Answer for the agents of further nodes at once."""
        pod = end.seen.path.split("/")[6]
        if not pod.startswith("cilium-filler-"):
            super().run(end)
            return
        end.script()
        nonce, out, err = end.argv[2].encode(), b"", b""
        for number, argv in questions(end.argv):
            mark = b"\n%b %d 0 0\n" % (nonce, number)
            out, err = out + output(argv, 1) + mark, err + mark
        end.write(2, err)
        for at in range(0, len(out), 30_000):
            end.write(1, out[at : at + 30_000])
        end.end()


def _row(node: dict[str, Any]) -> dict[str, Any]:
    """What a server prints of a node (Kubernetes 1.31, printNode)."""
    own = {each["type"]: each["address"] for each in reversed(node["status"]["addresses"])}
    cells = [
        node["metadata"]["name"], "Ready", "<none>", "9d", "v1.31.2",
        own.get("InternalIP", "<none>"), own.get("ExternalIP", "<none>"),
        "Debian GNU/Linux 12 (bookworm)", "6.18.44", "containerd://2.0.0",
    ]  # fmt: skip
    return {"cells": cells, "object": None}


def _packed(objects: Any) -> list[bytes]:
    return [json.dumps(each).encode() for each in objects]


def _object(version: str, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    metadata = {"name": name, "uid": f"{kind}-{name}", "managedFields": _MANAGED}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _number_of(number: int, first: int) -> str:
    return f"10.{first + (number >> 8)}.{number & 255}"


def _node(name: str, number: int) -> dict[str, Any]:
    node = _object("v1", "Node", name)
    node["spec"] = {"podCIDR": f"{_number_of(number, 128)}.0/24"}
    node["spec"]["podCIDRs"] = [node["spec"]["podCIDR"]]
    node["status"] = {
        "addresses": [{"type": "InternalIP", "address": f"{_number_of(number, 64)}.1"}],
        "conditions": [_READY],
        "nodeInfo": {"kernelVersion": "6.18.44", "kubeletVersion": "v1.31.2"},
        "images": [
            {
                "names": [
                    f"registry.example/team/app{n}@sha256:{n:064}",
                    f"registry.example/team/app{n}:1",
                ],
                "sizeBytes": 99999999,
            }
            for n in range(IMAGES)
        ],
    }  # fmt: skip
    return node


def _cilium_node(name: str, number: int) -> dict[str, Any]:
    node = _object("cilium.io/v2", "CiliumNode", name)
    node["spec"] = {
        "addresses": [
            {"type": "InternalIP", "ip": f"{_number_of(number, 64)}.1"},
            {"type": "CiliumInternalIP", "ip": f"{_number_of(number, 128)}.254"},
        ],
        "ipam": {"podCIDRs": [f"{_number_of(number, 128)}.0/24"]},
    }
    return node


def _agent(node: str, number: int) -> dict[str, Any]:
    agent = _pod_object(f"cilium-{node}", "kube-system", node, f"{_number_of(number, 64)}.1")
    agent["metadata"]["labels"] = {"k8s-app": "cilium"}
    agent["spec"]["hostNetwork"] = True
    agent["spec"]["containers"][0]["name"] = "cilium-agent"
    agent["status"]["containerStatuses"][0]["name"] = "cilium-agent"
    return agent


def _pod(number: int, nodes: Sequence[str]) -> dict[str, Any]:
    at = number % len(nodes)
    address = f"{_number_of(at, 128)}.{2 + number // len(nodes)}"
    pod = _pod_object(f"app{at}-{number:05}", NAMESPACE, nodes[at], address)
    pod["metadata"]["labels"] = {"app": f"app{at}", "pod-template-hash": f"{number:010}"}
    return pod


def _pod_object(name: str, namespace: str, node: str, address: str) -> dict[str, Any]:
    pod = _object("v1", "Pod", name, namespace)
    pod["spec"] = {
        "nodeName": node,
        "containers": [
            {
                "name": "app", "image": f"registry.example/team/app@sha256:{0:064}",
                "env": [{"name": f"SETTING_{n}", "value": "x" * 30} for n in range(20)],
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "volumeMounts": [{"name": f"v{n}", "mountPath": f"/mnt/{n}"} for n in range(4)],
            }
        ],
        "volumes": [{"name": f"v{n}", "configMap": {"name": f"settings-{n}"}} for n in range(4)],
    }  # fmt: skip
    pod["status"] = {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{**_READY, "type": each} for each in ("Ready", "PodScheduled")],
        "containerStatuses": [
            {
                "name": "app", "ready": True, "restartCount": 0,
                "containerID": f"containerd://{hash(name) & (1 << 63) - 1:064x}",
                "state": {"running": {"startedAt": "2026-11-21T05:19:36Z"}},
            }
        ],
    }  # fmt: skip
    return pod


def _cilium_endpoint(pod: dict[str, Any]) -> dict[str, Any]:
    found = _object("cilium.io/v2", "CiliumEndpoint", pod["metadata"]["name"], NAMESPACE)
    labels = [f"k8s:app={pod['metadata']['labels']['app']}", "k8s:io.kubernetes.pod.namespace=x"]
    found["status"] = {
        "id": 1000, "identity": {"id": 20000, "labels": labels},
        "networking": {"addressing": [{"ipv4": pod["status"]["podIP"]}]}, "state": "ready",
    }  # fmt: skip
    return found


def _identity(number: int) -> dict[str, Any]:
    found = _object("cilium.io/v2", "CiliumIdentity", f"{20000 + number}")
    return {**found, "security-labels": {"k8s:app": f"app{number}"}}


def _service(number: int) -> dict[str, Any]:
    found = _object("v1", "Service", f"app{number}", NAMESPACE)
    found["spec"] = {
        "type": "ClusterIP", "clusterIP": f"10.97.{number >> 8}.{number & 255}",
        "selector": {"app": f"app{number}"}, "ports": [{"port": 80, "protocol": "TCP"}],
    }  # fmt: skip
    return found


def _slice(number: int, pods: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = _object("discovery.k8s.io/v1", "EndpointSlice", f"app{number}-x", NAMESPACE)
    found["metadata"]["labels"] = {"kubernetes.io/service-name": f"app{number}"}
    found["addressType"] = "IPv4"
    found["ports"] = [{"port": 8080, "protocol": "TCP", "name": ""}]
    found["endpoints"] = [
        {
            "addresses": [pod["status"]["podIP"]], "conditions": {"ready": True},
            "nodeName": pod["spec"]["nodeName"],
            "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": NAMESPACE},
        }
        for pod in pods
    ]  # fmt: skip
    return found


def serve(nodes: int, pods: int) -> None:
    """Print the server's address, and serve until stdin ends."""
    server = FakeApiServer()
    with tempfile.TemporaryDirectory() as folder:
        LargeCluster(server, Path(folder), "vxlan-kpr", nodes, pods)
        print(server.url, flush=True)
        sys.stdin.read()
        server.close()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
