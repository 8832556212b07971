"""Which packets Cilium and netfilter masquerade, and with which of a device's addresses."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.explain.path import masquerade_address
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, bundle_of
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Outcome, Path, Severity, Verdict
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import NATIVE, VXLAN, Change, ask, changed, finding, say, swap

ADDRESSES = "ip -j addr"
STATUS = "cilium-dbg status -o json"
NODE_IP = ip_address("10.0.2.11")


def node_with(*addresses: str) -> NodeView:
    """A node whose eth0 has these addresses, in the kernel's order."""
    infos = [
        {"local": local, "prefixlen": int(bits), "scope": "global", "family": "inet"}
        for local, _, bits in (one.partition("/") for one in addresses)
    ]
    said = json.dumps([{"ifname": "eth0", "addr_info": infos}]).encode()
    record = Record(0, agent_place("n"), q.ADDRESSES.forms[0], 0, InMemory(said))
    return NodeView(bundle_of([record], "test"), "n", DatapathConfig(), None)


@pytest.mark.parametrize(
    ("addresses", "taken"),
    [
        (["10.0.2.11/24"], ["10.0.2.11"]),
        (["10.0.2.99/24", "10.0.2.11/24"], ["10.0.2.99", "10.0.2.11"]),
        (["10.0.2.11/24", "10.0.2.9/24"], ["10.0.2.11"]),  # the second is a secondary one
        (["10.0.3.1/24", "10.0.9.1/24"], ["10.0.3.1"]),  # by number: the node's own is elsewhere
        (["10.0.9.1/24", "10.0.3.1/24"], ["10.0.3.1"]),
        (["10.0.3.1/24", "52.0.2.1/24"], ["52.0.2.1"]),  # a public one first
        (["10.0.2.11/24", "52.0.2.1/24"], ["52.0.2.1", "10.0.2.11"]),  # 1.16 to 1.18: the node's
        ([], []),
    ],
)
def test_the_address_that_cilium_takes(addresses: list[str], taken: list[str]) -> None:
    found = masquerade_address.of_cilium(node_with(*addresses), "eth0", 4, [NODE_IP])
    assert [str(one) for one in found] == taken


def test_without_the_node_object_any_of_them_may_be_taken() -> None:
    node = node_with("10.0.3.1/24", "10.0.9.1/24")
    assert len(masquerade_address.of_cilium(node, "eth0", 4, None)) == 2


@pytest.mark.parametrize(
    ("next_hop", "taken"),
    [("10.0.9.254", "10.0.9.1"), ("10.0.3.254", "10.0.3.1"), ("192.0.2.1", "10.0.3.1")],
)
def test_masquerade_takes_the_address_of_the_next_hops_network(next_hop: str, taken: str) -> None:
    node = node_with("10.0.3.1/24", "10.0.9.1/24", "10.0.9.2/24")
    hop: Address = ip_address(next_hop)
    assert [str(a) for a in masquerade_address.of_netfilter(node, "eth0", hop)] == [taken]


def test_a_device_without_an_address_lends_one() -> None:
    """As a pod's: inet_select_addr takes that of another device, whose order is not known."""
    hop: Address = ip_address("10.0.3.9")
    one = masquerade_address.of_netfilter(node_with("10.0.3.1/24", "10.0.9.1/24"), "lxc1", hop)
    assert [str(a) for a in one] == ["10.0.3.1"]


def second_address(node: str, own: str, other: str, *, first: bool = False) -> Change:
    """eth0 of a node has one more address, of a network of its own."""

    def change(record: Record) -> Record:
        if (record.place.node, record.command) != (node, ADDRESSES):
            return record
        links = json.loads(record.stdout.read())
        for link in links:
            infos: list[dict[str, Any]] = link["addr_info"]
            for at, info in enumerate(infos):
                if info.get("local") == own:
                    more = {**info, "local": other, "prefixlen": 24}
                    infos.insert(at if first else at + 1, more)
                    break
        return replace(record, stdout=InMemory(json.dumps(links).encode()))

    return change


def nat_of(path: Path) -> list[str]:
    return [hop.summary for hop in path.hops if hop.kind == "nat"]


def test_netfilter_masquerades_as_the_address_beside_the_gateway() -> None:
    more = second_address("node2", "172.30.0.12", "192.0.2.12", first=True)
    path = ask(changed(NATIVE, more), "client", "9.9.9.9:80")
    assert any("masquerades the source to 172.30.0.12 " in text for text in nat_of(path))
    assert "as 172.30.0.12" in path.reason


def test_an_egress_gateways_address_is_not_taken_for_the_nodes() -> None:
    more = second_address("node2", "172.30.0.12", "172.30.0.99", first=True)
    policy = (
        "Source IP    Destination CIDR   Egress IP     Gateway IP\n"
        "10.244.1.9   0.0.0.0/0          172.30.0.99   172.30.0.12\n"
    )
    entries = "TCP OUT 10.244.1.{}:4000 -> 8.8.8.8:80 XLATE_SRC 172.30.0.{}:4000 Created=1sec ago\n"
    egress, own = entries.format(9, 99), entries.format(8, 12)
    bundle = changed(
        VXLAN,
        more,
        say("node2", "cilium-dbg bpf egress list", policy),
        say("node2", "cilium-dbg bpf nat list", egress + own),
    )
    path = ask(bundle, "client", "9.9.9.9:80")
    assert "as 172.30.0.12" in path.reason
    alone = changed(
        VXLAN, more, say("node2", "cilium-dbg bpf egress list", policy),
        say("node2", "cilium-dbg bpf nat list", egress),
    )  # fmt: skip
    assert "172.30.0.99" not in ask(alone, "client", "9.9.9.9:80").reason.split("(")[0]


def test_an_entry_that_is_older_than_what_spares_its_destination() -> None:
    spare = say("node2", "cilium-dbg bpf ipmasq list", "IP PREFIX/ADDRESS\n1.1.1.0/24\n")
    masq = swap("node2", STATUS, '"mode": "BPF"', '"mode": "BPF", "ip-masq-agent": true')
    with attempt(300.0, Outcome.ANSWERED):
        path = ask(changed(VXLAN, spare, masq), "client", "1.1.1.1:80")
    assert "not masqueraded: ip-masq-agent spares 1.1.1.0/24" in nat_of(path)
    said = finding(path, "masqueraded no more")
    assert said.severity is Severity.WARNING
    assert "the entry is older than that" in said.detail
    with attempt(3.0, Outcome.ANSWERED):  # it has just been answered: the map was older then
        now = ask(changed(VXLAN, spare, masq), "client", "1.1.1.1:80")
    assert any("as its NAT map shows" in text for text in nat_of(now))


def test_another_node_is_masqueraded_to_by_the_routing_mode() -> None:
    def always(record: Record) -> Record:
        text = record.stdout.read()
        more = b'"enable-remote-node-masquerade": "true", "routing-mode"'
        return replace(record, stdout=InMemory(text.replace(b'"routing-mode"', more)))

    tunnelled = ask(changed(VXLAN), "client", "172.30.0.11:10250")
    assert any("masquerades the source" in text for text in nat_of(tunnelled))
    mode = '"inter-host-routing-mode": "{}"'
    native = swap("node2", STATUS, mode.format("Tunnel"), mode.format("Native"))
    spared = ask(changed(VXLAN, native), "client", "172.30.0.11:10250")
    assert not any("masquerades the source" in text for text in nat_of(spared))
    wanted = ask(changed(VXLAN, native, always), "client", "172.30.0.11:10250")
    assert any("masquerades the source" in text for text in nat_of(wanted))
    assert wanted.verdict is not Verdict.DROPPED


def test_masquerading_that_is_off_is_said_where_netfilter_is_passed_by_too() -> None:
    off = swap("node2", STATUS, '"ipv4": true', '"ipv4": false')
    path = ask(changed(VXLAN, off), "client", "9.9.9.9:80")
    assert any("past the node's netfilter" in hop.summary for hop in path.hops)
    assert "it leaves the cluster as it is" in " ".join(nat_of(path))
    said = finding(path, "leaves the cluster without masquerading")
    assert said.severity is Severity.WARNING
    assert "switched off (enable-ipv4-masquerade)" in said.detail
    inside = ask(changed(VXLAN, off), "client", "pod/web:8080")
    assert not any("without masquerading" in one.title for one in inside.findings)


def test_what_the_native_routing_cidr_spares_is_no_fault_with_netfilter_either() -> None:
    path = ask(changed(NATIVE), "client", "10.244.9.9:80")
    assert nat_of(path) == [
        "not masqueraded: 10.244.9.9 is in the native routing CIDR 10.244.0.0/16"
    ]
    assert path.verdict is Verdict.LEAVES
    assert not any("without masquerading" in found.title for found in path.findings)
