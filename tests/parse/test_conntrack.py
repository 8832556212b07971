"""parse.conntrack and the NAT that model.conntrack infers, on what Linux and conntrack printed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import InMemory
from kubectl_ebpfnet.model.matching import matching_lines
from kubectl_ebpfnet.model.net import Flow
from kubectl_ebpfnet.parse import conntrack
from tests.parse.parse_samples import every, line_at, sample

PROC = "linux-6.18/netns/proc-net-nf-conntrack"


def flow(protocol: int, source: str, sport: int | None, target: str, dport: int | None) -> Flow:
    return Flow(protocol, ip_address(source), sport, ip_address(target), dport)


def by_protocol(data: bytes) -> dict[tuple[int, int, int | None], ConntrackEntry]:
    """Entries by version, protocol and destination port."""
    return {
        (e.original.source.version, e.original.protocol, e.original.destination_port): e
        for e in every(conntrack.entry, data)
    }


def test_the_masqueraded_connection_of_tp06() -> None:
    line = sample("linux-unknown/tp06-node/proc-net-nf-conntrack").rstrip(b"\n")
    entry = conntrack.entry(line, 17)
    assert entry == ConntrackEntry(
        original=flow(6, "10.244.0.213", 41708, "1.0.0.1", 80),
        reply=flow(6, "1.0.0.1", 80, "164.92.138.123", 41708),
        timeout=117,
        state="TIME_WAIT",
        status=frozenset({"ASSURED"}),
        mark=0,
    )
    assert entry is not None
    assert (entry.source_nat, entry.destination_nat) == (True, False)
    assert entry.translated() == flow(6, "164.92.138.123", 41708, "1.0.0.1", 80)


def test_tcp_with_nat_of_both_ends_and_accounting() -> None:
    entry = by_protocol(sample(PROC))[4, 6, 8081]
    assert entry.original.source == ip_address("10.66.0.1")
    assert entry.reply.source_port == 8080
    assert entry.reply.destination == ip_address("10.66.0.3")
    assert (entry.source_nat, entry.destination_nat) == (True, True)
    assert (entry.state, entry.mark) == ("ESTABLISHED", 512)
    assert (entry.packets, entry.bytes) == (3, 172)  # 2 + 1 packets, 112 + 60 bytes


def test_icmp_carries_its_identifier_where_the_senders_port_is() -> None:
    line = b"ipv4     2 icmp     1 18 src=172.30.0.12 dst=10.244.0.24 type=8 code=0 id=44097 "
    line += (
        b"[UNREPLIED] src=10.244.0.24 dst=172.30.0.12 type=0 code=0 id=44097 mark=0 zone=0 use=2"
    )
    assert line in sample("linux-6.18/native-node2/proc-net-nf-conntrack")
    entry = conntrack.entry(line, 1)
    assert entry is not None
    assert entry.original == flow(1, "172.30.0.12", 44097, "10.244.0.24", None)
    assert entry.reply == flow(1, "10.244.0.24", None, "172.30.0.12", 44097)
    assert entry.reply.reversed() == entry.original
    assert (entry.source_nat, entry.destination_nat) == (False, False)
    assert entry.status == {"UNREPLIED"}


def test_icmp_with_a_translated_source() -> None:
    entry = by_protocol(sample(PROC))[4, 1, None]
    assert (entry.source_nat, entry.destination_nat) == (True, False)
    assert entry.translated() == flow(1, "10.66.0.3", 777, "10.66.0.2", None)
    assert by_protocol(sample(PROC))[6, 58, None].original.source_port == 778


def test_an_identifier_alone_may_be_translated() -> None:
    line = b"icmp 1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 "
    line += b"src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=2 mark=0 use=1"
    entry = conntrack.entry(line, 1)
    assert entry is not None
    assert (entry.source_nat, entry.destination_nat) == (True, False)


def test_an_identifier_of_the_entry_is_none_of_icmp() -> None:
    with_id = every(conntrack.entry, sample("conntrack-1.4.7/netns/conntrack-L-o-extended,id"))
    assert with_id == every(conntrack.entry, sample("conntrack-1.4.7/netns/conntrack-L-o-extended"))


def test_zones() -> None:
    entries = by_protocol(sample(PROC))
    assert entries[4, 17, 5354].zone == 6
    assert entries[4, 17, 5353].zone == 5  # zone-orig
    assert entries[4, 17, 5555].zone == 0


def test_other_protocols_have_no_ports() -> None:
    entries = every(conntrack.entry, sample(PROC))
    gre = next(e for e in entries if e.original.protocol == 47)
    assert gre.original == flow(47, "10.66.0.1", None, "10.66.0.2", None)
    assert (gre.timeout, gre.state) == (29, "")
    unknown = next(e for e in entries if e.original.protocol == 99)
    assert unknown.original == flow(99, "10.66.0.1", None, "10.66.0.2", None)


def test_ipv6_expanded_and_compressed_are_equal() -> None:
    wide = by_protocol(sample(PROC))[6, 6, 8080]
    short = by_protocol(sample("conntrack-1.4.7/netns/conntrack-L"))[6, 6, 8080]
    assert wide == replace(short, timeout=wide.timeout)
    assert str(wide.original.source) == "fd66::1"


@pytest.mark.parametrize("command", ["conntrack-L", "conntrack-L-o-extended"])
def test_all_forms_give_equal_entries(command: str) -> None:
    def timeless(data: bytes) -> set[ConntrackEntry]:
        return {replace(entry, timeout=None) for entry in every(conntrack.entry, data)}

    file = timeless(sample(PROC))
    assert timeless(sample(f"conntrack-1.4.7/netns/{command}")) == file
    assert len(file) >= 11


@pytest.mark.parametrize("where", ["native-node2", "vxlan-node1"])
def test_the_tables_of_a_cluster(where: str) -> None:
    data = sample(f"linux-6.18/{where}/proc-net-nf-conntrack")
    file = every(conntrack.entry, data)
    printed = every(conntrack.entry, sample(f"conntrack-1.4.7/{where}/conntrack-L-o-extended"))
    # Seconds passed between the two, so states and timeouts differ; the tuples do not.
    assert {(e.original, e.reply) for e in file} == {(e.original, e.reply) for e in printed}
    assert len(file) == data.count(b"\n")
    for number, entry in enumerate(file, start=1):
        assert f"sport={entry.original.source_port}" in line_at(data, number) or (
            f"id={entry.original.source_port}" in line_at(data, number)
        )
    if where == "native-node2":
        (nat,) = [entry for entry in file if entry.source_nat]
        assert nat.translated() == flow(6, "172.30.0.12", 54498, "1.1.1.1", 80)


def test_an_offloaded_flow_has_neither_timeout_nor_state() -> None:
    # The form of ct_seq_show() for IPS_OFFLOAD; no run printed this line.
    line = b"ipv4     2 tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 "
    line += b"src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 [HW_OFFLOAD] mark=0 zone=0 use=3"
    entry = conntrack.entry(line, 1)
    assert entry is not None
    assert (entry.timeout, entry.state, entry.status) == (None, "", {"HW_OFFLOAD"})


def test_lines_that_are_no_entry() -> None:
    total = b"conntrack v1.4.7 (conntrack-tools): 169 flow entries have been shown."
    assert conntrack.entry(b"", 1) is conntrack.entry(b"  ", 1) is conntrack.entry(total, 1) is None


def test_with_the_lines_that_a_reader_picks() -> None:
    held = InMemory(sample("linux-6.18/native-node2/proc-net-nf-conntrack"))
    found = [conntrack.entry(line, at) for at, line in matching_lines(held, [b"1.1.1.1 "])]
    assert [str(one.original.destination) for one in found if one] == ["1.1.1.1"]


@pytest.mark.parametrize(
    "line",
    [
        b"tcp",
        b"tcp six 1 ESTABLISHED src=1.1.1.1",
        b"tcp 6 1 ESTABLISHED src=1.1.1.1 dst=1.1.1.2 sport=1 dport=2",
        b"tcp 6 1 ESTABLISHED src=1.1.1.1 sport=1 dport=2 src=1.1.1.2 dst=1.1.1.1",
        b"tcp 6 1 ESTABLISHED src=1.1.1.1 dst=::1 sport=1 dport=2 src=::1 dst=1.1.1.1",
        b"tcp 6 1 X src=1.1.1.1 dst=1.1.1.2 sport=70000 dport=2 src=1.1.1.2 dst=1.1.1.1",
        b"tcp 6 1 X src=a dst=b src=c dst=d",
        b"tcp 300 1 X src=1.1.1.1 dst=1.1.1.2 src=1.1.1.2 dst=1.1.1.1",
        b"\xff\xfe 6 1 X",
    ],
)
def test_a_bad_line_is_named(line: bytes) -> None:
    with pytest.raises(ParseError) as raised:
        conntrack.entry(line, 41)
    assert (raised.value.source, raised.value.line) == ("nf_conntrack", 41)
    with pytest.raises(ParseError) as raised:
        every(conntrack.entry, b"\n" + line)
    assert raised.value.line == 2
