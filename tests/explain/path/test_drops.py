"""What breaks a path, each on a recorded cluster with one thing changed; and what is not known."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.errors import NotFound
from kubectl_ebpfnet.explain.programs.listing import of_pod
from kubectl_ebpfnet.model.evidence import agent_place, bundle_of, pod_place
from tests.explain.path.changed import (
    NATIVE,
    POLICY,
    SCENARIOS,
    VXLAN,
    Change,
    ask,
    changed,
    could_not,
    dropped_at,
    fail,
    finding,
    say,
    swap,
    without,
)

# ruff: noqa: E501 -- what programs print in one line stays in one line here
LINKS, ROUTES = "ip -j -d link", "ip -j route show table all"
CT, NAT = "cilium-dbg bpf ct list global -d", "cilium-dbg bpf nat list"
LXC = '"ifname":"lxcca1c984e26ef","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"]'
VXLAN_UP = '"ifname":"cilium_vxlan","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"]'
ETH0 = '"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"]'
GATEWAY = "10.244.1.122 dev eth0 lladdr ca:f7:8c:79:e1:5b REACHABLE"
NEXT_HOP = '"dst":"172.30.0.200","dev":"eth0","lladdr":"26:be:8c:fd:c9:3a","state":["REACHABLE"]'
WORLD_ROUTE = '{"dst":"1.1.1.1","gateway":"172.30.0.200","dev":"eth0","flags":[]}'
MASQUERADE = (
    "[1:60] -A CILIUM_POST_nat -s 10.244.1.0/24 ! -d 10.244.0.0/16 ! -o cilium_+ -m comment "
    '--comment "cilium masquerade non-cluster" -j MASQUERADE\n'
)


def down(text: str) -> str:
    """The same flags without UP and LOWER_UP."""
    return text.replace(',"UP","LOWER_UP"', "")


def no_carrier(text: str) -> str:
    """The same flags as of a device whose other end is down."""
    return text.replace('["BROADCAST"', '["NO-CARRIER","BROADCAST"').replace(',"LOWER_UP"', "")


WEB_LXC = '"ifname":"lxc890578bef1bb","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"]'
DROPS: list[tuple[str, Change, str, str, str, str]] = [
    ("no default route in the pod", swap("client", "ip route", "default via 10.244.1.122", "9.9.9.9"),
     "1.1.1.1:80", "route", "no route to 1.1.1.1 in the pod", "no route to 1.1.1.1"),
    ("the pod's neighbour failed", swap("client", "ip neigh", GATEWAY, "10.244.1.122 dev eth0 FAILED"),
     "1.1.1.1:80", "neighbour", "10.244.1.122 on eth0 is FAILED", "is FAILED"),
    ("the pod's neighbour is incomplete",
     swap("client", "ip neigh", GATEWAY, "10.244.1.122 dev eth0 INCOMPLETE"),
     "1.1.1.1:80", "neighbour", "is INCOMPLETE", "is INCOMPLETE"),
    ("eth0 is down in the pod", swap("client", "ip addr", "eth0@if13: <BROADCAST,MULTICAST,UP,LOWER_UP>",
                                     "eth0@if13: <BROADCAST,MULTICAST>"),
     "1.1.1.1:80", "link", "eth0 is down in the pod", "is down"),
    ("the host side is down", swap("node2", LINKS, LXC, down(LXC)),
     "1.1.1.1:80", "link", "lxcca1c984e26ef is down", "is down"),
    ("the node's eth0 is down", swap("node2", LINKS, ETH0, down(ETH0)),
     "1.1.1.1:80", "link", "eth0 is down", "device eth0 of node node2 is down"),
    ("the tunnel is down", swap("node2", LINKS, VXLAN_UP, down(VXLAN_UP)),
     "pod/web:8080", "link", "cilium_vxlan is down", "tunnel device cilium_vxlan of node2"),
    ("the receiver's tunnel is down", swap("node1", LINKS, VXLAN_UP, down(VXLAN_UP)),
     "pod/web:8080", "link", "cilium_vxlan is down", "tunnel device cilium_vxlan of node1"),
    ("the receiving pod's veth is down", swap("node1", LINKS, WEB_LXC, down(WEB_LXC)),
     "pod/web:8080", "link", "lxc890578bef1bb is down", "is down"),
    ("the receiver's eth0 has no carrier", swap("node1", LINKS, ETH0, no_carrier(ETH0)),
     "pod/web:8080", "link", "eth0 has no carrier", "device eth0 of node node1, which has 172.30.0.11, has no carrier"),
    ("the receiving pod's own end is down", swap("node1", LINKS, WEB_LXC, no_carrier(WEB_LXC)),
     "pod/web:8080", "link", "lxc890578bef1bb has no carrier", "the host side of the receiving pod, has no carrier"),
    ("the next hop does not answer",
     swap("node2", "ip -j neigh", NEXT_HOP, '"dst":"172.30.0.200","dev":"eth0","state":["FAILED"]'),
     "1.1.1.1:80", "neighbour", "next hop 172.30.0.200 on eth0 is FAILED", "172.30.0.200"),
]  # fmt: skip


POINTED = {"link": ("BROADCAST",), "route": ("9.9.9.9", "unreachable")}
"""Words of the changed line, which the evidence of the drop has to show."""


@pytest.mark.parametrize(
    ("change", "destination", "kind", "summary", "title"),
    [drop[1:] for drop in DROPS],
    ids=[drop[0] for drop in DROPS],
)
def test_what_drops_a_packet_is_named(
    change: Change, destination: str, kind: str, summary: str, title: str
) -> None:
    path = ask(changed(VXLAN, change), "client", destination)
    hop = dropped_at(path)
    assert hop.kind == kind
    assert summary in hop.summary
    assert finding(path, title).severity == "error"
    assert any(
        words in line
        for piece in hop.evidence
        for line in piece.excerpt
        for words in POINTED.get(kind, ("FAILED", "INCOMPLETE", "unreachable"))
    ), hop.evidence


def test_without_the_change_the_same_packets_arrive() -> None:
    for destination in ("1.1.1.1:80", "pod/web:8080"):
        assert ask(changed(VXLAN), "client", destination).verdict.let_through


@pytest.mark.parametrize(
    "change",
    [
        swap("node2", "iptables-save -c", ":FORWARD ACCEPT", ":FORWARD DROP"),
        swap("node2", "iptables-save -c", "[39:4198] -A FORWARD",
             "[7:420] -A FORWARD -d 9.9.9.9/32 -j DROP\n[39:4198] -A FORWARD"),
    ],
    ids=["policy", "rule"],
)  # fmt: skip
def test_netfilter_drops(change: Change) -> None:
    open_way = swap(
        "node2", "iptables-save -c", "-A CILIUM_FORWARD -i lxc+", "-A CILIUM_FORWARD -i x+"
    )
    path = ask(changed(NATIVE, open_way, change), "client", "9.9.9.9:80")
    hop = dropped_at(path)
    assert (hop.kind, hop.node) == ("rule", "node2")
    assert " FORWARD" in hop.summary
    assert finding(path, "netfilter on node2 drops").severity == "error"


def test_a_pod_address_that_leaves_the_cluster_is_not_delivered() -> None:
    path = ask(
        changed(NATIVE, swap("node2", "iptables-save -c", MASQUERADE, "")), "client", "9.9.9.9:80"
    )
    assert path.verdict == "unknown"
    assert "10.244.1.53 leaves the cluster as it is" in path.reason
    assert finding(path, "without masquerading").severity == "error"
    assert path.hops[-1].packet.flow.source == path.source.address


def test_masquerading_by_bpf_without_a_map_is_a_contradiction() -> None:
    no_map = fail("node2", NAT, "Error: Unable to open /sys/fs/bpf/tc/globals/cilium_snat_v4_external: "
                  "loading pinned map: no such file or directory\n")  # fmt: skip
    path = ask(changed(VXLAN, no_map), "client", "9.9.9.9:80")
    assert finding(path, "has no SNAT map").severity == "error"
    assert path.verdict == "unknown"
    inside = ask(changed(VXLAN, no_map), "client", "pod/web:8080")
    assert finding(inside, "has no SNAT map").severity == "warning"


def test_a_nat_entry_with_an_address_that_the_node_lost() -> None:
    old = swap("node2", NAT, "XLATE_SRC 172.30.0.12:36768", "XLATE_SRC 172.30.0.99:36768")
    path = ask(changed(VXLAN, old), "client", "1.1.1.1:80")
    assert finding(path, "172.30.0.99").severity == "warning"  # of what is sent now it decides none


def test_two_translations_of_one_flow() -> None:
    line = ("ipv4     2 tcp      6 97 TIME_WAIT src=10.244.1.160 dst=1.1.1.1 sport=36768 dport=80 "
            "src=1.1.1.1 dst=172.30.0.12 sport=80 dport=1024 [ASSURED] mark=0 zone=0 use=2\n")  # fmt: skip
    bundle = changed(VXLAN, swap("node2", "cat /proc/net/nf_conntrack", "ipv4 ", line + "ipv4 "))
    path = ask(bundle, "client", "1.1.1.1:80")
    assert "netfilter to 172.30.0.12:1024" in finding(path, "two translations").title


def test_a_flow_without_an_answer_is_told_once() -> None:
    silent = swap("node2", CT, "RxFlagsSeen=0x03", "RxFlagsSeen=0x00")
    path = ask(changed(VXLAN, silent), "client", "1.1.1.1:80")
    assert path.attempt is not None
    assert path.attempt.text in path.reason
    assert not [found for found in path.findings if "no answer" in found.title]
    lost = ask(
        changed(VXLAN, silent, DROPS[0][1]), "client", "1.1.1.1:80"
    )  # no word of it in front
    assert dropped_at(lost)
    assert finding(lost, "no answer came").severity == "info"


def test_an_entry_with_another_identity_is_a_warning() -> None:
    other = swap("node2", CT, "SourceSecurityID=60735", "SourceSecurityID=99")
    path = ask(changed(VXLAN, other), "client", "1.1.1.1:80")
    assert finding(path, "conntrack has identity 99, endpoint 1174 has 60735")


def test_ingress_policy_of_the_receiving_endpoint_drops() -> None:
    closed = swap(
        "node1",
        "cilium-dbg bpf policy get --all -o json",
        '"TrafficDirection": 0',
        '"TrafficDirection": 1',
    )
    path = ask(changed(VXLAN, closed), "client", "pod/web:8080")
    hop = dropped_at(path)
    assert (hop.kind, hop.node) == ("policy", "node1")
    assert (
        "ingress policy denies app=client (identity 60735) at 8080/TCP for endpoint 448"
        in hop.summary
    )


def test_a_deny_entry_and_a_proxy_are_named() -> None:
    command = "cilium-dbg bpf policy get --all -o json"
    deny = swap("node2", command, '"Flags": 0', '"Flags": 1')
    assert "denylist" in dropped_at(ask(changed(VXLAN, deny), "client", "1.1.1.1:80")).summary
    proxy = swap("node2", command, '"ProxyPortNetwork": 0', '"ProxyPortNetwork": 4135')
    path = ask(changed(VXLAN, proxy), "client", "1.1.1.1:80")
    (hop,) = [hop for hop in path.hops if hop.kind == "policy"]
    assert "through the L7 proxy at port 10000" in hop.summary


def test_the_recorded_policy_allows_its_port_and_nothing_else() -> None:
    bundle = changed(POLICY)
    assert ask(bundle, "client", "1.1.1.1:80").verdict.let_through
    assert dropped_at(ask(bundle, "client", "1.1.1.1:443")).kind == "policy"
    assert dropped_at(ask(bundle, "client", "1.1.1.1", "icmp")).kind == "policy"
    path = ask(bundle, "client", "9.9.9.9")
    assert path.verdict == "unknown"
    assert "depends on the port" in path.reason


@pytest.mark.parametrize("state", ["quarantined", "maintenance"])
def test_a_service_without_a_ready_backend(state: str) -> None:
    gone = swap(
        "node2", "cilium-dbg service list -o json", '"state": "active"', f'"state": "{state}"'
    )
    path = ask(changed(VXLAN, gone), "client", "svc/web:80")
    hop = dropped_at(path)
    assert hop.kind == "load-balancing"
    assert "no ready backend" in finding(path, "svc default/web").title
    assert state in finding(path, "svc default/web").detail


NO_TOOLS = "exec: executable file not found in $PATH"


def test_a_pod_without_tools_is_seen_by_the_agent() -> None:
    path = ask(changed(VXLAN, fail("client", "", NO_TOOLS, 127)), "client", "1.1.1.1:80")
    unknown = [hop for hop in path.hops if hop.state == "unknown"]
    assert [hop.kind for hop in unknown] == ["route"]
    assert NO_TOOLS in unknown[0].reason
    link = next(hop for hop in path.hops if hop.kind == "link")
    assert "lxcca1c984e26ef" in link.summary
    assert "(peer named by the agent)" in link.summary
    # The newest attempt was answered 18 s before the table was read.
    assert path.verdict == "delivered"
    assert (
        ask(changed(VXLAN, fail("client", "", NO_TOOLS, 127)), "client", "9.9.9.9:1").verdict
        == "unknown"
    )


def test_an_agent_that_crashes_leaves_the_pods_side() -> None:
    gone = could_not(agent_place("node2"), "Cilium's agent on node2 does not run: CrashLoopBackOff")
    path = ask(changed(VXLAN, without("node2"), more=(gone,)), "client", "1.1.1.1:80")
    assert path.verdict == "unknown"
    assert [hop.kind for hop in path.hops][:2] == ["route", "neighbour"]
    assert "CrashLoopBackOff" in path.reason
    assert "CrashLoopBackOff" in finding(path, "could not be asked").title


@pytest.mark.parametrize(
    ("verb", "tier"),
    [
        ("create pods/exec in namespace default", "agents"),
        ("get pods/exec in namespace ebpfnet", "node-pods"),
        ("get pods/exec in namespace ebpfnet-0a1b2c3d", "deploy"),
        ("create namespaces", "deploy"),
    ],
)
def test_a_denied_verb_is_named_with_the_tier_that_has_it(verb: str, tier: str) -> None:
    denied = could_not(pod_place("default", "client"), f"this user may not {verb}", verb)
    path = ask(changed(VXLAN, without("client"), more=(denied,)), "client", "1.1.1.1:80")
    detail = finding(path, "could not be asked").detail
    where = f"tier {tier}, kubectl ebpfnet doctor --print-rbac={tier}"
    assert detail == f"Missing permission: {verb} ({where})."
    assert any(verb in hop.reason for hop in path.hops)


def test_a_receiving_node_that_is_not_known() -> None:
    path = ask(changed(VXLAN, without("node1")), "client", "pod/web:8080")
    assert path.verdict == "unknown" or "answered" in path.reason
    assert path.hops[-1].state == "unknown"
    assert path.hops[-1].node == "node1"


def test_a_cluster_without_cilium_says_so() -> None:
    bundle = open_bundle(SCENARIOS / VXLAN)
    kept = [r for r in bundle.records if r.place.pod or "pods" in r.argv or "nodes" in r.argv]
    path = ask(bundle_of(kept), "client", "1.1.1.1:80")
    assert path.verdict == "unknown"
    assert [hop.kind for hop in path.hops] == ["route", "neighbour", "link"]
    assert "node2" in path.reason or "node2" in path.hops[-1].reason


def test_a_pod_that_is_not_in_the_capture() -> None:
    with pytest.raises(NotFound) as caught:
        ask(changed(VXLAN), "nobody", "1.1.1.1:80")
    assert "default/client" in caught.value.hint


OLD_BPFTOOL = (
    # 7.1 prints empty lists beside tcx links, and their type as a number.
    say("node2", "bpftool net show", "xdp:\n\ntc:\n\nflow_dissector:\n\n"),
    without("node2", "bpftool -j net show"),
    swap("node2", "bpftool -j link show", '"type":"tcx"', '"type":11'),
)


def test_old_bpftool_sees_tcx_by_pins_alone() -> None:
    path = ask(changed(VXLAN, *OLD_BPFTOOL), "client", "1.1.1.1:80")
    programs = [hop.summary for hop in path.hops if hop.kind == "program"]
    assert "cil_from_container" in programs[0]
    assert "cil_to_netdev" in programs[1]


def test_a_list_of_programs_says_which_are_named_by_pins_alone() -> None:
    found = of_pod("default", "client", changed(VXLAN, *OLD_BPFTOOL))
    first = found.programs[0]
    assert (first.name, first.by_pin) == ("cil_from_container", True)
    assert any("lxcca1c984e26ef are attached" in said for said in found.missing)
    whole = of_pod("default", "client", changed(VXLAN))
    assert not whole.programs[0].by_pin
    assert not any("are attached" in said for said in whole.missing)


def test_an_egress_gateway_on_another_node() -> None:
    rows = ("Source IP      Destination CIDR   Egress IP   Gateway IP\n"
            "10.244.1.160   0.0.0.0/0          0.0.0.0     {}\n")  # fmt: skip

    def policy(gateway: str) -> Change:
        return swap("node2", "cilium-dbg bpf egress list", "", rows.format(gateway))

    path = ask(changed(VXLAN, policy("172.30.0.11")), "client", "9.9.9.9:80")
    assert any(hop.kind == "tunnel" and hop.node == "node2" for hop in path.hops)
    missing = ask(changed(VXLAN, policy("Not Found")), "client", "9.9.9.9:80")
    assert "No egress gateway found" in dropped_at(missing).summary
    excluded = ask(changed(VXLAN, policy("Excluded CIDR")), "client", "9.9.9.9:80")
    assert not any(hop.kind == "tunnel" for hop in excluded.hops)


def test_a_routing_loop_ends() -> None:
    """Two nodes that each think the other has the way to an address."""
    first = '[{"dst":"default","gateway":"172.30.0.1"'
    loop = [
        swap(
            node,
            ROUTES,
            first,
            f'[{{"dst":"9.9.9.9","gateway":"{other}","dev":"eth0","flags":[]}},{first[1:]}',
        )
        for node, other in (("node2", "172.30.0.11"), ("node1", "172.30.0.12"))
    ]
    path = ask(changed(NATIVE, *loop), "client", "9.9.9.9:80")
    assert "routing loop" in dropped_at(path).summary
    found = finding(path, "routing loop between")
    assert found.severity == "error"
    assert {line for e in found.evidence for line in e.excerpt} == {
        f'{{"dst": "9.9.9.9", "gateway": "{hop}", "dev": "eth0", "flags": []}}'
        for hop in ("172.30.0.11", "172.30.0.12")
    }
    assert len(path.hops) < 40


def test_a_node_that_sends_a_packet_for_its_own_pod_away_is_a_loop() -> None:
    """Node1, where pod web is, has node2's route to its own pods."""
    own = '"dst":"10.244.0.0/24","gateway":"10.244.0.180","dev":"cilium_host"'
    away = swap("node1", ROUTES, own, '"dst":"10.244.0.0/24","gateway":"172.30.0.12","dev":"eth0"')
    path = ask(changed(NATIVE, away), "client", "pod/web:8080")
    assert "routing loop" in dropped_at(path).summary


def test_a_packet_that_is_sent_by_a_node_goes_on_from_there() -> None:
    """The way to the address is by node1, which routes it to the world."""
    first = '[{"dst":"default","gateway":"172.30.0.1"'
    by_node1 = f'[{{"dst":"9.9.9.9","gateway":"172.30.0.11","dev":"eth0","flags":[]}},{first[1:]}'
    path = ask(changed(NATIVE, swap("node2", ROUTES, first, by_node1)), "client", "9.9.9.9:80")
    assert path.verdict.let_through
    assert [h.node for h in path.hops if h.kind == "route"] == ["node2", "node2", "node1"]
    assert str(path.hops[-1].packet.flow.source) == "172.30.0.12"


def test_a_receivers_entry_of_an_older_flow_is_not_shown_as_the_packets() -> None:
    """Fault v15, hop 19: the attempt never arrived, and another connection's entry was shown."""
    path = ask(changed(VXLAN), "client", "10.244.0.135:8080")
    [ingress] = [h for h in path.hops if "CT entry (ingress)" in h.summary]
    port = path.hops[0].packet.flow.source_port
    assert f"10.244.1.160:{port} " in ingress.summary
    moved = changed(VXLAN, swap("node1", CT, f"10.244.1.160:{port} ", "10.244.1.160:1 "))
    path = ask(moved, "client", "10.244.0.135:8080")
    assert path.hops[0].packet.flow.source_port == port
    assert not [h for h in path.hops if "CT entry (ingress)" in h.summary]
    assert {flow.node for flow in path.flows} == {"node2"}


def test_a_receiver_without_its_tunnel_device() -> None:
    gone = swap("node1", LINKS, '"ifname":"cilium_vxlan"', '"ifname":"other"')
    path = ask(changed(VXLAN, gone), "client", "pod/web:8080")
    assert dropped_at(path).summary == "no tunnel device cilium_vxlan"
    assert dropped_at(path).node == "node1"
