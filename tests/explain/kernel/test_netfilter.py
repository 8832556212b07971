"""Rule evaluation, against iptables-extensions(8)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from kubectl_ebpfnet.explain.kernel.netfilter import Context, matches, traverse
from kubectl_ebpfnet.model.kernel import NetfilterChain, NetfilterRule, Ruleset
from kubectl_ebpfnet.model.net import TCP, Flow

FLOW = Flow(TCP, ip_address("10.244.1.53"), 54498, ip_address("1.1.1.1"), 80)
CONTEXT = Context(FLOW, "lxc00f235fb673a", "eth0", 0x8D4C0F00)

MASQUERADE = NetfilterRule(
    "nat", "CILIUM_POST_nat", 2, "-A …", "MASQUERADE",
    source=ip_network("10.244.1.0/24"), destination=ip_network("10.244.0.0/16"),
    not_destination=True, out_device="cilium_+", not_out_device=True,
)  # fmt: skip
NODES = NetfilterRule(
    "nat", "CILIUM_POST_nat", 1, "-A …", "ACCEPT",
    source=ip_network("10.244.1.0/24"), set_name="cilium_node_set_v4", set_direction="dst",
)  # fmt: skip
JUMP = NetfilterRule("nat", "POSTROUTING", 1, "-A …", "CILIUM_POST_nat")
NAT = Ruleset(
    (NetfilterChain("nat", "POSTROUTING", "ACCEPT"), NetfilterChain("nat", "CILIUM_POST_nat", "-")),
    (JUMP, NODES, MASQUERADE),
)


def test_cilium_masquerades_what_leaves_the_cluster() -> None:
    known = replace(CONTEXT, sets={"cilium_node_set_v4": frozenset({ip_address("172.30.0.11")})})
    outcome = traverse(NAT, "nat", "POSTROUTING", known)
    assert outcome.target == "MASQUERADE"
    assert outcome.rule is MASQUERADE
    assert not outcome.uncertain


def test_a_set_that_is_not_known_is_uncertain_and_named() -> None:
    outcome = traverse(NAT, "nat", "POSTROUTING", CONTEXT)
    assert outcome.rule is MASQUERADE
    assert outcome.uncertain == (NODES,)


def test_a_node_is_spared_by_the_set() -> None:
    node = ip_address("172.30.0.11")
    context = replace(
        CONTEXT,
        flow=FLOW.with_destination(node, 80),
        sets={"cilium_node_set_v4": frozenset({node})},
    )
    outcome = traverse(NAT, "nat", "POSTROUTING", context)
    assert (outcome.target, outcome.rule) == ("ACCEPT", NODES)


def test_what_stays_in_the_cluster_falls_through() -> None:
    context = replace(
        CONTEXT,
        flow=FLOW.with_destination(ip_address("10.244.0.5"), 80),
        sets={"cilium_node_set_v4": frozenset()},
    )
    assert traverse(NAT, "nat", "POSTROUTING", context).rule is None
    assert matches(MASQUERADE, replace(CONTEXT, out_device="cilium_host")) is False


def test_the_policy_of_a_chain_decides_at_its_end() -> None:
    drop = Ruleset((NetfilterChain("filter", "FORWARD", "DROP"),), ())
    assert traverse(drop, "filter", "FORWARD", CONTEXT).target == "DROP"
    assert traverse(Ruleset((), ()), "filter", "FORWARD", CONTEXT).target == "ACCEPT"


def test_return_leaves_the_chain_and_goes_on() -> None:
    rules = (
        NetfilterRule("filter", "FORWARD", 1, "", "A"),
        NetfilterRule("filter", "FORWARD", 2, "", "DROP"),
        NetfilterRule("filter", "A", 1, "", "RETURN"),
        NetfilterRule("filter", "A", 2, "", "ACCEPT"),
    )
    outcome = traverse(Ruleset((), rules), "filter", "FORWARD", CONTEXT)
    assert outcome.target == "DROP"
    assert outcome.rule is rules[1]


def test_a_loop_of_chains_ends() -> None:
    rules = (
        NetfilterRule("filter", "FORWARD", 1, "", "A"),
        NetfilterRule("filter", "A", 1, "", "A"),
    )
    assert traverse(Ruleset((), rules), "filter", "FORWARD", CONTEXT).target == "ACCEPT"


def test_marks_states_ports_and_types() -> None:
    rule = NetfilterRule("filter", "X", 1, "", "ACCEPT")
    assert matches(replace(rule, mark=0xF00, mark_mask=0xF00), CONTEXT) is True
    assert matches(replace(rule, mark=0xF00, mark_mask=0xF00, not_mark=True), CONTEXT) is False
    assert matches(replace(rule, mark=1), replace(CONTEXT, mark=None)) is None
    assert matches(replace(rule, states=("NEW",)), CONTEXT) is True
    assert matches(replace(rule, states=("ESTABLISHED",)), CONTEXT) is False
    assert matches(replace(rule, destination_ports=((80, 80),)), CONTEXT) is True
    assert matches(replace(rule, destination_ports=((443, 443),)), CONTEXT) is False
    assert matches(replace(rule, protocol="udp"), CONTEXT) is False
    assert matches(replace(rule, protocol="udp", not_protocol=True), CONTEXT) is True
    assert matches(replace(rule, destination_type="LOCAL"), CONTEXT) is False
    assert matches(replace(rule, in_device="lxc+"), CONTEXT) is True
    assert matches(replace(rule, other_matches=("socket",)), CONTEXT) is None
    # A match that fails for certain is not saved by one that cannot be told.
    assert matches(replace(rule, other_matches=("socket",), protocol="udp"), CONTEXT) is False
