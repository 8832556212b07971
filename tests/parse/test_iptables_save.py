"""parse.netfilter, on what iptables 1.8.9 printed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.netfilter import (
    MatchOption,
    NetfilterChain,
    NetfilterRule,
    RuleMatch,
    Ruleset,
)
from kubectl_ebpfnet.parse.netfilter import ruleset
from tests.parse.parse_samples import line_at, sample

NODE = "iptables-1.8.9/native-node2/iptables-save-c"
NETNS = "iptables-1.8.9/netns/"


def rule(text: str) -> NetfilterRule:
    """The rule that one line of the table filter is."""
    (one,) = ruleset(f"*filter\n{text}\nCOMMIT\n".encode()).rules
    return one


def as_printed(one: NetfilterRule) -> list[str]:
    """The rule's matches as iptables-save prints them."""
    printed = []
    for match in one.matches:
        words = [f"-m {match.module}"]
        for option in match.options:
            words += ["!"] * option.inverted + [option.name, *option.values]
        printed.append(" ".join(words))
    return printed


def test_the_masquerading_of_a_node() -> None:
    data = sample(NODE)
    chain = ruleset(data).chain("nat", "CILIUM_POST_nat")
    exclude, masquerade, *_, hairpin = chain
    assert [one.number for one in chain] == [1, 2, 3, 4, 5]
    assert exclude.matches == (
        RuleMatch("set", (MatchOption("--match-set", False, ("cilium_node_set_v4", "dst")),)),
    )
    assert exclude.jump == "ACCEPT"
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
    assert as_printed(hairpin) == ["-m mark --mark 0xf00/0xf00", "-m conntrack --ctstate DNAT"]
    assert (hairpin.jump, hairpin.to_address) == ("SNAT", "10.244.1.114")


def test_chains_and_policies() -> None:
    rules = ruleset(sample(NODE))
    assert rules.policy("nat", "POSTROUTING") == "ACCEPT"
    assert rules.policy("nat", "CILIUM_POST_nat") == "-"
    assert rules.policy("nat", "NO_SUCH") == ""
    assert rules.chains[0] == NetfilterChain("mangle", "PREROUTING", "ACCEPT")
    assert {chain.table for chain in rules.chains} == {"mangle", "raw", "filter", "nat"}


def test_no_match_is_forgotten() -> None:
    (_, _, marking) = ruleset(sample(NODE)).chain("filter", "CILIUM_OUTPUT")
    assert as_printed(marking)[:2] == [
        "-m mark ! --mark 0xd00/0xf00",
        "-m mark ! --mark 0xe00/0xf00",
    ]
    assert (marking.jump, marking.target_options) == ("MARK", ("--set-xmark", "0xc00/0xf00"))
    (block,) = ruleset(sample(NODE)).chain("filter", "KUBE-FIREWALL")
    assert as_printed(block) == ["-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT"]
    assert (block.not_source, block.not_destination) == (True, False)


def test_every_match_is_kept_in_order() -> None:
    chain = ruleset(sample(NETNS + "iptables-save-c")).chain("filter", "INPUT")
    syn, multiport, ports, state, hole, sctp, local, twice, icmp = chain
    assert as_printed(syn) == [
        "-m tcp ! --sport 1024:65535 ! --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN"
    ]
    assert as_printed(multiport) == ["-m multiport ! --ports 53", "-m limit --limit 3/min"]
    assert multiport.jump == "ACCEPT"
    assert as_printed(ports) == ["-m mark --mark 0x5", "-m multiport --dports 80,443,1000:2000"]
    assert as_printed(state)[1] == "-m state --state INVALID"
    assert (hole.source, as_printed(hole)) == (None, ["-m  -s 10.0.0.0/255.0.255.0"])  # no prefix
    assert (hole.in_device, hole.not_in_device) == ("lxc+", True)
    assert (hole.jump, hole.goto, twice.goto) == ("side", True, False)
    assert (sctp.protocol, as_printed(sctp)) == ("sctp", ["-m mark ! --mark 0x0/0x4000"])
    assert as_printed(local) == ["-m addrtype --src-type UNICAST ! --dst-type LOCAL"]
    assert as_printed(twice) == [
        "-m conntrack ! --ctstate DNAT --ctdir ORIGINAL",
        "-m mark --mark 0x1",
        "-m mark --mark 0x2",
    ]
    assert (icmp.protocol, icmp.comment) == ("icmp", "plain")
    assert as_printed(icmp) == ["-m icmp --icmp-type 8"]


def test_targets_that_translate() -> None:
    nat = ruleset(sample(NETNS + "iptables-save-c"))
    assert [(one.jump, one.to_address) for one in nat.chain("nat", "OUTPUT")] == [
        ("DNAT", "10.66.0.2:8080"),
        ("REDIRECT", "9000-9010"),
    ]
    (marked,) = [one for one in nat.chain("nat", "POSTROUTING") if one.jump == "MASQUERADE"]
    assert as_printed(marked) == ["-m mark ! --mark 0x4000/0x4000"]
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
    assert as_printed(one) == ["-m tcp --dport 80"]


def test_forms_of_other_versions() -> None:
    assert rule("-A X -p 6").protocol == "tcp"
    assert rule("-A X -p all").protocol == ""
    assert rule("-A X ! -p udp").not_protocol
    assert [rule(f"-A X{words}").fragment for words in (" -f", " ! -f", "")] == [True, False, None]
    assert as_printed(rule("-A X -s 10.0.0.0/0.0.0.255")) == ["-m  -s 10.0.0.0/0.0.0.255"]
    assert rule("-A X -s 10.0.0.0/255.0.0.0").source == ip_network("10.0.0.0/8")
    assert as_printed(rule("-A X -s 10.0.0.1 -s 10.0.0.2")) == ["-m  -s 10.0.0.2"]
    assert as_printed(rule("-A X -m set ! --match-set a src,dst")) == [
        "-m set ! --match-set a src,dst"
    ]
    assert as_printed(rule("-A X -p tcp --dport 80")) == ["-m tcp --dport 80"]
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
    assert (both.legacy_too, ruleset(one).legacy_too) == (True, False)
    assert both.backend == "nf_tables"
    legacy = ruleset(
        b"# Generated by iptables-save v1.8.9 on Sat Nov 21 06:24:30 2026\n*nat\nCOMMIT\n"
    )
    assert legacy.backend == "legacy"
    assert ruleset(b"") == Ruleset((), ())


@pytest.mark.parametrize(
    "line",
    [
        "-A INPUT -s example.com -j ACCEPT",
        "-A INPUT -s -j ACCEPT",
        '-A INPUT -m comment --comment "no end',
        "-A INPUT -j",
        "-A INPUT -m",
        "-A INPUT -m one two -j ACCEPT",
        "-A INPUT -p 1/2/3 -s 10.0.0.0/999",
    ],
)
def test_a_rule_that_cannot_be_read_keeps_its_place(line: str) -> None:
    found = ruleset(f"*filter\n-A INPUT -j LOG\n[1:2] {line}\nCOMMIT\n".encode())
    _, bad = found.chain("filter", "INPUT")
    assert (bad.number, bad.jump, bad.matches, bad.packets) == (2, "", (), 1)
    assert bad.problem
    assert bad.text == line
    assert found.problem("filter") == ""


@pytest.mark.parametrize("line", ["-X CHAIN", "-A", ":INPUT", "[1:x] -A INPUT -j ACCEPT", "hello"])
def test_a_line_that_is_no_rule_makes_its_table_doubtful(line: str) -> None:
    found = ruleset(f"*nat\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n{line}\nCOMMIT\n".encode())
    assert found.problem("filter").startswith("line 5 could not be read: ")
    assert found.problem("nat") == found.problem("mangle") == ""


def test_a_table_that_iptables_cannot_print() -> None:
    said = b"# Table `filter' is incompatible, use 'nft' tool.\n*nat\nCOMMIT\n"
    assert "nftables" in ruleset(said).problem("filter")
    assert ruleset(said).problem("nat") == ""


def test_an_output_that_is_cut_short() -> None:
    found = ruleset(b"*raw\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTP")
    assert found.problem("raw") == ""
    assert found.problem("nat") == "the output was cut short in table nat"
    assert found.problem("filter") == "the output was cut short in table nat"


def test_a_rule_of_no_table_is_named() -> None:
    with pytest.raises(ParseError, match="not in a table"):
        ruleset(b"-A INPUT -j ACCEPT\n")
