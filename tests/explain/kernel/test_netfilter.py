"""The walk through chains, against iptables(8) and Linux ip_tables.c (ipt_do_table)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.kernel.chain_ends import ChainOutcome
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import NOT_KNOWN, Mark
from kubectl_ebpfnet.explain.kernel.netfilter import traverse
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.parse.netfilter import ruleset

FLOW = Flow(TCP, ip_address("10.244.1.53"), 54498, ip_address("1.1.1.1"), 80)
CONTEXT = Context(
    FLOW, "lxc00f235fb673a", "eth0", Mark(0x8D4C0F00), local=frozenset(), bridged=False
)
UNKNOWN = "-m set --match-set blocked src"


def run(
    text: str, policy: str = "ACCEPT", context: Context = CONTEXT, table: str = "filter"
) -> ChainOutcome:
    """Chain FORWARD of rules like `FORWARD -j DROP`; chains that have rules are declared."""
    lines = [line for line in text.strip().splitlines() if line]
    chains = dict.fromkeys(line.split()[0] for line in lines)
    declared = "".join(f":{chain} - [0:0]\n" for chain in chains if chain != "FORWARD")
    rules = "".join(f"-A {line}\n" for line in lines)
    dump = f"*{table}\n:FORWARD {policy} [0:0]\n{declared}{rules}COMMIT\n"
    return traverse(ruleset(dump.encode()), table, "FORWARD", context)


def ends(outcome: ChainOutcome) -> list[tuple[str, int]]:
    """Every end: its target, and the number of its rule (0 for the policy)."""
    return [(end.target, end.rule.number if end.rule else 0) for end in outcome.ends]


@pytest.mark.parametrize(
    ("rules", "policy", "lost"),
    [
        ("", "ACCEPT", False),
        ("", "DROP", True),
        ("FORWARD -j REJECT", "ACCEPT", True),
        ("FORWARD -j ACCEPT", "DROP", False),
        # A match that is not understood, on each target.
        (f"FORWARD {UNKNOWN} -j ACCEPT", "DROP", None),
        (f"FORWARD {UNKNOWN} -j ACCEPT", "ACCEPT", False),
        (f"FORWARD {UNKNOWN} -j DROP", "ACCEPT", None),
        (f"FORWARD {UNKNOWN} -j DROP", "DROP", True),
        (f"FORWARD {UNKNOWN} -j REJECT", "DROP", True),
        (f"FORWARD {UNKNOWN} -j RETURN\nFORWARD -j DROP", "ACCEPT", None),
        (f"FORWARD {UNKNOWN} -j RETURN\nFORWARD -j DROP", "DROP", True),
        (f"FORWARD -j A\nFORWARD -j DROP\nA {UNKNOWN} -j RETURN\nA -j ACCEPT", "ACCEPT", None),
        (f"FORWARD -j A\nFORWARD -j ACCEPT\nA {UNKNOWN} -j RETURN\nA -j ACCEPT", "DROP", False),
        (f"FORWARD {UNKNOWN} -j A\nA -j DROP", "ACCEPT", None),
        (f"FORWARD {UNKNOWN} -j A\nA -j RETURN", "ACCEPT", False),
        (f"FORWARD {UNKNOWN} -j A\nFORWARD -j ACCEPT\nA -j ACCEPT", "DROP", False),
        (f"FORWARD {UNKNOWN} -g A\nFORWARD -j DROP\nA -j LOG", "ACCEPT", None),
        # A rule that does not match for certain is not saved by a match that cannot be told.
        (f"FORWARD -p udp {UNKNOWN} -j DROP", "ACCEPT", False),
        # RETURN, and goto, which is no jump.
        ("FORWARD -j A\nFORWARD -j DROP\nA -j RETURN\nA -j ACCEPT", "ACCEPT", True),
        ("FORWARD -j RETURN\nFORWARD -j DROP", "ACCEPT", False),
        ("FORWARD -j A\nFORWARD -j DROP\nA -p udp -j ACCEPT", "ACCEPT", True),
        ("FORWARD -g A\nFORWARD -j DROP\nA -p udp -j ACCEPT", "ACCEPT", False),
        ("FORWARD -j A\nFORWARD -j DROP\nA -g B\nA -j ACCEPT\nB -j RETURN", "ACCEPT", True),
        ("FORWARD -j A\nFORWARD -j ACCEPT\nA -g B\nA -j DROP\nB -j LOG", "DROP", False),
        # Targets after which the next rule is asked, and others.
        ("FORWARD -j LOG --log-prefix \"x \"\nFORWARD -j TRACE\nFORWARD -j NFLOG", "DROP", True),
        ("FORWARD -p tcp", "DROP", True),
        ("FORWARD -j NFQUEUE --queue-num 1", "ACCEPT", None),
        ("FORWARD -j SYNPROXY", "ACCEPT", None),
        ("FORWARD -j NO_SUCH_CHAIN", "ACCEPT", None),
        (f"FORWARD {UNKNOWN} -j NO_SUCH_CHAIN", "ACCEPT", None),
        ("FORWARD -p udp -j NO_SUCH_CHAIN", "ACCEPT", False),
        # A line that cannot be read has its place.
        ("FORWARD -s nonsense -j DROP", "ACCEPT", None),
        ("FORWARD -j ACCEPT\nFORWARD -s nonsense -j DROP", "DROP", False),
        # Dead branches and limits decide nothing where both ways end alike.
        ("FORWARD -m limit --limit 5/min -j LOG\nFORWARD -j ACCEPT", "DROP", False),
        ("FORWARD -m recent --update --name x -j A\nA -j ACCEPT", "ACCEPT", False),
        ("FORWARD -m hashlimit --hashlimit-upto 1/sec -j RETURN\nFORWARD -j DROP", "DROP", True),
    ],
)  # fmt: skip
def test_what_becomes_of_a_packet(rules: str, policy: str, lost: bool | None) -> None:
    outcome = run(rules, policy)
    assert outcome.is_lost is lost
    assert outcome.doubt or lost is not None


def test_every_possible_end_is_kept_with_the_rules_that_it_takes() -> None:
    outcome = run(f"FORWARD {UNKNOWN} -j ACCEPT\nFORWARD -j DROP")
    assert ends(outcome) == [("ACCEPT", 1), ("DROP", 2)]
    assert [rule.number for rule in outcome.open_rules] == [1]
    assert outcome.end.target == "DROP"  # unless the undecided rule matches
    assert outcome.doubt.startswith("-m set of FORWARD rule 1")


def test_the_way_names_the_jumps() -> None:
    outcome = run("FORWARD -p tcp -j A\nA -j LOG\nA -j DROP")
    assert [(rule.chain, rule.number) for rule in outcome.end.way] == [("FORWARD", 1), ("A", 2)]


def test_a_jump_that_comes_back_leaves_no_doubt_about_what_follows() -> None:
    outcome = run(f"FORWARD {UNKNOWN} -j A\nFORWARD -j DROP\nA -j LOG")
    assert (outcome.is_lost, outcome.open_rules, outcome.doubt) == (True, (), "")


def test_chains_that_nest_too_deep_or_in_a_circle_are_undecided() -> None:
    assert run("FORWARD -j A\nA -j A").is_lost is None
    deep = "".join(f"C{n} -j C{n + 1}\n" for n in range(80))
    assert run(f"FORWARD -j C0\n{deep}C80 -j DROP").is_lost is None
    wide = "".join(f"C{n} {UNKNOWN} -j C{n + 1}\nC{n} -j C{n + 1}\n" for n in range(30))
    assert run(f"FORWARD -j C0\n{wide}C30 -j LOG\nFORWARD -j DROP").is_lost is None


def test_a_table_that_is_not_known_whole() -> None:
    for said in (
        b"*filter\n:FORWARD ACCEPT [0:0]\nsomething else\nCOMMIT\n",
        b"*filter\n:FORWARD ACCEPT [0:0]\n",
        b"*raw\nCOMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n",
        b"# Table `filter' is incompatible, use 'nft' tool.\n*raw\nCOMMIT\n",
    ):
        outcome = traverse(ruleset(said), "filter", "FORWARD", CONTEXT)
        assert outcome.is_lost is None
        assert outcome.doubt.startswith("table filter: ")
        assert outcome.passed is not None
        assert outcome.passed.mark == NOT_KNOWN
    whole = ruleset(b"*raw\nCOMMIT\n")
    assert traverse(whole, "filter", "FORWARD", CONTEXT).is_lost is False


@pytest.mark.parametrize(
    ("rules", "mark"),
    [
        ("FORWARD -j MARK --set-xmark 0x1/0xffffffff", 0x1),
        ("FORWARD -j MARK --set-xmark 0x4000/0x4000", 0x8D4C4F00),
        ("FORWARD -j MARK --set-xmark 0x100/0x0", 0x8D4C0E00),
        ("FORWARD -j MARK --set-mark 0x2/0xff", 0x8D4C0F02),
        ("FORWARD -j MARK --and-mark 0xf00", 0xF00),
        ("FORWARD -j MARK --or-mark 0x8000", 0x8D4C8F00),
        ("FORWARD -j MARK --xor-mark 0xff00", 0x8D4CF000),
        ("FORWARD -j A\nA -j MARK --set-xmark 0x7/0xffffffff", 0x7),
        ("FORWARD -p udp -j MARK --set-xmark 0x1/0xffffffff", 0x8D4C0F00),
        ("FORWARD -j CONNMARK --set-xmark 0x80/0x80\n"
         "FORWARD -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80", 0x8D4C0F80),
        ("FORWARD -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", 0),
        ("FORWARD -j CONNMARK --save-mark --nfmask 0xf00 --ctmask 0xffffffff\n"
         "FORWARD -j MARK --set-xmark 0x0/0xffffffff\n"
         "FORWARD -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", 0xF00),
    ],
)  # fmt: skip
def test_marks_are_carried(rules: str, mark: int) -> None:
    passed = run(rules, table="mangle").passed
    assert passed is not None
    assert passed.mark == Mark(mark)


def test_only_the_bits_of_an_undecided_mark_are_doubtful() -> None:
    rules = f"FORWARD {UNKNOWN} -j MARK --set-xmark 0x10000/0xf0000\n"
    passed = run(rules).passed
    assert passed is not None
    assert passed.mark == Mark(0x8D4C0F00 & ~0xD0000, 0xFFFFFFFF & ~0xD0000)
    assert run(rules + "FORWARD -m mark --mark 0x10000/0xf0000 -j ACCEPT", "DROP").is_lost is None
    assert run(rules + "FORWARD -m mark --mark 0x20000/0x20000 -j ACCEPT", "DROP").is_lost is True
    assert run(rules + "FORWARD -m mark --mark 0xf00/0xf00 -j ACCEPT", "DROP").is_lost is False
    for target in ("HMARK --hmark-tuple src", "MARK --frob 3", "CONNMARK --set-mark x"):
        passed = run(f"FORWARD -j {target}").passed
        assert passed is not None
        assert passed.mark == NOT_KNOWN


def test_what_is_marked_is_accepted_by_its_mark() -> None:
    rules = "FORWARD -s 10.244.1.53 -j MARK --set-xmark 0x1/0x1\nFORWARD -m mark --mark 0x1/0x1 -j "
    assert run(rules + "ACCEPT", "DROP").is_lost is False
    assert run(rules + "DROP").is_lost is True
    assert run(rules.replace("-s", f"{UNKNOWN} -s") + "DROP").is_lost is None
    unknown = replace(CONTEXT, mark=NOT_KNOWN)
    assert run("FORWARD -m mark --mark 0x8000/0x8000 -j DROP", context=unknown).is_lost is None


def test_what_is_not_tracked() -> None:
    for target in ("CT --notrack", "NOTRACK"):
        passed = run(f"FORWARD -j {target}").passed
        assert passed is not None
        assert passed.state == "UNTRACKED"
    later = "FORWARD -m conntrack --ctstate UNTRACKED -j DROP"
    assert run(f"FORWARD {UNKNOWN} -j NOTRACK\n{later}").is_lost is None
    assert run(f"FORWARD -j CT --zone 5\n{later}").is_lost is False
