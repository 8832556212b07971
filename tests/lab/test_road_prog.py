"""Programs of others, programs of Cilium's that are missing, and qdiscs, on real traffic.

Each fault is made on a pod of its own, and is seen to break its traffic. The filters are compiled
here and look for the pod's address, so nobody else's packets meet them.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kubectl_ebpfnet.node.bpf.cgroups import hierarchy_root
from kubectl_ebpfnet.node.bpf.syscall import closing, open_program
from kubectl_ebpfnet.node.host import netns
from tests.lab.cluster.config import NODES, WORLD_ADDRESS, Node
from tests.lab.cluster.datapath import policy, tc_filter
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools.live import (
    FETCH,
    Answer,
    changed,
    in_node,
    in_pod,
    path,
    pod_of_our_own,
)
from tests.lab.conftest import Lab
from tests.node.bpf.bpf_programs import link, load

WORLD = f"{WORLD_ADDRESS}:80"
NODE, RECEIVER = NODES[2], NODES[0]
"""Programs are attached by tc on both, which this machine's bpftool shows."""
_CGROUP_SKB, _EGRESS = 8, 1
"""Of enum bpf_prog_type and bpf_attach_type (include/uapi/linux/bpf.h)."""
beside = pytest.mark.side_by_side

_SOURCE = """\
#include <linux/bpf.h>
#define IN(name) __attribute__((section(name), used))
static __attribute__((always_inline)) int mine(const unsigned char *p, const unsigned char *end)
{
	return p + 34 <= end && p[26] == A && p[27] == B && p[28] == C && p[29] == D;
}
IN("tc") int filter_tc(struct __sk_buff *s)
{
	return mine((void *)(long)s->data, (void *)(long)s->data_end) ? VERDICT : -1;
}
IN("xdp") int filter_xdp(struct xdp_md *x)
{
	return mine((void *)(long)x->data, (void *)(long)x->data_end) ? VERDICT : 2;
}
"""


@contextmanager
def a_victim(lab: Lab) -> Iterator[str]:
    with pod_of_our_own(lab, "e2e-prog", NODE.name) as name:
        yield name


def address(pod: str) -> str:
    return str(policy.endpoint("default", pod)["address"])


def device(pod: str) -> str:
    return str(policy.endpoint("default", pod)["device"])


def compiled(folder: Path, source: str, verdict: int) -> Path:
    """An object that gives packets of an address a verdict, and lets all others pass."""
    code, made = folder / "filter.c", folder / f"filter-{verdict}.o"
    code.write_text(_SOURCE)
    octets = zip("ABCD", source.split("."), strict=True)
    words = [f"-D{name}={octet}" for name, octet in octets]
    run(["clang", "-O2", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu",
         "-I/usr/include/aarch64-linux-gnu", *words, f"-DVERDICT={verdict}",
         "-c", str(code), "-o", str(made)])  # fmt: skip
    return made


def inside(node: Node, words: str) -> list[str]:
    return ["ip", "netns", "exec", node.netns, *words.split()]


@contextmanager
def in_namespace(node: Node, do: str, undo: str) -> Iterator[None]:
    with changed(inside(node, do), inside(node, undo)):
        yield


def reaches(lab: Lab, pod: str, to: str = f"http://{WORLD_ADDRESS}/") -> bool:
    fetch = (*FETCH[:-1], "1", "-o", "/dev/null", to)
    return lab.kubectl("exec", pod, "--", *fetch).returncode == 0


def pings(lab: Lab, to: str, count: int = 1) -> bool:
    words = ("ping", "-q", "-c", str(count), "-i", "0.01", "-W", "1", "-s", "1000", to)
    return lab.kubectl("exec", "client", "--", *words).returncode == 0


def foreign(answer: Answer) -> str:
    """What the only hop of a program of somebody else says."""
    (hop,) = [hop for hop in answer.hops if "not one of Cilium's" in hop["summary"]]
    return str(hop["summary"])


@beside
def test_a_node_pod_sees_programs_in_the_pod_itself(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        in_pod(victim, "tc", "qdisc", "add", "dev", "eth0", "clsact")
        steals = "protocol ip u32 match u32 0 0 action mirred egress redirect dev lo"
        in_pod(victim, *f"tc filter add dev eth0 egress {steals}".split())
        assert not reaches(our_lab, victim)
        answer = path(our_lab, victim, WORLD, "--node-access", "pod")
    assert answer.verdict == "unknown"
    assert "a u32 filter (clsact/egress" in foreign(answer)
    assert f"in the network namespace of pod default/{victim}" in answer.document["fix"]["text"]


@beside
def test_xdp_of_the_receiving_node_that_drops_and_one_that_passes(
    our_lab: Lab, tmp_path: Path
) -> None:
    with a_victim(our_lab) as victim:
        web = f"http://{address_of_web(our_lab)}:8080/"
        there = f"{address_of_web(our_lab)}:8080"
        off = "ip link set dev eth0 xdpgeneric off"
        drops, passes = (compiled(tmp_path, address(victim), n) for n in (1, 2))
        with in_namespace(RECEIVER, f"ip link set dev eth0 xdpgeneric obj {drops} sec xdp", off):
            assert not reaches(our_lab, victim, web)
            broken = path(our_lab, victim, there)
        with in_namespace(RECEIVER, f"ip link set dev eth0 xdpgeneric obj {passes} sec xdp", off):
            assert reaches(our_lab, victim, web)
            healthy = path(our_lab, victim, there)
    assert (broken.code, broken.verdict) == (4, "unknown")
    assert "filter_xdp (xdp, id" in broken.document["reason"]
    assert "bpftool prog dump xlated id" in broken.document["fix"]["command"]
    assert (healthy.code, healthy.verdict) == (0, "delivered")
    assert foreign(healthy).endswith("it let this flow pass")
    assert no_errors(healthy)


def address_of_web(lab: Lab) -> str:
    (pod,) = lab.get("pods", "-l", "app=web")["items"]
    return str(pod["status"]["podIP"])


def no_errors(answer: Answer) -> bool:
    return not [one for one in answer.document["findings"] if one["severity"] == "error"]


@beside
def test_tc_program_before_ciliums_and_a_filter_behind_it(our_lab: Lab, tmp_path: Path) -> None:
    with a_victim(our_lab) as victim:
        host, there = device(victim), f"tc filter add dev {device(victim)} ingress"
        drops = compiled(tmp_path, address(victim), 2)
        # Of one preference, the kernel runs the newest first.
        first = f"{there} pref 1 handle 2 bpf da obj {drops} sec tc"
        undo = f"tc filter del dev {host} ingress pref 1 handle 2 bpf"
        with in_namespace(NODE, first, undo):
            assert not reaches(our_lab, victim)
            broken = path(our_lab, victim, WORLD)
        steals = "protocol ip u32 match u32 0 0 action mirred egress redirect dev lo"
        undo = f"tc filter del dev {host} ingress pref 9"
        with in_namespace(NODE, f"{there} pref 9 {steals}", undo):
            assert reaches(our_lab, victim)
            healthy = path(our_lab, victim, WORLD)
    assert broken.verdict == "unknown"
    assert "runs before cil_from_container and may keep the packet from it" in foreign(broken)
    assert healthy.verdict == "delivered"
    assert "a u32 filter (clsact/ingress, pref 9)" in foreign(healthy)
    assert "not reached, cil_from_container before it ends the chain" in foreign(healthy)
    assert no_errors(healthy)


@beside
def test_ciliums_program_of_a_pod_is_gone(our_lab: Lab) -> None:
    """Its policy is not asked any more: what it denied passes."""
    with a_victim(our_lab) as victim:
        policy.allow_egress("default", victim, policy.Allowed.parse("443/TCP"))
        assert not reaches(our_lab, victim)
        in_node(NODE, "tc", "filter", "del", "dev", device(victim), "ingress", "pref", "1")
        assert reaches(our_lab, victim)
        answer = path(our_lab, victim, WORLD)
    assert answer.verdict == "unknown"
    (title,) = [one for one in answer.titles if "no program of Cilium's is attached at" in one]
    assert f"{device_of(answer)} (ingress) of node {NODE.name}" in title
    assert "policy" not in [hop["kind"] for hop in answer.hops]


def device_of(answer: Answer) -> str:
    return str(answer.one("program", "no program found at")["summary"]).split()[4].split("'")[0]


@beside
def test_ciliums_program_into_a_pod_is_gone(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        in_node(NODE, "tc", "filter", "del", "dev", device(victim), "egress", "pref", "1")
        answer = path(our_lab, "client", address(victim), "--protocol", "icmp")
        (error,) = [one for one in answer.document["findings"] if one["severity"] == "error"]
        assert f"no program of Cilium's is attached at {device(victim)} (egress)" in error["title"]
        assert "meets no ingress policy" in error["detail"]
        assert not [hop for hop in answer.all("policy") if "ingress" in hop["summary"]]


@beside
def test_qdiscs_that_drop_everything_on_both_sides_of_a_veth(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine, host = address(victim), device(victim)
        assert pings(our_lab, mine)
        hole = f"tc qdisc add dev {host} root blackhole", f"tc qdisc del dev {host} root"
        with in_namespace(NODE, *hole):
            assert not pings(our_lab, mine)
            towards = path(our_lab, "client", mine, "--protocol", "icmp")
        in_pod(victim, "tc", "qdisc", "add", "dev", "eth0", "root", "blackhole")
        assert not reaches(our_lab, victim)
        from_pod = path(our_lab, victim, WORLD)
    assert (towards.code, towards.verdict) == (3, "dropped"), towards.document["reason"]
    assert f"qdisc blackhole at {host} of node {NODE.name}" in towards.document["cause"]
    assert towards.document["fix"]["command"] == f"tc qdisc del dev {host} root"
    assert (from_pod.code, from_pod.verdict) == (3, "dropped")
    assert f"qdisc blackhole at eth0 of pod default/{victim}" in from_pod.document["cause"]


@beside
def test_a_shaper_that_drops_is_a_warning(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine, host = address(victim), device(victim)
        shaper = f"tc qdisc add dev {host} root tbf rate 64kbit burst 1600 limit 1600"
        with in_namespace(NODE, shaper, f"tc qdisc del dev {host} root"):
            pings(our_lab, mine, 40)
            answer = path(our_lab, "client", mine, "--protocol", "icmp")
    (found,) = [one for one in answer.document["findings"] if "qdisc tbf" in one["title"]]
    assert found["severity"] == "warning"
    assert "lets 0.064 Mbit/s pass, dropped" in found["title"]
    assert answer.verdict != "dropped"
    assert no_errors(answer)


def test_ciliums_program_of_a_node_is_gone(our_lab: Lab) -> None:
    """Last and alone: it is everybody's."""
    mine = our_lab.get("pod", "client3")["status"]["podIP"]
    with without_ciliums(NODE, "ingress", "cil_from_netdev"):
        broken = path(our_lab, "client", mine, "--protocol", "icmp")
    healthy = path(our_lab, "client", mine, "--protocol", "icmp")
    (error,) = [one for one in broken.document["findings"] if one["severity"] == "error"]
    assert f"no program of Cilium's is attached at eth0 (ingress) of {NODE.name}" in (
        error["title"].replace("node node", "node")
    )
    assert "answers to masqueraded packets are not translated back" in error["detail"]
    assert broken.verdict == "unknown"
    assert no_errors(healthy)


@contextmanager
def without_ciliums(node: Node, direction: str, name: str) -> Iterator[None]:
    """A node's eth0 without the program of one direction, which is attached again as it was."""
    shown = json.loads(in_node(node, "bpftool", "-j", "net", "show"))[0]["tc"]
    (number,) = (row["id"] for row in shown if row["devname"] == "eth0" and name in row["name"])
    with closing(open_program(number)) as program:
        in_node(node, "tc", "filter", "del", "dev", "eth0", direction, "pref", "1")
        try:
            yield
        finally:
            with netns.inside(f"/run/netns/{node.netns}"):
                index = socket.if_nametoindex("eth0")
                tc_filter.add(index, direction, program, f"{name}-eth0")


def test_nothing_is_left_of_them(our_lab: Lab) -> None:
    assert our_lab.get("nodes")
    assert "filter_xdp" not in in_node(RECEIVER, "bpftool", "net")
    assert "blackhole" not in in_node(NODE, "tc", "qdisc")


def test_a_program_at_the_root_cgroup_that_refuses_nothing(our_lab: Lab) -> None:
    """Containers have no cgroup v2 of their own here: one that refuses would refuse everybody."""
    with a_victim(our_lab) as victim, ExitStack() as stack:
        root = os.open(hierarchy_root(), os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, root)
        link(stack, load(stack, _CGROUP_SKB, "guard", 1), root, _EGRESS)
        assert reaches(our_lab, victim)
        answer = path(our_lab, victim, WORLD, "--node-access", "pod")
        assert (answer.code, answer.verdict) == (0, "delivered")
        assert "guard (cgroup_inet_egress, id" in foreign(answer)
        assert foreign(answer).endswith("it let this flow pass")
        by_agent = path(our_lab, victim, WORLD)  # the lab's agents have no /run/cilium/cgroupv2
    unread = f"programs at the cgroups of pod default/{victim} (`bpftool cgroup tree`)"
    assert unread in by_agent.document["presumed"]
