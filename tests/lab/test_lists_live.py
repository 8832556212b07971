"""`programs` and `flows` on a live cluster, by agent and by node pod: what bpftool, tc and the
kernel's own tables say is what they say."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.kubectl import program
from tests.lab.cluster.tools.live import (
    FETCH,
    address,
    bpftool_names_tcx,
    in_node,
    pod_of_our_own,
)
from tests.lab.conftest import Lab

ACCESS = ("agent", "pod")


@pytest.fixture(scope="module", autouse=True)
def _kept(lab: Lab) -> Iterator[None]:
    """Node pods of this module are kept for its next questions, and go away with it."""
    yield
    if lab.ours:
        lab.ebpfnet("cleanup", "--yes")


def document(lab: Lab, *words: str, access: str) -> dict[str, Any]:
    more = ("--keep",) if access == "pod" else ()
    done = lab.ebpfnet(*words, "--node-access", access, *more, "-o", "json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("access", ACCESS)
@pytest.mark.parametrize("node", NODES[:2], ids=lambda node: node.name)
def test_programs_of_a_node(our_lab: Lab, node: Any, access: str) -> None:
    found = document(our_lab, "programs", f"node/{node.name}", access=access)
    if (node.name, access) == ("node2", "agent") and not bpftool_names_tcx():
        assert ["are attached" in said for said in found["missing"]] == [True]
    else:
        assert found["missing"] == []
    hooks = {(i["attachment"]["device"], i["attachment"]["hook"]) for i in found["items"]}
    kind = "clsact" if node.attach == "tc" else "tcx"
    assert {("eth0", f"{kind}/ingress"), ("eth0", f"{kind}/egress")} <= hooks
    devices = {one["ifname"] for one in json.loads(in_node(node, "ip", "-j", "link"))}
    lxc = {device for device in devices if device.startswith("lxc")}
    for device in lxc:
        assert (device, f"{kind}/ingress") in hooks
    known = {
        one["id"]: one
        for one in json.loads(our_lab.in_agent(node.name, "bpftool", "-j", "prog", "show"))
    }
    # Pods of other tests end meanwhile, and their programs with them.
    still = [item for item in found["items"] if item["attachment"]["program_id"] in known]
    assert len(still) > 2
    for item in still:
        theirs = known[item["attachment"]["program_id"]]
        assert item["program"]["tag"] == theirs["tag"]
        assert item["program"]["map_ids"] == theirs.get("map_ids", [])
        assert item["role"]


def test_by_both_ways_the_programs_are_the_same(our_lab: Lab) -> None:
    said = []
    for access in ACCESS:
        items = document(our_lab, "programs", "pod/client2", access=access)["items"]
        said.append([(i["attachment"]["hook"], i["attachment"]["program_id"]) for i in items])
    assert said[0] == said[1]
    assert len(said[0]) == 2


@pytest.mark.side_by_side
@pytest.mark.parametrize("access", ACCESS)
def test_flows_of_a_pod(our_lab: Lab, access: str) -> None:
    with pod_of_our_own(our_lab, "e2e-talker", "node1") as pod:
        seen = our_lab.run(pod, *FETCH, f"http://{WORLD_ADDRESS}/").strip()
        service = our_lab.get("service", "web")["spec"]["clusterIP"]
        our_lab.run(pod, *FETCH, f"http://{service}/")
        mine = address(our_lab, pod)
        whose = ("flows", f"pod/{pod}", "--all")  # the fetches are over
        found = document(our_lab, *whose, access=access)
        narrowed = document(our_lab, *whose, "--to", f"{service}:80", access=access)
        by_name = document(our_lab, *whose, "--to", "svc/web", access=access)
        nothing = document(our_lab, *whose, "--protocol", "icmp", access=access)
    assert found["missing"] == []
    assert {item["flow"]["source"] for item in found["items"]} == {mine}
    by_end = {item["flow"]["destination"]: item for item in found["items"]}
    outside = by_end[WORLD_ADDRESS]
    assert outside["translated"]["source"] in seen  # the world told whom it saw
    assert outside["cilium_ct"]["packets"] >= 10
    balanced = by_end[service]
    assert balanced["service_ct"]["direction"] == "SVC"
    assert balanced["translated"]["destination"] == address(
        our_lab, our_lab.get("pods", "-l", "app=web")["items"][0]["metadata"]["name"]
    )
    assert [item["flow"] for item in narrowed["items"]] == [balanced["flow"]]
    assert [item["flow"] for item in by_name["items"]] == [balanced["flow"]]
    assert nothing["items"] == []


@pytest.mark.side_by_side
@pytest.mark.parametrize("access", ACCESS)
def test_pods_by_their_label(our_lab: Lab, access: str) -> None:
    names = [each["metadata"]["name"] for each in our_lab.get("pods", "-l", "app=web")["items"]]
    found = document(our_lab, "programs", "-l", "app=web", access=access)
    assert {item["pod"] for item in found["items"]} == set(names)
    assert {item["namespace"] for item in found["items"]} == {"default"}
    assert document(our_lab, "flows", "-l", "app=web", "--all", access=access)["target"] == (
        "pods in namespace default with app=web"
    )


def test_watching_ends_with_an_interrupt_and_leaves_no_node_pod(
    our_lab: Lab, tmp_path: Path
) -> None:
    """One node pod serves every look; it is gone when the user has seen enough."""
    our_lab.ebpfnet("cleanup", "--yes")
    ours, theirs = pty.openpty()
    argv = [program(), "ebpfnet", "flows", "pod/client", "--node-access", "pod", "--watch"]
    errors = (tmp_path / "stderr").open("w+")
    with subprocess.Popen(argv, stdout=theirs, stderr=errors, env=our_lab.env()) as process:
        os.close(theirs)
        said, deadline = b"", time.monotonic() + 60
        while said.count(b"\x1b[H") < 3:
            assert time.monotonic() < deadline, said
            if select.select([ours], [], [], 1)[0]:
                said += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        process.wait(30)
        os.close(ours)
    errors.seek(0)
    assert errors.read().count("deploying a node pod") == 1
    errors.close()
    assert process.returncode == 130
    done = our_lab.kubectl(
        "get", "pods", "-A", "-l", "app.kubernetes.io/managed-by=kubectl-ebpfnet"
    )
    assert "No resources found" in done.stderr
