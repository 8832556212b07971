"""kube-proxy's rules: those that 1.20 made in the lab, and the chains of newer versions.

The samples are `iptables-save -c` of two nodes with the Service probe-expect/web-lb at 192.0.2.77
(and 192.0.2.99 as an external IP, node port 32209), its endpoint on node1, and with a Service
without endpoints at 192.0.2.78.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from kubectl_ebpfnet.explain.kernel import kube_proxy
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.kube_proxy_dead_end import dead_end
from kubectl_ebpfnet.explain.kernel.kube_proxy_refusals import Refused, left_alone
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.netfilter import Ruleset
from kubectl_ebpfnet.parse import netfilter

SAMPLES = Path(__file__).parents[1] / "lb/samples"
OUTSIDE, INSIDE = "172.30.0.99", "203.0.113.5"
SELF = "172.30.0.11"
BACKEND = "10.244.0.77:8080"

# KUBE-EXT and KUBE-SVL: kube-proxy since 1.24, cut to one Service with two endpoints.
MODERN = """*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" \
-j KUBE-PROXY-FIREWALL
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" \
-j KUBE-PROXY-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
{filter}COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 192.0.2.77/32 -p tcp -m comment --comment "d/w:http loadbalancer IP" \
-m tcp --dport 80 -j {first}
-A KUBE-FW-A -s 203.0.113.0/24 -j KUBE-EXT-A
-A KUBE-FW-A -m comment --comment "other traffic to d/w:http will be dropped by KUBE-PROXY-FIREWALL"
{ext}-A KUBE-SVC-A -m comment --comment "d/w:http -> 10.244.0.77:8080" -m statistic --mode random \
--probability 0.50000000000 -j KUBE-SEP-A
-A KUBE-SVC-A -m comment --comment "d/w:http -> 10.244.1.78:8080" -j KUBE-SEP-B
-A KUBE-SVL-A -m comment --comment "d/w:http -> 10.244.0.77:8080" -j KUBE-SEP-A
-A KUBE-SEP-A -s 10.244.0.77/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.0.77:8080
-A KUBE-SEP-B -s 10.244.1.78/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.244.1.78:8080
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
COMMIT
"""
LOCAL = """-A KUBE-EXT-A -s 10.244.0.0/16 -m comment --comment "pod traffic" -j KUBE-SVC-A
-A KUBE-EXT-A -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
-A KUBE-EXT-A -m addrtype --src-type LOCAL -j KUBE-SVC-A
-A KUBE-EXT-A -j KUBE-SVL-A
"""
ANY = """-A KUBE-EXT-A -m comment --comment "masquerade traffic" -j KUBE-MARK-MASQ
-A KUBE-EXT-A -j KUBE-SVC-A
"""
NOBODY = """-A KUBE-EXT-A -s 10.244.0.0/16 -m comment --comment "pod traffic" -j KUBE-SVC-A
-A KUBE-EXT-A -m addrtype --src-type LOCAL -j KUBE-SVC-A
"""
NO_LOCAL = (
    '-A KUBE-EXTERNAL-SERVICES -d 192.0.2.77/32 -p tcp -m comment --comment "d/w:http has no local '
    'endpoints" -m tcp --dport 80 -j DROP\n'
)
FIREWALL = (
    '-A KUBE-PROXY-FIREWALL -d 192.0.2.77/32 -p tcp -m comment --comment "d/w:http traffic not '
    'accepted by KUBE-FW-A" -m tcp --dport 80 -j DROP\n'
)


def sample(name: str) -> Ruleset:
    """A recorded ruleset."""
    return netfilter.ruleset((SAMPLES / f"kube-proxy-1.20-{name}.rules").read_bytes())


def modern(ext: str, filters: str = "", first: str = "KUBE-EXT-A") -> Ruleset:
    """Rules as newer versions write them."""
    return netfilter.ruleset(MODERN.format(ext=ext, filter=filters, first=first).encode())


def follow(rules: Ruleset, address: str, port: int = 80, source: str = OUTSIDE):
    """What becomes of a packet, with backends as text."""
    flow = Flow(TCP, ip_address(source), 40000, ip_address(address), port)
    found = kube_proxy.follow(rules, flow, frozenset({ip_address(SELF)}))
    return found, [f"{a}:{p}" for a, p in found.backends]


@pytest.mark.parametrize(
    ("rules", "address", "port", "source", "backends", "masquerades"),
    [
        ("local.node1", "192.0.2.77", 80, OUTSIDE, [BACKEND], False),
        ("local.node1", SELF, 32209, OUTSIDE, [BACKEND], False),
        ("local.node1", "192.0.2.77", 80, SELF, [BACKEND], True),
        ("local.node2", "192.0.2.77", 80, SELF, [BACKEND], True),
        ("cluster.node2", "192.0.2.77", 80, INSIDE, [BACKEND], True),
        ("cluster.node2", "192.0.2.99", 80, OUTSIDE, [BACKEND], True),
        ("cluster.node2", SELF, 32209, OUTSIDE, [BACKEND], True),
    ],
)
def test_recorded_rules_that_send_it_on(
    rules, address, port, source, backends, masquerades
) -> None:
    found, to = follow(sample(rules), address, port, source)
    assert (to, found.masquerades, found.refusal) == (backends, masquerades, None)
    assert found.rule is not None
    assert bool(found.marking) is masquerades


@pytest.mark.parametrize(
    ("rules", "address", "source", "comment"),
    [
        ("local.node2", "192.0.2.77", OUTSIDE, "probe-expect/web-lb:http has no local endpoints"),
        ("cluster.node2", "192.0.2.77", OUTSIDE, "probe-expect/web-lb:http loadbalancer IP"),
        ("local.node1", "192.0.2.78", OUTSIDE, "probe-expect/empty-lb has no endpoints"),
    ],
)
def test_recorded_rules_that_refuse_it(rules, address, source, comment) -> None:
    found, to = follow(sample(rules), address, 80, source)
    assert to == []
    assert found.refusal is not None
    assert found.refusal.comment == comment


def test_an_address_that_no_rule_names() -> None:
    found, to = follow(sample("local.node1"), "192.0.2.50")
    assert (found.rule, to, found.refusal) == (None, [], None)
    assert follow(sample("local.node1"), "192.0.2.77", 81)[0].rule is None


def test_newer_chains() -> None:
    both = [BACKEND, "10.244.1.78:8080"]
    found, to = follow(modern(LOCAL), "192.0.2.77")
    assert (to, found.masquerades) == ([BACKEND], False)
    found, to = follow(modern(ANY), "192.0.2.77")
    assert (to, found.masquerades) == (both, True)
    found, to = follow(modern(LOCAL), "192.0.2.77", source=SELF)
    assert (to, found.masquerades) == (both, True)


def test_newer_chains_refuse_in_filter() -> None:
    found, to = follow(modern(NOBODY, NO_LOCAL), "192.0.2.77")
    assert to == []
    assert found.refusal is not None
    assert found.refusal.comment == "d/w:http has no local endpoints"
    ranged = modern(LOCAL, FIREWALL, "KUBE-FW-A")
    found, to = follow(ranged, "192.0.2.77")
    assert to == []
    assert found.refusal is not None
    assert "not accepted by KUBE-FW-A" in found.refusal.comment
    assert follow(ranged, "192.0.2.77", source=INSIDE)[1] == [BACKEND]


def test_who_made_the_rules() -> None:
    assert kube_proxy.has_kube_proxy(sample("local.node1")) == "iptables"
    ipvs = netfilter.ruleset(b"*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-LOAD-BALANCER - [0:0]\nCOMMIT\n")
    assert kube_proxy.has_kube_proxy(ipvs) == "ipvs"
    assert (
        kube_proxy.has_kube_proxy(netfilter.ruleset(b"*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n"))
        == ""
    )


def test_chains_that_jump_in_a_circle_end() -> None:
    loop = netfilter.ruleset(
        b"*nat\n:PREROUTING ACCEPT [0:0]\n:A - [0:0]\n-A PREROUTING -j A\n-A A -j A\nCOMMIT\n"
    )
    assert follow(loop, "192.0.2.77")[0].rule is None


def test_ipv6_backends() -> None:
    rules = netfilter.ruleset(
        b"*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 2001:db8::7/128 -p tcp -m tcp "
        b"--dport 80 -j DNAT --to-destination [fd00::5]:8080\nCOMMIT\n"
    )
    assert follow(rules, "2001:db8::7", source="2001:db8::1")[1] == ["fd00::5:8080"]


def test_where_a_load_balancers_address_without_a_local_endpoint_is_left() -> None:
    """KUBE-FW- marks it once more; the rule before it tells why."""
    flow = Flow(TCP, ip_address(OUTSIDE), 40000, ip_address("192.0.2.77"), 80)
    context = Context(flow, in_device="eth0", local=frozenset({ip_address(SELF)}))
    found = dead_end(sample("local.node2"), context, "PREROUTING")
    assert "has no local endpoints” has it dropped" in found.text
    assert left_alone(found.way) is Refused.NO_LOCAL_ENDPOINTS
