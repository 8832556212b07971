"""`kubectl ebpfnet path` while something is broken for real, on a pod of the test's own.

Each fault is first seen to break the traffic, then looked for in the answer, then undone. None of
them meets what another test's pod sends, so they run side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools.live import FETCH, changed, in_node, in_pod, path, pod_of_our_own
from tests.lab.conftest import Lab, wait_until

WORLD = f"{WORLD_ADDRESS}:80"
NODE = NODES[0]
INSIDE = ("ip", "netns", "exec", NODE.netns)
IPTABLES = (*INSIDE, "iptables", "-w", "10")
beside = pytest.mark.side_by_side


@contextmanager
def a_victim(lab: Lab) -> Iterator[str]:
    """A pod on node1 that reaches the world until a test breaks it."""
    with pod_of_our_own(lab, "e2e-victim", NODE.name) as name:
        assert reaches(lab, name)
        yield name


def reaches(lab: Lab, pod: str, to: str = f"http://{WORLD_ADDRESS}/") -> bool:
    """Whether a fetch from the pod succeeds."""
    return lab.kubectl("exec", pod, "--", *FETCH, "-o", "/dev/null", to).returncode == 0


def device(pod: str) -> str:
    """The pod's device on its node."""
    return str(policy.endpoint("default", pod)["device"])


@beside
def test_device_down(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        gone = device(victim)
        run([*INSIDE, "ip", "link", "set", gone, "down"])
        assert not reaches(our_lab, victim)
        answer = path(our_lab, victim, WORLD)
        assert (answer.code, answer.verdict) == (3, "dropped")
        hop = answer.hops[-1]
        assert (hop["place"], hop["kind"], hop["drops"]) == ("node", "link", True)
        assert hop["state"] == "observed"
        assert f"{gone} is down" in answer.document["reason"]
        assert f"{gone}, the host side of pod default/{victim}, is down" in answer.titles


@beside
def test_no_route_in_the_pod(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        in_pod(victim, "ip", "route", "del", "default")
        assert not reaches(our_lab, victim)
        answer = path(our_lab, victim, WORLD)
        assert (answer.code, answer.verdict) == (3, "dropped")
        (hop,) = answer.hops
        assert (hop["place"], hop["kind"], hop["drops"]) == ("pod", "route", True)
        assert "no route" in hop["summary"]


@beside
def test_no_route_on_the_node(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        # Towards one address of the world that nobody else asks for.
        route, where = (*INSIDE, "ip", "route"), ("unreachable", "1.0.0.99/32")
        with changed([*route, "add", *where], [*route, "del", *where]):
            assert not reaches(our_lab, victim, "http://1.0.0.99/")
            answer = path(our_lab, victim, "1.0.0.99:80")
        assert (answer.code, answer.verdict) == (3, "dropped")
        assert (answer.hops[-1]["place"], answer.hops[-1]["kind"]) == ("node", "route")
        assert "unreachable" in answer.hops[-1]["summary"]


@beside
def test_neighbour_that_nobody_answers_for(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        run([*INSIDE, "ip", "link", "set", device(victim), "arp", "off"])
        in_pod(victim, "ip", "neigh", "flush", "dev", "eth0")
        assert not reaches(our_lab, victim)
        state = wait_until(lambda: in_pod(victim, "ip", "neigh", "show", NODE.router).strip())
        assert state.endswith(("FAILED", "INCOMPLETE"))
        answer = path(our_lab, victim, WORLD)
        assert (answer.code, answer.verdict) == (3, "dropped")
        hop = answer.hops[-1]
        assert (hop["place"], hop["kind"], hop["drops"]) == ("pod", "neighbour", True)
        assert NODE.router in hop["summary"]


@beside
def test_rule_that_drops(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = str(policy.endpoint("default", victim)["address"])
        words = ("-m", "comment", "--comment", "e2e drop")
        rule = ("FORWARD", "-s", f"{mine}/32", *words, "-j", "DROP")
        with changed([*IPTABLES, "-I", *rule], [*IPTABLES, "-D", *rule]):
            assert not reaches(our_lab, victim)
            answer = path(our_lab, victim, WORLD)
            others = path(our_lab, "pod/client", WORLD)
        assert (answer.code, answer.verdict) == (3, "dropped")
        hop = answer.hops[-1]
        assert (hop["place"], hop["kind"], hop["drops"]) == ("node", "rule", True)
        assert "FORWARD rule 1 “e2e drop”" in hop["summary"]
        assert others.code == 0


@beside
def test_masquerading_that_is_missing(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = str(policy.endpoint("default", victim)["address"])
        rule = ("CILIUM_POST_nat", "-s", f"{mine}/32", "-j", "ACCEPT")
        table = (*IPTABLES, "-t", "nat")
        with changed([*table, "-I", *rule], [*table, "-D", *rule]):
            assert not reaches(our_lab, victim)
            answer = path(our_lab, victim, WORLD)
        assert f"pod address {mine} leaves the cluster without masquerading" in answer.titles
        assert answer.hops[-1]["packet"]["source"] == mine


@beside
def test_policy_that_allows_one_port(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = policy.endpoint("default", victim)
        echo = ("exec", victim, "--", "nc", "-z", "-w", "2", WORLD_ADDRESS, "7777")
        assert our_lab.kubectl(*echo).returncode == 0
        policy.allow_egress("default", victim, policy.Allowed.parse("80/TCP"))
        assert our_lab.kubectl(*echo).returncode != 0
        denied = path(our_lab, victim, f"{WORLD_ADDRESS}:7777")
        assert (denied.code, denied.verdict) == (3, "dropped")
        hop = denied.hops[-1]
        assert (hop["place"], hop["kind"], hop["drops"]) == ("cilium", "policy", True)
        denies = "egress policy denies world (identity 2) at 7777/TCP for endpoint "
        denies += f"{mine['id']}: Policy denied"
        assert denies in hop["summary"]
        assert hop["evidence"]
        (finding,) = [f for f in denied.document["findings"] if f["severity"] == "error"]
        said = finding["title"] + finding["detail"]
        assert str(mine["id"]) in said
        assert "egress" in said
        assert str(mine["identity"]) in said
        assert "world" in said
        assert path(our_lab, victim, f"{WORLD_ADDRESS}:443").code == 3
        assert path(our_lab, victim, WORLD).code == 0
        assert reaches(our_lab, victim)
        policy.clear("default", victim)
        assert path(our_lab, victim, f"{WORLD_ADDRESS}:7777").code == 0
        assert our_lab.kubectl(*echo).returncode == 0


def test_nothing_is_left_of_the_faults(our_lab: Lab) -> None:
    assert our_lab.get("nodes")
    assert "e2e" not in in_node(NODE, "iptables-save")
    assert "1.0.0.99" not in in_node(NODE, "ip", "route")
