"""What Cilium's control plane does in a cluster, as far as the lab needs it: one small daemon.

It watches pods, services and EndpointSlices and keeps in step with them, about half a second late:
the load-balancing maps and the ipcache of every node, Cilium's objects in the API (CiliumEndpoint,
CiliumIdentity), and STATE/view.json, what the replay agents know of the cluster. What a cloud's
controllers would do is cloud.py's.
Layouts: cilium-facts 3.5. Labels of an identity: Cilium pkg/k8s/utils, pkg/labels.
"""

from __future__ import annotations

import http.client
import json
import os
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from pathlib import Path

from tests.lab.cluster.config import NODES, STATE
from tests.lab.cluster.control import cloud
from tests.lab.cluster.control.api import Api, Object
from tests.lab.cluster.datapath import bpf
from tests.lab.cluster.datapath.policy import bpffs
from tests.lab.cluster.datapath.syscall_bpf import Map

VIEW = STATE / "view.json"
PROTOCOLS = {"TCP": 6, "UDP": 17}
SLICES = "/apis/discovery.k8s.io/v1beta1/endpointslices"
CILIUM = "/apis/cilium.io/v2"
GRACE = 60
"""Seconds that an expired conntrack entry can still be read."""


class Numbers:
    """Small numbers given to names, in the order in which they come, and kept."""

    def __init__(self) -> None:
        self.given: dict[tuple[object, ...], int] = {}

    def of(self, *name: object) -> int:
        """The number of a name."""
        return self.given.setdefault(name, len(self.given) + 1)


class Sync:
    """The last known state, to write only what changed."""

    def __init__(self) -> None:
        self.api = Api()
        self.services, self.backends = Numbers(), Numbers()
        self.written: dict[tuple[str, str], dict[bytes, bytes]] = {}
        self.services.of("default", "kubernetes", 443, "TCP")

    def once(self) -> None:
        """Read the cluster and bring everything in step."""
        pods = {
            (p["metadata"]["namespace"], p["metadata"]["name"]): p
            for p in self.api.items("/api/v1/pods")
        }
        endpoints = [e for e in records() if (e["namespace"], e["pod"]) in pods]
        for one in endpoints:
            one["labels"] = labels(pods[one["namespace"], one["pod"]])
        declared = self.api.items("/api/v1/services")
        cloud.give_addresses(self.api, declared)
        cloud.put_in_service(self.api, pods.values())
        services = self._services(declared)
        view = {
            "endpoints": endpoints,
            "identities": {str(e["identity"]): e["labels"] for e in endpoints},
            "services": services,
        }
        for node in NODES:
            self._maps(node.name, endpoints, services)
        temporary = VIEW.with_suffix(".new")
        temporary.write_text(json.dumps(view))
        temporary.rename(VIEW)
        self._objects(endpoints, pods)

    def _services(self, declared: Iterable[Object]) -> list[Object]:
        ready: dict[tuple[str, str], list[tuple[str, int, str, str | None, str]]] = {}
        for slice_ in self.api.items(SLICES):
            meta = slice_["metadata"]
            name = meta["namespace"], meta["labels"].get("kubernetes.io/service-name", "")
            for port in slice_.get("ports") or ():
                for endpoint in slice_.get("endpoints") or ():
                    if endpoint.get("conditions", {}).get("ready", True):
                        node = endpoint.get("topology", {}).get("kubernetes.io/hostname")
                        ready.setdefault(name, []).extend(
                            (ip, port["port"], port.get("protocol", "TCP"), node, port["name"])
                            for ip in endpoint["addresses"]
                        )
        found = []
        for service in declared:
            meta, spec = service["metadata"], service["spec"]
            if spec.get("clusterIP") in (None, "", "None"):
                continue
            for port in spec["ports"]:
                protocol = port.get("protocol", "TCP")
                where = ready.get((meta["namespace"], meta["name"]), [])
                chosen = sorted(
                    b for b in where if (b[2], b[4]) == (protocol, port.get("name", ""))
                )
                found.append(
                    {
                        "id": self.services.of(
                            meta["namespace"], meta["name"], port["port"], protocol
                        ),
                        "namespace": meta["namespace"],
                        "name": meta["name"],
                        "ip": spec["clusterIP"],
                        "port": port["port"],
                        "protocol": protocol,
                        "backends": [
                            {"id": self.backends.of(*b[:3]), "ip": b[0], "port": b[1], "node": b[3]}
                            for b in chosen
                        ],
                    }
                )
        return sorted(found, key=lambda one: int(one["id"]))

    def _maps(self, node: str, endpoints: Iterable[Object], services: Iterable[Object]) -> None:
        frontends: dict[bytes, bytes] = {}
        backends: dict[bytes, bytes] = {}
        reverse: dict[bytes, bytes] = {}
        for one in services:
            ip, protocol = IPv4Address(one["ip"]).packed, PROTOCOLS.get(one["protocol"], 0)
            index, port = int(one["id"]).to_bytes(2, "big"), int(one["port"]).to_bytes(2, "big")
            # The address itself: what Cilium answers for ports that no service has.
            frontends[ip + struct.pack("=HHBBH", 0, 0, 0, 0, 0)] = bytes(12)

            def key(slot: int, start: bytes = ip + port, number: int = protocol) -> bytes:
                return start + struct.pack("=HBBH", slot, number, 0, 0)

            count = len(one["backends"])
            frontends[key(0)] = struct.pack("=IH2sBBH", 0, count, index, 0, 0, 0)
            for slot, backend in enumerate(one["backends"], 1):
                frontends[key(slot)] = struct.pack("=IH2sBBH", backend["id"], 0, index, 0, 0, 0)
                backends[struct.pack("=I", backend["id"])] = (
                    IPv4Address(backend["ip"]).packed
                    + int(backend["port"]).to_bytes(2, "big")
                    + struct.pack("=BBHBB", protocol, 0, 0, 0, 0)
                )
            reverse[index] = ip + port
        nodes = {each.name: each.address for each in NODES}
        remote = {
            bpf.ipcache_key(f"{e['address']}/32"): bpf.ipcache_value(
                int(e["identity"]), nodes[e["node"]]
            )
            for e in endpoints
            if e["node"] != node
        }
        for name, sizes, wanted in (
            ("cilium_lb4_backends_v3", (4, 12), backends),
            ("cilium_lb4_reverse_nat", (2, 6), reverse),
            ("cilium_lb4_services_v2", (12, 12), frontends),
            ("cilium_ipcache_v2", bpf.IPCACHE, remote),
        ):
            self._write(node, name, sizes, wanted)

    def collect_garbage(self) -> None:
        """Delete conntrack entries that expired a minute ago or more, as the agent does."""
        now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
        for node in NODES:
            for name in ("cilium_ct4_global", "cilium_ct_any4_global"):
                pin = bpffs(node.name) / bpf.GLOBALS.relative_to(bpf.FS) / name
                with Map(pin, *bpf.CT) as table:
                    for key, value in list(table.items()):
                        if struct.unpack_from("=I", value, 32)[0] + GRACE < now:
                            table.remove(key)

    def _write(
        self, node: str, name: str, sizes: tuple[int, int], wanted: Mapping[bytes, bytes]
    ) -> None:
        known = self.written.setdefault((node, name), {})
        if known == wanted:
            return
        pin = bpffs(node) / bpf.GLOBALS.relative_to(bpf.FS) / name
        with Map(pin, *sizes) as table:
            for key, value in wanted.items():
                if known.get(key) != value:
                    table.put(key, value)
            for key in known.keys() - wanted.keys():
                table.remove(key)
        self.written[node, name] = dict(wanted)

    def _objects(self, endpoints: list[Object], pods: Mapping[tuple[str, str], Object]) -> None:
        wanted = {}
        for one in endpoints:
            made = cilium_endpoint(one, pods[one["namespace"], one["pod"]])
            wanted[f"{CILIUM}/namespaces/{one['namespace']}/ciliumendpoints", one["pod"]] = made
            identity = cilium_identity(one)
            wanted[f"{CILIUM}/ciliumidentities", identity["metadata"]["name"]] = identity
        there = {}
        for plural in ("ciliumendpoints", "ciliumidentities"):
            for item in self.api.items(f"{CILIUM}/{plural}"):
                space = item["metadata"].get("namespace")
                folder = f"{CILIUM}/namespaces/{space}/{plural}" if space else f"{CILIUM}/{plural}"
                there[folder, item["metadata"]["name"]] = item
        for (folder, name), item in wanted.items():
            now = there.get((folder, name))
            if now is None:
                self.api.ask("POST", folder, item)
            elif any(
                now.get(part) != item[part]
                for part in ("status", "security-labels")
                if part in item
            ):
                item["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"]
                self.api.ask("PUT", f"{folder}/{name}", item)
        for folder, name in there.keys() - wanted.keys():
            self.api.ask("DELETE", f"{folder}/{name}")


def records() -> list[Object]:
    """The endpoint records that the CNI plugins wrote."""
    found = []
    for path in sorted((STATE / "endpoints").glob("*.json")):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue  # just removed; the next round sees it
    return found


def labels(pod: Object) -> list[str]:
    """The security-relevant labels of a pod."""
    meta = pod["metadata"]
    generated = ("pod-template-hash", "controller-revision-hash", "pod-template-generation")
    own = [f"k8s:{k}={v}" for k, v in (meta.get("labels") or {}).items() if k not in generated]
    space, account = meta["namespace"], pod["spec"].get("serviceAccountName") or "default"
    return sorted(
        [
            *own,
            f"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={space}",
            "k8s:io.cilium.k8s.policy.cluster=default",
            f"k8s:io.cilium.k8s.policy.serviceaccount={account}",
            f"k8s:io.kubernetes.pod.namespace={space}",
        ]
    )


def cilium_endpoint(one: Object, pod: Object) -> Object:
    """The CiliumEndpoint of a pod, in the shape that Cilium 1.20-dev writes."""
    node = next(node for node in NODES if node.name == one["node"])
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumEndpoint",
        "metadata": {
            "name": one["pod"],
            "namespace": one["namespace"],
            "labels": pod["metadata"].get("labels") or {},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": one["pod"],
                    "uid": pod["metadata"]["uid"],
                }
            ],
        },
        "status": {
            "encryption": {},
            "external-identifiers": {
                "cni-attachment-id": f"{one['container']}:eth0",
                "container-id": one["container"],
                "k8s-namespace": one["namespace"],
                "k8s-pod-name": one["pod"],
                "pod-name": f"{one['namespace']}/{one['pod']}",
            },
            "id": one["id"],
            "identity": {"id": one["identity"], "labels": one["labels"]},
            "networking": {"addressing": [{"ipv4": one["address"]}], "node": node.address},
            "state": "ready",
        },
    }


def cilium_identity(one: Object) -> Object:
    """The CiliumIdentity of an endpoint."""
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumIdentity",
        "metadata": {
            "name": str(one["identity"]),
            "labels": {"io.kubernetes.pod.namespace": one["namespace"]},
        },
        "security-labels": dict(label.split("=", 1) for label in one["labels"]),
    }


def _folder(path: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(path)))
    except OSError:
        return ()


def main() -> None:
    """Keep in step until stopped."""
    changed = threading.Event()
    api = Api()
    for path in ("/api/v1/services", "/api/v1/pods", SLICES):
        threading.Thread(target=api.watch, args=(path, changed), daemon=True).start()
    sync = Sync()
    seen: tuple[str, ...] | None = None
    collected = time.monotonic()
    while True:
        now = _folder(STATE / "endpoints")
        try:
            if changed.is_set() or now != seen:
                changed.clear()
                sync.once()
                seen = now
            if time.monotonic() > collected + GRACE:
                sync.collect_garbage()
                collected = time.monotonic()
        except (OSError, LookupError, http.client.HTTPException) as error:
            print(f"sync: {type(error).__name__}: {error}", flush=True)
            changed.set()
            time.sleep(1)
        changed.wait(0.5)


if __name__ == "__main__":
    main()
