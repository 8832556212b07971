"""What stands below the command of a Fix: for which cluster it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.model.evidence import LIVE, bundle_of
from kubectl_ebpfnet.model.path import Fix
from kubectl_ebpfnet.render.path.headline import paragraphs
from kubectl_ebpfnet.render.path.page import page
from kubectl_ebpfnet.render.text.view import View
from tests.render.path.sample_paths import dropped


@pytest.mark.parametrize(
    ("source", "command", "told"),
    [
        ("case.zip", "kubectl edit service -n default web", True),
        (LIVE, "kubectl edit service -n default web", False),
        ("case.zip", "ip link set eth0 mtu 1550", False),  # on a node, which has one cluster
        ("case.zip", "", False),
    ],
)
def test_which_cluster_a_command_is_for(source: str, command: str, told: bool) -> None:
    path = replace(dropped(), fix=Fix("Do it.", command))
    bundle = bundle_of([], source)
    lines = paragraphs(path, bundle, View(80), in_full=False)
    said = "For the recorded cluster: choose its --context."
    assert (lines[-1] == f"        {said}") == told
    assert (said in page(path, bundle)) == told
