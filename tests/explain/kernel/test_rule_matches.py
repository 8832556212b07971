"""One rule against one packet, against iptables-extensions(8) and Linux xt_*.c."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import NOT_KNOWN, Mark
from kubectl_ebpfnet.explain.kernel.rule_matches import matches, undecided
from kubectl_ebpfnet.model.net import ICMP, TCP, UDP, Flow
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.parse.netfilter import ruleset

NODE = ip_address("172.30.0.12")
FLOW = Flow(TCP, ip_address("10.244.1.53"), 54498, ip_address("1.1.1.1"), 80)
CONTEXT = Context(
    FLOW, "lxc1", "eth0", Mark(0x8D4C0F00), sets={"nodes": frozenset({NODE})},
    local=frozenset({NODE}), bridged=False, back_device="cilium_host",
)  # fmt: skip
PING = replace(CONTEXT, flow=Flow(ICMP, FLOW.source, 7, FLOW.destination, None))
OWN = replace(CONTEXT, flow=replace(FLOW, source=NODE), in_device="", back_device=None)
TO_NODE = replace(CONTEXT, flow=FLOW.with_destination(NODE, 22))
REPLY = replace(CONTEXT, flow=FLOW.reversed(), state="ESTABLISHED")
ANY_PORT = replace(CONTEXT, flow=replace(FLOW, source_port=None))


def rule(words: str) -> NetfilterRule:
    """The rule with these matches."""
    (one,) = ruleset(f"*filter\n-A X {words} -j DROP\nCOMMIT\n".encode()).rules
    return one


@pytest.mark.parametrize(
    ("words", "context", "answer"),
    [
        ("", CONTEXT, True),
        ("-s 10.244.1.0/24 ! -d 10.0.0.0/8", CONTEXT, True),
        ("! -s 10.244.1.53", CONTEXT, False),
        ("-s 10.0.0.0/255.0.255.0", CONTEXT, None),
        ("-i lxc+", CONTEXT, True),
        ("! -i lxc+", CONTEXT, False),
        ("-i lxc1 -o eth0", CONTEXT, True),
        ("-o cilium_host", CONTEXT, False),
        ("-o eth0", replace(CONTEXT, out_device=None), None),
        ("! -o lo", replace(CONTEXT, out_device=""), True),
        ("-p udp", CONTEXT, False),
        ("! -p udp", CONTEXT, True),
        ("-f", CONTEXT, False),
        ("! -f", CONTEXT, True),
        ("-p tcp -m tcp --dport 80", CONTEXT, True),
        ("-p tcp -m tcp ! --dport 80", CONTEXT, False),
        ("-p tcp -m tcp --sport 1024:65535 --dport 1:79", CONTEXT, False),
        ("-p tcp -m tcp --sport 1024:65535", ANY_PORT, None),
        ("-p tcp -m tcp --sport 0:65535", ANY_PORT, True),
        ("-p tcp -m tcp ! --sport 5", ANY_PORT, None),
        ("-p tcp -m multiport --ports 443,80", CONTEXT, True),
        ("-p tcp -m multiport ! --ports 443,80", CONTEXT, False),
        ("-p tcp -m multiport --ports 443", ANY_PORT, None),
        ("-p tcp -m multiport --ports 80", ANY_PORT, True),
        ("-p tcp -m multiport --dports 1:79,8080", CONTEXT, False),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", CONTEXT, True),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", CONTEXT, False),
        ("-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK", CONTEXT, False),
        ("-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK", REPLY, True),
        ("-p tcp -m tcp --tcp-flags ALL NONE", CONTEXT, False),
        ("-p tcp -m tcp --tcp-option 2", CONTEXT, None),
        ("-p icmp -m icmp --icmp-type 8", PING, True),
        ("-p icmp -m icmp --icmp-type 8/0", PING, True),
        ("-p icmp -m icmp --icmp-type any", PING, True),
        ("-p icmp -m icmp ! --icmp-type 3/4", PING, True),
        ("-p icmp -m icmp --icmp-type 8", CONTEXT, False),
        ("-m conntrack --ctstate NEW,RELATED", CONTEXT, True),
        ("-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT", CONTEXT, True),
        ("-m conntrack --ctstate DNAT", replace(CONTEXT, translated=True), True),
        ("-m conntrack --ctstate DNAT", replace(CONTEXT, translated=None), None),
        ("-m conntrack --ctstate INVALID", CONTEXT, False),
        ("-m conntrack --ctstate NEW", replace(CONTEXT, state=""), None),
        ("-m conntrack --ctstate NEW --ctdir REPLY", CONTEXT, False),
        ("-m conntrack --ctorigdst 10.96.0.1", replace(
            CONTEXT, original=FLOW.with_destination(ip_address("10.96.0.1"), 443)), True),
        ("-m conntrack --ctstatus ASSURED", CONTEXT, None),
        ("-m state --state NEW", CONTEXT, True),
        ("-m mark --mark 0xf00/0xf00", CONTEXT, True),
        ("-m mark ! --mark 0xf00/0xf00 -m mark ! --mark 0x1/0x1", CONTEXT, False),
        ("-m mark --mark 0x1", replace(CONTEXT, mark=NOT_KNOWN), None),
        ("-m mark --mark 0xf00/0xff00", replace(CONTEXT, mark=Mark(0xF00, 0xF00)), None),
        ("-m mark --mark 0x200/0xf00", replace(CONTEXT, mark=Mark(0xF00, 0xF00)), False),
        ("-m mark --mark 0x10/0x1", CONTEXT, False),  # no mark has a bit outside of its mask
        ("-m connmark --mark 0x0/0xff", CONTEXT, True),
        ("-m connmark ! --mark 0x0/0xff", CONTEXT, False),
        ("-m set --match-set nodes dst", TO_NODE, True),
        ("-m set ! --match-set nodes dst", TO_NODE, False),
        ("-m set --match-set nodes src,dst", TO_NODE, None),
        ("-m set --match-set others dst", TO_NODE, None),
        ("-m set ! --match-set others dst", TO_NODE, None),
        ("-m addrtype --dst-type LOCAL", CONTEXT, False),
        ("-m addrtype ! --dst-type LOCAL", TO_NODE, False),
        ("-m addrtype --src-type UNICAST ! --dst-type LOCAL", CONTEXT, True),
        ("-m addrtype --dst-type LOCAL", replace(CONTEXT, local=None), None),
        ("-m addrtype --dst-type LOCAL --limit-iface-in", TO_NODE, None),
        ("-m addrtype --dst-type LOCAL --limit-iface-in", CONTEXT, False),
        ("-m addrtype --dst-type BLACKHOLE", CONTEXT, None),
        ("-m iprange --src-range 10.244.1.50-10.244.1.60", CONTEXT, True),
        ("-m iprange ! --dst-range 1.0.0.0-1.2.0.0", CONTEXT, False),
        ("-m owner --uid-owner 0", CONTEXT, False),
        ("-m owner ! --uid-owner 0", CONTEXT, True),
        ("-m owner --uid-owner 0", OWN, None),
        ("-m socket --transparent", CONTEXT, False),
        ("-m socket --nowildcard", CONTEXT, None),
        ("-m socket", TO_NODE, None),
        ("-m socket --transparent", TO_NODE, False),
        ("-m socket --transparent", REPLY, None),
        ("-m physdev ! --physdev-is-in", CONTEXT, True),
        ("-m physdev --physdev-is-bridged", CONTEXT, False),
        ("-m physdev ! --physdev-is-in", replace(CONTEXT, bridged=None), None),
        ("-m recent --set --name x", CONTEXT, True),
        ("-m recent --rcheck --seconds 10800 --name x", CONTEXT, None),
        ("-m statistic --mode random --probability 0.50000000000", CONTEXT, None),
        ("-m statistic --mode random --probability 1.00000000000", CONTEXT, True),
        ("-m statistic --mode nth --every 2 --packet 0", CONTEXT, None),
        ("-m rpfilter --invert", CONTEXT, True),
        ("-m rpfilter --validmark", replace(CONTEXT, back_device="lxc1"), True),
        ("-m rpfilter --loose --invert", CONTEXT, False),
        ("-m rpfilter --invert", replace(CONTEXT, back_device=None), None),
        ("-m limit --limit 3/min", CONTEXT, None),
        ("-m frob --frob 1", CONTEXT, None),
        # What fails for certain is not saved by what cannot be told.
        ("-m frob -m conntrack --ctstate ESTABLISHED", CONTEXT, False),
        ("-m comment --comment x", CONTEXT, True),
        # Values that nobody can read are undecided.
        ("-m mark --mark hello", CONTEXT, None),
        ("-p tcp -m tcp --dport http", CONTEXT, None),
        ("-m iprange --src-range x-y", CONTEXT, None),
        ("-m conntrack --ctstate NEW --ctstate", CONTEXT, None),
        ("-m set --match-set one", CONTEXT, None),
        ("-s nonsense", CONTEXT, None),
    ],
)  # fmt: skip
def test_a_match(words: str, context: Context, answer: bool | None) -> None:
    one = rule(words)
    assert matches(one, context) is answer
    assert answer is not None or undecided(one, context)


def test_ports_of_udp_and_ipv6_echo() -> None:
    dns = replace(CONTEXT, flow=Flow(UDP, FLOW.source, 1, FLOW.destination, 53))
    assert matches(rule("-p udp -m udp --dport 53"), dns) is True
    assert matches(rule("-p tcp -m tcp --dport 53"), dns) is False
    v6 = Flow(58, ip_address("fd00::1"), 7, ip_address("fd00::2"), None)
    echo = rule("-p ipv6-icmp -m icmp6 --icmpv6-type 128")
    assert matches(echo, replace(CONTEXT, flow=v6)) is True
    assert (
        matches(rule("-p ipv6-icmp -m icmp6 --icmpv6-type 1"), replace(CONTEXT, flow=v6)) is False
    )
