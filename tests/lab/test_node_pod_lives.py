"""How node pods live and die in the lab: every end of a run, and nodes that make it hard.

A run is cluster/tools/node_pod_run.py in a process of its own. What is left is looked for with
kubectl and in the cgroups of the machine's processes (proc(5)), which all nodes share.

They run side by side: pods are kept, and nodes made hard, where no other test here minds.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.model.tiers import Tier
from tests.lab.cluster.config import NOBODY_CONFIG
from tests.lab.cluster.control import api, manifests
from tests.lab.cluster.control.manifests import bound
from tests.lab.cluster.image import images
from tests.lab.cluster.kubectl import program
from tests.lab.cluster.tools.live import objects
from tests.lab.conftest import Lab, wait_until

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(240), pytest.mark.side_by_side]


@dataclass
class Live:
    """A run that goes on.

    Attributes:
        namespace: of its node pods.
        pods: node → name of the pod that runs there.
        failures: node → why none does.
        ids: node → id of the container, which its processes' cgroup is called.
        said: stderr, after the end.
    """

    lab: Lab
    process: subprocess.Popen[str]
    namespace: str = ""
    pods: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    said: str = ""

    def until(self, word: str) -> None:
        """Read on until a line begins with this word."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            what, _, rest = line.rstrip("\n").partition(" ")
            node, _, more = rest.partition(" ")
            if what == "namespace":
                self.namespace = rest
            elif what == "runs":
                self.pods[node] = more
                [container] = self.pod(node)["status"]["containerStatuses"]
                self.ids[node] = container["containerID"].rpartition("/")[2]
            elif what == "fails":
                self.failures[node] = more
            if what == word:
                return
        raise AssertionError(f"the run ended: {self.process.communicate()[1]}")

    def pod(self, node: str) -> dict[str, Any]:
        """The node pod as the API server has it; {} when it is gone."""
        status, pod = api.get("pod", "-n", self.namespace, self.pods[node])
        return pod if status == 200 else {}

    def end(self, number: int | None) -> int:
        """Send a signal, or close stdin; the exit code. What it said is in `said`."""
        if number is not None:
            self.process.send_signal(number)
        _, self.said = self.process.communicate(timeout=40)
        return self.process.returncode

    def processes(self, node: str) -> list[int]:
        """Processes of a node pod that are alive, whatever the API server says."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cgroup"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if self.ids[node] in path.read_text():
                    found.append(int(path.parent.name))
        return found

    def exists(self) -> bool:
        """Whether its namespace is there."""
        return api.get("namespace", self.namespace)[0] == 200


@contextmanager
def a_run(lab: Lab, *nodes: str, **wanted: Any) -> Iterator[Live]:
    """A run that has got so far that its pods run, or failed; killed and cleaned up at the end."""
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.lab.cluster.tools.node_pod_run",
            json.dumps({"nodes": nodes, **wanted}),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=lab.env(),
    ) as process:
        live = Live(lab, process)
        try:
            live.until("ready")
            yield live
        finally:
            process.kill()
            if live.namespace:
                lab.kubectl("delete", "namespace", live.namespace, "--wait=false")


def ends(live: Live, node: str = "node1", seconds: float = 20) -> None:
    """Wait until no process of a pod is left."""
    wait_until(lambda: not live.processes(node), seconds)


# --- no run at all (the longest goes first) ------------------------------------------------------


def test_why_there_is_no_node_pod(our_lab: Lab) -> None:
    image = "127.0.0.1:1/ebpfnet/node:none"  # nobody listens there: refused at once
    with a_run(our_lab, "node1", "nowhere", options={"image": image}) as live:
        assert live.pods == {}
        why = live.failures["node1"]
        assert why.startswith(f"node node1 cannot pull the image {image}: ")
        assert "127.0.0.1:1" in why.partition(": ")[2]
        assert "no node pod finds" not in why
        assert live.failures["nowhere"].startswith(
            "the node pod cannot be scheduled on nowhere: 0/3 nodes are available"
        )
        assert live.end(None) == 0
        wait_until(lambda: not live.exists(), 30)


# --- ends of a run (the longest go first) ---------------------------------------------------------


@pytest.mark.parametrize("speaks", [False, True], ids=["silent", "in a session"])
def test_after_a_killed_client_the_pod_ends_and_cleanup_removes_the_rest(
    our_lab: Lab, speaks: bool
) -> None:
    with a_run(our_lab, "node1", idle=5, speaks=speaks) as live:
        if speaks:
            live.until("answer")
        beyond_its_time = time.monotonic() + 7
        while speaks and time.monotonic() < beyond_its_time:
            assert live.processes("node1")
            time.sleep(0.1)
        live.end(signal.SIGKILL)
        ends(live)
        wait_until(lambda: live.pod("node1")["status"]["phase"] == "Succeeded", 30)

        done = our_lab.ebpfnet("cleanup", live.namespace, "--dry-run=client")
        assert done.returncode == 0, done.stderr
        assert f"namespace/{live.namespace} (node pods: 1, " in done.stdout
        assert done.stdout.endswith("removed (dry run)\n")
        assert live.exists()

        done = our_lab.ebpfnet("cleanup", live.namespace)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"namespace/{live.namespace} (node pods: 1, ")
        assert done.stdout.endswith(") removed\n")
        assert live.pod("node1") == {}
        wait_until(lambda: not live.exists(), 30)
        done = our_lab.ebpfnet("cleanup", live.namespace)
        nothing = f"No leftovers of any run found in namespace {live.namespace}.\n"
        assert (done.returncode, done.stdout) == (0, nothing)


@pytest.mark.parametrize(
    ("number", "code"),
    [(None, 0), (signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)],
    ids=["normal", "Ctrl-C", "SIGTERM"],
)
def test_the_pods_are_gone_when_the_run_has_ended(
    our_lab: Lab, number: int | None, code: int
) -> None:
    with a_run(our_lab, "node1", "node2") as live:
        assert set(live.pods) == {"node1", "node2"}
        assert all(live.processes(node) for node in live.pods)
        begin = time.monotonic()
        assert live.end(number) == code
        assert time.monotonic() - begin < 11
        assert "ebpfnet cleanup" not in live.said  # nothing is left to be told of
        for node in live.pods:
            assert live.pod(node) == {}
            assert live.processes(node) == []
        wait_until(lambda: not live.exists(), 30)


def test_two_interrupts_do_not_leave_half_of_it(our_lab: Lab) -> None:
    with a_run(our_lab, "node1") as live:
        live.process.send_signal(signal.SIGINT)
        wait_until(lambda: "deletionTimestamp" in json.dumps(live.pod("node1")))
        assert live.end(signal.SIGINT) == -signal.SIGINT
        assert live.pod("node1") == {}
        wait_until(lambda: not live.exists(), 30)


@pytest.mark.parametrize(
    ("number", "code"),
    [(None, 0), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["normal", "Ctrl-C", "SIGTERM"],
)
def test_the_program_itself_leaves_nothing(our_lab: Lab, number: int | None, code: int) -> None:
    who = f"e2e-{secrets.token_hex(4)}"
    here = ("-l", "ebpfnet.dev/keep=true", "--field-selector=spec.nodeName=node1")
    if our_lab.get("pods", "-A", *here)["items"]:
        pytest.skip("somebody keeps a node pod on node1, which the run would take")

    def ours() -> list[str]:
        found = our_lab.get("namespaces", "-l", "app.kubernetes.io/managed-by=kubectl-ebpfnet")
        return [
            each["metadata"]["name"]
            for each in found["items"]
            if each["metadata"]["annotations"]["ebpfnet.dev/started-by"].startswith(f"{who}@")
        ]

    words = ["ebpfnet", "path", "pod/client", "1.1.1.1:80", "--node-access", "pod"]
    for _ in range(3):
        with subprocess.Popen(
            [program(), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**our_lab.env(), "LOGNAME": who},
        ) as process:
            [namespace] = wait_until(ours)
            in_time = process.poll() is None
            if number is not None:
                process.send_signal(number)
            _, said = process.communicate(timeout=60)
        if in_time:
            break
        wait_until(lambda: not ours(), 30)  # the run was faster than the question for its namespace
    assert process.returncode == code, said
    pods = our_lab.get("pods", "-n", namespace)["items"]
    assert pods == []
    wait_until(lambda: not ours(), 30)


def test_at_its_deadline_the_kubelet_ends_a_pod_whatever_it_does(our_lab: Lab) -> None:
    options = {
        "seconds": 5,
        "keep": True,
        "command": ["python3", "-c", "import time; time.sleep(600)"],
    }
    with a_run(our_lab, "node3", options=options) as live:
        live.end(signal.SIGKILL)
        wait_until(lambda: live.pod("node3")["status"]["phase"] == "Failed", 60)
        assert live.pod("node3")["status"]["reason"] == "DeadlineExceeded"
        ends(live, "node3")


@pytest.mark.parametrize("how", ["deleted", "evicted", "its namespace deleted"])
def test_pods_that_go_before_the_run_does(our_lab: Lab, how: str) -> None:
    body: dict[str, Any] = {}
    with a_run(our_lab, "node1") as live:
        if how == "deleted":
            words = ["delete", "pod", "-n", live.namespace, "node-1", "--wait=false"]
        elif how == "evicted":
            path = f"/api/v1/namespaces/{live.namespace}/pods/node-1/eviction"
            body = {
                "apiVersion": "policy/v1beta1",
                "kind": "Eviction",
                "metadata": {"name": "node-1", "namespace": live.namespace},
            }
            words = ["create", "--raw", path, "-f", "-"]
        else:
            words = ["delete", "namespace", live.namespace, "--wait=false"]
        done = our_lab.kubectl(*words, stdin=json.dumps(body))
        assert done.returncode == 0, done.stderr
        if how != "its namespace deleted":
            ends(live)
        assert live.end(None) == 0
        assert live.said == ""
        ends(live)
        wait_until(lambda: not live.exists(), 30)


# --- kept pods ----------------------------------------------------------------------------------


def test_kept_pods_are_found_by_the_next_run(our_lab: Lab) -> None:
    finds = (
        "from kubectl_ebpfnet.cluster.client.session import Session\n"
        "from kubectl_ebpfnet.cluster.client.api import Api\n"
        "from kubectl_ebpfnet.cluster.nodepods.kept import find_node_pods\n"
        "with Session.open() as session:\n"
        "    for pod in find_node_pods(Api(session)).values():\n"
        "        print(pod.node, pod.container.namespace)\n"
    )
    with a_run(our_lab, "node2", options={"keep": True}) as live:
        assert live.end(None) == 0
        assert f"node pods on node2, in namespace {live.namespace}" in live.said
        assert live.processes("node2")
        found = subprocess.run(
            [sys.executable, "-c", finds], env=our_lab.env(), capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        nodes = [line.split()[0] for line in found.stdout.splitlines()]
        assert nodes.count("node2") == 1
        if live.namespace in found.stdout:  # somebody else may keep one there as well
            assert f"node2 {live.namespace}" in found.stdout
        done = our_lab.ebpfnet("cleanup", live.namespace, "-o", "json")
        [item] = json.loads(done.stdout)["items"]
        assert (item["name"], item["removed"], item["pods"]) == (live.namespace, True, ["node-1"])
        ends(live, "node2", 5)


# --- nodes that make it hard --------------------------------------------------------------------


@contextmanager
def node_made(lab: Lab, do: Sequence[str], undo: Sequence[str]) -> Iterator[None]:
    """Something done to a node by kubectl, and undone."""
    try:
        done = lab.kubectl(*do)
        assert done.returncode == 0, done.stderr
        yield
    finally:
        done = lab.kubectl(*undo)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("node", "do", "undo"),
    [
        (
            "node2",
            ["taint", "--overwrite", "node", "node2", "ebpfnet-test=x:NoSchedule"],
            ["taint", "node", "node2", "ebpfnet-test-"],
        ),
        ("node3", ["cordon", "node3"], ["uncordon", "node3"]),
    ],
    ids=["tainted", "cordoned"],
)
def test_a_node_that_takes_no_pods_takes_ours(
    our_lab: Lab, node: str, do: list[str], undo: list[str]
) -> None:
    with node_made(our_lab, do, undo), a_run(our_lab, node) as live:
        assert live.failures == {}
        assert live.pod(node)["spec"]["nodeName"] == node
        assert live.end(None) == 0


def test_a_full_node_takes_ours_and_nobody_gives_way(our_lab: Lab) -> None:
    name = f"filler-{secrets.token_hex(2)}"
    node = our_lab.get("node", "node1")
    # What a test left that was killed would fill the node for all later ones.
    mark = "ebpfnet-test=filler"
    done = our_lab.kubectl("delete", "pods", "-l", mark, "--grace-period=0", "--force")
    assert done.returncode == 0, done.stderr
    fillers = []
    for each, nodes_cpu in ((name, node["status"]["allocatable"]["cpu"]), (f"{name}-more", "1m")):
        pod = manifests.pod(each, "node1", ["/bare"], image=images.BARE)
        pod["spec"].pop("nodeName")
        pod["metadata"]["labels"] = dict([mark.split("=")])
        pod["spec"]["activeDeadlineSeconds"] = 180
        pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "node1"}
        pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": nodes_cpu}}
        fillers.append(pod)
    with objects(our_lab, fillers[0]):
        wait_until(lambda: our_lab.get("pod", name)["status"].get("phase") == "Running", 60)
        with objects(our_lab, fillers[1]):
            # Proof that the node is full: not even a thousandth of a CPU fits.
            wait_until(
                lambda: "Insufficient cpu" in json.dumps(our_lab.get("pod", f"{name}-more")), 20
            )
            with a_run(our_lab, "node1") as live:
                assert live.failures == {}
                assert our_lab.get("pod", name)["status"]["phase"] == "Running"
                assert "deletionTimestamp" not in our_lab.get("pod", name)["metadata"]
                assert live.end(None) == 0


# --- rights -------------------------------------------------------------------------------------


@contextmanager
def user_of_tier(lab: Lab, tier: Tier) -> Iterator[str]:
    """A user who has a tier, and no more."""
    user = f"e2e-{secrets.token_hex(3)}"
    with objects(lab, *bound(user, tier)):
        yield user


def test_the_documented_rights_are_enough(our_lab: Lab) -> None:
    with (
        user_of_tier(our_lab, Tier.DEPLOY) as user,
        a_run(our_lab, "node1", as_user=user, speaks=True) as live,
    ):
        assert live.failures == {}
        live.until("answer")
        assert live.end(None) == 0
        assert live.said == ""
        assert live.pod("node1") == {}
        done = our_lab.ebpfnet("cleanup", live.namespace, f"--as={user}")
        assert (done.returncode, done.stderr) == (0, "")


def test_a_pull_secret_is_copied_and_goes_with_the_run(our_lab: Lab) -> None:
    name = f"e2e-{secrets.token_hex(3)}"
    made = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": '{"auths": {}}'},
    }
    with (
        objects(our_lab, made),
        a_run(our_lab, "node1", options={"pull_secret": f"default/{name}"}) as live,
    ):
        copy = our_lab.get("secret", "-n", live.namespace, "pull")
        assert copy["data"] == our_lab.get("secret", name)["data"]
        assert live.end(None) == 0
        wait_until(lambda: not live.exists(), 30)


def test_who_may_not_clean_up_is_told_the_verb(our_lab: Lab) -> None:
    done = our_lab.ebpfnet("cleanup", "--yes", kubeconfig=NOBODY_CONFIG)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: this user may not list namespaces\n" in done.stderr
    assert 'verb "list" on "namespaces"' in done.stderr
    assert "--print-rbac=deploy" in done.stderr
