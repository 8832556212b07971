"""Routing of the lab's nodes and pods, by node pods and from captures: the same answers as live."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools.live import Answer, changed, in_pod, path
from tests.lab.conftest import Lab
from tests.lab.test_path_faults import INSIDE, WORLD, a_victim, device, reaches
from tests.lab.test_path_node_pod import by_pod, kept

__all__ = ("by_pod", "kept")  # fixtures
IP = (*INSIDE, "ip")
FAR = "1.0.0.93"
"""An address of the world that nobody else asks for."""


def of_routing(answer: Answer) -> list[tuple[str, ...]]:
    return [
        (hop["place"], hop["where"], hop["summary"], hop["state"])
        for hop in answer.hops
        if hop["kind"] == "route"
    ]


def captured(lab: Lab, file: Path, *words: str) -> None:
    done = lab.kubectl("ebpfnet", "capture", "-f", str(file), "--force", *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("access", ["agent", "pod"])
def test_a_sysctl_that_drops_is_named_live_and_from_a_capture(
    our_lab: Lab, by_pod: Callable[..., Answer], tmp_path: Path, access: str
) -> None:
    ways = ("--node-access", access)
    with a_victim(our_lab) as victim:
        run([*INSIDE, "sysctl", "-qw", f"net.ipv4.conf.{device(victim)}.forwarding=0"])
        assert not reaches(our_lab, victim)
        live = path(our_lab, victim, WORLD, *ways)
        captured(our_lab, tmp_path / "x.zip", f"pod/{victim}", "--to", WORLD_ADDRESS, *ways)
        kept = path(our_lab, victim, WORLD, "--from", str(tmp_path / "x.zip"))
    for answer in (live, kept):
        assert (answer.code, answer.verdict) == (3, "dropped"), answer.document["reason"]
        assert f"{device_words(live)} is 0" in answer.document["reason"]
    assert of_routing(kept) == of_routing(live)


def device_words(answer: Answer) -> str:
    """The sysctl that the fix sets."""
    return str(answer.document["fix"]["command"]).removeprefix("sysctl -w ").partition("=")[0]


@pytest.mark.parametrize("access", ["agent", "pod"])
def test_a_rule_of_the_pod_is_named_live_and_from_a_capture(
    our_lab: Lab, by_pod: Callable[..., Answer], tmp_path: Path, access: str
) -> None:
    ways = ("--node-access", access)
    with a_victim(our_lab) as victim:
        in_pod(victim, "ip", "route", "add", "unreachable", "default", "table", "77")
        in_pod(victim, "ip", "rule", "add", "to", WORLD_ADDRESS, "lookup", "77", "pref", "50")
        live = path(our_lab, victim, WORLD, *ways)
        captured(our_lab, tmp_path / "x.zip", f"pod/{victim}", *ways)
        kept = path(our_lab, victim, WORLD, "--from", str(tmp_path / "x.zip"))
    for answer in (live, kept):
        assert (answer.code, answer.verdict) == (3, "dropped"), answer.document["reason"]
        assert f"which rule 50 (to {WORLD_ADDRESS}) looks up" in answer.document["reason"]
        assert "CNI" not in str(answer.document["findings"])


@pytest.mark.parametrize("access", ["agent", "pod"])
def test_rules_that_work_are_followed_as_the_kernel_does(
    our_lab: Lab, by_pod: Callable[..., Answer], tmp_path: Path, access: str
) -> None:
    """goto passes a blackhole; a rule for another port and one for users do not concern it."""
    ways = ("--node-access", access)
    rules = (
        ("to", FAR, "goto", "32766", "pref", "60"),
        ("to", FAR, "blackhole", "pref", "61"),
    )
    with a_victim(our_lab) as victim:
        for words in rules:
            run([*IP, "rule", "add", *words])
        try:
            with changed(
                [
                    *IP,
                    "rule",
                    "add",
                    "to",
                    FAR,
                    "ipproto",
                    "tcp",
                    "dport",
                    "81",
                    "prohibit",
                    "pref",
                    "59",
                ],
                [*IP, "rule", "del", "to", FAR, "pref", "59"],
            ):
                live = path(our_lab, victim, f"{FAR}:80", *ways)
                other = path(our_lab, victim, f"{FAR}:81", *ways)
                captured(our_lab, tmp_path / "x.zip", f"pod/{victim}", "--to", FAR, *ways)
                kept = path(our_lab, victim, f"{FAR}:80", "--from", str(tmp_path / "x.zip"))
        finally:
            for words in rules:
                run([*IP, "rule", "del", *words])
    assert (live.code, live.verdict) == (0, "leaves"), live.document["reason"]
    assert (other.code, other.verdict) == (3, "dropped"), other.document["reason"]
    assert f"rule 59 (to {FAR} ipproto TCP dport 81) says prohibit" in other.document["reason"]
    assert (kept.verdict, of_routing(kept)) == (live.verdict, of_routing(live))
    assert NODES[0].name in {hop["node"] for hop in live.hops}
