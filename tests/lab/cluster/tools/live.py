"""What the tests of `kubectl ebpfnet` on a live cluster share: one answer, pods, faults.

Pods are called e2e-… and go away with the fixture that made them. Faults are made in the network
namespaces of the lab's own nodes and of such pods, on addresses of such pods, so that nobody else's
packets meet them.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.cluster.config import NODES, Node
from tests.lab.cluster.control import manifests
from tests.lab.cluster.datapath import policy, sync
from tests.lab.cluster.processes import run
from tests.lab.conftest import Lab, wait_until

FETCH = ("curl", "-sS", "--max-time", "3")
Hop = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one `ebpfnet path … -o json` said.

    Attributes:
        code: exit code.
        document: stdout, decoded; {} when it is empty.
        stderr: as it was.
    """

    code: int
    document: dict[str, Any]
    stderr: str

    @property
    def hops(self) -> list[Hop]:
        """The hops in their order."""
        return list(self.document["hops"])

    @property
    def verdict(self) -> str:
        """`delivered`, `dropped` or `unknown`."""
        return str(self.document["verdict"])

    @property
    def titles(self) -> list[str]:
        """The findings' titles."""
        return [str(finding["title"]) for finding in self.document["findings"]]

    def kinds(self) -> list[tuple[str, str]]:
        """Place and kind of every hop."""
        return [(hop["place"], hop["kind"]) for hop in self.hops]

    def all(self, kind: str, words: str = "") -> list[Hop]:
        """The hops of a kind whose summary holds these words."""
        return [hop for hop in self.hops if hop["kind"] == kind and words in hop["summary"]]

    def one(self, kind: str, words: str = "") -> Hop:
        """The only such hop."""
        (hop,) = self.all(kind, words)
        return hop

    def summaries(self) -> str:
        """Everything the hops say, one a line."""
        return "\n".join(hop["summary"] for hop in self.hops)


def path(lab: Lab, *words: str, kubeconfig: Path | None = None) -> Answer:
    """Run `ebpfnet path … -o json`; never raises for its exit code."""
    done = lab.ebpfnet("path", *words, "-o", "json", kubeconfig=kubeconfig)
    return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stderr)


def address(lab: Lab, pod: str) -> str:
    """A pod's address."""
    return str(lab.get("pod", pod)["status"]["podIP"])


def in_node(node: Node, *argv: str) -> str:
    """Run a program of this machine in a node's network namespace; its stdout."""
    return run(["ip", "netns", "exec", node.netns, *argv]).stdout


def bpftool_names_tcx() -> bool:
    """Whether this machine's bpftool lists programs that are attached by tcx, as on node2.

    Before 7.3 it does not, and an agent with such a tool cannot tell that they are attached.
    """
    return "tcx" in in_node(NODES[1], "bpftool", "net", "show")


def pod_netns(pod: str) -> list[str]:
    """Words before a program of this machine that runs it in a pod's network namespace."""
    mine = policy.endpoint("default", pod)
    # The node's first process sees the files that containerd keeps the namespaces open with.
    root = policy.bpffs(str(mine["node"])).parents[2]
    for netns in sorted((root / "run/netns").iterdir()):
        enter = ["nsenter", f"--net={netns}"]
        try:
            addresses = run([*enter, "ip", "addr"]).stdout
        except RuntimeError:
            if netns.exists():
                raise
            continue  # of another test's pod, which is gone meanwhile
        if f"inet {mine['address']}/32 " in addresses:
            return enter
    raise LookupError(f"no network namespace of {pod} has {mine['address']}")


def in_pod(pod: str, *argv: str) -> str:
    """Run a program of this machine in a pod's network namespace, as root; its stdout."""
    return run([*pod_netns(pod), *argv]).stdout


@contextmanager
def pod_of_our_own(
    lab: Lab, name: str, node: str, container: dict[str, Any] | None = None, **spec: Any
) -> Iterator[str]:
    """A running pod with the machine's tools, known to the agents; deleted afterwards.

    Nobody waits until it is gone (a kubelet takes seconds), so its name never comes again.

    Args:
        container: what its container has besides, or in place of, what all have.
        spec: the same of the pod's spec.
    """
    name = f"{name}-{secrets.token_hex(2)}"
    made = manifests.pod(name, node, ["/usr/bin/sleep", "infinity"], **spec)
    first = made["spec"]["containers"][0]
    for key, value in (container or {}).items():
        first[key] = [*first.get(key, ()), *value] if key == "volumeMounts" else value
    made["spec"]["volumes"] = [*made["spec"]["volumes"], *spec.get("more_volumes", ())]
    made["spec"].pop("more_volumes", None)
    with objects(lab, made):
        wait_until(lambda: lab.get("pod", name)["status"].get("phase") == "Running", 60)
        if not spec.get("hostNetwork"):
            wait_until(lambda: name in sync.VIEW.read_text())
        yield name


@contextmanager
def kept_node_pods(lab: Lab, *destinations: str) -> Iterator[None]:
    """Node pods on the nodes between pod/client and these, which later questions find and use."""
    lab.ebpfnet("cleanup", "--yes")  # what somebody kept would be asked instead
    namespaces: set[str] = set()
    for there in destinations:
        words = ("path", "pod/client", there, "--node-access", "pod", "--keep")
        done = lab.ebpfnet(*words)
        assert done.returncode in (0, 3), done.stderr  # 3: nothing listens there
        namespaces |= set(re.findall(r"in namespace (ebpfnet-[0-9a-f]+)", done.stderr))
    assert namespaces, done.stderr
    yield
    for namespace in namespaces:  # a pod that is being deleted is no answerer for later tests
        lab.kubectl("delete", "pod", "--all", "-n", namespace, "--wait=false")
    lab.kubectl("delete", "namespace", "--wait=false", *namespaces)


@contextmanager
def objects(lab: Lab, *made: dict[str, Any]) -> Iterator[None]:
    """Objects that are there for a while."""
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(made)})

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", *words, "-f", "-"]
        return subprocess.run(
            command, env=lab.env(), input=document, capture_output=True, text=True, check=False
        )

    try:
        done = ask("apply", "--validate=false")
        assert done.returncode == 0, done.stderr
        yield
    finally:
        ask("delete", "--ignore-not-found", "--grace-period=1", "--wait=false")


@contextmanager
def changed(do: Sequence[str], undo: Sequence[str]) -> Iterator[None]:
    """A command of this machine, and the one that takes it back."""
    run(do)
    try:
        yield
    finally:
        run(undo)
