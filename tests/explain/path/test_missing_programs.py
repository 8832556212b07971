"""A program of Cilium that is certainly attached nowhere: the walk does not go on as if it ran."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_ebpfnet.model.path import Path as Answer
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import VXLAN, Change, ask, changed, fail, finding
from tests.explain.path.variants import json_edit

NET = "bpftool -j net show"


def detached(node: str, device: str, program: str) -> Change:
    """A program of a device is attached no more; its pin stays."""

    def edit(value: Any) -> None:
        rows = value[0]["tc"]
        kept = [row for row in rows if (row["devname"], row["name"]) != (device, program)]
        assert len(kept) == len(rows) - 1
        value[0]["tc"] = kept

    return json_edit(node, NET, edit)


def without(node: str, device: str, program: str, destination: str = "pod/web:8080") -> Answer:
    """The answer on a cluster where a program is missing, and the flow was answered before."""
    with attempt(5.0):
        return ask(changed(VXLAN, detached(node, device, program)), "client", destination)


@pytest.mark.parametrize(
    ("node", "device", "program", "destination", "consequence"),
    [
        ("node2", "lxcca1c984e26ef", "cil_from_container", "pod/web:8080", "What the pod sends"),
        ("node1", "cilium_vxlan", "cil_from_overlay", "pod/web:8080", "out of the tunnel"),
        ("node2", "eth0", "cil_from_netdev", "1.1.1.1:80", "answers to masqueraded packets"),
    ],
)
def test_it_is_an_error_and_an_answer_proves_nothing(
    node: str, device: str, program: str, destination: str, consequence: str
) -> None:
    assert ask(changed(VXLAN), "client", destination).verdict != "unknown"
    path = without(node, device, program, destination)
    assert path.verdict == "unknown"
    error = finding(path, f"no program of Cilium's is attached at {device}")
    assert error.severity == "error"
    assert f"the pinned link of {program} is attached to no device" in error.title
    assert consequence in error.detail
    assert error.title in path.reason


def test_without_cil_from_overlay_no_ingress_policy_is_claimed() -> None:
    path = without("node1", "cilium_vxlan", "cil_from_overlay")
    after = [hop for hop in path.hops if hop.node == "node1" and hop.where == "cilium_vxlan"]
    assert not any("BPF host routing hands it" in hop.summary for hop in path.hops)
    assert after


def test_tools_that_could_not_be_asked_leave_it_open() -> None:
    """Neither bpftool nor tc: the walk goes on as Cilium's datapath does it."""
    commands = (NET, "bpftool -j link show", "ls -R /sys/fs/bpf")
    changes = [fail("node2", command, "not found", 127) for command in commands]
    with attempt(5.0):
        path = ask(changed(VXLAN, *changes), "client", "1.1.1.1:80")
    assert path.verdict == "delivered"
    assert not [one for one in path.findings if one.severity == "error"]
