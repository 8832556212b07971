"""What a production cluster does to a run: an API server that restarts, a kubelet that is dead, a
pod that the kernel kills for its memory.

The first two are everybody's in the lab, and leave it as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.cluster.config import API_SERVER, STATE, Node
from tests.lab.cluster.kubectl import get
from tests.lab.cluster.processes import PIDS, alive, start, wait_for

_HOG = """
import sys
with open(sys.argv[1] + "/cgroup.procs", "w") as procs:
    procs.write("0")
kept = [b"x" * (8 << 20) for _ in range(60)]
"""


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
        again = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        start_kubelet(node, argv)
        wait_for(lambda: _answers(node), f"{node.name}'s kubelet", 60)
        # It first says that the node is not ready, and nothing is started there until it says more.
        wait_for(lambda: _is_ready(node, again), f"{node.name}", 60)


def _is_ready(node: Node, since: str) -> bool:
    return any(
        condition["status"] == "True" and condition["lastHeartbeatTime"] > since
        for each in get("nodes")
        if each["metadata"]["name"] == node.name
        for condition in each["status"]["conditions"]
        if condition["type"] == "Ready"
    )


def start_kubelet(node: Node, argv: list[str]) -> None:
    """Start a node's kubelet again beside the node's first process (nodes/node-init.sh)."""
    outside = alive(node.name)  # unshare, whose only child is that process
    [first] = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
    inside = ["nsenter", "-t", first, "--net", "--mount", "--uts", "--pid"]
    start(f"{node.name}-kubelet", [*inside, *argv], {"AWS_EC2_METADATA_DISABLED": "true"})


def kill_for_memory(container: str) -> str:
    """Let the kernel kill a container that has no memory left: something in its cgroup takes more
    than its limit, and the container's own processes are the first to go (proc(5),
    oom_score_adj). Where a machine lets nobody choose, they get the same signal from here.

    Returns:
        Who killed: `the kernel`, or `SIGKILL of the test`.
    """
    pids, cgroup = [], ""
    for file in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            text = file.read_text()
            if container in text:
                pids.append(file.parent.name)
                groups = dict(line.split(":", 2)[1:] for line in text.splitlines())
                own = "memory" if "memory" in groups else ""  # version 1, or 2
                cgroup = f"/sys/fs/cgroup/{own}{groups[own]}"
    assert pids
    for pid in pids:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    subprocess.run([sys.executable, "-c", _HOG, cgroup], capture_output=True, check=False)
    left = [pid for pid in pids if _lives(pid)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    return "SIGKILL of the test" if left else "the kernel"


def _lives(pid: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # b"" of one that is not reaped yet
    return False


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
