"""`kubectl ebpfnet netkat` in the lab: through a node pod to the world, and what is left of it.

The world (docs/lab.md) echoes on 1.1.1.1 port 7777, serves HTTP on 80, and refuses all else.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.host import netns
from tests.lab.cluster.config import LB_CLUSTER_ADDRESS, NODES, WORLD_ADDRESS, WORLD_NETNS, Node
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools.live import in_node
from tests.lab.conftest import Lab, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]
NODE1, NODE2, NODE3 = NODES
SECONDS = 60


@contextmanager
def netkat(lab: Lab, *words: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A session; killed at the end if it still goes on."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["kubectl-ebpfnet", "netkat", *words],
        env=lab.env(), **{"stdin": pipe, "stdout": pipe, "stderr": pipe, **more},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def said(lab: Lab, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A session from its begin to its end."""
    with netkat(lab, *words) as process:
        out, err = process.communicate(stdin, timeout=SECONDS)
        return subprocess.CompletedProcess(words, process.returncode, out, err)


def attached(node: Node) -> set[int]:
    """Ids of what is attached at the node's device, by tcx and by clsact."""
    found: set[int] = set()
    with netns.inside(f"/run/netns/{node.netns}"):
        index = socket.if_nametoindex("eth0")
        for kind in (syscall.TCX_INGRESS, syscall.TCX_EGRESS):
            found |= {program for program, _ in syscall.query(index, kind)}
    for at in ("ingress", "egress"):
        filters = json.loads(in_node(node, "tc", "-j", "filter", "show", "dev", "eth0", at) or "[]")
        found |= {f["options"]["prog"]["id"] for f in filters if "prog" in f.get("options", {})}
    return found


def programs() -> set[int]:
    """Ids of all programs of this machine's kernel."""
    return {one["id"] for one in json.loads(run(["bpftool", "-j", "prog", "show"]).stdout)}


def namespaces(lab: Lab) -> set[str]:
    listed = lab.get("namespaces", "-l", "app.kubernetes.io/managed-by=kubectl-ebpfnet")["items"]
    return {one["metadata"]["name"] for one in listed}


def begun(lab: Lab, process: subprocess.Popen[bytes], node: Node, before: set[int]) -> set[int]:
    """Wait until a session's line comes back; what it has attached."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"there?\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"there?\n"
    ours = attached(node) - before
    assert ours
    return ours


@pytest.fixture(autouse=True)
def _ours(our_lab: Lab) -> None:
    """The world and the nodes are the lab's."""


def test_what_is_sent_comes_back(our_lab: Lab) -> None:
    done = said(our_lab, "node/node1", WORLD_ADDRESS, "7777", "-N", stdin=b"one\0two\n")
    assert (done.returncode, done.stdout) == (0, b"one\0two\n")
    # One that was kept needs no words.
    assert done.stderr == b"" or done.stderr.startswith(b"deploying a node pod on node1")


# --- what is left of node pods of their own, at the same time on different nodes ------------------


@pytest.mark.side_by_side
@pytest.mark.parametrize("node", NODES[:2], ids=["clsact", "tcx"])
def test_an_interrupt_leaves_nothing(our_lab: Lab, node: Node) -> None:
    before, there = attached(node), namespaces(our_lab)
    with netkat(our_lab, f"node/{node.name}", WORLD_ADDRESS, "7777") as process:
        ours = begun(our_lab, process, node, before)
        made = namespaces(our_lab) - there
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert time.monotonic() - begin < 11
        assert not ours & (attached(node) | programs())
        wait_until(lambda: not made & namespaces(our_lab), 30)


@pytest.mark.side_by_side
def test_a_pod_that_is_deleted_ends_the_session(our_lab: Lab) -> None:
    before, there = attached(NODE3), namespaces(our_lab)
    with netkat(our_lab, "node/node3", WORLD_ADDRESS, "7777") as process:
        ours = begun(our_lab, process, NODE3, before)
        deleted = 0
        for name in namespaces(our_lab) - there:
            pods = our_lab.get("pods", "-n", name)["items"]
            if [pod for pod in pods if pod["spec"].get("nodeName") == "node3"]:
                our_lab.kubectl("delete", "pod", "-n", name, "--all", "--wait=false")
                deleted += 1
        if not deleted:
            pytest.skip("somebody keeps a node pod on node3, which this session uses")
        assert process.stderr is not None
        # The container's end and netkat's own are nearly at the same time.
        assert b"netkat was ended on node3 by signal" in process.stderr.read()
        assert process.wait(SECONDS) in (137, 143)
        wait_until(lambda: not ours & (attached(NODE3) | programs()), 30)


# --- in node pods that stay -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(lab: Lab) -> Iterator[None]:
    """Node pods that stay on node1 and node2 for the tests to whom deploying is nothing new.

    Somebody else's are as good.
    """
    if not lab.ours:
        pytest.skip("needs the node image and the nodes of the lab (make lab-up)")
    there = namespaces(lab)
    told = b""
    try:
        for node in (NODE1, NODE2):
            done = said(lab, "--keep", f"node/{node.name}", "-z", WORLD_ADDRESS, "7777")
            told += done.stderr
            assert done.returncode == 0, done.stderr
        yield
    finally:
        for name in namespaces(lab) - there:
            if name.encode() in told:
                lab.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.usefixtures("kept")
def test_http_through_another_node_and_its_packets(our_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "seen.pcap"
    request = b"GET / HTTP/1.0\r\n\r\n"
    # node2 takes it for traffic from outside: it goes to a pod of the LoadBalancer's, and back.
    words = ("-N", "-w", "20", "--via", "node/node2", f"--pcap={file}", LB_CLUSTER_ADDRESS, "80")
    done = said(our_lab, "node/node1", *words, stdin=request)
    assert done.returncode == 0, done.stderr
    assert b" 200 " in done.stdout.partition(b"\r\n")[0]
    [link] = json.loads(in_node(NODE2, "ip", "-j", "link", "show", "eth0"))
    packets = file.read_bytes()
    assert packets[:4] == bytes.fromhex("4d3cb2a1")
    to_node2 = bytes.fromhex(link["address"].replace(":", ""))
    frames, at = [], 24
    while at < len(packets):
        size = int.from_bytes(packets[at + 8 : at + 12], "little")
        frames.append(packets[at + 16 : at + 16 + size])
        at += 16 + size
    [asked] = [one for one in frames if request in one]
    assert asked[:6] == to_node2
    assert asked[30:34] == socket.inet_aton(LB_CLUSTER_ADDRESS)


@pytest.mark.usefixtures("kept")
def test_exit_codes(our_lab: Lab) -> None:
    refused = said(our_lab, "node/node1", WORLD_ADDRESS, "81")
    assert refused.returncode == 1
    assert b"refused" in refused.stderr
    silent = said(our_lab, "node/node2", "-w", "1", "172.30.0.99", "80")
    assert silent.returncode == 1
    assert b"172.30.0.99" in silent.stderr
    wrong = said(our_lab, "node/node1", "--no-such", WORLD_ADDRESS, "81")
    assert wrong.returncode == 2
    assert b"no such option: --no-such" in wrong.stderr
    assert b"deploying" not in wrong.stderr
    nowhere = said(our_lab, "node/node9", WORLD_ADDRESS, "81")
    assert nowhere.returncode == 1
    assert b'node "node9" not found' in nowhere.stderr
    assert b"deploying" not in nowhere.stderr


@pytest.mark.usefixtures("kept")
def test_20_megabytes_there_and_back(our_lab: Lab) -> None:
    text = os.urandom(1 << 20) * 20
    begin = time.monotonic()
    done = said(our_lab, "node/node2", WORLD_ADDRESS, "7777", "-N", stdin=text)
    print(f"{time.monotonic() - begin:.1f} s")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == len(text)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(text).digest()


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("stdin", ["/dev/null", "closed"])
def test_no_stdin(our_lab: Lab, stdin: str) -> None:
    words = "kubectl-ebpfnet netkat node/node1 -N 1.1.1.1 7777"
    done = subprocess.run(
        ["sh", "-c", f"{words} {'<&-' if stdin == 'closed' else '< /dev/null'}"],
        env=our_lab.env(), capture_output=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b""), done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("kept")
def test_in_a_pod_that_stays_netkat_ends_with_its_client(
    our_lab: Lab, number: signal.Signals
) -> None:
    before = attached(NODE2)
    with netkat(our_lab, "node/node2", WORLD_ADDRESS, "7777") as process:
        ours = begun(our_lab, process, NODE2, before)
        begin = time.monotonic()
        process.send_signal(number)
        process.wait(SECONDS)
        wait_until(lambda: not ours & (attached(NODE2) | programs()), 40)
        print(f"{number.name}: {time.monotonic() - begin:.1f} s")
        assert b"deploying" not in (process.stderr.read() if process.stderr else b"")


@pytest.mark.usefixtures("kept")
def test_listening_on_a_node(our_lab: Lab) -> None:
    before = attached(NODE1)
    with netkat(our_lab, "node/node1", "-l", "-v", "0.0.0.0", "9321") as process:
        assert process.stderr is not None
        lines: list[bytes] = []
        for line in process.stderr:
            lines.append(line)
            if b"listening" in line:
                break
        ours = attached(NODE1) - before
        assert ours, lines
        client = (
            "import socket,sys; s=socket.create_connection(('172.30.0.11',9321),10);"
            "s.sendall(b'from outside\\n'); s.settimeout(20); print(s.recv(100).decode(), end='')"
        )
        answer: list[str] = []
        inside = ["ip", "netns", "exec", WORLD_NETNS, sys.executable, "-c", client]
        world = threading.Thread(target=lambda: answer.append(run(inside).stdout), daemon=True)
        world.start()
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"from outside\n"
        process.stdin.write(b"from the laptop\n")
        process.stdin.flush()
        world.join(SECONDS)
        assert answer == ["from the laptop\n"]
        assert process.wait(SECONDS) == 0
        assert not ours & (attached(NODE1) | programs())
