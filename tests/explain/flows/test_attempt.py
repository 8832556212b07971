"""Which attempt is the newest, and what came back to it."""

from __future__ import annotations

import itertools
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.explain.flows.attempt import newest, untracked
from kubectl_ebpfnet.explain.flows.match import FlowQuery, tracked_flows
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import LIVE, Record, bundle_of
from kubectl_ebpfnet.model.net import ICMP, SCTP, TCP, UDP
from kubectl_ebpfnet.model.path import Attempt, Outcome
from tests.explain.flows import tables as t

POD, WEB = ip_address("10.0.0.1"), ip_address("10.0.1.2")
VIP, OTHER_VIP = ip_address("10.96.0.1"), ip_address("10.96.0.2")
TCP_OUT = "TCP OUT 10.0.0.1:{} -> 10.0.1.2:80"
ERRORS = "ICMP OUT 10.0.0.1:0 -> 10.0.1.2:0 related"
NF = (
    "ipv4 2 tcp 6 {left} {state} src=10.0.0.1 dst=10.0.1.2 sport={port} dport=80 {unreplied} "
    "src=10.0.1.2 dst=10.0.0.1 sport=80 dport={port} {assured} mark=0 zone=0 use=2"
)


def nf(state: str, port: int = 1, left: int = 100, words: str = "") -> str:
    """A line of nf_conntrack."""
    unreplied = words if words == "[UNREPLIED]" else ""
    assured = words if words == "[ASSURED]" else ""
    return NF.format(left=left, state=state, port=port, unreplied=unreplied, assured=assured)


def attempt(*lines: str, netfilter: tuple[str, ...] = (), protocol: int = TCP) -> Attempt:
    """The newest attempt of a pod to a web server."""
    found = maybe(lines, netfilter, FlowQuery(protocol, POD, frozenset({(WEB, None)})))
    assert found is not None
    return found


def maybe(lines: tuple[str, ...], netfilter: tuple[str, ...], query: FlowQuery) -> Attempt | None:
    records: list[Record] = [t.record("n1", t.CT, *lines)] if lines else []
    if netfilter:
        records.append(t.record("n1", t.NF, *netfilter))
    node = t.cluster(*records).node("n1")
    return newest(tracked_flows(node, query), node)


def test_a_newer_closed_connection_outranks_an_older_syn() -> None:
    """False claim 9: by what is left of their lifetimes the SYN would be newer."""
    found = attempt(t.syn(TCP_OUT.format(1), 20), t.closed(TCP_OUT.format(2), 3))
    assert (found.flow.flow.source_port, found.outcome) == (2, Outcome.ANSWERED)
    assert found.now


def test_a_newer_syn_outranks_an_older_answer() -> None:
    found = attempt(t.syn(TCP_OUT.format(1), 4), t.closed(TCP_OUT.format(2), 8))
    assert (found.flow.flow.source_port, found.outcome) == (1, Outcome.UNANSWERED)
    assert found.age == 4
    assert "SYN sent, nothing came back" in found.text


def test_an_old_answer_is_not_now() -> None:
    found = attempt(t.closed(TCP_OUT.format(1), 61))
    assert (found.outcome, found.now) == (Outcome.ANSWERED, False)
    assert "61 s before" in found.text


def test_a_connection_that_goes_on_does_not_hide_one_that_could_not_begin() -> None:
    going_on = t.ct(TCP_OUT.format(1), 1, 1, flags=(0x1A, 0x1A), lifetime=8000, marks="SeenNonSyn")
    refused = t.syn(TCP_OUT.format(2), 9)
    begun = t.ct(ERRORS, 12, flags=(0x02, 0))  # when the newest connection of the two ends began
    assert attempt(going_on, refused, begun).flow.flow.source_port == 2
    later = t.ct(ERRORS, 5, flags=(0x02, 0))  # the open one began after the SYN
    assert attempt(going_on, refused, later).flow.flow.source_port == 1
    assert attempt(going_on, refused).flow.flow.source_port == 1


@pytest.mark.parametrize(
    ("sent", "back", "marks", "outcome", "words"),
    [
        (0x02, 0x00, "", Outcome.UNANSWERED, "nothing came back"),
        (0xC2, 0x00, "", Outcome.UNANSWERED, "nothing came back"),  # with ECN
        (0x02, 0x12, "", Outcome.UNANSWERED, "the ACK never followed"),
        (0x02, 0x14, "RxClosing TxClosing SeenNonSyn", Outcome.REFUSED, "a RST came back"),
        (0x02, 0x04, "RxClosing TxClosing", Outcome.REFUSED, "a RST came back"),
        (0x12, 0x12, "SeenNonSyn", Outcome.ANSWERED, "was answered"),
        (0x1B, 0x1B, "RxClosing TxClosing SeenNonSyn", Outcome.ANSWERED, "and closed"),
        (0x1B, 0x1F, "RxClosing TxClosing SeenNonSyn", Outcome.ANSWERED, "and closed"),
        (0x06, 0x12, "TxClosing", Outcome.ANSWERED, "was answered"),  # a client that only probes
        (0x1E, 0x00, "TxClosing SeenNonSyn", Outcome.ANSWERED, "its sender went on"),  # raw 1.9.8
        (0x1A, 0x18, "SeenNonSyn", Outcome.ANSWERED, "was answered"),  # raw 1.18: no SYN seen back
    ],
)
def test_flags_say_what_came_back(
    sent: int, back: int, marks: str, outcome: Outcome, words: str
) -> None:
    line = t.ct(TCP_OUT.format(1), 3, 3 if back else None, flags=(sent, back), marks=marks)
    found = attempt(line)
    assert found.outcome is outcome
    assert words in found.text


def test_a_connection_whose_newest_packets_are_not_answered() -> None:
    line = t.ct(TCP_OUT.format(1), 2, 40, flags=(0x1A, 0x1A), lifetime=8000, marks="SeenNonSyn")
    assert attempt(line).outcome is Outcome.UNANSWERED
    assert "not since 40 s" in attempt(line).text
    idle = t.ct(TCP_OUT.format(1), 35, 40, flags=(0x1A, 0x1A), lifetime=8000, marks="SeenNonSyn")
    assert attempt(idle).outcome is Outcome.ANSWERED


def test_an_answer_of_the_l7_proxy_is_not_the_destinations() -> None:
    line = t.ct(TCP_OUT.format(1), 3, 3, flags=(0x1A, 0x12), marks="SeenNonSyn ProxyRedirect")
    assert attempt(line).outcome is Outcome.UNKNOWN
    assert "L7 proxy" in attempt(line).text


def test_a_pod_that_its_own_service_sends_to_itself() -> None:
    own = "TCP OUT 169.254.42.1:1 -> 10.0.0.1:8080"
    marks = "RxClosing TxClosing SeenNonSyn LBLoopback"
    lines = (
        t.syn("TCP SVC 10.0.0.1:1 -> 10.96.0.1:80", 3, rev_nat=5),
        t.ct(own, 3, 3, flags=(0x1B, 0x1B), marks=marks, rev_nat=5),
    )
    at = frozenset({(VIP, 80)})
    found = maybe(lines, (), FlowQuery(TCP, POD, at | {(POD, 8080)}, at, 5))
    assert found is not None
    assert found.outcome is Outcome.ANSWERED


def test_an_icmp_error_refuses() -> None:
    syn = t.syn(TCP_OUT.format(1), 9)
    # Every new connection makes the entry for errors; nothing was received by it.
    assert attempt(syn, t.ct(ERRORS, 9, flags=(0x02, 0))).outcome is Outcome.UNANSWERED
    found = attempt(syn, t.ct(ERRORS, 9, 8, flags=(0x02, 0)))
    assert found.outcome is Outcome.REFUSED
    assert "ICMP error" in found.text
    assert len(found.evidence) == 2
    # It was made anew by a later connection: the error is not of this one.
    assert attempt(syn, t.ct(ERRORS, 2, 1, flags=(0x02, 0))).outcome is Outcome.UNANSWERED
    dns = t.ct("UDP OUT 10.0.0.1:1 -> 10.0.1.2:53", 4)
    assert attempt(dns, t.ct(ERRORS, 4, 4), protocol=UDP).outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("words", "protocol", "silent"),
    [
        ("UDP OUT 10.0.0.1:1 -> 10.0.1.2:53", UDP, Outcome.UNKNOWN),
        ("ICMP OUT 10.0.0.1:77 -> 10.0.1.2:0", ICMP, Outcome.UNANSWERED),
        ("SCTP OUT 10.0.0.1:1 -> 10.0.1.2:53", SCTP, Outcome.UNANSWERED),
    ],
)
def test_other_protocols_are_told_by_reports(words: str, protocol: int, silent: Outcome) -> None:
    assert attempt(t.ct(words, 4, 4), protocol=protocol).outcome is Outcome.ANSWERED
    assert attempt(t.ct(words, 4), protocol=protocol).outcome is silent
    assert attempt(t.ct(words, 4, 300), protocol=protocol).outcome is silent


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (nf("SYN_SENT", words="[UNREPLIED]"), Outcome.UNANSWERED),
        (nf("SYN_RECV"), Outcome.UNANSWERED),
        (nf("ESTABLISHED", words="[ASSURED]"), Outcome.ANSWERED),
        (nf("TIME_WAIT", words="[ASSURED]"), Outcome.ANSWERED),
        (nf("CLOSE", words="[ASSURED]"), Outcome.ANSWERED),
        (nf("CLOSE"), Outcome.REFUSED),
        (nf("CLOSE", words="[UNREPLIED]"), Outcome.UNANSWERED),
    ],
)
def test_netfilter_alone(line: str, outcome: Outcome) -> None:
    found = attempt(netfilter=(line,))
    assert (found.outcome, found.age) == (outcome, None)
    assert not found.now
    assert "when is not known" in found.text


def test_cilium_wins_over_a_netfilter_that_saw_requests_alone() -> None:
    """Versions 2: BPF host routing passes netfilter by on the way back."""
    found = attempt(
        t.closed(TCP_OUT.format(1), 3), netfilter=(nf("SYN_SENT", words="[UNREPLIED]"),)
    )
    assert found.outcome is Outcome.ANSWERED


def test_an_answer_that_came_as_far_as_the_node() -> None:
    """Fault n04d: FORWARD drops the SYN+ACK."""
    found = attempt(t.syn(TCP_OUT.format(1), 3), netfilter=(nf("SYN_RECV"),))
    assert found.outcome is Outcome.UNANSWERED
    assert "nf_conntrack of n1 has the SYN+ACK" in found.text
    assert "nothing came back 3s before the record" in found.short  # not behind what follows it
    assert found.short.endswith("did not reach the sender")


def test_what_silence_means_stands_behind_its_age() -> None:
    line = t.ct("UDP OUT 10.0.0.1:1 -> 10.0.1.2:80", 3)
    found = attempt(line, protocol=UDP)
    assert "nothing came back 3s before the record (Cilium CT, n1), as UDP may" in found.short


def test_an_age_is_of_now_in_a_live_run_and_as_of_the_record_in_a_capture() -> None:
    asked = FlowQuery(TCP, POD, frozenset({(WEB, None)}))
    records = [t.record("n1", t.CT, t.closed(TCP_OUT.format(2), 3))]
    said = []
    for source in (LIVE, "case.zip"):
        node = ClusterView(bundle_of(records, source)).node("n1")
        found = newest(tracked_flows(node, asked), node)
        assert found is not None
        said.append(found.short)
    assert said == [
        "answered and closed 3s ago (Cilium CT, n1)",
        "answered and closed 3s before the record (Cilium CT, n1)",
    ]


def test_a_service_is_known_by_its_reverse_nat() -> None:
    """Versions 10: one entry was cited for three destinations."""
    lines = (
        t.closed("TCP SVC 10.0.0.1:1 -> 10.96.0.1:80", 3, rev_nat=5),
        t.closed(TCP_OUT.format(1), 3, rev_nat=5),
        t.closed("TCP SVC 10.0.0.1:2 -> 10.96.0.2:80", 9, rev_nat=6),
        t.closed(TCP_OUT.format(2), 9, rev_nat=6),
        t.closed(TCP_OUT.format(3), 20),
    )
    ends = frozenset({(WEB, 80)})
    for frontend, rev_nat, port in ((VIP, 5, 1), (OTHER_VIP, 6, 2), (OTHER_VIP, 0, 2)):
        at = frozenset({(frontend, 80)})
        found = maybe(lines, (), FlowQuery(TCP, POD, ends | at, at, rev_nat, by_socket=False))
        assert found is not None
        assert found.flow.flow.source_port == port
        assert found.flow.flow.destination == frontend
    direct = maybe(lines, (), FlowQuery(TCP, POD, ends))
    assert direct is not None
    assert direct.flow.flow.source_port == 3


def test_a_service_flow_that_got_no_entry_to_its_backend() -> None:
    lines = (
        t.syn("TCP SVC 10.0.0.1:1 -> 10.96.0.1:80", 3, rev_nat=5),
        t.closed("TCP SVC 10.0.0.1:2 -> 10.96.0.1:80", 9, rev_nat=5),
        t.closed(TCP_OUT.format(2), 9, rev_nat=5),
    )
    at = frozenset({(VIP, 80)})
    found = maybe(lines, (), FlowQuery(TCP, POD, at | {(WEB, 80)}, at, 5))
    assert found is not None
    assert (found.outcome, found.flow.flow.source_port) == (Outcome.UNANSWERED, 1)
    assert "no entry to the backend" in found.text


def test_a_line_that_cannot_be_parsed_may_be_of_a_newer_attempt() -> None:
    odd = TCP_OUT.format(9).replace("TCP OUT", "TCP OUT?")
    found = attempt(t.closed(TCP_OUT.format(1), 3), odd)
    assert (found.outcome, found.age, found.now) == (Outcome.ANSWERED, None, False)
    assert "a newer attempt may be in Cilium's conntrack of n1, where a line" in found.text
    to_another = odd.replace("10.0.1.2", "10.0.9.9")
    assert attempt(t.closed(TCP_OUT.format(1), 3), to_another).age == 3


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ((t.record("n1", t.CT),), "no attempt is tracked"),
        ((t.record("n1", t.NF),), "no attempt is tracked"),  # a node without Cilium
        (
            (t.status("n1", mode="ktime"), t.record("n1", t.NF)),
            "attempts are not known: Cilium's conntrack of n1: the capture lacks",
        ),
        (
            (t.record("n1", t.CT, "TCP OUT? 10.0.0.1:1 -> 10.0.1.2:80"),),
            "no attempt is tracked, but for Cilium's conntrack of n1, where a line could not",
        ),
    ],
)
def test_no_attempt_is_not_a_table_that_was_not_read(
    records: tuple[Record, ...], words: str
) -> None:
    node = t.cluster(*records).node("n1")
    assert not tracked_flows(node, FlowQuery(TCP, POD, frozenset({(WEB, 80)})))
    assert untracked(node, {WEB}).startswith(words)


LINES = [
    line
    for port, age in itertools.product((1, 2, 3), (2, 20, 70))
    for line in (
        t.syn(TCP_OUT.format(port * 100 + age), age),
        t.closed(TCP_OUT.format(port * 1000 + age), age),
    )
]


@given(st.sets(st.sampled_from(LINES), min_size=1), st.data())
def test_a_line_that_is_lost_makes_the_newest_attempt_no_newer(
    lines: set[str], data: st.DataObject
) -> None:
    """Without a line the attempt is the same, or an older one; its outcome is that of its entry."""
    query = FlowQuery(TCP, POD, frozenset({(WEB, 80)}))
    before = maybe(tuple(lines), (), query)
    assert before is not None
    assert before.age is not None
    lost = data.draw(st.sampled_from(sorted(lines)))
    after = maybe(tuple(lines - {lost}), (), query)
    if after is None or after.age is None:
        assert lines == {lost}
        return
    assert after.age >= before.age
    if after.flow.flow == before.flow.flow:
        assert (after.outcome, after.age, after.text) == (before.outcome, before.age, before.text)
    else:
        assert str(before.flow.flow.source_port) in lost


@given(st.permutations(LINES))
def test_the_order_of_the_lines_does_not_matter(lines: list[str]) -> None:
    found = maybe(tuple(lines), (), FlowQuery(TCP, POD, frozenset({(WEB, 80)})))
    assert found is not None
    assert (found.age, found.outcome) == (2, Outcome.ANSWERED)
    assert found.flow.flow.source_port == 1002


def translated(port: int, to: str) -> str:
    """nf_conntrack's line of a flow that kube-proxy sent to the web server."""
    return (
        f"ipv4 2 tcp 6 100 TIME_WAIT src=10.0.0.1 dst={to} sport={port} dport=80 "
        f"src=10.0.1.2 dst=10.0.0.1 sport=80 dport={port} [ASSURED] mark=0 zone=0 use=2"
    )


@pytest.mark.parametrize(("to", "counts"), [(VIP, True), (OTHER_VIP, False)])
def test_what_netfilter_translated_for_another_service_is_no_attempt(
    to: object, counts: bool
) -> None:
    """Cilium's entry has the backend alone, as where the packet came in by a device."""
    lines = (t.closed(TCP_OUT.format(7), 3),)
    at = frozenset({(VIP, 80)})
    query = FlowQuery(TCP, POD, at | {(WEB, 80)}, at)
    assert bool(maybe(lines, (translated(7, str(to)),), query)) is counts


def test_what_another_node_sent_back_is_no_attempt_of_the_backend() -> None:
    """The pod asked a node port elsewhere, whose node translated it and sent it here."""
    lines = (t.syn("TCP OUT 10.0.0.1:9 -> 172.16.0.9:30000", 3),)
    at = frozenset({(VIP, 80)})
    found = maybe(lines, (nf("CLOSE", 9),), FlowQuery(TCP, POD, at | {(WEB, 80)}, at))
    assert found is None
