"""parse.netfilter, on what iptables 1.8.9 printed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.kernel import NetfilterChain, NetfilterRule, Ruleset
from kubectl_ebpfnet.parse.netfilter import ruleset
from tests.parse.parse_samples import line_at, sample

NODE = "iptables-1.8.9/native-node2/iptables-save-c"
NETNS = "iptables-1.8.9/netns/"


def rule(text: str) -> NetfilterRule:
    """The rule that one line of the table filter is."""
    (one,) = ruleset(f"*filter\n{text}\nCOMMIT\n".encode()).rules
    return one


def test_the_masquerading_of_a_node() -> None:
    data = sample(NODE)
    chain = ruleset(data).chain("nat", "CILIUM_POST_nat")
    exclude, masquerade, *_, hairpin = chain
    assert [one.number for one in chain] == [1, 2, 3, 4, 5]
    assert (exclude.set_name, exclude.set_direction, exclude.jump) == (
        "cilium_node_set_v4",
        "dst",
        "ACCEPT",
    )
    assert masquerade == NetfilterRule(
        table="nat",
        chain="CILIUM_POST_nat",
        number=2,
        text=masquerade.text,
        jump="MASQUERADE",
        source=ip_network("10.244.1.0/24"),
        destination=ip_network("10.244.0.0/16"),
        not_destination=True,
        out_device="cilium_+",
        not_out_device=True,
        comment="cilium masquerade non-cluster",
        packets=1,
        bytes=60,
    )
    assert masquerade.text.startswith("-A CILIUM_POST_nat -s 10.244.1.0/24 ! -d 10.244.0.0/16")
    assert line_at(data, masquerade.span.line) == f"[1:60] {masquerade.text}"
    assert (hairpin.mark, hairpin.mark_mask, hairpin.states) == (0xF00, 0xF00, ("DNAT",))
    assert (hairpin.jump, hairpin.to_address) == ("SNAT", "10.244.1.114")


def test_chains_and_policies() -> None:
    rules = ruleset(sample(NODE))
    assert rules.policy("nat", "POSTROUTING") == "ACCEPT"
    assert rules.policy("nat", "CILIUM_POST_nat") == "-"
    assert rules.policy("nat", "NO_SUCH") == ""
    assert rules.chains[0] == NetfilterChain("mangle", "PREROUTING", "ACCEPT")
    assert {chain.table for chain in rules.chains} == {"mangle", "raw", "filter", "nat"}


def test_a_second_mark_is_not_forgotten() -> None:
    (_, _, marking) = ruleset(sample(NODE)).chain("filter", "CILIUM_OUTPUT")
    assert (marking.mark, marking.mark_mask, marking.not_mark) == (0xD00, 0xF00, True)
    assert marking.other_matches == ("mark",)
    assert "--set-xmark 0xc00/0xf00" in marking.text


def test_states_that_are_inverted() -> None:
    (block,) = ruleset(sample(NODE)).chain("filter", "KUBE-FIREWALL")
    assert (block.states, block.not_states) == (("RELATED", "ESTABLISHED", "DNAT"), True)
    assert (block.not_source, block.not_destination) == (True, False)
    assert block.other_matches == ()


def test_every_match_is_read_or_named() -> None:
    chain = ruleset(sample(NETNS + "iptables-save-c")).chain("filter", "INPUT")
    syn, multiport, ports, state, hole, sctp, local, twice, icmp = chain
    assert (syn.destination_ports, syn.source_ports, syn.other_matches) == ((), (), ("tcp",))
    assert (multiport.destination_ports, multiport.other_matches) == ((), ("multiport", "limit"))
    assert multiport.jump == "ACCEPT"
    assert ports.destination_ports == ((80, 80), (443, 443), (1000, 2000))
    assert (ports.mark, ports.mark_mask, ports.other_matches) == (5, 0xFFFFFFFF, ())
    assert (state.states, state.other_matches) == (("INVALID",), ("statistic",))
    assert (hole.source, hole.other_matches) == (None, ("source",))  # 255.0.255.0 is no prefix
    assert (hole.in_device, hole.not_in_device, hole.jump) == ("lxc+", True, "side")
    assert (sctp.protocol, sctp.mark, sctp.mark_mask) == ("sctp", 0, 0x4000)
    assert (local.destination_type, local.not_destination_type) == ("LOCAL", True)
    assert local.other_matches == ("addrtype",)  # --src-type
    assert (twice.states, twice.not_states, twice.mark) == (("DNAT",), True, 1)
    assert twice.other_matches == ("conntrack", "mark")
    assert (icmp.protocol, icmp.comment, icmp.other_matches) == ("icmp", "plain", ("icmp",))


def test_targets_that_translate() -> None:
    nat = ruleset(sample(NETNS + "iptables-save-c"))
    assert [(one.jump, one.to_address) for one in nat.chain("nat", "OUTPUT")] == [
        ("DNAT", "10.66.0.2:8080"),
        ("REDIRECT", "9000-9010"),
    ]
    (marked,) = [one for one in nat.chain("nat", "POSTROUTING") if one.jump == "MASQUERADE"]
    assert (marked.mark, marked.mark_mask, marked.not_mark) == (0x4000, 0x4000, True)
    log = rule('-A INPUT -j LOG --log-prefix "--to-source " --log-level 7')
    assert (log.jump, log.to_address) == ("LOG", "")


def test_counters_are_all_that_differs() -> None:
    def uncounted(rules: Ruleset) -> list[NetfilterRule]:
        return [replace(one, packets=None, bytes=None) for one in rules.rules]

    plain = ruleset(sample(NETNS + "iptables-save"))
    assert list(plain.rules) == uncounted(ruleset(sample(NETNS + "iptables-save-c")))
    assert plain.rules[0].packets is None


def test_ipv6() -> None:
    rules = ruleset(sample(NETNS + "ip6tables-save-c"))
    (accept,) = rules.chain("filter", "INPUT")
    assert accept.source == ip_network("fd00::/8")
    assert (accept.destination, accept.not_destination) == (ip_network("fd66::1/128"), True)
    assert accept.protocol == "icmpv6"
    assert ruleset(sample("iptables-1.8.9/native-node2/ip6tables-save")).rules == ()


@pytest.mark.parametrize(
    ("printed", "comment"),
    [
        ("plain", "plain"),
        ('"two words"', "two words"),
        (r'"say \"hi\" \\ it\'s"', 'say "hi" \\ it\'s'),
        ('"-j ACCEPT"', "-j ACCEPT"),
        ('"! -d"', "! -d"),
        ("--dport", "--dport"),
        ('""', ""),
    ],
)
def test_comments(printed: str, comment: str) -> None:
    one = rule(f"-A INPUT -p tcp -m comment --comment {printed} -m tcp --dport 80 -j DROP")
    assert (one.comment, one.jump) == (comment, "DROP")
    assert (one.destination_ports, one.other_matches) == (((80, 80),), ())


def test_forms_of_other_versions() -> None:
    assert rule("-A X -m mark --mark 7").mark_mask == 0xFFFFFFFF
    assert rule("-A X -p 6").protocol == "tcp"
    assert rule("-A X -p all").protocol == ""
    assert rule("-A X ! -p udp").not_protocol
    assert rule("-A X -f").other_matches == ("fragment",)
    assert rule("-A X -s 10.0.0.0/0.0.0.255").other_matches == ("source",)
    assert rule("-A X -s 10.0.0.0/255.0.0.0").source == ip_network("10.0.0.0/8")
    assert rule("-A X -m set ! --match-set pool src,dst").not_set
    assert rule("-A X -m connmark --mark 1").other_matches == ("connmark",)
    assert rule("-A X -m tcp --dport 1024:").destination_ports == ((1024, 65535),)
    assert rule("-A X").jump == ""


def test_two_dumps_in_one_input() -> None:
    # As `iptables-nft-save; iptables-legacy-save` gives them.
    one = sample(NETNS + "iptables-save")
    warned = (
        one + b"# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
    )
    both = ruleset(warned + one)
    assert len(both.rules) == 2 * len(ruleset(one).rules)
    assert [rule.number for rule in both.chain("raw", "OUTPUT")] == [1, 2, 3, 4]
    assert ruleset(b"") == Ruleset((), ())


@pytest.mark.parametrize(
    "line",
    [
        "-X CHAIN",
        "-A",
        ":INPUT",
        "[1:x] -A INPUT -j ACCEPT",
        "-A INPUT -s example.com -j ACCEPT",
        "-A INPUT -s -j ACCEPT",
        "-A INPUT -m tcp --dport http",
        "-A INPUT -m mark --mark 0x1ffffffff",
        "-A INPUT -m set --match-set only_a_name",
        '-A INPUT -m comment --comment "no end',
        "-A INPUT -j",
        "-A INPUT -p 1/2/3 -s 10.0.0.0/999",
    ],
)
def test_a_bad_line_is_named(line: str) -> None:
    with pytest.raises(ParseError) as raised:
        ruleset(f"*filter\n:INPUT ACCEPT [0:0]\n{line}\n".encode())
    assert (raised.value.source, raised.value.line) == ("iptables-save", 3)


def test_a_rule_of_no_table_is_named() -> None:
    with pytest.raises(ParseError, match="not in a table"):
        ruleset(b"-A INPUT -j ACCEPT\n")
