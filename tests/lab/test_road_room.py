"""`path` where masquerading depends on the packet, and where there is no room for one more.

Each fault is first seen to break the traffic, then looked for in the answer, then undone; each test
meets its own pod's packets alone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.kubectl import program
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools.live import FETCH, Answer, changed, in_node, path, pod_of_our_own
from tests.lab.conftest import Lab, wait_until

NODE = NODES[0]
WORLD, ECHO = f"{WORLD_ADDRESS}:80", f"{WORLD_ADDRESS}:7777"
IPTABLES = ("ip", "netns", "exec", NODE.netns, "iptables", "-w", "10")
IN_WORLD = ("ip", "-n", "ebl-world")
IN_NODE = ("ip", "-n", NODE.netns)
beside = pytest.mark.side_by_side


@contextmanager
def a_pod(lab: Lab, name: str) -> Iterator[tuple[str, str]]:
    """A pod on node1, and its address."""
    with pod_of_our_own(lab, name, NODE.name) as pod:
        yield pod, str(policy.endpoint("default", pod)["address"])


@contextmanager
def rule(chain: str, *words: str) -> Iterator[None]:
    """A rule of nat at the head of a chain."""
    nat = (*IPTABLES, "-t", "nat")
    with changed([*nat, "-I", chain, *words], [*nat, "-D", chain, *words]):
        yield


def errors(answer: Answer) -> list[str]:
    found = answer.document["findings"]
    return [str(one["title"]) for one in found if one["severity"] == "error"]


def connects(lab: Lab, pod: str, port: int) -> bool:
    argv = ("exec", pod, "--", "nc", "-z", "-w", "2", WORLD_ADDRESS, str(port))
    return lab.kubectl(*argv).returncode == 0


@beside
def test_a_policy_map_without_room_for_what_would_allow_it(our_lab: Lab) -> None:
    with a_pod(our_lab, "e2e-room-policy") as (pod, _):
        policy.allow_egress("default", pod, policy.Allowed.parse("80/TCP"))
        policy.fill("default", pod)
        wanted = (policy.Allowed.parse("80/TCP"), policy.Allowed.parse("7777/TCP"))
        with pytest.raises(OSError, match="No space"):
            policy.allow_egress("default", pod, *wanted)
        assert not connects(our_lab, pod, 7777)
        denied, allowed = path(our_lab, pod, ECHO), path(our_lab, pod, WORLD)
        assert (denied.code, denied.verdict) == (3, "dropped")
        assert "its policy map is full (256 of at most 256 entries)" in denied.document["cause"]
        assert "bpf-policy-map-max" in denied.document["fix"]["text"]
        assert allowed.code == 0  # what is in the map is as it was
        assert "is full: 256 of at most 256" in " ".join(errors(allowed)), allowed.document


@beside
def test_source_nat_without_a_port_for_one_more(our_lab: Lab) -> None:
    with a_pod(our_lab, "e2e-room-ports") as (pod, mine):
        words = ("-s", mine, "-p", "tcp", "--dport", "7777", "-m", "comment", "--comment", "e2e")
        with (
            rule("POSTROUTING", *words, "-j", "MASQUERADE", "--to-ports", "61000-61001"),
            _held(our_lab, pod),
            _held(our_lab, pod),
        ):
            wait_until(lambda: _tracked(mine) == 2)
            assert not connects(our_lab, pod, 7777)
            full, other = path(our_lab, pod, ECHO), path(our_lab, pod, WORLD)
        assert (full.code, full.verdict) == (3, "dropped")
        hop = full.hops[-1]
        assert (hop["kind"], hop["drops"]) == ("nat", True)
        assert f"no port is left for source NAT to {ECHO}" in hop["summary"]
        assert f"2 of 2 ports of {NODE.address}" in full.document["cause"]
        assert (other.code, errors(other)) == (0, [])


@contextmanager
def _held(lab: Lab, pod: str) -> Iterator[None]:
    """A connection to the world's echo that stays open."""
    argv = [program(), "exec", "-i", pod, "--", "nc", WORLD_ADDRESS, "7777"]
    env, quiet = dict(lab.env()), subprocess.DEVNULL
    with subprocess.Popen(
        argv, env=env, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet
    ) as process:
        try:
            yield
        finally:
            process.kill()


def _tracked(address: str) -> int:
    """How many connections of a pod to the echo its node has established."""
    lines = in_node(NODE, "cat", "/proc/net/nf_conntrack").splitlines()
    wanted = (f"src={address} ", "dport=7777 ", "ESTABLISHED")
    return sum(all(word in line for word in wanted) for line in lines)


@beside
def test_masquerading_that_spares_a_protocol(our_lab: Lab) -> None:
    with a_pod(our_lab, "e2e-room-icmp") as (pod, mine):
        ping = ("exec", pod, "--", "ping", "-c", "1", "-W", "1", WORLD_ADDRESS)
        assert our_lab.kubectl(*ping).returncode == 0
        with rule("CILIUM_POST_nat", "-s", mine, "-p", "icmp", "-o", "eth0", "-j", "RETURN"):
            wait_until(lambda: our_lab.kubectl(*ping).returncode != 0)
            our_lab.kubectl(*ping)  # a second later than the last one that was answered
            icmp = path(our_lab, pod, WORLD_ADDRESS, "--protocol", "icmp")
            assert connects(our_lab, pod, 80)
            tcp = path(our_lab, pod, WORLD)
        assert icmp.verdict in ("unknown", "dropped")
        assert f"pod address {mine} leaves the cluster" in " ".join(errors(icmp))
        assert (tcp.code, errors(tcp)) == (0, [])


@beside
def test_masquerading_takes_the_address_beside_the_next_hop(our_lab: Lab) -> None:
    with (
        a_pod(our_lab, "e2e-room-address") as (pod, _),
        changed(
            [*IN_WORLD, "addr", "add", "198.18.7.200/24", "dev", "eth0"],
            [*IN_WORLD, "addr", "del", "198.18.7.200/24", "dev", "eth0"],
        ),
        changed(
            [*IN_WORLD, "addr", "add", "1.0.0.77/32", "dev", "lo"],
            [*IN_WORLD, "addr", "del", "1.0.0.77/32", "dev", "lo"],
        ),
        changed(
            [*IN_NODE, "addr", "add", "198.18.7.11/24", "dev", "eth0"],
            [*IN_NODE, "addr", "del", "198.18.7.11/24", "dev", "eth0"],
        ),
        changed(
            [*IN_NODE, "route", "add", "1.0.0.77/32", "via", "198.18.7.200"],
            [*IN_NODE, "route", "del", "1.0.0.77/32", "via", "198.18.7.200"],
        ),
    ):
        in_node(NODE, "ping", "-c", "1", "-W", "2", "198.18.7.200")  # its neighbour entry is new
        before = path(our_lab, pod, "1.0.0.77:80")
        assert "as 198.18.7.11" in before.document["reason"]
        assert errors(before) == []
        seen = our_lab.run(pod, *FETCH, "http://1.0.0.77/")
        assert "198.18.7.11" in seen
        assert "as 172.30.0.11" in path(our_lab, pod, f"{WORLD_ADDRESS}:81").document["reason"]


def test_nothing_is_left_of_the_faults(our_lab: Lab) -> None:
    assert our_lab.get("nodes")
    assert "198.18.7" not in in_node(NODE, "ip", "addr") + run([*IN_WORLD, "addr"]).stdout
    assert "61000" not in in_node(NODE, "iptables-save")
