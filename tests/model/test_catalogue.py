"""The table of facts: every row is whole, and says the same as the node side."""

from __future__ import annotations

from ipaddress import ip_address

from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.node_facts import NODE_FACTS
from kubectl_ebpfnet.model.protocol.questions import PROGRAM
from kubectl_ebpfnet.node.server import registry


def test_the_rows_are_those_that_the_node_side_answers() -> None:
    sessions = {"trace"}  # lines of a program (node/trace/session.py)
    assert set(NODE_FACTS) == set(registry.FUNCTIONS) | sessions


def test_the_class_of_a_row_is_that_of_the_node_sides_answer() -> None:
    for name, fact in vars(q).items():
        if isinstance(fact, q.Fact) and fact.node:
            kind = getattr(NODE_FACTS[fact.node], "__name__", "Network")  # a union has no name
            assert q.__annotations__[name] == f"Fact[{kind}]"


def test_every_row_has_a_name_of_its_own_and_an_answer() -> None:
    assert len({fact.name for fact in q.FACTS}) == len(q.FACTS)
    for fact in q.FACTS:
        assert fact.answers, fact.name
        assert len(set(fact.answers)) == len(fact.answers), fact.name


def test_every_row_is_needed_by_somebody_or_only_read() -> None:
    for fact in q.FACTS:
        assert bool(fact.need) == bool(fact.node or fact.asked), fact.name
        assert fact.need or fact.read, fact.name


def test_a_node_pod_is_asked_only_what_its_node_side_answers() -> None:
    of_node_side = {fact.node_argv for fact in q.FACTS if fact.node_argv}
    assert {argv for argv in of_node_side if argv[0] != PROGRAM} == {
        ("iptables-save", "-c"),
        ("ip6tables-save", "-c"),
        ("iptables-legacy-save", "-c"),
        ("ip6tables-legacy-save", "-c"),
        ("nft", "-j", "list", "ruleset"),
        ("cat", "/proc/net/sctp/eps"),
    }
    for fact in q.FACTS:
        assert fact.node_need is None or fact.node_argv, fact.name


def test_parameters_end_every_argv() -> None:
    filters = q.TC_FILTERS.about("eth0", "ingress")
    assert filters.answers == (("tc", "filter", "show", "dev", "eth0", "ingress"),)
    assert filters.parser(filters.forms[0]) == "bpf.tc.filters"
    words = q.packet_words(ip_address("10.0.0.1"), ip_address("1.1.1.1"))
    assert q.FIB.about(*words).answers == (("ebpfnet-node", "fib", "1.1.1.1", "from", "10.0.0.1"),)


def test_both_names_of_ciliums_binary_are_asked_before_the_next_form() -> None:
    assert [argv[0] for argv in q.CT.forms] == ["cilium-dbg", "cilium", "cilium-dbg", "cilium"]
    assert q.CT.forms[0][-1] == q.CT.forms[1][-1] == "-d"


def test_events_are_read_whatever_the_flags_were() -> None:
    assert q.MONITOR.is_answered_by(("cilium", "monitor", "-j", "-t", "drop"))
    assert q.MONITOR.parser(("cilium-dbg", "monitor", "-v")) == "cilium.monitor.event"
    assert q.HUBBLE.is_answered_by(("hubble", "observe", "--last", "20", "-o", "json"))
    assert not q.HUBBLE.is_answered_by(("hubble", "status"))
    assert not q.CT.is_answered_by((*q.CT.forms[-1], "--more"))
