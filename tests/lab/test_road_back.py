"""`kubectl ebpfnet path` while the answer is lost, or comes another way, for real.

client2 on node2 asks web on node1, the world and node1 itself. Each fault meets only its packets,
is seen to break them, looked for in the answer, and undone. The module runs alone, since client2 is
everybody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.cluster.config import NODES
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools.live import Answer, address, in_pod, path
from tests.lab.conftest import Lab

CLIENT, FAR = "client2", "1.0.0.94"
"""The world has every address of 1.0.0.0/24; nobody else asks for this one."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The client's address and device, and the web pod's name and address."""

    mine: str
    lxc: str
    web: str
    its: str


@pytest.fixture(scope="module")
def ends(lab: Lab) -> Ends:
    if not lab.ours:
        pytest.skip("needs the workloads of the lab (make lab-up)")
    (web,) = lab.get("pods", "-l", "app=web")["items"]
    lxc = str(policy.endpoint("default", CLIENT)["device"])
    return Ends(address(lab, CLIENT), lxc, web["metadata"]["name"], web["status"]["podIP"])


Step = tuple[int, str, str]
"""A command on node 1, 2 or 3, or with 0 in the web pod, and the one that takes it back."""


@contextmanager
def made(ends: Ends, *steps: Step) -> Iterator[None]:
    def do(node: int, words: str) -> None:
        argv = words.format(mine=ends.mine, its=ends.its, lxc=ends.lxc).split()
        if node:
            run(["ip", "netns", "exec", NODES[node - 1].netns, *argv])
        else:
            in_pod(ends.web, *argv)

    with ExitStack() as stack:
        for node, words, undo in steps:
            do(node, words)
            stack.callback(do, node, undo)
        yield


def rule(node: int, words: str) -> Step:
    """A rule of netfilter: `raw PREROUTING …`; it stands first in its chain."""
    table, chain, rest = words.split(" ", 2)
    base = f"iptables -w 10 -t {table}"
    return node, f"{base} -I {chain} {rest}", f"{base} -D {chain} {rest}"


def added(node: int, words: str) -> Step:
    """`route 192.0.2.1 …`, `rule to …`: of iproute2."""
    what, rest = words.split(" ", 1)
    return node, f"ip {what} add {rest}", f"ip {what} del {rest}"


WEB, WORLD, KUBELET = "web", "world", "kubelet"
BY_MARK = [
    (2, "ip link add ebr0 type veth peer name ebr1", "ip link del ebr0"),
    (2, "ip link set ebr0 up", "ip link set ebr0 down"),
    added(2, "route {its} via 172.30.0.11 dev eth0 table 98"),
    added(2, "rule fwmark 0x55 lookup 98 pref 56"),
    rule(2, "mangle PREROUTING -i {lxc} -d {its} -j MARK --set-mark 0x55"),
    added(2, "route {its} dev ebr0"),
]
"""A packet's mark chooses its table; by the others its answer would not be sent back."""
FILTER = "sysctl -qw net.ipv4.conf.eth0.rp_filter"
BY_CONNMARK = [
    rule(1, "mangle PREROUTING -s {mine} -d {its} -j CONNMARK --set-mark 0x67"),
    rule(1, "mangle PREROUTING -s {its} -d {mine} -j CONNMARK --restore-mark"),
    added(1, "route {mine} via 172.30.0.12 dev eth0 table 99"),
    added(1, "rule fwmark 0x67 lookup 99 pref 58"),
    added(1, "route unreachable {mine}"),
]
"""Answers have their connection's mark, and a table of their own."""
LOST: dict[str, tuple[str, list[Step], str, str]] = {
    "rule of the far pod": (
        WEB, [added(0, "rule to {mine} blackhole pref 50")], "blackhole", "node1"),
    "rule of the far node": (
        WEB, [added(1, "rule from {its} to {mine} prohibit pref 55")], "prohibit", "node1"),
    "FORWARD of the far node": (
        WEB, [rule(1, "filter FORWARD -s {its} -d {mine} -p tcp --sport 8080 -j DROP")],
        "FORWARD rule 1", "node1"),
    "raw of the client's node": (
        WEB, [rule(2, "raw PREROUTING -i eth0 -s {its} -d {mine} -j DROP")],
        "raw PREROUTING", "node2"),
    "rp_filter where marks choose": (
        WEB, [*BY_MARK, (2, f"{FILTER}=1", f"{FILTER}=0")], "rp_filter", "node2"),
    "rule for what comes from the world": (
        WORLD, [added(2, "rule iif eth0 to {mine} blackhole pref 57")], "blackhole", "node2"),
    "OUTPUT of a node": (
        KUBELET, [rule(1, "filter OUTPUT -d {mine} -p tcp --sport 10250 -j DROP")],
        "OUTPUT", "node1"),
}  # fmt: skip


def answers(ends: Ends, to: str) -> bool:
    """Whether a fetch from the client succeeds; in the lab it takes milliseconds."""
    kubelet = f"https://{NODES[0].address}:10250/"
    url = {WEB: f"http://{ends.its}:8080/", WORLD: f"http://{FAR}/", KUBELET: kubelet}[to]
    fetch = f"curl -sk -o /dev/null --max-time 0.5 {url} && echo yes; true"
    return in_pod(CLIENT, "sh", "-c", fetch) == "yes\n"


def asked(lab: Lab, ends: Ends, to: str, *words: str) -> Answer:
    there = {WEB: f"{ends.its}:8080", WORLD: f"{FAR}:80", KUBELET: "node/node1:10250"}[to]
    return path(lab, f"pod/{CLIENT}", there, *words)


def test_a_third_node_on_the_way_back(our_lab: Lab, ends: Ends, tmp_path: Path) -> None:
    """The packet did not pass it, so it does not know the connection: kube-proxy's rule for INVALID
    drops the answer there, until another one accepts it. It comes first: what answers to the others
    is sent again, and passes once a fault is undone."""
    accepts = rule(3, "filter FORWARD -s {its} -d {mine} -j ACCEPT")
    file, to = str(tmp_path / "x.zip"), ("--to", f"pod/{ends.web}")
    with made(ends, added(1, "route {mine} via 172.30.0.13 dev eth0")):
        assert not answers(ends, WEB)
        live = asked(our_lab, ends, WEB)
        done = our_lab.ebpfnet("capture", "-o", file, f"pod/{CLIENT}", "node/node3", *to)
        lost = asked(our_lab, ends, WEB, "--from", file)
        with made(ends, accepts):
            assert answers(ends, WEB)
            works = asked(our_lab, ends, WEB)
    assert done.returncode == 0, done.stderr
    for said in (live, lost):  # live, node3 is asked once the records lead the answer there
        assert (said.verdict, said.document["drop"]["node"]) == ("dropped", "node3")
        assert "INVALID" in said.document["reason"]
    for answer in (live, lost, works):
        assert answer.document["answer"]["asymmetric"]
        assert "node3" in answer.document["answer"]["way"]
    assert (works.code, works.document["answer"]["state"]) == (0, "returns")
    assert not any(f["severity"] == "error" for f in works.document["findings"])


@pytest.mark.parametrize("name", LOST)
def test_an_answer_that_is_lost(our_lab: Lab, ends: Ends, name: str) -> None:
    to, steps, words, node = LOST[name]
    with made(ends, *steps):
        assert not answers(ends, to)
        answer = asked(our_lab, ends, to)
    said = answer.document["reason"]
    assert (answer.code, answer.verdict) == (3, "dropped"), said
    drop = answer.document["drop"]
    assert (drop["direction"], drop["node"]) == ("answer", node), said
    back = answer.document["answer"]
    assert (back["state"], back["hops"][drop["hop"] - 1]["drops"]) == ("lost", True)
    assert words in said, said


@pytest.mark.parametrize("steps", [BY_MARK, BY_CONNMARK], ids=["a mark", "a connmark"])
def test_a_way_back_by_policy_routing_is_no_error(
    our_lab: Lab, ends: Ends, steps: list[Step]
) -> None:
    with made(ends, *steps):
        assert answers(ends, WEB)
        answer = asked(our_lab, ends, WEB)
    back = answer.document["answer"]
    assert (answer.code, back["state"]) == (0, "returns"), answer.document["reason"]
    assert not back["asymmetric"]
    assert not any(f["severity"] == "error" for f in answer.document["findings"])
    if steps is BY_CONNMARK:
        assert any("by rule 58" in hop["summary"] for hop in back["hops"])


def test_a_request_over_udp_arrives_and_its_answer_is_lost(our_lab: Lab, ends: Ends) -> None:
    with made(ends, added(1, "route blackhole {mine}")):
        in_pod(CLIENT, "bash", "-c", f"echo hostname > /dev/udp/{ends.its}/8081")
        answer = path(our_lab, f"pod/{CLIENT}", f"{ends.its}:8081/udp")
    assert (answer.code, answer.verdict) == (3, "dropped"), answer.document.get("reason")
    assert answer.document["drop"]["direction"] == "answer"
    assert "the packet itself gets through to pod" in answer.document["reason"]
