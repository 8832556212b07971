"""Routing of the lab's nodes and pods, by node pods and from captures: the same answers as live.

Each test has a pod of its own, and rules for nobody else's packets, so they run side by side.
"""

from __future__ import annotations

from contextlib import ExitStack
from tempfile import TemporaryDirectory

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools.live import Answer, changed, in_pod, path
from tests.lab.conftest import Lab
from tests.lab.test_path_faults import INSIDE, WORLD, a_victim, device, reaches
from tests.lab.test_path_node_pod import kept

__all__ = ("kept",)  # a fixture
pytestmark = pytest.mark.side_by_side
IP = (*INSIDE, "ip")
FAR = {"agent": "1.0.0.92", "pod": "1.0.0.93"}
"""Addresses of the world that nobody else asks for."""


def of_routing(answer: Answer) -> list[tuple[str, ...]]:
    return [
        (hop["place"], hop["where"], hop["summary"], hop["state"])
        for hop in answer.hops
        if hop["kind"] == "route"
    ]


def from_capture(lab: Lab, victim: str, to: str, *words: str) -> Answer:
    """What `path` says from a capture of the pod that is made now."""
    with TemporaryDirectory() as folder:
        file = f"{folder}/x.zip"
        done = lab.ebpfnet("capture", "-o", file, f"pod/{victim}", *words)
        assert done.returncode == 0, done.stderr
        return path(lab, victim, to, "--from", file)


@pytest.mark.parametrize("access", ["agent", "pod"])
def test_a_sysctl_that_drops_is_named_live_and_from_a_capture(
    our_lab: Lab, kept: str, access: str
) -> None:
    ways = ("--node-access", access)
    with a_victim(our_lab) as victim:
        run([*INSIDE, "sysctl", "-qw", f"net.ipv4.conf.{device(victim)}.forwarding=0"])
        assert not reaches(our_lab, victim)
        live = path(our_lab, victim, WORLD, *ways)
        later = from_capture(our_lab, victim, WORLD, "--to", WORLD_ADDRESS, *ways)
    for answer in (live, later):
        assert (answer.code, answer.verdict) == (3, "dropped"), answer.document["reason"]
        assert f"{device_words(live)} is 0" in answer.document["reason"]
    assert of_routing(later) == of_routing(live)


def device_words(answer: Answer) -> str:
    """The sysctl that the fix sets."""
    return str(answer.document["fix"]["command"]).removeprefix("sysctl -w ").partition("=")[0]


@pytest.mark.parametrize("access", ["agent", "pod"])
def test_a_rule_of_the_pod_is_named_live_and_from_a_capture(
    our_lab: Lab, kept: str, access: str
) -> None:
    ways = ("--node-access", access)
    with a_victim(our_lab) as victim:
        in_pod(victim, "ip", "route", "add", "unreachable", "default", "table", "77")
        in_pod(victim, "ip", "rule", "add", "to", WORLD_ADDRESS, "lookup", "77", "pref", "50")
        live = path(our_lab, victim, WORLD, *ways)
        later = from_capture(our_lab, victim, WORLD, *ways)
    for answer in (live, later):
        assert (answer.code, answer.verdict) == (3, "dropped"), answer.document["reason"]
        assert f"which rule 50 (to {WORLD_ADDRESS}) looks up" in answer.document["reason"]
        assert "CNI" not in str(answer.document["findings"])


@pytest.mark.parametrize("access", ["agent", "pod"])
def test_rules_that_work_are_followed_as_the_kernel_does(
    our_lab: Lab, kept: str, access: str
) -> None:
    """goto passes a blackhole; a rule for another port and one for users do not concern it."""
    ways, far = ("--node-access", access), FAR[access]
    rules = (
        ("to", far, "goto", "32766", "pref", "60"),
        ("to", far, "blackhole", "pref", "61"),
    )
    other_port = ("to", far, "ipproto", "tcp", "dport", "81", "prohibit", "pref", "59")
    with a_victim(our_lab) as victim, ExitStack() as made:
        for words in (*rules, other_port):
            made.enter_context(changed([*IP, "rule", "add", *words], [*IP, "rule", "del", *words]))
        live = path(our_lab, victim, f"{far}:80", *ways)
        other = path(our_lab, victim, f"{far}:81", *ways)
        later = from_capture(our_lab, victim, f"{far}:80", "--to", far, *ways)
    assert (live.code, live.verdict) == (0, "leaves"), live.document["reason"]
    assert (other.code, other.verdict) == (3, "dropped"), other.document["reason"]
    assert f"rule 59 (to {far} ipproto TCP dport 81) says prohibit" in other.document["reason"]
    assert (later.verdict, of_routing(later)) == (live.verdict, of_routing(live))
    assert NODES[0].name in {hop["node"] for hop in live.hops}
