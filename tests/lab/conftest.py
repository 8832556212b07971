"""Fixtures of the end-to-end tests: a Kubernetes that is there, or a reason to skip.

`lab` is the cluster that KUBECONFIG names if it is set, else the lab (docs/lab.md), which is
brought up when it is not, and then taken away at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster import build, lifecycle
from tests.lab.cluster.config import ADMIN_CONFIG, BINARIES, NOBODY_CONFIG, SRE_CONFIG
from tests.lab.cluster.control import api
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.kubectl import program as kubectl_program
from tests.lab.cluster.tools import forked
from tests.lab.cluster.tools.forked import Program
from tests.lab.cluster.tools.side_by_side import SideBySide

ENVIRONMENT = dict(os.environ)
"""Of pytest, as it was: it changes while threads of tests side by side would read it."""
PATIENCE = 30 * 60
"""Seconds for one test: the first may have to build Kubernetes."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A cluster for end-to-end tests.

    Attributes:
        kubeconfig: of its admin.
        program: the one that is tested, imported already.
        ours: it is the lab of this repository, so its workloads, addresses and replay agents are
            those of docs/lab.md; False for a cluster that KUBECONFIG named.
    """

    kubeconfig: Path
    program: Program
    ours: bool

    def env(self, kubeconfig: Path | None = None) -> Mapping[str, str]:
        """An environment with this cluster's KUBECONFIG and our plugin on PATH."""
        path = f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"
        return {**ENVIRONMENT, "KUBECONFIG": str(kubeconfig or self.kubeconfig), "PATH": path}

    def kubectl(
        self, *words: str, kubeconfig: Path | None = None, stdin: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl; never raises for its exit code."""
        return subprocess.run(
            [kubectl_program(), *words],
            env=self.env(kubeconfig),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ebpfnet(
        self, *words: str, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the program as `kubectl ebpfnet` would, without its start (cluster/tools/forked.py);
        never raises for its exit code."""
        return self.program.run(*words, env=self.env(kubeconfig), timeout=60)

    def get(self, *words: str) -> Any:
        """What `kubectl get … -o json` says, decoded; asserts that it succeeded."""
        if (
            self.ours
        ):  # a kubectl takes 50 ms of a processor to start, and waits ask again and again
            status, document = api.get(*words)
            assert status == 200, document
            return document
        done = self.kubectl("get", *words, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ready_endpoints(self, service: str) -> int:
        """How many addresses of a Service are ready; 0 also before its Endpoints are made."""
        found = self.get("endpoints")["items"]
        subsets = [s for e in found if e["metadata"]["name"] == service
                   for s in e.get("subsets") or ()]  # fmt: skip
        return sum(len(each.get("addresses") or ()) for each in subsets)

    def run(self, pod: str, *argv: str, namespace: str = "default") -> str:
        """stdout of a command in a pod; asserts that it succeeded."""
        done = self.kubectl("exec", "-n", namespace, pod, "--", *argv)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def agent(self, node: str) -> str:
        """Name of Cilium's agent pod on a node, in kube-system."""
        pods = self.get("pods", "-n", "kube-system", "-l", "k8s-app=cilium")["items"]
        return str(next(p["metadata"]["name"] for p in pods if p["spec"]["nodeName"] == node))

    def in_agent(self, node: str, *argv: str) -> str:
        """stdout of a command in a node's agent."""
        return self.run(self.agent(node), *argv, namespace="kube-system")


def pytest_configure(config: pytest.Config) -> None:
    """Tests that are marked so run at the same time as others."""
    config.pluginmanager.register(SideBySide())


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whoever uses `lab` is marked so and may take its time."""
    if "lab" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.lab)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The cluster that KUBECONFIG names, else the lab; skips where there can be none.

    A lab that was not up before is taken away again.
    """
    named = os.environ.get("KUBECONFIG", "")
    if named and Path(named) != ADMIN_CONFIG:
        with forked.program() as program:
            yield Lab(Path(named), program, ours=False)
        return
    was_up = lifecycle.is_up()
    if not was_up and (why := why_not()):
        pytest.skip(why)
    lifecycle.up()
    with forked.program() as program:
        yield Lab(ADMIN_CONFIG, program, ours=True)
    if not was_up:
        lifecycle.down()


@pytest.fixture
def our_lab(lab: Lab) -> Lab:
    """The lab of this repository: skips on a cluster that KUBECONFIG named."""
    if not lab.ours:
        pytest.skip(
            "needs the workloads of the lab (make lab-up), KUBECONFIG names another cluster"
        )
    return lab


@pytest.fixture
def sre() -> Path:
    """kubeconfig of a user who has tier `agents` and no more."""
    return SRE_CONFIG


@pytest.fixture
def nobody() -> Path:
    """kubeconfig of a user who may do nothing."""
    return NOBODY_CONFIG


@pytest.fixture
def egress_policy(our_lab: Lab) -> Iterator[Callable[..., None]]:
    """`egress_policy("client", "80/TCP")`: what the pod may reach; opened again afterwards."""
    limited: list[str] = []

    def allow(pod: str, *allowed: str) -> None:
        limited.append(pod)
        policy.allow_egress("default", pod, *map(policy.Allowed.parse, allowed))

    yield allow
    for pod in limited:
        policy.clear("default", pod)


def why_not() -> str:
    """Why there can be no lab on this machine, "" when there can."""
    if not sys.platform.startswith("linux"):
        return "the lab needs Linux"
    if os.geteuid() != 0:
        return "the lab needs root"
    if not shutil.which("apt-get"):
        return "the lab needs Debian's packages"
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "true"]
    if subprocess.run(unshare, capture_output=True, check=False).returncode:
        return "the lab needs to make namespaces, and this machine does not let it"
    built = all((BINARIES / name).exists() for name in build.PROGRAMS)
    if not built:
        try:
            socket.getaddrinfo("deb.debian.org", 80)
        except OSError:
            return "the lab needs Debian's archive once, and it cannot be reached"
    return ""


def wait_for_no_node_pods(lab: Lab) -> None:
    """Wait until those of another test are gone, whose deletion nobody waited for."""
    lab.kubectl("wait", "--for=delete", "namespace/ebpfnet", "--timeout=80s", timeout=90)


@contextmanager
def printed_node_pods(lab: Lab, *words: str) -> Iterator[str]:
    """What `node-pods --print-manifest` prints, applied by kubectl; deleted afterwards."""
    wait_for_no_node_pods(lab)
    printed = lab.kubectl("ebpfnet", "node-pods", "--print-manifest", *words)
    assert printed.returncode == 0, printed.stderr
    applied = lab.kubectl("apply", "-f", "-", stdin=printed.stdout)
    assert applied.returncode == 0, applied.stderr
    try:
        yield printed.stdout
    finally:
        lab.kubectl("delete", "-f", "-", "--wait=false", stdin=printed.stdout)


def wait_until(what: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true value of `what`; asserts that it comes in time.

    Asks often in the beginning, later on at most a tenth of the time that went by too late: most
    questions are a kubectl, and each takes a processor's time from what is waited for.
    """
    begun = time.monotonic()
    while not (value := what()):
        waited = time.monotonic() - begun
        assert waited < seconds, f"did not come true within {seconds} s"
        time.sleep(min(0.05 + waited / 10, 1))
    return value
