"""What `explain` concludes of a node's netfilter rules is what its kernel does with a packet.

A node with a pod's device and an uplink is made; rules are restored, read back as iptables-save
prints them, and followed; then the pod sends a datagram, which arrives or not.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from kubectl_ebpfnet.explain.kernel.netfilter import traverse
from kubectl_ebpfnet.parse.netfilter import ruleset
from tests.network_namespaces import why_not
from tests.node.netlink.forwarding_node import FAR, POD, Wire, first_packet, wire_of

WHY_NOT = why_not("iptables-restore", "iptables-save", "sysctl")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"cannot make namespaces: {WHY_NOT}"),
]

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
    ("mangle FORWARD -j DSCP --set-dscp 1", "mangle FORWARD -j TTL --ttl-set 33"),
]  # fmt: skip


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with wire_of("nf") as there:
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
    context = first_packet(source_port)
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
    assert wire.arrives(source_port, 0.1 if expected else 2) is not expected
