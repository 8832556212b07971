"""Which of the node pod's capabilities are needed for what: docs/node-pod.md's table, measured.

One pod has a container for each set of capabilities; each asks the node side everything there is
to ask, of the node and of a pod, and what came of it is compared.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.nodepods import manifest
from tests.lab.cluster.config import HERE
from tests.lab.cluster.kubectl import apply
from tests.lab.cluster.processes import alive, run
from tests.lab.conftest import Lab, wait_until

NAMESPACE = "ebl-capabilities"
NODE = "node1"
FOLDER = "/sys/fs/bpf/ebl-capabilities"
PIN = f"{FOLDER}/tc/globals/ebl_capabilities"
HAVE = manifest.CAPABILITIES
SETS = {
    "all": HAVE,
    "more": (*HAVE, "BPF", "PERFMON"),
    "bpf-for-admin": (*(one for one in HAVE if one != "SYS_ADMIN"), "BPF", "PERFMON"),
    **{f"no-{one}": tuple(other for other in HAVE if other != one) for one in HAVE},
}
Answers = dict[str, tuple[int, str, str]]
"""By question: exit code, error, stdout."""

NEEDED = {
    "SYS_ADMIN": {
        "node: programs": "list programs: Operation not permitted",
        "pod: links": "enter the namespace",
    },
    "NET_ADMIN": {
        "node: conntrack": "Operation not permitted",
        "node: iptables-save": "Permission denied",
        "node: nft": "Operation not permitted",
        "node: nft-chains": "Operation not permitted",
        "node: xfrm": "Operation not permitted",
        "node: ipset": "Operation not permitted",
    },
    "NET_RAW": {"node: iptables-save": "Can't open socket to ipset"},
    "SYS_PTRACE": {
        "pod: links": "/ns/net: Permission denied",
        "node: iptables-save": "iptables-save",
    },
    "SYS_CHROOT": {"node: iptables-save": "CAP_SYS_CHROOT allows it"},
    "DAC_READ_SEARCH": {},  # silent: test_pins_in_a_folder_of_another_user_…
}
"""What fails without a capability, and words of its error."""


@pytest.fixture(scope="module")
def measured(lab: Lab) -> Iterator[dict[str, Answers]]:
    """What came of every question, by set of capabilities."""
    if not lab.ours:
        pytest.skip("makes a pin on the node, which it may in the lab alone")
    _on_node("mkdir", "-p", PIN.rpartition("/")[0])
    try:
        make = ("map", "create", PIN, "type", "array", "key", "4", "value", "4", "entries", "1")
        _on_node("bpftool", *make, "name", "ebl_caps")
        _on_node("chmod", "700", FOLDER)
        _on_node("chown", "1000", FOLDER)
        apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
        wait_until(lambda: lab.get("serviceaccounts", "-n", NAMESPACE)["items"])
        apply([_target()])
        where = {"node": None, "pod": wait_until(lambda: _containers(lab))}
        apply([_probe(where)])
        wait_until(lambda: _phase(lab) in ("Succeeded", "Failed"), 90)
        yield {name: _answers(lab, name) for name in (*SETS, "seccomp")}
    finally:
        lab.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        _on_node("rm", "-r", FOLDER)


def _on_node(*argv: str) -> None:
    """Run something in the mount namespace of the node."""
    run(["nsenter", f"--target={alive(NODE)}", "--mount", *argv])


def _target() -> dict[str, Any]:
    """A pod of another user, on the pods' network."""
    container = {
        "name": "c",
        "image": manifest.DEFAULT_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sleep", "600"],
        "securityContext": {"runAsUser": 1000},
    }
    spec = {
        "nodeName": NODE,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    metadata = {"name": "target", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _containers(lab: Lab) -> list[Any] | None:
    pod = lab.get("pod", "target", "-n", NAMESPACE)
    ids = [one.get("containerID", "") for one in pod["status"].get("containerStatuses", [])]
    ready = pod["status"].get("phase") == "Running" and all(ids) and ids
    return [pod["metadata"]["uid"], [id.rpartition("/")[2] for id in ids]] if ready else None


def _probe(where: dict[str, Any]) -> dict[str, Any]:
    """The node pod as runs make it, but with a container a set."""
    script = (HERE / "tools/node_capabilities_probe.py").read_text()
    options = manifest.NodePodOptions(
        command=("python3", "-c", script, json.dumps(where)), seconds=120
    )
    pod = manifest.pod(manifest.Run("", datetime.now(UTC)), NODE, 1, options, False)
    pod["metadata"] = {"name": "probe", "namespace": NAMESPACE}
    (one,) = pod["spec"]["containers"]
    containers = []
    for name, capabilities in SETS.items():
        containers.append(copy.deepcopy(one) | {"name": _container(name)})
        containers[-1]["securityContext"]["capabilities"]["add"] = list(capabilities)
    containers.append(copy.deepcopy(one) | {"name": "seccomp"})
    containers[-1]["securityContext"]["seccompProfile"] = {"type": "RuntimeDefault"}
    pod["spec"]["containers"] = containers
    return pod


def _container(name: str) -> str:
    return name.lower().replace("_", "-")


def _phase(lab: Lab) -> str:
    return str(lab.get("pod", "probe", "-n", NAMESPACE)["status"].get("phase"))


def _answers(lab: Lab, name: str) -> Answers:
    done = lab.kubectl("logs", "-n", NAMESPACE, "probe", "-c", _container(name))
    assert done.returncode == 0, done.stderr
    return {question: tuple(one) for question, one in json.loads(done.stdout).items()}


def test_with_all_of_them_nothing_is_refused(measured: dict[str, Answers]) -> None:
    # What the lab's Cilium, or a kernel without SCTP, does not have.
    not_there = ("no map ", "Cilium's state folder ", "/usr/bin/cat: /proc/net/sctp/eps: No such")
    refused = {
        question: error
        for question, (code, error, _) in measured["all"].items()
        if code and not error.startswith(not_there)
    }
    assert not refused


def test_every_capability_of_the_manifest_is_in_the_table() -> None:
    assert set(NEEDED) == set(HAVE)


@pytest.mark.parametrize("missing", NEEDED)
def test_what_fails_without_a_capability(measured: dict[str, Answers], missing: str) -> None:
    answers = measured[f"no-{missing}"]
    for question, words in NEEDED[missing].items():
        code, error, _ = answers[question]
        assert code, question
        assert words in error


def test_pins_in_a_folder_of_another_user_need_dac_read_search(
    measured: dict[str, Answers],
) -> None:
    """Folders of Cilium and of systemd are root's; where one is not, its pins would be missed."""
    assert PIN in measured["all"]["node: pins"][2]
    assert PIN not in measured["no-DAC_READ_SEARCH"]["node: pins"][2]


@pytest.mark.parametrize("name", ["more", "seccomp"])
def test_what_makes_no_difference(measured: dict[str, Answers], name: str) -> None:
    """CAP_BPF and CAP_PERFMON beside CAP_SYS_ADMIN; the runtime's own seccomp profile."""
    for question, (code, error, _) in measured["all"].items():
        assert measured[name][question][:2] == (code, error), question


def test_cap_bpf_is_no_substitute_for_cap_sys_admin(measured: dict[str, Answers]) -> None:
    answers = measured["bpf-for-admin"]
    assert "Operation not permitted" in answers["node: programs"][1]
    assert "enter the namespace" in answers["pod: links"][1]
