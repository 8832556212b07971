"""WireGuard's devices by the agent; IPsec by iproute2, procfs and netfilter's rules."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.encryption import WireGuardDevice, XfrmPolicy, XfrmState
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.parse import iproute, netfilter, procfs
from kubectl_ebpfnet.parse.cilium import agent
from tests.kernels import recorded
from tests.parse.parse_samples import sample


def test_the_agents_status_names_its_wireguard_device() -> None:
    key = "ohdqr3JSsy+uonGCiECH/GB+75NtgfwaAMRpmgJtjTU="
    assert agent.wireguard(sample("cilium-1.19/format/status-o-json")) == (
        WireGuardDevice("cilium_wg0", key, 51871, None, 2),
    )


def test_the_states_with_what_passed_and_what_failed() -> None:
    node1, node2 = ip_address("172.30.0.11"), ip_address("172.30.0.12")
    back, there = iproute.xfrm_states(sample("iproute2-6.1.0/vm-node2/ip-s-xfrm-state-list-nokeys"))
    assert back == XfrmState(node2, node1, "esp", 3, "tunnel", packets=0, failed=0)
    assert there == XfrmState(node1, node2, "esp", 3, "tunnel", packets=0, failed=1)
    assert (there.span.line, there.span.last) == (17, 32)


def test_a_state_for_marked_packets() -> None:
    text = (
        b"src 10.0.0.1 dst 10.0.0.2\n\tproto esp spi 0x00000003 reqid 1 mode tunnel\n"
        b"\tmark 0x3e00/0xff00 output-mark 0xe00/0xf00\n"
    )
    (state,) = iproute.xfrm_states(text)
    assert (state.mark, state.mark_mask, state.packets) == (0x3E00, 0xFF00, None)


POLICIES = sample("iproute2-6.1.0/vm-node1/ip-xfrm-policy-list")


def test_the_policies_as_iproute2_and_the_node_side_tell_them() -> None:
    """Of one node at one moment (check_ipsec_policy_that_blocks)."""
    found = iproute.xfrm_policies(POLICIES)
    assert found[0] == XfrmPolicy(
        ip_network("10.244.1.0/24"), ip_network("10.244.2.0/24"), "out", "block",
        ends=(ip_address("172.30.0.12"),),
    )  # fmt: skip
    assert (found[0].span.line, found[0].span.last) == (1, 4)
    records = recorded.told()["ipsec_policy_that_blocks"]["records"]["node1"]
    (told,) = (asked[2] for asked in records if asked[0][-1] == "xfrm-policies")
    assert found == tuple(codec.fact(line.encode(), XfrmPolicy) for line in told.splitlines())


def test_policies_of_marked_packets_of_ports_of_sockets_and_without_a_need() -> None:
    text = (
        b"src 0.0.0.0/0 dst 10.1.0.0/16 proto udp dport 53 \n"
        b"\tdir fwd priority 2975 ptype main \n\tmark 0xd00/0xf00 \n"
        b"\ttmpl src 0.0.0.0 dst 10.1.0.9\n\t\tproto esp reqid 1 mode tunnel\n\t\tlevel use \n"
        b"src ::/0 dst ::/0 \n\tsocket in priority 0 ptype main \n"
    )
    (policy,) = iproute.xfrm_policies(text)
    assert (policy.direction, policy.priority, policy.narrowed) == ("fwd", 2975, True)
    assert (policy.mark, policy.mark_mask, policy.ends) == (0xD00, 0xF00, ())


@pytest.mark.parametrize(
    "text",
    [
        b"\tdir out\n",
        b"src x dst y\n",
        b"src ::/0 dst\n",
        b"src ::/0 dst ::/0\n",
        b"Usage: ip xfrm\n",
    ],
)
def test_what_is_no_list_of_policies(text: bytes) -> None:
    with pytest.raises(ParseError):
        iproute.xfrm_policies(text)


@pytest.mark.parametrize("text", [b"\tproto esp\n", b"src x dst y\n", b"Usage: ip xfrm\n"])
def test_what_is_no_list_of_states(text: bytes) -> None:
    with pytest.raises(ParseError):
        iproute.xfrm_states(text)


def test_counters_that_are_0_are_left_out() -> None:
    found = procfs.xfrm_errors(sample("linux-6.12/vm-node2/proc-net-xfrm-stat"))
    assert [(c.name, c.value) for c in found] == [
        ("XfrmInNoStates", 2),
        ("XfrmInStateProtoError", 1),
    ]


@pytest.mark.parametrize(
    ("named", "protocol"),
    [("esp", "esp"), ("50", "esp"), ("gre", "47"), ("47", "47"), ("ipv6-icmp", "icmpv6")],
)
def test_a_protocol_has_one_name_in_rules(named: str, protocol: str) -> None:
    text = f"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p {named} -j DROP\nCOMMIT\n"
    (rule,) = netfilter.ruleset(text.encode()).rules
    assert rule.protocol == protocol
