"""What `explain` concludes of kube-proxy's nftables rules is what a kernel with them does.

The lab's kube-proxy is 1.20 and has no nftables mode, so the rules are written here as kube-proxy
1.36 writes them (recorded: tests/parse/samples/nftables-1.0.6/kube-proxy, tests/features/
kpr-off-nftables-read), each form of a Service once. A pod and its node send datagrams to Services
whose endpoint is the host beyond, which tells whether they come, and from whom.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.kernel import kube_proxy, kube_proxy_nft
from kubectl_ebpfnet.explain.kernel.chain_ends import TRANSLATING
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.kube_proxy_refusals import Refused, refused
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables
from kubectl_ebpfnet.explain.path.stages.nat import nat_outcome
from kubectl_ebpfnet.model.net import UDP, Flow
from kubectl_ebpfnet.node.host import netns
from tests.network_namespaces import why_not
from tests.node.netlink.forwarding_node import (
    FAR,
    FAR6,
    NODE,
    NODE6,
    POD,
    POD6,
    ROUTER,
    ROUTER6,
    Wire,
    wire_of,
)
from tests.node.netlink.test_nft_kernel import load, rules_of

WHY_NOT = why_not("nft", "iptables-restore", "iptables-save", "sysctl")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"cannot make namespaces: {WHY_NOT}"),
]

PODS = "10.44.0.0/16"
PLAIN, NOBODY, STICKY, UNKNOWN = "10.97.0.10", "10.97.0.11", "10.97.0.12", "10.97.7.7"
LB, LB_LOCAL, LB_RANGES, LB_PODS = "192.0.2.40", "192.0.2.41", "192.0.2.42", "192.0.2.43"
SHORT_CIRCUIT = f"""
    ip saddr {PODS} goto service-B-default/b/udp/dns comment "short-circuit pod traffic"
    fib saddr type local meta mark set meta mark | 0x4000 comment "masquerade local traffic"
    fib saddr type local goto service-B-default/b/udp/dns comment "short-circuit local traffic"
"""
RULES = f"""table ip kube-proxy {{
  comment "rules for kube-proxy"
  set cluster-ips {{ type ipv4_addr; elements = {{ {PLAIN}, {NOBODY}, {STICKY} }}; }}
  set nodeport-ips {{ type ipv4_addr; elements = {{ {NODE} }}; }}
  set hairpin-connections {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service;
    elements = {{ {FAR} . {FAR} . udp . 53 }}; }}
  set affinity-S1 {{ type ipv4_addr; flags dynamic,timeout; timeout 3h; }}
  set affinity-S2 {{ type ipv4_addr; flags dynamic,timeout; timeout 3h; }}
  map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict;
    elements = {{ {NOBODY} . udp . 90 comment "default/nobody:dns" : goto reject-chain,
      {LB_LOCAL} . udp . 90 comment "default/b:dns" : drop }}; }}
  map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict;
    elements = {{ udp . 30002 comment "default/b:dns" : drop,
      udp . 30003 comment "default/nobody:dns" : goto reject-chain }}; }}
  map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict;
    elements = {{ {LB_RANGES} . udp . 90 : goto firewall-C-default/c/udp/dns,
      {LB_PODS} . udp . 90 : goto firewall-D-default/d/udp/dns }}; }}
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict;
    elements = {{ {PLAIN} . udp . 90 : goto service-A-default/a/udp/dns,
      {STICKY} . udp . 90 : goto service-S-default/s/udp/dns,
      {LB} . udp . 90 : goto external-A-default/a/udp/dns,
      {LB_LOCAL} . udp . 90 : goto external-B-default/b/udp/dns,
      {LB_RANGES} . udp . 90 : goto external-A-default/a/udp/dns,
      {LB_PODS} . udp . 90 : goto external-A-default/a/udp/dns }}; }}
  map service-nodeports {{ type inet_proto . inet_service : verdict;
    elements = {{ udp . 30001 : goto external-A-default/a/udp/dns,
      udp . 30002 : goto external-B-default/b/udp/dns }}; }}
  chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110; policy accept;
    ct state new jump firewall-check; }}
  chain filter-output-pre-dnat {{ type filter hook output priority -110; policy accept;
    ct state new jump firewall-check; }}
  chain filter-input {{ type filter hook input priority 0; policy accept;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check; }}
  chain filter-forward {{ type filter hook forward priority 0; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check; }}
  chain filter-output {{ type filter hook output priority 0; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check; }}
  chain nat-prerouting {{ type nat hook prerouting priority -100; policy accept; jump services; }}
  chain nat-output {{ type nat hook output priority -100; policy accept; jump services; }}
  chain nat-postrouting {{ type nat hook postrouting priority 100; policy accept;
    jump masquerading; }}
  chain nodeport-endpoints-check {{
    ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
  chain service-endpoints-check {{
    ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
  chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
  chain services {{
    ip daddr @cluster-ips ip saddr != {PODS} meta mark set meta mark | 0x4000
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }}
  chain masquerading {{
    meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random
    ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade; }}
  chain cluster-ips-check {{
    ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
    ip daddr 10.97.0.0/16 drop comment "Drop traffic to unallocated ClusterIPs"; }}
  chain reject-chain {{ reject; }}
  chain service-A-default/a/udp/dns {{
    meta l4proto udp dnat ip to numgen random mod 1 map {{ 0 : {FAR} . 53 }}; }}
  chain external-A-default/a/udp/dns {{
    meta mark set meta mark | 0x4000 comment "masquerade"
    goto service-A-default/a/udp/dns; }}
  chain service-B-default/b/udp/dns {{
    meta l4proto udp dnat ip to numgen random mod 1 map {{ 0 : {FAR} . 53 }}; }}
  chain external-B-default/b/udp/dns {{ {SHORT_CIRCUIT} }}
  chain firewall-C-default/c/udp/dns {{ ip saddr != {{ 203.0.113.0/24 }} drop; }}
  chain firewall-D-default/d/udp/dns {{ ip saddr != {{ {PODS} }} drop; }}
  chain endpoint-S1-default/s/udp/dns {{ update @affinity-S1 {{ ip saddr }}
    meta l4proto udp dnat to {FAR}:53; }}
  chain endpoint-S2-default/s/udp/dns {{ update @affinity-S2 {{ ip saddr }}
    meta l4proto udp dnat to {FAR}:53; }}
  chain service-S-default/s/udp/dns {{
    ip saddr @affinity-S1 goto endpoint-S1-default/s/udp/dns
    ip saddr @affinity-S2 goto endpoint-S2-default/s/udp/dns
    numgen random mod 2 vmap {{ 0 : goto endpoint-S1-default/s/udp/dns,
      1 : goto endpoint-S2-default/s/udp/dns }}; }}
}}
"""  # each as knftables writes it, in another order
SIX = {
    PODS: "fd44::/16", "10.97.0.0/16": "fd97::/16", PLAIN: "fd97::10", NOBODY: "fd97::11",
    STICKY: "fd97::12", UNKNOWN: "fd97::7:7", LB: "2001:db8:1::40", LB_LOCAL: "2001:db8:1::41",
    LB_RANGES: "2001:db8:1::42", LB_PODS: "2001:db8:1::43", "203.0.113.0/24": "2001:db8:3::/48",
    f"{FAR}:53": f"[{FAR6}]:53", FAR: FAR6, NODE: NODE6, ROUTER: ROUTER6, POD: POD6,
    "ipv4_addr": "ipv6_addr", "ip daddr": "ip6 daddr", "ip saddr": "ip6 saddr",
    "dnat ip to": "dnat ip6 to", "table ip ": "table ip6 ",
}  # fmt: skip
"""What stands in place of IPv4's words, the longer ones first."""


def six(text: str) -> str:
    """The same of IPv6."""
    words = sorted(SIX, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, words)), lambda found: SIX[found[0]], text)


QUESTIONS = [
    (source, there, port)
    for source in (POD, NODE)
    for there, port in (
        (PLAIN, 90), (PLAIN, 91), (NOBODY, 90), (STICKY, 90), (UNKNOWN, 90),
        (LB, 90), (LB_LOCAL, 90), (LB_RANGES, 90), (LB_PODS, 90),
        (NODE, 30001), (NODE, 30002), (NODE, 30003), (ROUTER, 30001),
    )
]  # fmt: skip
"""Who asks, and what."""
REFUSALS = {
    (POD, NOBODY, 90): Refused.NO_ENDPOINTS,
    (POD, PLAIN, 91): Refused.NO_SUCH_PORT,
    (POD, UNKNOWN, 90): Refused.NO_SUCH_ADDRESS,
    (POD, LB_RANGES, 90): Refused.SOURCE_RANGES,
    (NODE, LB_PODS, 90): Refused.SOURCE_RANGES,
    (POD, NODE, 30003): Refused.NO_ENDPOINTS,
}


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with wire_of("kp") as there:
        for version, way in (("-4", FAR), ("-6", FAR6)):
            there.node.run("ip", version, "route", "add", "default", "via", way)
        load(there, RULES + six(RULES), "nft", "-f", "-")
        yield there


def sees(wire: Wire, source: str, there: str, port: int, patience: float) -> str:
    """Who the host beyond sees, "" where no datagram comes."""
    version = ip_address(source).version
    space = wire.pod if source in (POD, POD6) else wire.node
    text = f"{source} {there} {port}".encode()
    with netns.inside(space.path):
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        sender = socket.socket(family, socket.SOCK_DGRAM)
    beyond = wire.beyond[version]
    beyond.settimeout(patience)
    with sender:
        sender.bind((source, 0))
        try:
            sender.sendto(text, (there, port))
            while True:
                said, (address, *_) = beyond.recvfrom(64)
                if said == text:
                    return str(address)
        except OSError:
            return ""


def told(rules: HookTables, source: str, there: str, port: int) -> tuple[str, Refused | None, str]:
    """Return who the host beyond sees by the rules, why they refuse it, and where nat leaves it."""
    own = frozenset(map(ip_address, (NODE, ROUTER, NODE6, ROUTER6, "127.0.0.1", "::1")))
    end_of, node_of = (FAR, NODE) if ip_address(source).version == 4 else (FAR6, NODE6)
    flow = Flow(UDP, ip_address(source), 33000, ip_address(there), port)
    outward = source == node_of
    came, chain = ("", "OUTPUT") if outward else ("lxc1", "PREROUTING")
    context = Context(flow, came, "eth0" if outward else "", local=own, bridged=False,
                      back_device=came)  # fmt: skip
    for table in ("raw", "mangle"):
        for passage in rules.traverse(table, chain, context):
            if passage.outcome.is_lost:
                return "", refused(passage.outcome.end, None), ""
            assert passage.outcome.is_lost is False
            context = passage.after or context
    nat = nat_outcome(rules, chain, context)
    _, end = nat.end
    left = ""
    if nat.translates:
        assert nat.by_chance
        to = kube_proxy.destination(end.to_address, flow)
        assert to == (ip_address(end_of), 53)
        new = flow.with_destination(*to)
        context = replace(end.context, flow=new, original=flow, translated=True, assumed=())
    else:
        assert nat.translates is False
        assert rules.native is not None
        assert rules.native.ruleset is not None
        dead = kube_proxy_nft.dead_end(rules.native.ruleset, context, chain.lower())
        none = (UNKNOWN, six(UNKNOWN), ROUTER, ROUTER6)
        assert not dead.broken or there in none or port == 91
        left = dead.text
    here = chain if outward else "INPUT" if context.flow.destination in own else "FORWARD"
    steps = [(here, "filter")] if here == "OUTPUT" else [(here, "mangle"), (here, "filter")]
    if here == "OUTPUT" and context.flow.destination in own:
        steps.append(("INPUT", "filter"))
    for hook, table in steps:
        for passage in rules.traverse(table, hook, context):
            if passage.outcome.is_lost:
                return "", refused(passage.outcome.end, None), left
            assert passage.outcome.is_lost is False
    if left:
        return "", None, left
    _, last = nat_outcome(rules, "POSTROUTING", replace(context, out_device="eth0")).end
    return (node_of if last.target in TRANSLATING else source), None, left


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("source", "there", "port"), QUESTIONS)
def test_the_rules_are_followed_as_the_kernel_does(
    wire: Wire, source: str, there: str, port: int, version: int
) -> None:
    asked = (source, there) if version == 4 else (six(source), six(there))
    expected, why, left = told(rules_of(wire, version), *asked, port)
    assert sees(wire, *asked, port, 2 if expected else 0.2) == expected, left
    if (source, there, port) in REFUSALS:
        assert why is REFUSALS[source, there, port]
    if (source, there, port) == (POD, ROUTER, 30001):
        assert "nodeport-ips lacks" in left
