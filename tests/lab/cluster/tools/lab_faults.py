"""What a production cluster does to a run: an API server that restarts, a kubelet that is dead.

Both are everybody's in the lab, and leave it as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.cluster.config import API_SERVER, STATE, Node
from tests.lab.cluster.kubectl import get
from tests.lab.cluster.processes import PIDS, alive, start, wait_for


def restart_api_server(seconds_away: float) -> None:
    """Kill the API server as an upgrade of the control plane does, and start it again; returns when
    it is ready."""
    name = "kube-apiserver"
    argv = json.loads((PIDS / f"{name}.json").read_text())["argv"]
    os.kill(alive(name), signal.SIGKILL)
    wait_for(lambda: not alive(name), "the end of the API server", 10)
    time.sleep(seconds_away)  # how long it is away is the fault itself
    start(name, argv)
    wait_for(_ready, "the API server", 60)


def _ready() -> bool:
    context = ssl.create_default_context(cafile=str(STATE / "pki/ca.crt"))
    try:
        with urllib.request.urlopen(f"{API_SERVER}/readyz", context=context, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def without_kubelet(node: Node) -> Iterator[None]:
    """A node whose kubelet was killed: its pods run on, nobody execs into them or starts others."""
    found = _kubelet(node)
    argv = (Path(f"/proc/{found}/cmdline").read_bytes()).decode().split("\0")[:-1]
    os.kill(found, signal.SIGKILL)
    try:
        wait_for(lambda: not _kubelet(node), f"the end of {node.name}'s kubelet", 10)
        yield
    finally:
        start_kubelet(node, argv)
        wait_for(lambda: _answers(node), f"{node.name}'s kubelet", 60)


def start_kubelet(node: Node, argv: list[str]) -> None:
    """Start a node's kubelet again beside the node's first process (nodes/node-init.sh)."""
    outside = alive(node.name)  # unshare, whose only child is that process
    [first] = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
    inside = ["nsenter", "-t", first, "--net", "--mount", "--uts", "--pid"]
    start(f"{node.name}-kubelet", [*inside, *argv], {"AWS_EC2_METADATA_DISABLED": "true"})


def _kubelet(node: Node) -> int:
    """The pid of a node's kubelet, 0 without one."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if (
                words[0].endswith(b"/kubelet")
                and f"--hostname-override={node.name}".encode() in words
            ):
                return int(file.parent.name)
    return 0


def _answers(node: Node) -> bool:
    """Whether a kubelet listens, and its node is Ready."""
    with contextlib.suppress(OSError), socket.create_connection((node.address, 10250), 1):
        [found] = [one for one in get("nodes") if one["metadata"]["name"] == node.name]
        conditions = found["status"]["conditions"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return False
