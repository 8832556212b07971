"""What `explain` concludes of a namespace's tables is what its kernel does (RTM_GETROUTE).

A node with a pod's device and two uplinks is made, changed in one way, read as a node pod reads it,
and asked for packets that come in by the pod's device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.kernel import forwarding, routing
from kubectl_ebpfnet.explain.kernel.decision import Decision
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, packet_from_device
from kubectl_ebpfnet.explain.views import records
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.evidence import InMemory, Record, bundle_of, node_place
from kubectl_ebpfnet.model.kernel import FibAnswer
from kubectl_ebpfnet.model.net import TCP, UDP, Flow
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.server import registry
from tests.network_namespaces import Namespace, namespaces, why_not

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(why_not()), reason=f"cannot make a network namespace: {why_not()}"),
]

NODE = """
link set lo up
link add lxc1 type veth peer name pod1
link add eth0 type veth peer name far0
link add eth1 type veth peer name far1
link add cilium_host type veth peer name cilium_net
link set lxc1 up
link set pod1 up
link set eth0 up
link set far0 up
link set eth1 up
link set far1 up
link set cilium_host up
link set cilium_net up
addr add 192.0.2.11/24 dev eth0
addr add 198.51.100.11/24 dev eth1
addr add 10.44.0.1/32 dev cilium_host
addr add fd00:2::11/64 dev eth0 nodad
route add default via 192.0.2.1 dev eth0
route add 10.44.0.0/24 dev cilium_host
route add default via 198.51.100.1 dev eth1 table 100
route add 9.9.9.0/24 via 198.51.100.1 dev eth1 table 100
route add blackhole default table 77
route add unreachable default table 78
route add prohibit default table 79
route add throw default table 80
-6 route add default via fd00:2::1 dev eth0
-6 route add fd00:44::/64 dev lxc1
"""
FORWARDS = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
POD, FAR, POD6, FAR6 = "10.44.0.7", "1.1.1.1", "fd00:44::7", "2001:db8::1"

CASES = {
    "as it is": (),
    "goto passes a blackhole": (
        "rule add from all goto 500 pref 10",
        "rule add from all lookup 77 pref 20",
        "rule add from all lookup 100 pref 500",
    ),
    "an unresolved goto": ("rule add goto 501 pref 10", "rule add lookup 77 pref 20"),
    "goto of two rules of one priority": (
        "rule add goto 500 pref 10",
        "rule add lookup 77 pref 20",
        "rule add dport 80 lookup 100 pref 500",
        "rule add lookup 78 pref 500",
    ),
    "a rule by port": ("rule add ipproto tcp dport 80 lookup 100 pref 10",),
    "a rule by a range of ports": ("rule add sport 1000-2000 dport 53-90 lookup 77 pref 10",),
    "a rule for other ports": ("rule add not dport 80 lookup 77 pref 10",),
    "a rule for root": ("rule add uidrange 0-0 lookup 100 pref 10",),
    "a rule for users": ("rule add uidrange 1000-2000 lookup 77 pref 10",),
    "a rule by mark": ("rule add fwmark 0x77/0xff lookup 77 pref 10",),
    "a rule by device": ("rule add iif lxc1 lookup 100 pref 10",),
    "a rule by no device": ("rule add iif lxc2 lookup 77 pref 10",),
    "a rule for sockets": ("rule add oif eth1 lookup 77 pref 10",),
    "a rule that is unreachable": ("rule add to 1.1.1.1 unreachable pref 10",),
    "a rule that is a blackhole": ("rule add from 10.44.0.7 blackhole pref 10",),
    "a route that is unreachable": ("rule add to 1.1.1.1 lookup 78 pref 10",),
    "a route that is prohibited": ("rule add lookup 79 pref 10",),
    "a route that throws": ("rule add lookup 80 pref 10",),
    "as wireguard and VPNs do it": (
        "rule add lookup main suppress_prefixlength 0 pref 10",
        "rule add not fwmark 0xca6c lookup 100 pref 11",
    ),
    "as Cilium does it": (
        "rule add fwmark 0x200/0xf00 lookup 2004 pref 9",
        "rule add lookup local pref 100",
        "rule del pref 0",
    ),
    "a VRF's rule": ("rule add l3mdev pref 1000",),
    "a tunnel's rule": ("rule add tun_id 7 lookup 77 pref 10",),
    "no default route": ("route del default",),
    "the lower metric": ("route add 1.1.1.0/24 via 198.51.100.1 dev eth1 metric 5",
                         "route add blackhole 1.1.1.0/24 metric 6"),
    "a dead next hop": (
        "route add 1.1.1.0/24 nexthop via 192.0.2.9 dev eth0 nexthop via 198.51.100.9 dev eth1",
        "link set eth1 down",
    ),
    "a dead route": ("route add 1.1.1.0/24 via 198.51.100.1 dev eth1", "link set far1 down",),
    "a nexthop object": (
        "nexthop add id 5 via 198.51.100.1 dev eth1", "route add 1.1.1.1/32 nhid 5",
    ),
    "forwarding is off": ("sysctl net.ipv4.ip_forward=0",),
    "forwarding is off at the pod": ("sysctl net.ipv4.conf.lxc1.forwarding=0",),
    "forwarding is off elsewhere": ("sysctl net.ipv4.conf.eth0.forwarding=0",),
    "own addresses are accepted": ("sysctl net.ipv4.conf.lxc1.accept_local=1",),
    "a strict rp_filter": ("sysctl net.ipv4.conf.lxc1.rp_filter=1",),
    "a strict rp_filter of all": ("sysctl net.ipv4.conf.all.rp_filter=1",),
    "a strict rp_filter, the way back by it": (
        "sysctl net.ipv4.conf.lxc1.rp_filter=1", "route add 10.44.0.7/32 dev lxc1",
    ),
    "a loose rp_filter at a device without an address": ("sysctl net.ipv4.conf.lxc1.rp_filter=2",),
    "a loose rp_filter": (
        "sysctl net.ipv4.conf.lxc1.rp_filter=2", "addr add 203.0.113.1/32 dev lxc1",
    ),
    "a loose rp_filter without a way back": (
        "sysctl net.ipv4.conf.lxc1.rp_filter=2", "addr add 203.0.113.1/32 dev lxc1",
        "route del 10.44.0.0/24", "route del default", "route add 1.1.1.0/24 via 192.0.2.1",
    ),
    "a strict rp_filter and a rule for the way back": (
        "sysctl net.ipv4.conf.lxc1.rp_filter=1", "route add 10.44.0.7/32 dev lxc1 table 101",
        "rule add to 10.44.0.7 lookup 101 pref 10",
    ),
    "a strict rp_filter and marks": (
        "sysctl net.ipv4.conf.lxc1.rp_filter=1", "sysctl net.ipv4.conf.lxc1.src_valid_mark=1",
        "route add 10.44.0.7/32 dev lxc1 table 101", "rule add fwmark 0x77 lookup 101 pref 10",
    ),
}  # fmt: skip
PACKETS = [
    (Flow(TCP, ip_address(POD), 1500, ip_address(FAR), 80), 0),
    (Flow(TCP, ip_address(POD), 1500, ip_address(FAR), 80), 0x77),
    (Flow(UDP, ip_address(POD), 40000, ip_address("9.9.9.9"), 53), 0xED3F0F00),
    (Flow(TCP, ip_address(POD), 1500, ip_address("192.0.2.11"), 80), 0),
    (Flow(TCP, ip_address("192.0.2.11"), 1500, ip_address(FAR), 80), 0),
]


@pytest.fixture(params=CASES, ids=list(CASES))
def node(request: pytest.FixtureRequest) -> Iterator[Namespace]:
    with namespaces("routing") as (made,):
        made.set_up(NODE, "ip")
        assert not made.missing
        for setting in FORWARDS:
            made.run("sysctl", "-w", setting)
        # A namespace may begin with this machine's rp_filter.
        for device in ("all", "default", "lxc1", "eth0", "eth1", "cilium_host"):
            made.run("sysctl", "-w", f"net.ipv4.conf.{device}.rp_filter=0")
        for line in CASES[request.param]:
            words = line.split()
            made.tried(*(("sysctl", "-w", *words[1:]) if words[0] == "sysctl" else ("ip", *words)))
        if made.missing:
            pytest.skip(f"this kernel lacks {made.missing}")
        yield made


def asked(made: Namespace, name: str, *words: str) -> Record:
    """The record of a node pod's answer."""
    argv = node_argv(name, *words)
    with netns.inside(made.path):
        facts = list(registry.function(name)(NodeRequest(1, argv)))
    return Record(0, node_place("n1"), argv, 0, InMemory(b"".join(map(codec.line_of, facts))))


def view(made: Namespace) -> NodeView:
    names = ("links", "addresses", "routes", "rules", "sysctls")
    records = [asked(made, name) for name in names]
    return NodeView(bundle_of(records, "test"), "n1", DatapathConfig(), None)


def by_kernel(made: Namespace, flow: Flow, mark: int) -> FibAnswer:
    words = [str(flow.destination), "from", str(flow.source), "iif", "lxc1", "mark", str(mark)]
    words += ["ipproto", str(flow.protocol), "sport", str(flow.source_port)]
    words += ["dport", str(flow.destination_port)]
    with netns.inside(made.path):
        (answer,) = registry.function("fib")(NodeRequest(1, node_argv("fib", *words)))
    assert isinstance(answer, FibAnswer)
    return answer


def by_us(node: NodeView, flow: Flow, mark: int) -> tuple[Decision, str]:
    """The decision, and what stops the packet, "" for nothing."""
    tables = node_tables(node, flow.destination.version)
    assert not isinstance(tables, str)
    packet = replace(packet_from_device(node, flow, "lxc1"), mark=mark)
    decision = routing.decide(tables, packet)
    assert not decision.undecided
    if decision.refused:
        return decision, decision.refused
    found = None
    if not decision.local:
        found = forwarding.forwarding_off(node, flow.destination.version, "lxc1")
    found = found or forwarding.source_refused(node, tables, packet, decision)
    return decision, found.text if found is not None else ""


def test_the_kernel_does_what_the_tables_say(node: Namespace) -> None:
    tables = view(node)
    for flow, mark in PACKETS:
        kernel, (ours, stopped) = by_kernel(node, flow, mark), by_us(tables, flow, mark)
        assert bool(kernel.error) == bool(stopped), (flow, kernel, ours, stopped)
        if not stopped and not ours.local:
            taken = [(hop.gateway, hop.device, hop.table) for hop in ours.next_hops]
            assert (kernel.gateway, kernel.device, kernel.table) in taken, (flow, kernel, ours)
        elif not stopped:
            assert kernel.type == "local"


@pytest.mark.parametrize("setting", ["net.ipv4.ip_forward=0", "net.ipv4.conf.lxc1.rp_filter=1"])
def test_an_error_of_the_look_up_is_told_apart(setting: str) -> None:
    """Without the sysctls, the kernel's error and the tables together tell what refused it."""
    with namespaces("routing") as (made,):
        made.set_up(NODE, "ip")
        for each in (*FORWARDS, setting):
            made.run("sysctl", "-w", each)
        node, (flow, mark) = view(made), PACKETS[0]
        tables = node_tables(node, 4)
        assert not isinstance(tables, str)
        packet = replace(packet_from_device(node, flow, "lxc1"), mark=mark)
        by_tables, answer = routing.decide(tables, packet), by_kernel(made, flow, mark)
        found = routing.with_kernel_answer(by_tables, answer, tables, packet)
        refused = forwarding.told_apart(found, answer).refused
        assert ("forwarding is off at lxc1" if "forward" in setting else "rp_filter") in refused
        assert "no route to" not in refused


def test_sysctls_of_grep_and_of_the_node_side_are_equal() -> None:
    with namespaces("routing") as (made,):
        made.set_up(NODE, "ip")
        (argv,) = q.SYSCTLS.forms
        by_grep = records.parser("procfs.sysctls")(made.run(*argv))
        node = view(made)
        theirs = {(fact.name, fact.value) for fact in by_grep}
        ours = {(fact.name, fact.value) for fact in node[q.SYSCTLS].facts}
        assert theirs == ours
        assert "net/ipv4/conf/lxc1/rp_filter" in {name for name, _ in ours}
