"""What `explain` concludes of a node's netfilter rules is what its kernel does with a packet.

A node with a pod's device and an uplink is made; rules are restored, read back as iptables-save
prints them, and followed; then the pod sends a datagram, which arrives or not.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import count

import pytest

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.netfilter import traverse
from kubectl_ebpfnet.model.net import UDP, Flow
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.parse.netfilter import ruleset
from tests.network_namespaces import Namespace, namespaces, why_not

WHY_NOT = why_not("iptables-restore", "iptables-save", "sysctl")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"cannot make namespaces: {WHY_NOT}"),
]

POD, FAR, NODE = "10.44.0.7", "198.51.100.1", "198.51.100.11"
TABLES = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
HOOKS = (
    ("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("mangle", "FORWARD"), ("filter", "FORWARD"),
    ("mangle", "POSTROUTING"),
)  # fmt: skip
M, F = "mangle PREROUTING ", "filter FORWARD "
CASES = [
    ("",),
    (F + "-j DROP",),
    ("raw PREROUTING -j DROP",),
    ("mangle PREROUTING -i lxc+ -j DROP",),
    ("mangle FORWARD -o eth0 -j DROP",),
    ("mangle POSTROUTING -o eth0 -j DROP",),
    ("filter INPUT -j DROP", "filter OUTPUT -j DROP", "raw OUTPUT -j DROP"),
    (F + "-j REJECT",),
    # Chains: jump, goto, RETURN.
    (F + "-j A", F + "-j DROP", "filter A -j RETURN", "filter A -j ACCEPT"),
    (F + "-j A", F + "-j DROP", "filter A -p tcp -j ACCEPT"),
    (F + "-g A", F + "-j DROP", "filter A -p tcp -j ACCEPT"),
    (F + "-j A", F + "-j DROP", "filter A -g B", "filter A -j ACCEPT", "filter B -j RETURN"),
    (F + "-j A", F + "-j ACCEPT", "filter A -g B", "filter A -j DROP", "filter B -p udp"),
    (F + "-j RETURN", F + "-j DROP"),
    ("filter :FORWARD DROP",),
    ("filter :FORWARD DROP", F + "-j RETURN"),
    ("filter :FORWARD DROP", F + "-p udp -m udp --dport 53 -j ACCEPT"),
    ("filter :FORWARD DROP", F + "-p udp -m udp ! --dport 53 -j ACCEPT"),
    # Matches.
    (F + f"-s {POD} ! -d 10.0.0.0/8 -j DROP",),
    (F + f"! -s {POD} -j DROP",),
    (F + "-p udp -m multiport --ports 1:52,54 -j DROP",),
    (F + "-p udp -m multiport --ports 53 -j DROP",),
    (F + "-p udp -m multiport ! --dports 53,80 -j DROP",),
    (F + "-m conntrack --ctstate NEW -j DROP",),
    (F + "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",),
    (F + "-m conntrack --ctstate INVALID,UNTRACKED,SNAT -j DROP",),
    (F + "-m conntrack --ctdir REPLY -j DROP",),
    (F + f"-m conntrack --ctorigdst {FAR} -j DROP",),
    (F + "-m state --state NEW -j DROP",),
    (F + "-m addrtype --dst-type LOCAL -j DROP",),
    (F + "-m addrtype --dst-type UNICAST ! --src-type LOCAL -j DROP",),
    (F + "-m addrtype --dst-type MULTICAST,LOCAL -j DROP",),
    (F + "-m iprange --src-range 10.44.0.1-10.44.0.9 -j DROP",),
    (F + "-m iprange ! --dst-range 198.51.100.0-198.51.100.9 -j DROP",),
    (F + "-f -j DROP",),
    (F + "! -f -j DROP",),
    ("mangle POSTROUTING -m owner --uid-owner 0 -j DROP",),
    ("mangle POSTROUTING -m owner ! --uid-owner 0 -j DROP",),
    (M + "-m socket -j DROP",),
    (M + "-m socket --transparent -j DROP",),
    (F + "-m physdev ! --physdev-is-in -j DROP",),
    (F + "-m physdev --physdev-is-bridged -j DROP",),
    (F + "-m recent --set --name ebpfnet -j DROP",),
    (F + "-m statistic --mode random --probability 1 -j DROP",),
    ("raw PREROUTING -m rpfilter --invert -j DROP",),
    ("raw PREROUTING -m rpfilter -j DROP",),
    ("raw PREROUTING -m rpfilter --loose --invert -j DROP",),
    # Marks.
    (M + "-j MARK --set-mark 0x5", F + "-m mark --mark 0x5 -j DROP"),
    (M + "-j MARK --set-mark 0x5", F + "-m mark ! --mark 0x4/0x4 -j DROP"),
    (M + "-j MARK --set-xmark 0xf0/0xff", M + "-j MARK --or-mark 0x1",
     F + "-m mark --mark 0xf1/0xff -j DROP"),
    (M + "-j MARK --set-mark 0xff", M + "-j MARK --and-mark 0xf0", M + "-j MARK --xor-mark 0x30",
     F + "-m mark ! --mark 0xc0 -j DROP"),
    (M + "-j CONNMARK --set-mark 0x80/0x80", F + "-m connmark --mark 0x80/0x80 -j DROP"),
    (M + "-j CONNMARK --set-mark 0x8", M + "-j CONNMARK --restore-mark --nfmask 0xf --ctmask 0xf",
     F + "-m mark --mark 0x8 -j DROP"),
    (M + "-j MARK --set-mark 0x77", M + "-j CONNMARK --save-mark", M + "-j MARK --set-mark 0",
     M + "-j CONNMARK --restore-mark", F + "-m mark ! --mark 0x77 -j DROP"),
    (M + "-j CONNMARK --restore-mark", F + "-m mark ! --mark 0x0 -j DROP"),
    (F + "-m mark --mark 0x10/0x1 -j DROP",),
    # What is not tracked.
    ("raw PREROUTING -j CT --notrack", F + "-m conntrack --ctstate UNTRACKED -j DROP"),
    ("raw PREROUTING -j CT --notrack", F + "-m conntrack --ctstate NEW -j DROP"),
    # The table raw comes before connection tracking.
    ("raw PREROUTING -m conntrack --ctstate NEW -j DROP",),
    ("raw PREROUTING -m conntrack --ctstate INVALID -j DROP",),
    ("raw PREROUTING -m conntrack ! --ctstate NEW -j DROP",),
    ("raw PREROUTING -j CT --notrack", "raw PREROUTING -m conntrack --ctstate UNTRACKED -j DROP"),
    ("raw PREROUTING -m connmark --mark 0x0 -j DROP",),
    ("raw PREROUTING -m connmark ! --mark 0x1 -j DROP",),
    ("raw PREROUTING -j CONNMARK --set-mark 0x5", F + "-m connmark --mark 0x5 -j DROP"),
    # Targets after which the next rule is asked.
    (F + "-j LOG", F + "-j DROP"),
    (F + "-p udp", "filter :FORWARD DROP"),
    ("mangle FORWARD -j DSCP --set-dscp 1", "mangle FORWARD -j TTL --ttl-set 9"),
]  # fmt: skip


@dataclass(frozen=True)
class Wire:
    """A pod, its node and a host beyond: a way to send, and a way to see what arrives."""

    pod: Namespace
    node: Namespace
    beyond: socket.socket

    def arrives(self, source_port: int) -> bool:
        """Send a datagram from the pod; tell whether it comes to the host beyond."""
        with netns.inside(self.pod.path):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.bind((POD, source_port))
            sender.sendto(b"x", (FAR, 53))
            try:
                return self.beyond.recvfrom(16)[1][1] == source_port
            except TimeoutError:
                return False


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with ExitStack() as stack:
        pod, node, far = stack.enter_context(namespaces("nfpod", "nfnode", "nffar"))
        node.set_up(
            f"""
link add lxc1 type veth peer name eth0 netns {pod.name}
link add eth0 type veth peer name eth0 netns {far.name}
link set lxc1 up
link set eth0 up
addr add 10.44.0.1/24 dev lxc1
addr add {NODE}/24 dev eth0
""",
            "ip",
        )
        pod.set_up(f"addr add {POD}/24 dev eth0\nlink set eth0 up", "ip")
        pod.set_up("route add default via 10.44.0.1", "ip")
        far.set_up(f"addr add {FAR}/24 dev eth0\nlink set eth0 up", "ip")
        node.set_up("-w net.ipv4.ip_forward=1\n-w net.ipv4.conf.all.rp_filter=0", "sysctl")
        node.set_up("-w net.ipv4.conf.lxc1.rp_filter=0", "sysctl")
        if missing := [*pod.missing, *node.missing, *far.missing]:
            pytest.skip(f"this kernel lacks {missing}")
        with netns.inside(far.path):
            beyond = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        beyond.bind((FAR, 53))
        beyond.settimeout(2)
        there = Wire(pod, node, beyond)
        assert there.arrives(999), "without rules it arrives"
        beyond.settimeout(0.2)
        yield there


def dump(lines: tuple[str, ...]) -> str:
    """What iptables-restore reads: whole tables with the rules of a case."""
    text = ""
    for table, chains in TABLES.items():
        mine = [line.split(" ", 2)[1:] for line in lines if line.startswith(f"{table} ")]
        policies = {chain.removeprefix(":"): words for chain, words in mine if chain[0] == ":"}
        named = dict.fromkeys((*chains, *(chain for chain, _ in mine if chain[0] != ":"), "A", "B"))
        text += f"*{table}\n"
        for chain in named:
            policy = policies.get(chain, "ACCEPT") if chain in chains else "-"
            text += f":{chain} {policy} [0:0]\n"
        text += "".join(f"-A {chain} {words}\n" for chain, words in mine if chain[0] != ":")
        text += "COMMIT\n"
    return text


def by_us(saved: bytes, source_port: int) -> bool | None:
    """Whether the packet is lost, by the rules as they were printed."""
    flow = Flow(UDP, ip_address(POD), source_port, ip_address(FAR), 53)
    own = frozenset(map(ip_address, (NODE, "10.44.0.1", "127.0.0.1")))
    context = Context(flow, "lxc1", "", local=own, bridged=False, back_device="lxc1")
    rules = ruleset(saved)
    doubt = False
    for table, chain in HOOKS:
        out = "" if chain == "PREROUTING" else "eth0"
        outcome = traverse(rules, table, chain, replace(context, out_device=out))
        if outcome.is_lost:
            return True
        doubt = doubt or outcome.is_lost is None
        assert outcome.passed is not None
        context = outcome.passed
    return None if doubt else False


PORTS = count(20000)


@pytest.mark.parametrize("lines", CASES, ids=[" / ".join(case)[:70] or "nothing" for case in CASES])
def test_a_packet_is_lost_where_the_rules_that_were_read_lose_it(
    wire: Wire, lines: tuple[str, ...]
) -> None:
    restore = ("ip", "netns", "exec", wire.node.name, "iptables-restore")
    done = subprocess.run(restore, input=dump(lines).encode(), capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel or iptables lacks it: {done.stderr.decode()[:200]}")
    source_port = next(PORTS)
    expected = by_us(wire.node.run("iptables-save", "-c"), source_port)
    assert expected is not None, "every match of these rules is understood"
    assert wire.arrives(source_port) is not expected
