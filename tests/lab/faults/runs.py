"""Runs of the program that something happens to, and what they may leave."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster.config import NODES
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools.live import in_node
from tests.lab.conftest import Lab, wait_until

MARKS = [pytest.mark.faults, pytest.mark.timeout(300)]
SECONDS = 8
"""--timeout of the runs."""
REMOVAL = 10
"""What the removal of node pods may take beyond (REMOVAL_SECONDS), whatever the server does."""
START = 4
"""Of a process on a busy machine: its start, its end."""
COMMANDS = {
    "path": ("path", "--node-access=pod", f"--timeout={SECONDS}s", "pod/client", "1.1.1.1:80"),
    "flows": ("flows", "--node-access=pod", f"--timeout={SECONDS}s", "pod/client"),
    "capture": ("capture", "--node-access=pod", f"--timeout={SECONDS}s", "pod/client"),
    "netkat": ("netkat", f"--timeout={SECONDS}s", "node/node1", "1.1.1.1", "7777"),
    "probe-lb": ("probe-lb", "web-lb-local", "--wait=1s"),
}
every = pytest.mark.parametrize("command", COMMANDS)
OURS = "app.kubernetes.io/managed-by=kubectl-ebpfnet"
FIGURES: list[tuple[str, float, int, str]] = []


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
        for line in in_node(node, "tc", "qdisc", "show").splitlines():
            links.add(f"{node.name} {' '.join(line.split()[:5])}")  # qdisc KIND HANDLE dev NAME
    for program in json.loads(run(["bpftool", "-j", "prog", "show"]).stdout):
        programs |= {f"{program['id']}"} if program.get("name", "").startswith("netkat") else set()
    processes = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            in_pod = "/k8s.io/" in file.with_name("cgroup").read_text()  # not of another test
            if in_pod and b"kubectl_ebpfnet.node" in file.read_bytes():
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
    words = list(COMMANDS[command])
    # Behind the flags, so that these count; what follows netkat's node is netkat's own.
    first = next(i for i, word in enumerate(words[1:], 1) if not word.startswith("-"))
    words[first:first] = more
    env = {**lab.env(), "LOGNAME": who, "TMPDIR": str(folder), **environment}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["kubectl-ebpfnet", *words], env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield Run(lab, f"{name}, {command}", who, process)
        finally:
            process.kill()


def cleaned(one: Run) -> None:
    """Take away what a run could not, as its last words advise."""
    done = one.lab.ebpfnet("cleanup", one.namespace)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
