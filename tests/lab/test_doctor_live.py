"""`doctor` on a live cluster: what it says of rights and nodes is what kubectl and path say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.node.trace.packets import PROGRAMS
from tests.lab.cluster.config import ADMIN_CONFIG, NOBODY_CONFIG, SRE_CONFIG
from tests.lab.cluster.tools.live import objects, path
from tests.lab.conftest import Lab
from tests.node.trace.programs import loaded

pytestmark = pytest.mark.side_by_side
NODE_PODS = "app.kubernetes.io/managed-by=kubectl-ebpfnet"
BY_AGENT = ("--node-access", "agent")
JANE = "e2e-doctor-jane"


@pytest.fixture
def ours_alone(our_lab: Lab) -> Iterator[set[str]]:
    """Namespaces of node pods that were there before; what came since is taken away."""
    before = namespaces(our_lab)
    yield before
    since = namespaces(our_lab) - before
    if since:
        our_lab.ebpfnet("cleanup", *sorted(since))


def namespaces(lab: Lab) -> set[str]:
    pods = lab.get("pods", "-A", "-l", NODE_PODS)["items"]
    return {pod["metadata"]["namespace"] for pod in pods}


def doctor(lab: Lab, *words: str, kubeconfig: Path = ADMIN_CONFIG) -> tuple[int, dict[str, Any]]:
    done = lab.ebpfnet("doctor", *words, "-o", "json", kubeconfig=kubeconfig)
    assert done.stdout, done.stderr
    return done.returncode, dict(json.loads(done.stdout))


@pytest.mark.parametrize("config", [ADMIN_CONFIG, SRE_CONFIG, NOBODY_CONFIG], ids=lambda c: c.stem)
def test_rights_are_what_kubectl_says(our_lab: Lab, config: Path) -> None:
    _, document = doctor(our_lab, kubeconfig=config)
    assert len(document["rights"]) > 30
    assert all(right["allowed"] is not None for right in document["rights"])
    done = our_lab.kubectl("version", "-o", "json", kubeconfig=config)
    server = json.loads(done.stdout)["serverVersion"]["gitVersion"]
    assert document["connection"]["kubernetes"] == server
    # One of each kind: kubectl takes a process for each.
    for words in ("list pods", "get pods/exec", "create namespaces", "get configmaps"):
        verb, resource = words.split()
        (right,) = (r for r in document["rights"] if (r["verb"], r["resource"]) == (verb, resource))
        name = (f"{resource}/{right['name']}",) if right["name"] else ()
        plain, _, sub = resource.partition("/")
        asked = (verb, *(name or (plain,)), *((f"--subresource={sub}",) if sub else ()), "-A")
        said = our_lab.kubectl("auth", "can-i", *asked, kubeconfig=config)
        assert right["allowed"] is said.stdout.strip().endswith("yes"), (asked, said)


@pytest.mark.parametrize("config", [ADMIN_CONFIG, SRE_CONFIG], ids=lambda c: c.stem)
def test_path_is_what_it_says(our_lab: Lab, config: Path) -> None:
    code, document = doctor(our_lab, *BY_AGENT, kubeconfig=config)
    assert (code, document["verdict"]) == (0, "partial")  # Debian 12's bpftool is 7.1
    names = {node["metadata"]["name"] for node in our_lab.get("nodes")["items"]}
    assert {node["name"] for node in document["nodes"]} == names
    for node in document["nodes"]:
        assert (node["by"], node["agent"], node["agent_exec"]) == ("agent", "running", True)
        assert "bpftool" in node["tools"]
        (path_,) = [each for each in node["commands"] if each["command"] == "path"]
        assert ["its bpftool is 7.1.0" in lack["what"] for lack in path_["lacks"]] == [True]
    answer = path(our_lab, "pod/client", "svc/web:80", *BY_AGENT, kubeconfig=config)
    assert answer.code == 0


def test_who_may_nothing_is_told_and_path_is_blind(our_lab: Lab) -> None:
    code, document = doctor(our_lab, kubeconfig=NOBODY_CONFIG)
    assert (code, document["verdict"]) == (3, "blind")
    assert not any(right["allowed"] for right in document["rights"])
    assert path(our_lab, "pod/client", "1.1.1.1:80", kubeconfig=NOBODY_CONFIG).code == 1


def test_without_exec_into_agents_path_is_blind(our_lab: Lab) -> None:
    """A user with the documented role, less exec: doctor and path name the same right."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": JANE},
        "rules": [
            {
                "apiGroups": ["", "apps", "discovery.k8s.io", "cilium.io", "networking.k8s.io"],
                "resources": ["pods", "nodes", "services", "endpointslices", "networkpolicies"],
                "verbs": ["get", "list"],
            }
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": JANE},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": JANE,
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": JANE}],
    }  # fmt: skip
    with objects(our_lab, role, binding):
        code, document = doctor(our_lab, *BY_AGENT, "--as", JANE)
        answer = path(our_lab, "pod/client", "1.1.1.1:80", *BY_AGENT, "--as", JANE)
    assert code == 3
    for node in document["nodes"]:
        assert (node["agent"], node["agent_exec"], node["by"]) == ("running", False, "")
        assert "pods/exec" in node["commands"][0]["lacks"][0]["what"]
    assert answer.verdict == "unknown"
    assert "pods/exec" in answer.document["reason"]


def test_nothing_is_deployed_unless_it_is_asked_for(our_lab: Lab, ours_alone: set[str]) -> None:
    doctor(our_lab)
    assert namespaces(our_lab) <= ours_alone
    code, document = doctor(our_lab, "--node-access", "pod", "--keep")
    assert (code, document["verdict"]) == (0, "full")
    running = {node["metadata"]["name"]: node for node in our_lab.get("nodes")["items"]}
    for node in document["nodes"]:
        assert (node["by"], node["node_pod"] in ("deployed", "kept")) == ("node pod", True)
        info = running[node["name"]]["status"]["nodeInfo"]
        assert node["kernel"]["release"] == info["kernelVersion"]
        assert {reach["level"] for reach in node["commands"]} == {"full"}
        assert node["trace"]["unknown"] == ""
        layers = {each["name"]: each for each in node["trace"]["layers"]}
        assert (set(layers["trace"]["attached"]), layers["trace"]["lacking"]) == (set(PROGRAMS), [])
    assert not loaded()
    _, again = doctor(our_lab)  # they are there: they are found, and the agents are asked as well
    for node in again["nodes"]:
        assert (node["by"], node["node_pod"], node["agent_exec"]) == ("node pod", "kept", True)
