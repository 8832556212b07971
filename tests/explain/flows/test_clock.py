"""Ages of tracked flows: which clock tells them, and what is said where none does."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.flows.match import FlowQuery, tracked_flows
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.evidence import API, InMemory, Record, node_place
from kubectl_ebpfnet.model.kernel import KernelFacts
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.path import LastSeen
from tests.explain.flows import tables as t
from tests.explain.path.node_pod_bundle import answer

POD, WEB = ip_address("10.0.0.1"), ip_address("10.0.1.2")
WORDS = "TCP OUT 10.0.0.1:4000 -> 10.0.1.2:80"
QUERY = FlowQuery(TCP, POD, frozenset({(WEB, 80)}))
# Cilium 1.9.8 of captures/raw, 250 Hz: 2^24 + (monotonic - 300) * 250 / 256.
JIFFIES = 16786639
SINCE_1_9 = (
    f"{WORDS} expires={JIFFIES + 9} RxPackets=8 RxBytes=638 RxFlagsSeen=0x1b "
    f"LastRxReport={JIFFIES} TxPackets=7 TxBytes=545 TxFlagsSeen=0x1b LastTxReport={JIFFIES} "
    "Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=0 SourceSecurityID=6 IfIndex=0 "
)


def last_seen(*records: Record) -> LastSeen:
    """When the one flow of the records was last seen."""
    [flow] = tracked_flows(t.cluster(*records).node("n1"), QUERY)
    return flow.last_seen


def config(**settings: str) -> Record:
    """The ConfigMap cilium-config."""
    import json

    value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cilium-config", "namespace": "kube-system"},
        "data": {name.replace("_", "-"): text for name, text in settings.items()},
    }
    argv = ("get", "configmap", "cilium-config", "-n", "kube-system")
    return Record(0, API, argv, 0, InMemory(json.dumps(value).encode()))


def test_the_time_left_beside_a_lifetime_tells_the_clock() -> None:
    line = t.ct(WORDS, 7, 12, flags=(0x1A, 0x12), lifetime=8000)
    assert last_seen(t.record("n1", t.CT, line)) == LastSeen(7.0, 12.0)


def test_between_two_reports_the_lifetime_tells_of_a_packet() -> None:
    # Reported 7 s ago; sent again 4 s ago, which began the 60 s of a SYN anew (fault v15).
    line = t.ct(WORDS, 7, flags=(0x02, 0), lifetime=63)
    assert last_seen(config(), t.record("n1", t.CT, line)).sent == 4
    assert last_seen(t.record("n1", t.CT, line)).sent == 7  # settings that were not read
    answered = t.ct(WORDS, 7, 7, flags=(0x02, 0x12), lifetime=63)
    assert last_seen(config(), t.record("n1", t.CT, answered)).sent == 7


def test_a_reply_that_never_came_has_no_age() -> None:
    assert last_seen(t.record("n1", t.CT, t.syn(WORDS, 7))) == LastSeen(7.0, None)


def test_the_flow_of_a_receiver_was_sent_by_what_it_received() -> None:
    # bpf/lib/conntrack.h: Rx is what the entry's own end received, so an IN entry's requests.
    line = t.ct(WORDS.replace("OUT", "IN"), 3, 9, flags=(0x12, 0x12))
    [flow] = tracked_flows(t.cluster(t.record("n1", t.CT, line)).node("n1"), QUERY, "IN")
    assert flow.last_seen == LastSeen(9.0, 3.0)


def test_jiffies_are_told_by_the_agents_status() -> None:
    line = SINCE_1_9.replace("RxPackets", "(remaining: -21 sec(s)) RxPackets")
    status = t.status("n1", mode="jiffies", hertz=250)
    # 9 units were left, and 21 s = 20.5 units are gone since: 29.5 units are 30.2 s.
    assert last_seen(status, t.record("n1", t.CT, line)).sent == pytest.approx(30.2, abs=0.1)


def test_jiffies_without_a_clock_beside_them() -> None:
    plain = t.record("n1", t.CT_PLAIN, SINCE_1_9)
    seen = last_seen(t.status("n1", mode="jiffies", hertz=250), plain)
    assert (seen.sent, seen.answered) == (None, None)
    assert "no clock" in seen.reason
    # Without the status not even the unit is known: 16.8 million s are 194 days.
    assert "in which unit" in last_seen(plain).reason


def test_the_kernels_facts_are_a_clock() -> None:
    # 9,949 s after the boot jiffies / 256 stood at JIFFIES; the facts were read 20 s later.
    facts = KernelFacts("6.18", monotonic_seconds=9969 + 300 - 300)
    kernel = answer(node_place("n1"), "kernel", facts)
    when = kernel.started
    plain = t.record("n1", t.CT_PLAIN, SINCE_1_9)
    status = t.status("n1", mode="jiffies", hertz=250)
    read = Record(0, plain.place, plain.argv, 0, plain.stdout, started=when.replace(":00Z", ":10Z"))
    assert last_seen(status, kernel, read).sent == pytest.approx(30, abs=2)


def test_a_clock_that_is_before_the_reports_is_no_clock() -> None:
    line = t.syn(WORDS, 7).replace(f"LastTxReport={t.NOW - 7}", f"LastTxReport={t.NOW + 60}")
    seen = last_seen(t.record("n1", t.CT, line))
    assert seen.sent is None
    assert "later than its own clock" in seen.reason


@pytest.mark.parametrize(
    ("flags", "remaining", "settings", "sent"),
    [
        ((), 50, {}, 10.0),  # TCP before it is established: 60 s
        (("RxClosing", "TxClosing", "SeenNonSyn"), 7, {}, 3.0),  # closed: 10 s
        (("SeenNonSyn",), 7000, {}, None),  # established: 8000 s, or 21600 s up to 1.14
        ((), 50, {"bpf-ct-timeout-regular-tcp-syn": "1m30s"}, 40.0),
        ((), 50, {"bpf-ct-timeout-regular-tcp-syn": "soon"}, None),
        ((), 50, None, None),  # the settings were not read
    ],
)
def test_an_entry_without_reports_tells_its_age_by_its_lifetime(
    flags: tuple[str, ...], remaining: int, settings: dict[str, str] | None, sent: float | None
) -> None:
    """Node pods of older captures have no reports."""
    flow = Flow(TCP, POD, 4000, WEB, 80)
    entry = CtEntry(flow, "OUT", expires=9000, remaining=remaining, flags=frozenset(flags))
    records = [answer(node_place("n1"), "ct", entry)]
    if settings is not None:
        records.append(config(**settings))
    seen = last_seen(*records)
    assert seen.sent == sent
    assert bool(seen.reason) == (sent is None)


def test_netfilter_alone_tells_no_age_without_its_time_outs() -> None:
    line = (
        "ipv4     2 tcp      6 113 SYN_SENT src=10.0.0.1 dst=10.0.1.2 sport=4000 dport=80 "
        "[UNREPLIED] src=10.0.1.2 dst=10.0.0.1 sport=80 dport=4000 mark=0 zone=0 use=2"
    )
    seen = last_seen(t.record("n1", t.NF, line))
    assert seen.sent is None
    assert "nf_conntrack" in seen.reason


def sysctls(*lines: str) -> Record:
    """What the node's sysctls are, by grep."""
    argv = q.SYSCTLS.forms[0]
    return t.record("n1", argv, *(f"/proc/sys/net/netfilter/nf_conntrack_{line}" for line in lines))


TCP_TIMEOUTS = (
    "tcp_timeout_syn_sent:120",
    "tcp_timeout_established:432000",
    "tcp_timeout_max_retrans:300",
    "tcp_timeout_unacknowledged:300",
)


@pytest.mark.parametrize(
    ("state", "left", "sent"),
    [
        ("SYN_SENT", 113, 7.0),
        ("ESTABLISHED", 431990, 10.0),
        ("ESTABLISHED", 290, None),  # a time-out of its own for what nobody acknowledges
        ("TIME_WAIT", 100, None),  # that sysctl was not recorded
        ("SYN_SENT", 130, None),  # the sysctl has changed since
    ],
)
def test_netfilters_time_outs_tell_its_ages(state: str, left: int, sent: float | None) -> None:
    line = (
        f"ipv4     2 tcp      6 {left} {state} src=10.0.0.1 dst=10.0.1.2 sport=4000 dport=80 "
        "src=10.0.1.2 dst=10.0.0.1 sport=80 dport=4000 mark=0 zone=0 use=2"
    )
    assert last_seen(sysctls(*TCP_TIMEOUTS), t.record("n1", t.NF, line)).sent == sent


def test_a_shorter_time_out_for_what_is_sent_again_may_hold_in_any_state() -> None:
    line = (
        "ipv4 2 tcp 6 110 SYN_SENT src=10.0.0.1 dst=10.0.1.2 sport=4000 dport=80 [UNREPLIED] "
        "src=10.0.1.2 dst=10.0.0.1 sport=80 dport=4000 mark=0 zone=0 use=2"
    )
    short = [text.replace("max_retrans:300", "max_retrans:115") for text in TCP_TIMEOUTS]
    assert last_seen(sysctls(*short), t.record("n1", t.NF, line)).sent is None
