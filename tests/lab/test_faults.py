"""Each command beside what a production cluster does to it: a clear answer in time, nothing left.

`make faults`: minutes, and some of it is everybody's in the lab (its API server restarts, a kubelet
is dead), so neither CI nor `make lab-test` runs it. What each run said, and how long it took, is
printed at the end. What needs no cluster stands in tests/cluster and tests/collect.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster.config import NODES
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools import lab_faults
from tests.lab.cluster.tools.live import in_node
from tests.lab.conftest import Lab, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]
SECONDS = 8
"""--timeout of the runs."""
REMOVAL = 10
"""What the removal of node pods may take beyond (REMOVAL_SECONDS), whatever the server does."""
START = 4
"""Of a process on a busy machine: its start, its end."""
COMMANDS = {
    "path": ("path", "--node-access=pod", f"--timeout={SECONDS}s", "pod/client", "1.1.1.1:80"),
    "flows": ("flows", "pod/client", "--node-access=pod", f"--timeout={SECONDS}s"),
    "capture": ("capture", "pod/client", "--node-access=pod", f"--timeout={SECONDS}s"),
    "netkat": ("netkat", f"--timeout={SECONDS}s", "node/node1", "1.1.1.1", "7777"),
    "probe-lb": ("probe-lb", "web-lb-local", "--wait=1s"),
}
every = pytest.mark.parametrize("command", COMMANDS)
OURS = "app.kubernetes.io/managed-by=kubectl-ebpfnet"
FIGURES: list[tuple[str, float, int, str]] = []


@pytest.fixture(scope="module", autouse=True)
def _figures(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    lines = [f"{took:5.1f} s  exit {code:3}  {name}: {said}" for name, took, code, said in FIGURES]
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("", *lines, sep="\n")


@dataclass
class Counted:
    """What a run may leave: namespaces and other objects of ours, links, qdiscs, BPF programs of
    ours, processes of node sides, files."""

    objects: set[str]
    links: set[str]
    programs: set[str]
    processes: set[int]
    files: set[str]


def count(lab: Lab, folder: Path) -> Counted:
    kinds = "namespaces,pods,services,endpoints,endpointslices,secrets"
    listed = lab.kubectl("get", kinds, "-A", "-l", OURS, "-o", "json")
    assert listed.returncode == 0, listed.stderr
    objects = {
        f"{one['kind']} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}"
        for one in json.loads(listed.stdout)["items"]
    }
    links, programs = set(), set()
    for node in NODES:
        for link in json.loads(in_node(node, "ip", "-j", "link", "show")):
            links.add(f"{node.name} link {link['ifname']}")
        for line in in_node(node, "tc", "qdisc", "show", "dev", "eth0").splitlines():
            links.add(f"{node.name} {' '.join(line.split()[:3])}")
    for program in json.loads(run(["bpftool", "-j", "prog", "show"]).stdout):
        programs |= {f"{program['id']}"} if program.get("name", "").startswith("netkat") else set()
    processes = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"kubectl_ebpfnet.node" in file.read_bytes():
                processes.add(int(file.parent.name))
    return Counted(objects, links, programs, processes, {str(f) for f in folder.rglob("*")})


@dataclass
class Run:
    """A run that goes on, and afterwards what it said."""

    lab: Lab
    name: str
    who: str
    process: subprocess.Popen[str]
    begun: float = field(default_factory=time.monotonic)
    out: str = ""
    err: str = ""
    took: float = 0.0
    namespace: str = ""

    def deploys(self) -> str:
        """Wait until the namespace of its node pods is there; its name."""

        def ours() -> str:
            assert self.process.poll() is None, self.process.communicate()
            for one in self.lab.get("namespaces", "-l", OURS)["items"]:
                by = one["metadata"].get("annotations", {}).get("ebpfnet.dev/started-by", "")
                if by.startswith(f"{self.who}@"):
                    return str(one["metadata"]["name"])
            return ""

        self.namespace = self.namespace or wait_until(ours)
        return self.namespace

    def runs(self) -> list[dict[str, Any]]:
        """Wait until a node pod of it runs; the pods that do."""
        namespace = self.deploys()

        def running() -> list[dict[str, Any]]:
            pods = self.lab.get("pods", "-n", namespace)["items"]
            return [pod for pod in pods if pod["status"].get("phase") == "Running"]

        found: list[dict[str, Any]] = wait_until(running)
        return found

    def echoes(self) -> None:
        """Wait until a line of netkat comes back."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("there?\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "there?\n"

    def ends(self, seconds: float = SECONDS + REMOVAL + START) -> int:
        """Wait for its end in time; its exit code. No run may say these words."""
        since = time.monotonic()
        try:
            self.out, self.err = self.process.communicate(timeout=seconds)
        finally:
            self.took = time.monotonic() - since
            said = " | ".join(self.err.split("\n")[-3:]).strip(" |") or self.out[:80]
            FIGURES.append((self.name, self.took, self.process.poll() or 0, said[:300]))
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        return self.process.returncode


@contextmanager
def a_run(
    lab: Lab, name: str, command: str, folder: Path, *more: str, **environment: str
) -> Iterator[Run]:
    """A run whose files are in a folder of its own."""
    who = f"e2e-{secrets.token_hex(4)}"
    if command == "capture" and "-o" not in more:
        more = (*more, "-o", str(folder / "x.zip"))
    name_of_command, *others = COMMANDS[command]
    # Whatever follows the node is netkat's own.
    words = [name_of_command, *others[:1], *more, *others[1:]]
    env = {**lab.env(), "LOGNAME": who, "TMPDIR": str(folder), **environment}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["kubectl-ebpfnet", *words], env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield Run(lab, f"{name}, {command}", who, process)
        finally:
            process.kill()


@pytest.fixture
def nothing_left(our_lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """A folder for a run's files. Afterwards everything is counted as before it."""
    folder = tmp_path / "run"
    folder.mkdir()
    before = count(our_lab, folder)
    yield folder
    (folder / "x.zip").unlink(missing_ok=True)  # a capture that was made before the end
    wait_until(lambda: not count(our_lab, folder).objects - before.objects, 60)
    after = count(our_lab, folder)
    assert not after.links - before.links
    assert not after.programs - before.programs
    wait_until(lambda: not count(our_lab, folder).processes - before.processes, 30)
    assert after.files == set()


def cleaned(one: Run) -> None:
    """Take away what a run could not, as its last words advise."""
    done = one.lab.ebpfnet("cleanup", one.namespace)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- signals --------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("when", ["deploying", "asking"])
def test_a_signal(our_lab: Lab, nothing_left: Path, command: str, number: int, when: str) -> None:
    with a_run(our_lab, f"{signal.strsignal(number)} while {when}", command, nothing_left) as one:
        one.deploys() if when == "deploying" else one.runs()
        if command == "netkat" and when == "asking":
            one.echoes()
        one.process.send_signal(number)
        code = one.ends(REMOVAL + START)
    assert code == 128 + number or (when == "asking" and code == 0)  # it had its answer


@every
def test_a_client_that_is_killed(our_lab: Lab, nothing_left: Path, command: str) -> None:
    with a_run(our_lab, "SIGKILL", command, nothing_left) as one:
        one.runs()
        if command == "netkat":
            one.echoes()
        one.process.kill()
        assert one.ends() == -signal.SIGKILL
        cleaned(one)


# --- the API server ------------------------------------------------------------------------------


@every
def test_the_api_server_restarts(our_lab: Lab, nothing_left: Path, command: str) -> None:
    with a_run(our_lab, "API server restarts", command, nothing_left) as one:
        one.deploys()
        away = threading.Thread(target=lab_faults.restart_api_server, args=(1.0,))
        away.start()
        try:
            code = one.ends(60)
        finally:
            away.join()
    assert code in (0, 1, 4)
    if f"namespace {one.namespace} could not be deleted" in one.err:
        cleaned(one)


# --- nodes and pods -------------------------------------------------------------------------------


@every
def test_a_node_without_its_kubelet(our_lab: Lab, nothing_left: Path, command: str) -> None:
    with (
        lab_faults.without_kubelet(NODES[0]),
        a_run(our_lab, "kubelet killed", command, nothing_left) as one,
    ):
        code = one.ends(60)
    assert code in (0, 1, 4)
    assert "node1" in one.out + one.err


# Of netkat: test_a_pod_that_is_deleted_ends_the_session in test_netkat_live.py.
@pytest.mark.parametrize("command", ["path", "flows", "capture", "probe-lb"])
def test_a_node_pod_that_is_evicted(our_lab: Lab, nothing_left: Path, command: str) -> None:
    with a_run(our_lab, "node pod evicted", command, nothing_left) as one:
        pods = one.runs()
        for pod in pods:
            name = pod["metadata"]["name"]
            body = {
                "apiVersion": "policy/v1beta1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": one.namespace},
                "deleteOptions": {"gracePeriodSeconds": 0},
            }
            path = f"/api/v1/namespaces/{one.namespace}/pods/{name}/eviction"
            our_lab.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
        code = one.ends(40)
    assert code in (0, 1, 4)


# --- the laptop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["path", "flows", "capture"])
def test_a_full_disk(our_lab: Lab, nothing_left: Path, command: str, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(full)])
    try:
        (full / "filler").write_bytes(b"x" * (12 << 10))
        more = ("-o", str(full / "x.zip")) if command == "capture" else ()
        with a_run(our_lab, "disk full", command, nothing_left, *more, TMPDIR=str(full)) as one:
            code = one.ends()
        assert sorted(os.listdir(full)) == ["filler"]
    finally:
        run(["umount", str(full)])
    if command == "capture":
        assert code == 1
        assert "No space left on device" in one.err
    else:
        assert code == 0  # nothing of it is so long that it needs a file


@every
def test_a_token_that_has_expired(our_lab: Lab, nothing_left: Path, command: str) -> None:
    with a_run(our_lab, "token expired", command, nothing_left, "--token=expired") as one:
        assert one.ends(SECONDS + START) == 1
    assert "does not accept these credentials (401)" in one.err
