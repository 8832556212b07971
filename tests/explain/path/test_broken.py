"""Faults that the lab showed for real, told by the lines that the programs print then.

Each test changes a few lines of a recorded cluster (tests/scenarios/native-iptables): the pod is
`client`, 10.244.1.53 on node2, whose device is lxc00f235fb673a.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.evidence import InMemory, Record, bundle_of
from kubectl_ebpfnet.model.path import Path as Answer

RECORDED = Path(__file__).parents[2] / "scenarios/native-iptables"
Change = Callable[[str], str]


def answer(destination: str, changes: dict[tuple[str, str], Change]) -> Answer:
    """The answer for the client, with the output of commands changed at places.

    Args:
        changes: by (node, or the pod's name; command).
    """

    def changed(record: Record) -> Record:
        change = changes.get((record.place.pod or record.place.node, record.command))
        if change is None:
            return record
        before = record.stdout.read().decode()
        after = change(before)
        assert after != before, record.command
        return replace(record, stdout=InMemory(after.encode()))

    bundle = bundle_of(map(changed, open_bundle(RECORDED).records))
    there = arguments.destination(destination)
    number = arguments.protocol("tcp", there)
    request = arguments.request(arguments.source("client"), there, number, "default", "")
    return explain(request, bundle)


NEWER_CT = (
    "TCP OUT 10.244.1.53:50000 -> 1.1.1.1:80 expires=5843 (remaining: 60 sec(s)) Packets=0 Bytes=0 "
    "RxFlagsSeen=0x00 LastRxReport=0 TxFlagsSeen=0x02 LastTxReport=5783 Flags=0x0000 [ ] RevNAT=0 "
    "SourceSecurityID=36172 BackendID=0 NatPort=0 \n"
)
NEWER_NF = (
    "ipv4     2 tcp      6 118 SYN_SENT src=10.244.1.53 dst=1.1.1.1 sport=50000 dport=80 "
    "[UNREPLIED] src=1.1.1.1 dst=10.244.1.53 sport=80 dport=50000 mark=0 zone=0 use=2\n"
)


def without_masquerading(rules: str) -> str:
    return "".join(
        line for line in rules.splitlines(keepends=True) if "cilium masquerade non-cl" not in line
    )


def test_an_older_flow_does_not_hide_that_masquerading_is_gone() -> None:
    """The old flow still has its translation in nf_conntrack; the newest one has none."""
    path = answer(
        "1.1.1.1:80",
        {
            ("node2", "cilium-dbg bpf ct list global -d"): lambda text: NEWER_CT + text,
            ("node2", "cat /proc/net/nf_conntrack"): lambda text: NEWER_NF + text,
            ("node2", "iptables-save -c"): without_masquerading,
        },
    )
    assert path.hops[-1].packet.flow.source == path.source.address
    titles = [finding.title for finding in path.findings]
    assert "pod address 10.244.1.53 leaves the cluster without masquerading" in titles
    assert path.attempt is not None
    assert path.attempt.text in path.reason


def failed(text: str) -> str:
    return text.replace("lladdr 96:84:05:ad:c4:6a REACHABLE", " FAILED")


def no_carrier(text: str) -> str:
    return text.replace(
        "11: eth0@if12: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP",
        "11: eth0@if12: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc noqueue state DOWN",
    )


def device_down(text: str) -> str:
    up = '"ifname":"lxc00f235fb673a","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"]'
    return text.replace(up, '"ifname":"lxc00f235fb673a","flags":["BROADCAST","MULTICAST"]')


def test_the_device_that_is_down_is_named_and_not_the_neighbour_that_failed_for_it() -> None:
    path = answer(
        "1.1.1.1:80",
        {
            ("client", "ip neigh"): failed,
            ("client", "ip addr"): no_carrier,
            ("node2", "ip -j -d link"): device_down,
        },
    )
    assert path.verdict == "dropped"
    assert path.drop is not None
    assert path.drop.by.endswith("lxc00f235fb673a is down")
    assert [hop.drops for hop in path.hops] == [False, False, False, True]
    (finding,) = [f for f in path.findings if f.severity == "error"]
    assert finding.title == "lxc00f235fb673a, the host side of pod default/client, is down"


def test_the_receivers_device_that_is_down_takes_nothing() -> None:
    up = '"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"]'
    down = '"ifname":"eth0","flags":["BROADCAST","MULTICAST"]'
    link = {("node1", "ip -j -d link"): lambda text: text.replace(up, down)}
    path = answer("pod/web:8080", link)
    assert path.drop is not None
    assert (path.verdict, path.drop.node) == ("dropped", "node1")
    assert path.hops[-1].summary == "eth0 is down"
    assert path.fix is not None
    assert path.fix.command == "ip link set eth0 up"


def test_a_neighbour_that_failed_on_a_link_that_is_up_drops() -> None:
    path = answer("1.1.1.1:80", {("client", "ip neigh"): failed})
    assert path.verdict == "dropped"
    assert path.hops[-1].kind == "neighbour"


KUBE_PROXY = """:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-WAOKCVBKPPJ3T5FP - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-2262UYG6EQJDKK3I - [0:0]
[9:540] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[9:540] -A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[1:60] -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
[1:60] -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
[1:60] -A KUBE-NODEPORTS -p tcp -m comment --comment "default/web-lb" -m tcp --dport 32238 \
-j KUBE-MARK-MASQ
[1:60] -A KUBE-NODEPORTS -p tcp -m comment --comment "default/web-lb" -m tcp --dport 32238 \
-j KUBE-SVC-2262UYG6EQJDKK3I
[107:6420] -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
[1:60] -A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" \
-j MASQUERADE --random-fully
[1:60] -A KUBE-SEP-WAOKCVBKPPJ3T5FP -p tcp -m tcp -j DNAT --to-destination 10.244.0.251:8080
[1:60] -A KUBE-SVC-2262UYG6EQJDKK3I -j KUBE-SEP-WAOKCVBKPPJ3T5FP
[197:11820] -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
"""
"""kube-proxy 1.20's rules of a node port, as the lab's nodes have them, of web-lb here."""


def with_kube_proxy(rules: str) -> str:
    before, nat, after = rules.partition(":CILIUM_POST_nat - [0:0]\n")
    return before + nat + KUBE_PROXY + after


def test_a_node_port_of_kube_proxy_leads_to_the_backend() -> None:
    """Node1 has the address and the backend; node2, the sender's, has the same rules."""
    changes = {(node, "iptables-save -c"): with_kube_proxy for node in ("node1", "node2")}
    path = answer("172.30.0.11:32238", changes)
    balanced = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert [hop.node for hop in balanced] == ["node1"]
    assert str(balanced[0].packet.flow.destination) == "10.244.0.251"
    assert balanced[0].packet.flow.destination_port == 8080
    assert path.hops[-1].where == "default/web"


def test_a_node_port_that_nothing_serves_ends_at_the_node() -> None:
    path = answer("172.30.0.11:32239", {("node1", "iptables-save -c"): with_kube_proxy})
    assert not [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert path.hops[-1].where == "node1"
