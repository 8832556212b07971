"""Egress gateways (cilium-facts 2.7, 4.4), on a recorded cluster whose list of them was empty."""

from __future__ import annotations

from tests.explain.path.changed import VXLAN, Change, ask, changed, dropped_at, finding, say
from tests.explain.path.test_way_back import as_ipv6
from tests.explain.path.variants import says, shown, told

# ruff: noqa: E501 -- what programs print in one line stays in one line here


EGRESS = "cilium-dbg bpf egress list"
EGRESS_HEADER = "Source IP      Destination CIDR   Egress IP     Gateway IP\n"


def egress_policy(node: str, egress: str, gateway: str, more: str = "") -> Change:
    """A row of the client's on a node whose list was empty (its columns: cilium-facts 2.7)."""
    row = f"10.244.1.160   0.0.0.0/0          {egress:<11}   {gateway}\n"
    return say(node, EGRESS, EGRESS_HEADER + row + more)


def test_an_egress_gateway_on_another_node_gives_the_packet_its_address() -> None:
    bundle = changed(
        VXLAN,
        egress_policy("node2", "0.0.0.0", "172.30.0.11"),
        egress_policy("node1", "172.30.0.11", "172.30.0.11"),
    )
    path = ask(bundle, "client", "9.9.9.9:80")
    assert path.verdict.let_through
    assert "leaves the cluster as 172.30.0.11" in path.reason
    assert any("leaves by 172.30.0.11 (node1)" in words for words in shown(path, "route", "node2"))
    assert any("node1 is the egress gateway" in words for words in shown(path, "route", "node1"))
    (nat,) = [hop for hop in path.hops if hop.kind == "nat"]
    assert (nat.node, nat.state) == ("node1", "derived")
    assert says(bundle, nat.evidence, "10.244.1.160   0.0.0.0/0          172.30.0.11")


def test_the_gateways_nat_entry_is_what_was_seen() -> None:
    entry = "TCP OUT 10.244.1.160:50000 -> 9.9.9.9:80 XLATE_SRC 172.30.0.11:50001 Created=1sec ago NeedsCT=0\n"
    bundle = changed(
        VXLAN,
        egress_policy("node2", "0.0.0.0", "172.30.0.11"),
        egress_policy("node1", "172.30.0.11", "172.30.0.11"),
        say("node1", "cilium-dbg bpf nat list", entry),
    )
    (nat,) = [hop for hop in ask(bundle, "client", "9.9.9.9:80").hops if hop.kind == "nat"]
    assert nat.state == "observed"
    assert "172.30.0.11:50001" in nat.summary
    assert says(bundle, nat.evidence, "XLATE_SRC 172.30.0.11:50001")


def test_an_egress_gateway_is_not_for_what_stays_in_the_cluster() -> None:
    bundle = changed(VXLAN, egress_policy("node2", "0.0.0.0", "172.30.0.11"))
    plain = ask(changed(VXLAN), "client", "pod/web:8080")
    assert [told(h) for h in ask(bundle, "client", "pod/web:8080").hops] == [
        told(h) for h in plain.hops
    ]


def test_a_gateway_here_whose_address_nobody_has() -> None:
    bundle = changed(VXLAN, egress_policy("node2", "172.30.0.77", "172.30.0.12"))
    path = ask(bundle, "client", "9.9.9.9:80")
    assert str(path.hops[-1].packet.flow.source) == "172.30.0.77"
    found = finding(path, "172.30.0.77 is not on gateway node2")
    assert found.severity == "error"
    assert says(bundle, found.evidence, "172.30.0.77")


def test_a_gateway_without_an_egress_address_drops() -> None:
    path = ask(
        changed(VXLAN, egress_policy("node2", "0.0.0.0", "172.30.0.12")), "client", "9.9.9.9:80"
    )
    assert "No Egress IP configured" in dropped_at(path).summary
    assert finding(path, "no egress address").severity == "error"


def test_no_gateway_is_found() -> None:
    bundle = changed(VXLAN, egress_policy("node2", "0.0.0.0", "Not Found"))
    path = ask(bundle, "client", "9.9.9.9:80")
    hop = dropped_at(path)
    assert "No egress gateway found" in hop.summary
    assert says(bundle, hop.evidence, "Not Found")
    assert finding(path, "has no gateway node").severity == "error"


def test_an_excluded_prefix_leaves_as_if_there_were_no_gateway() -> None:
    more = "10.244.1.160   9.9.9.0/24         0.0.0.0       Excluded CIDR\n"
    bundle = changed(VXLAN, egress_policy("node2", "0.0.0.0", "172.30.0.11", more))
    excluded = ask(bundle, "client", "9.9.9.9:80")
    plain = ask(changed(VXLAN), "client", "9.9.9.9:80")
    assert [told(hop) for hop in excluded.hops] == [told(hop) for hop in plain.hops]
    assert shown(ask(bundle, "client", "8.8.8.8:80"), "tunnel")


def test_an_ipv6_packet_has_a_gateway_by_rows_of_ipv6() -> None:
    four = changed(
        VXLAN,
        egress_policy("node2", "0.0.0.0", "172.30.0.11"),
        egress_policy("node1", "172.30.0.11", "172.30.0.11"),
    )
    path = ask(as_ipv6(four), "client", "[2606:4700::1111]:80")
    assert path.verdict.let_through, path.reason
    assert "as fd00:172:30::11" in path.reason
    assert any("leaves by fd00:172:30::11 (node1)" in words for words in shown(path, "route"))
    only_four = ask(as_ipv6(changed(VXLAN)), "client", "[2606:4700::1111]:80")
    assert not shown(only_four, "tunnel")
