"""The lab's CNI plugin: a pod's network as Cilium's CNI plugin makes it (cilium-facts 4.3).

eth0 with a /32 address, the default route by the node's cilium_host address, and on the node an
lxc… device with Cilium's programs. Runs in the node's namespaces, called by containerd.
CNI specification 0.4.0.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from tests.lab.cluster.config import NODES, STATE, Node
from tests.lab.cluster.datapath import bpf
from tests.lab.cluster.processes import run

ENDPOINTS = STATE / "endpoints"
"""One file an endpoint, for the replay agents of all nodes."""


def add(node: Node, container: str, netns: str, namespace: str, pod: str) -> dict[str, object]:
    """Connect a pod; the CNI result."""
    address, endpoint_id = _allocate(node, container)
    device = "lxc" + hashlib.sha256(container.encode()).hexdigest()[:12]
    mtu = "1500"
    run(
        [
            "ip",
            "link",
            "add",
            device,
            "mtu",
            mtu,
            "type",
            "veth",
            "peer",
            "name",
            "tmp" + device[3:],
        ]
    )
    run(["ip", "link", "set", "tmp" + device[3:], "netns", netns, "name", "eth0"])
    run(["ip", "link", "set", device, "up"])
    Path(f"/proc/sys/net/ipv4/conf/{device}/rp_filter").write_text("0")

    def inside(*words: str) -> str:
        return run(["nsenter", f"--net={netns}", "ip", *words]).stdout

    inside("link", "set", "eth0", "up")
    inside("addr", "add", f"{address}/32", "dev", "eth0")
    inside("route", "add", node.router, "dev", "eth0", "scope", "link")
    inside("route", "add", "default", "via", node.router, "dev", "eth0")
    run(["ip", "route", "replace", f"{address}/32", "dev", device, "scope", "link",
         "proto", "kernel"])  # fmt: skip
    mac = json.loads(inside("-j", "link", "show", "eth0"))[0]["address"]
    outer = json.loads(run(["ip", "-j", "link", "show", device]).stdout)[0]
    app = _app(pod)
    identity = 256 + zlib.crc32(f"{namespace}/{app}".encode()) % 65000
    bpf.attach_endpoint(
        node, endpoint_id, identity, address, device, outer["ifindex"], mac, outer["address"]
    )
    record = {
        "id": endpoint_id, "node": node.name, "namespace": namespace, "pod": pod, "app": app,
        "identity": identity, "address": address, "device": device, "ifindex": outer["ifindex"],
        "mac": mac, "host_mac": outer["address"], "container": container,
    }  # fmt: skip
    _write(ENDPOINTS / f"{container}.json", record)
    return {
        "cniVersion": "0.4.0",
        "interfaces": [{"name": "eth0", "mac": mac, "sandbox": netns}],
        "ips": [
            {"version": "4", "address": f"{address}/32", "gateway": node.router, "interface": 0}
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": node.router}],
    }


def remove(container: str) -> None:
    """Disconnect a pod; again is no error."""
    path = ENDPOINTS / f"{container}.json"
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    subprocess.run(["ip", "link", "del", record["device"]], capture_output=True, check=False)
    bpf.detach_endpoint(record["id"], record["address"])
    with _book(next(node for node in NODES if node.name == record["node"])) as book:
        book["taken"].pop(container, None)
    path.unlink(missing_ok=True)


def _allocate(node: Node, container: str) -> tuple[str, int]:
    """The next free address and endpoint id of a node; one just left free comes last."""
    with _book(node) as book:
        if container not in book["taken"]:
            free = set(range(10, 250)) - set(book["taken"].values())
            if not free:
                raise RuntimeError(f"{node.name} has no address left")
            later = [number for number in free if number > book["last"]]
            book["last"] = book["taken"][container] = min(later or free)
        number = book["taken"][container]
    hosts = ip_network(node.pod_cidr)
    return str(hosts.network_address + number), node.number * 1000 + number


@contextmanager
def _book(node: Node) -> Iterator[dict[str, Any]]:
    """Who has which number on a node, locked while it is open and written afterwards."""
    path = node.state / "addresses.json"
    with (node.state / "addresses.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        book = json.loads(path.read_text()) if path.exists() else {"last": 9, "taken": {}}
        yield book
        _write(path, book)


def _app(pod: str) -> str:
    """`web` of `web-5d4f8c7b9-x2x1z`, `client` of `client`."""
    parts = pod.split("-")
    return "-".join(parts[:-2]) if len(parts) > 2 and len(parts[-1]) == 5 else pod


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)


def main() -> int:
    """The plugin's protocol: command in the environment, configuration on stdin."""
    command = os.environ.get("CNI_COMMAND", "")
    if command == "VERSION":
        print(json.dumps({"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}))
        return 0
    config = json.load(sys.stdin)
    node = next(node for node in NODES if node.name == config["node"])
    container = os.environ["CNI_CONTAINERID"]
    pairs = dict(
        pair.split("=", 1) for pair in os.environ.get("CNI_ARGS", "").split(";") if "=" in pair
    )
    try:
        if command == "ADD":
            names = pairs.get("K8S_POD_NAMESPACE", ""), pairs.get("K8S_POD_NAME", "")
            print(json.dumps(add(node, container, os.environ["CNI_NETNS"], *names)))
        elif command == "DEL":
            remove(container)
    except (OSError, RuntimeError) as error:
        print(json.dumps({"cniVersion": "0.4.0", "code": 100, "msg": str(error)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
