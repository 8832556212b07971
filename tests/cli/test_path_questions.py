"""The command of a fix is for the cluster that was asked, whatever context is current."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from kubectl_ebpfnet.cli.given_flags import GlobalFlags
from kubectl_ebpfnet.model.path import Fix
from tests.cli.console import KUBECTL, run, run_process
from tests.render.path.sample_paths import dropped

ASKED = GlobalFlags({"context": "pr$(od)", "kubeconfig": "my conf", "namespace": "shop"})


def advised(command: str, flags: GlobalFlags = ASKED) -> str:
    fix = flags.asked().path(replace(dropped(), fix=Fix("Do.", command))).fix
    assert fix is not None
    return fix.command


@pytest.mark.parametrize(
    "command",
    [
        "kubectl describe pod -n default web",
        "kubectl exec -n default web -- ip route",
        "kubectl ebpfnet capture -o case.zip node/n1 --to 1.1.1.1:80 --node-access pod",
    ],
)
def test_flags_that_choose_a_cluster_stand_where_they_are_read(command: str) -> None:
    words = shlex.split(advised(command))
    chosen = ["--kubeconfig", "my conf", "--context", "pr$(od)"]
    assert sorted(words) == sorted([*shlex.split(command), *chosen])
    ours = words[1] == "ebpfnet"
    done = run(*words[2:]) if ours else run_process(*words[1:], program=(KUBECTL,))
    assert done.returncode == 1
    assert "my conf" in done.stderr or "pr$(od)" in done.stderr, done.stderr


def test_what_needs_no_flag_has_none() -> None:
    there = "kubectl describe pod -n default web"
    assert advised("ip link set eth0 mtu 1550") == "ip link set eth0 mtu 1550"
    assert advised(there, GlobalFlags({"namespace": "shop"})) == there
    unfixed = replace(dropped(), fix=None)
    assert ASKED.asked().path(unfixed).fix is None
