"""What `explain` concludes of a node's own nft rules is what its kernel does with a packet.

Rules are loaded by nft, read back as `nft -j list ruleset` prints them, beside iptables-save, and
followed hook by hook; then a pod sends a datagram through the node, which arrives or not.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.path.stages.device_hooks import at_device, device_chains
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables, tables_of
from kubectl_ebpfnet.explain.views.netns import Netns
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, node_place
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf import load as bpf_load
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.bpf.assembler import Assembly
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netlink import nft
from tests.network_namespaces import why_not
from tests.node.netlink.forwarding_node import FAR, POD, POD6, ROUTER, Wire, first_packet, wire_of

WHY_NOT = why_not("nft", "iptables-restore", "iptables-save", "sysctl")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"cannot make namespaces: {WHY_NOT}"),
]

PRE, FWD = "type filter hook prerouting priority", "type filter hook forward priority"
POST = "type filter hook postrouting priority"
F = f"{FWD} 0;"


def table(rules: str, *more: str, family: str = "inet") -> str:
    """A table with a base chain of these rules, and what else is in it."""
    return f"table {family} t {{ {' '.join(more)}\nchain base {{ {rules}; }}; }}\n"


SUB = "chain sub { %s; };"
BAD = "set bad { type ipv4_addr; flags interval; elements = { %s }; };"
CASES = {
    "nothing": table(f"{F} policy accept"),
    "policy": table(f"{F} policy drop"),
    "policy and accept": table(f"{F} policy drop; udp dport 53 accept"),
    "accept ends one chain alone": table(f"{FWD} -5; accept")
    + "table ip u { chain v { type filter hook forward priority 5; drop; }; }",
    "drop is final": table(f"{FWD} -5; drop")
    + "table ip u { chain v { type filter hook forward priority 5; accept; }; }",
    "another hook": table("type filter hook input priority 0; policy drop"),
    "another family": table(f"{F} drop", family="ip6"),
    "ip family": table(f"{F} drop", family="ip"),
    "reject": table(f"{F} reject"),
    "before tracking": table(f"{PRE} -450; udp dport 53 drop"),
    "prerouting after nat": table(f"{PRE} 10; udp dport 53 drop"),
    "postrouting after nat": table(f'{POST} 150; oifname "eth0" drop'),
    "state before tracking": table(f"{PRE} -450; ct state new drop"),
    "invalid before tracking": table(f"{PRE} -450; ct state invalid drop"),
    "not new before tracking": table(f"{PRE} -450; ct state != new drop"),
    "dormant": table(f"{F} policy drop").replace("{", "{ flags dormant;", 1),
    "netdev of another device": "table netdev d { chain i "
    "{ type filter hook ingress device eth0 priority 0; drop; }; }",
    # At devices.
    "netdev ingress": "table netdev d { chain i "
    "{ type filter hook ingress device lxc1 priority 0; udp dport 53 drop; }; }",
    "netdev ingress before tracking": "table netdev d { chain i "
    "{ type filter hook ingress device lxc1 priority 0; ip saddr 10.44.0.0/16 drop; }; }",
    "several devices": "table netdev d { chain i "
    '{ type filter hook ingress devices = { eth0, lxc1 } priority 0; iif "lxc1" drop; }; }',
    "netdev egress": "table netdev d { chain e "
    '{ type filter hook egress device eth0 priority 0; oifname "eth0" udp dport 53 drop; }; }',
    "inet ingress": table("type filter hook ingress device lxc1 priority 0; udp dport 53 drop"),
    "policy at a device": "table netdev d { chain i "
    "{ type filter hook ingress device lxc1 priority 0; policy drop; udp dport 53 accept; }; }",
    # Ways through chains.
    "jump and return": table(f"{F} jump sub; drop", SUB % "return; accept"),
    "jump and accept": table(f"{F} jump sub; drop", SUB % "udp dport 53 accept"),
    "goto": table(f"{F} goto sub; drop", SUB % "udp dport 54 drop"),
    "goto and policy": table(f"{F} policy drop; goto sub; accept", SUB % "udp dport 54 accept"),
    "return of the base": table(f"{F} policy drop; return; accept"),
    "continue": table(f"{F} udp dport vmap {{ 53 : continue, 54 : accept }}; drop"),
    # Matches.
    "source": table(f"{F} ip saddr {POD} drop"),
    "not source": table(f"{F} ip saddr != {POD} drop"),
    "other version, inverted": table(f"{F} ip6 saddr != fd00::1 drop"),
    "other protocol, inverted": table(f"{F} tcp dport != 80 drop"),
    "prefix": table(f"{F} ip daddr 198.51.100.0/24 drop"),
    "mask with holes": table(f"{F} ip daddr \\& 255.0.0.255 == 198.0.0.1 drop".replace("\\", "")),
    "range of ports": table(f"{F} udp dport 50-60 drop"),
    "not range": table(f"{F} udp dport != 50-60 drop"),
    "less": table(f"{F} udp dport < 54 drop"),
    "greater": table(f"{F} udp dport >= 54 drop"),
    "anonymous set": table(f"{F} udp dport {{ 53, 80-90 }} drop"),
    "not in a set": table(f"{F} udp dport != {{ 54, 80-90 }} drop"),
    "th": table(f"{F} meta l4proto {{ tcp, udp }} th dport 53 drop"),
    "l4proto number": table(f"{F} meta l4proto 17 drop"),
    "nfproto": table(f"{F} meta nfproto ipv6 drop"),
    "protocol": table(f"{F} ip protocol udp drop"),
    "icmp": table(f"{F} icmp type echo-request drop"),
    "devices": table(f'{F} iifname "lxc*" oifname "eth0" drop'),
    "set of devices": table(f'{F} iifname {{ "eth*", "lxc1" }} drop'),
    "index": table(f'{F} iif "lxc1" oif "eth0" drop'),
    "index of lo": table(f'{F} iif "lo" drop'),
    "fragments": table(f"{F} ip frag-off & 0x1fff != 0 drop"),
    "version": table(f"{F} ip version 4 drop"),
    "skuid": table(f"{F} meta skuid 0 drop"),
    "not skuid": table(f"{F} meta skuid != 7 drop"),
    "pkttype": table(f"{F} meta pkttype host drop"),
    "type of the destination": table(f"{F} fib daddr type local drop"),
    "not local": table(f"{F} fib daddr type != local drop"),
    "reverse path": table(f"{PRE} -300; fib saddr . iif oif missing drop"),
    "reverse path exists": table(f"{PRE} -300; fib saddr . iif oif exists drop"),
    "socket": table(f"{PRE} -150; socket transparent 0 drop"),
    "IPv6 header": table(f"{F} rt type 0 drop"),
    "no header": table(f"{F} exthdr frag missing drop"),
    "state": table(f"{F} ct state new drop"),
    "states": table(f"{F} ct state established,related drop"),
    "not states": table(f"{F} ct state != {{ established, related }} drop"),
    "not a list of states": table(f"{F} ct state != established,related drop"),
    "state map": table(f"{F} ct state vmap {{ established : accept, new : drop }}"),
    "status": table(f"{F} ct status dnat drop"),
    "direction": table(f"{F} ct direction original drop"),
    "original": table(f"{F} ct original ip daddr {FAR} drop"),
    "no state of a list": table(f"{F} ct state ! established,related drop"),
    "not a status": table(f"{F} ct status ! snat,dnat drop"),
    "flags of another protocol": table(f"{F} tcp flags != syn drop"),
    # Sets and maps.
    "named set": table(f"{F} ip saddr @bad drop", BAD % "10.44.0.0/16, 192.0.2.1-192.0.2.7"),
    "empty set": table(f"{F} ip saddr @bad drop", "set bad { type ipv4_addr; };"),
    "not in a named set": table(f"{F} ip saddr != @bad drop", BAD % "192.0.2.1-192.0.2.7"),
    "concatenation": table(f"{F} ip saddr . udp dport {{ {POD} . 53 }} drop"),
    "concatenated ranges": table(
        f"{F} ip saddr . udp dport @both drop",
        "set both { type ipv4_addr . inet_service; flags interval; "
        "elements = { 10.44.0.0/24 . 50-60 }; };",
    ),
    "concatenation with what is not there": table(
        f"{F} ip saddr . tcp dport != {{ {POD} . 53 }} drop"
    ),
    "verdict map": table(f"{F} udp dport vmap {{ 53 : drop, 54 : accept }}"),
    "verdict map without the key": table(f"{F} policy drop; udp dport vmap {{ 54 : accept }}"),
    "named verdict map": table(
        f"{F} udp dport vmap @m",
        "chain sub { drop; };",
        "map m { type inet_service : verdict; elements = { 53 : jump sub, 54 : accept }; };",
    ),
    "catch-all": table(f"{F} udp dport vmap {{ 54 : accept, * : drop }}"),
    "catch-all behind": table(f"{F} udp dport vmap {{ * : drop, 53 : accept }}"),
    # Marks.
    "mark": table(f"{PRE} -150; meta mark set 5")
    + "table ip u { chain v { type filter hook forward priority 5; meta mark 5 drop; }; }",
    "bits of a mark": table(
        f"{PRE} -150; meta mark set meta mark | 0x4000; meta mark set mark and 0xff00 xor 0x1"
    )
    + "table ip u { chain v { type filter hook forward priority 5; meta mark 0x4001 drop; }; }",
    "bit": table(f"{F} meta mark & 0x4000 != 0 drop"),
    "no bit": table(f"{F} meta mark & 0x4000 == 0 drop"),
    "mark of a connection": table(f"{PRE} -150; ct mark set 8; meta mark set ct mark")
    + "table ip u { chain v { type filter hook forward priority 5; meta mark 8 drop; }; }",
    "connection's mark before tracking": table(f"{PRE} -450; ct mark 0 drop"),
    # What is not tracked.
    "notrack": table(f"{PRE} -300; udp dport 53 notrack")
    + "table ip u { chain v { type filter hook forward priority 5; ct state untracked drop; }; }",
    "notrack is not new": table(f"{PRE} -300; udp dport 53 notrack")
    + "table ip u { chain v { type filter hook forward priority 5; ct state new drop; }; }",
    "notrack too late": table(f"{PRE} -150; udp dport 53 notrack")
    + "table ip u { chain v { type filter hook forward priority 5; ct state new drop; }; }",
    "status of what is not tracked": table(f"{PRE} -300; notrack")
    + "table ip u { chain v { type filter hook forward priority 5; ct status != dnat drop; }; }",
    # Statements after which the rule goes on.
    "counter and log": table(f"{F} counter log drop"),
    "named counter": table(f"{F} counter name c drop", "counter c { };"),
    "a set that packets fill": table(
        f"{F} add @d {{ ip saddr }} drop",
        "set d { type ipv4_addr; size 9; flags dynamic; };",
    ),
}
BOTH = {
    "nft before iptables": (
        table(f"{PRE} -350; meta mark set 7"),
        "*mangle\n-A PREROUTING -m mark --mark 7 -j DROP\nCOMMIT\n",
    ),
    "nft behind iptables": (
        table(f"{FWD} -140; meta mark 7 drop"),
        "*mangle\n-A FORWARD -j MARK --set-mark 7\nCOMMIT\n",
    ),
    "nft does not see what iptables sets later": (
        table(f"{FWD} -160; meta mark 7 drop"),
        "*mangle\n-A FORWARD -j MARK --set-mark 7\nCOMMIT\n",
    ),
    "iptables drops what nft accepts": (
        table(f"{FWD} -5; accept"),
        "*filter\n-A FORWARD -p udp -j DROP\nCOMMIT\n",
    ),
    "iptables' own tables are not asked twice": (
        table(f"{FWD} 9; meta mark 2 drop"),
        "*mangle\n-A FORWARD -m mark --mark 0 -j MARK --set-mark 1\n"
        "-A FORWARD -m mark --mark 1 -j MARK --set-mark 2\nCOMMIT\n",
    ),
    "security": (table(f"{F} accept"), "*security\n-A FORWARD -p udp -j DROP\nCOMMIT\n"),
    "iptables' NOTRACK": (
        table(f"{F} ct state untracked drop"),
        "*raw\n-A PREROUTING -p udp -j CT --notrack\nCOMMIT\n",
    ),
}  # fmt: skip
SIX = {
    "source": table(f"{F} ip6 saddr {POD6} drop"),
    "not source": table(f"{F} ip6 saddr != {POD6} drop"),
    "other version, inverted": table(f"{F} ip saddr != 10.0.0.1 drop"),
    "ip family": table(f"{F} drop", family="ip"),
    "ip6 family": table(f"{F} drop", family="ip6"),
    "set": table(
        f"{F} ip6 saddr . udp dport @both drop",
        "set both { type ipv6_addr . inet_service; flags interval; "
        "elements = { fd44::/64 . 50-60 }; };",
    ),
    "next header": table(f"{F} ip6 nexthdr udp drop"),
    "header that is not there": table(f"{F} frag more-fragments 0 drop"),
    "no such header": table(f"{F} exthdr frag missing drop"),
    "nfproto": table(f"{F} meta nfproto ipv6 udp dport 53 drop"),
    "state": table(f"{F} ct state new drop"),
    "notrack": table(f"{PRE} -300; udp dport 53 notrack")
    + "table ip6 u { chain v { type filter hook forward priority 5; ct state untracked drop; }; }",
    "reverse path": table(f"{PRE} -300; udp dport 53 fib saddr . iif oif missing drop"),
    "local": table(f"{F} fib daddr type local drop"),
    "reject": table(f"{F} udp dport 53 reject"),
    "at a device": "table netdev d { chain i "
    "{ type filter hook ingress device lxc1 priority 0; ip6 saddr fd44::/64 udp dport 53 drop; "
    "}; }",
}
HOOKS = (
    ("PREROUTING", ("raw", "mangle", "filter")),
    ("FORWARD", ("mangle", "filter")),
    ("POSTROUTING", ("mangle", "filter")),
)
PORTS = count(21000)


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with wire_of("nft") as there:
        yield there


@pytest.fixture
def clean(wire: Wire) -> Iterator[Wire]:
    yield wire
    wire.node.run("nft", "flush", "ruleset")


def load(wire: Wire, text: str, *program: str) -> None:
    """Give a program the rules on stdin; skips where this kernel lacks a part."""
    argv = ("ip", "netns", "exec", wire.node.name, *program)
    done = subprocess.run(argv, input=text.encode(), capture_output=True, check=False)
    if b"syntax error" in done.stderr:
        pytest.fail(done.stderr.decode())
    if done.returncode:
        pytest.skip(f"this kernel or {program[0]} lacks it: {done.stderr.decode()[:200]}")


def rules_of(wire: Wire, version: int = 4) -> HookTables:
    """The node's rules, as a node pod tells them."""
    place = node_place("node")
    with netns.inside(wire.node.path):
        chains = list(nft.chains(NodeRequest(1, node_argv("nft-chains"))))
    lines = "".join(json.dumps(codec.plain(each)) + "\n" for each in chains)
    save = "iptables-save" if version == 4 else "ip6tables-save"
    records = [Record(1, place, node_argv("nft-chains"), 0, InMemory(lines.encode()))]
    for argv in (("nft", "-j", "list", "ruleset"), (save, "-c")):
        records.append(Record(len(records) + 1, place, argv, 0, InMemory(wire.node.run(*argv))))
    return tables_of(Netns(Bundle(tuple(records)), (place,)), version)


def is_lost(rules: HookTables, context: Context) -> bool | None:
    """Whether the packet is lost, by the rules as they were printed."""
    doubt = False
    if device_lost(rules, context, "lxc1", "ingress"):
        return True
    for chain, tables in HOOKS:
        devices = {"PREROUTING": ("lxc1", ""), "POSTROUTING": ("", "eth0")}
        came, leaves = devices.get(chain, ("lxc1", "eth0"))
        context = replace(context, in_device=came or context.in_device, out_device=leaves)
        for name in tables:
            for passage in rules.traverse(name, chain, context):
                if passage.outcome.is_lost:
                    return True
                doubt = doubt or passage.outcome.is_lost is None
                assert passage.after is not None
                context = passage.after
    if device_lost(rules, context, "eth0", "egress"):
        return True
    return None if doubt else False


def device_lost(rules: HookTables, context: Context, device: str, direction: str) -> bool:
    """Whether nftables' chains at a device lose the packet."""
    assert rules.native is not None
    for chain in device_chains(rules, device, direction):
        passage = rules.native.traverse(chain, at_device(context, chain, device, direction))
        assert passage.outcome.is_lost is not None
        if passage.outcome.is_lost:
            return True
    return False


@pytest.mark.parametrize("name", CASES)
def test_a_packet_is_lost_where_nfts_rules_lose_it(clean: Wire, name: str) -> None:
    load(clean, CASES[name], "nft", "-f", "-")
    source_port = next(PORTS)
    expected = is_lost(rules_of(clean), first_packet(source_port))
    assert expected is not None, "every statement of these rules is understood"
    assert clean.arrives(source_port, 0.1 if expected else 2) is not expected


@pytest.mark.parametrize("name", SIX)
def test_of_ipv6_alike(clean: Wire, name: str) -> None:
    load(clean, SIX[name], "nft", "-f", "-")
    source_port = next(PORTS)
    expected = is_lost(rules_of(clean, 6), first_packet(source_port, 6))
    assert expected is not None, "every statement of these rules is understood"
    assert clean.arrives(source_port, 0.1 if expected else 2, 6) is not expected


@pytest.mark.parametrize("name", BOTH)
def test_nfts_chains_and_iptables_stand_in_one_order(clean: Wire, name: str) -> None:
    native, of_iptables = BOTH[name]
    load(clean, of_iptables, "iptables-restore")
    load(clean, native, "nft", "-f", "-")
    source_port = next(PORTS)
    expected = is_lost(rules_of(clean), first_packet(source_port))
    assert expected is not None
    assert clean.arrives(source_port, 0.1 if expected else 2) is not expected


def test_what_tc_redirects_to_a_device_meets_no_chain_at_its_egress(clean: Wire) -> None:
    """So Cilium's BPF host routing passes them by, and `path` does not ask them then."""
    load(clean, CASES["netdev egress"], "nft", "-f", "-")
    assert not clean.arrives(next(PORTS), 0.1)
    (neighbour,) = json.loads(clean.node.run("ip", "-j", "neigh", "show", FAR))
    clean.pod.run("ip", "neigh", "replace", ROUTER, "lladdr", neighbour["lladdr"], "dev", "eth0")
    redirect = Assembly()
    with netns.inside(clean.node.path), contextlib.ExitStack() as opened:
        redirect.set(asm.R1, socket.if_nametoindex("eth0"))
        redirect.set(asm.R2, 0)
        redirect.call(asm.REDIRECT)
        redirect.exit()
        program = bpf_load.load_classifier(redirect.program(), "to_eth0")
        opened.callback(os.close, program)
        lxc1 = socket.if_nametoindex("lxc1")
        link = bpf_load.link_tcx_first(program, lxc1, syscall.TCX_INGRESS)
        opened.callback(os.close, link)
        assert clean.arrives(next(PORTS))
    clean.pod.run("ip", "neigh", "del", ROUTER, "dev", "eth0")
