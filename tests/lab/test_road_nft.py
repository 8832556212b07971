"""`path` by node pods where nftables' own tables break the traffic of a pod, or do not.

Each fault is seen to break the traffic first, then looked for in the answer, then undone. The
tables are in the namespace of node1, or of a pod of the test's own, and name that pod alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import (
    FETCH,
    Answer,
    address,
    changed,
    in_node,
    in_pod,
    kept_node_pods,
    path,
    pod_of_our_own,
)
from tests.lab.conftest import Lab
from tests.lab.test_path_faults import INSIDE, device, reaches

WORLD = f"{WORLD_ADDRESS}:80"
NODE = NODES[0]
NFT = (*INSIDE, "nft")


@pytest.fixture(scope="module")
def victim(lab: Lab) -> Iterator[str]:
    """A pod on node1, where a node pod is kept."""
    if not lab.ours:
        pytest.skip("needs the node image of the lab (make lab-up)")
    with kept_node_pods(lab, WORLD), pod_of_our_own(lab, "e2e-nft", NODE.name) as name:
        assert reaches(lab, name)
        yield name


def is_lost(lab: Lab, pod: str) -> bool:
    """Whether nothing comes back to the pod within a second."""
    fetch = (*FETCH, "--max-time", "1", f"http://{WORLD_ADDRESS}/")
    return lab.kubectl("exec", pod, "--", *fetch).returncode != 0


@pytest.fixture
def asked(our_lab: Lab, victim: str) -> Callable[..., Answer]:
    return lambda *words: path(our_lab, f"pod/{victim}", WORLD, "--node-access", "pod", *words)


@contextmanager
def table(text: str, family: str = "inet") -> Iterator[None]:
    """A table e2e on node1."""
    with changed([*NFT, f"add table {family} e2e"], [*NFT, f"delete table {family} e2e"]):
        in_node(NODE, "nft", f"table {family} e2e {{ {text} }}")
        yield


def test_a_set_that_drops_before_connection_tracking(
    our_lab: Lab, victim: str, asked: Callable[..., Answer], tmp_path: Path
) -> None:
    of_victim = f"set bad {{ type ipv4_addr; elements = {{ {address(our_lab, victim)} }}; }};"
    rule = "chain early { type filter hook prerouting priority -450; ip saddr @bad counter drop; };"
    file = str(tmp_path / "case.zip")
    with table(of_victim + rule):
        assert not reaches(our_lab, victim)  # long enough to be newer than what was answered
        answer = asked()
        by_agent = path(our_lab, f"pod/{victim}", WORLD, "--node-access", "agent")
        words = ("-o", file, f"pod/{victim}", "--to", WORLD_ADDRESS, "--node-access", "pod")
        assert our_lab.ebpfnet("capture", *words).returncode == 0
    captured = path(our_lab, f"pod/{victim}", WORLD, "--from", file)
    for each in (answer, captured):
        assert (each.code, each.verdict) == (3, "dropped")
        assert each.document["drop"]["object"] == "nft chain inet e2e early"
        assert each.document["fix"]["command"].startswith("nft delete rule inet e2e early handle ")
        assert "ip saddr @bad drop" in each.hops[-1]["summary"]
    # Cilium's image has no nft: an agent alone says what it has not read.
    assert by_agent.verdict == "unknown"
    assert "nftables' own tables on node1" in by_agent.document["reason"]


def test_a_chain_at_the_pods_device(
    our_lab: Lab, victim: str, asked: Callable[..., Answer]
) -> None:
    hook = f"type filter hook ingress device {device(victim)} priority 0"
    with table(f"chain gate {{ {hook}; tcp dport 80 drop; }};", "netdev"):
        assert is_lost(our_lab, victim)
        answer = asked()
    assert (answer.code, answer.verdict) == (3, "dropped")
    assert answer.document["drop"]["object"] == "nft chain netdev e2e gate"


def test_rules_in_the_pods_own_namespace(
    our_lab: Lab, victim: str, asked: Callable[..., Answer]
) -> None:
    in_pod(victim, "nft", "table inet own { chain out { type filter hook output priority 0; "
           "ct state new tcp dport 80 reject; }; }")  # fmt: skip
    assert is_lost(our_lab, victim)
    answer = asked()
    in_pod(victim, "nft", "delete table inet own")
    assert (answer.code, answer.verdict) == (3, "dropped")
    hop = answer.hops[-1]
    assert (hop["place"], hop["where"]) == ("pod", f"default/{victim}")
    assert "by nft inet own out (output +0) rule 1 ct state new" in hop["summary"]
    in_pod(victim, "iptables", "-A", "OUTPUT", "-p", "tcp", "--dport", "80", "-j", "DROP")
    assert is_lost(our_lab, victim)
    answer = asked()
    in_pod(victim, "iptables", "-F", "OUTPUT")
    assert answer.document["drop"]["object"] == "iptables -t filter chain OUTPUT"


def test_a_firewall_that_lets_it_pass_is_no_error(
    our_lab: Lab, victim: str, asked: Callable[..., Answer]
) -> None:
    mine = address(our_lab, victim)
    accepting = (
        "chain in { type filter hook input priority 10; ct state established,related accept; "
        f"iifname lo accept; ip saddr {mine} tcp dport 81 reject; }};"
        f"chain onward {{ type filter hook forward priority 10; ip saddr != {mine} accept; "
        "ct state vmap { established : accept, related : accept, invalid : drop }; "
        f"ip saddr . tcp dport {{ {mine} . 80-90 }} accept; drop; }};"
        "set seen { type ipv4_addr; size 99; flags dynamic; };"
        "chain pre { type filter hook prerouting priority -180; add @seen { ip saddr }; "
        'meta mark set meta mark | 0x10000 comment "unused bit"; };'
    )
    with table(accepting):
        assert reaches(our_lab, victim)
        answer = asked()
    assert (answer.code, answer.verdict, answer.titles) == (0, "delivered", [])
    assert all(hop["state"] != "unknown" for hop in answer.hops)


def test_what_is_not_tracked_is_not_masqueraded(
    our_lab: Lab, victim: str, asked: Callable[..., Answer]
) -> None:
    mine = address(our_lab, victim)
    rule = f"ip saddr {mine} ip daddr {WORLD_ADDRESS} notrack;"
    with table(f"chain raw {{ type filter hook prerouting priority -300; {rule} }};"):
        assert is_lost(our_lab, victim)  # the world has no route to a pod
        answer = asked()
        # A pod is reached without masquerading, and its answers are tracked by Cilium alone.
        there = f"pod/{victim}", "pod/client:80", "--node-access", "pod"
        inside = path(our_lab, *there)
    assert "nothing masquerades pod address" in answer.summaries()
    assert any("leaves the cluster without masquerading" in title for title in answer.titles)
    assert not any("masquerad" in title for title in inside.titles)
    assert policy.endpoint("default", victim)["address"] == mine
