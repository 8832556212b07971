"""Maps that are full, and ports of source NAT that are used up, in recorded clusters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.path import snat_ports
from kubectl_ebpfnet.explain.views import records, room
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.cilium_ct import NatEntry
from kubectl_ebpfnet.model.evidence import (
    PIECE,
    InMemory,
    LineCounts,
    Record,
    bundle_of,
    node_place,
)
from kubectl_ebpfnet.model.net import Flow, endpoint_text
from kubectl_ebpfnet.model.path import Path, Severity, Verdict
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.room import MapRoom, SnatUse, Table
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import (
    NATIVE,
    POLICY,
    VXLAN,
    Change,
    ask,
    changed,
    dropped_at,
    finding,
    say,
    swap,
    without,
)

STATUS = "cilium-dbg status -o json"
CT, NAT = "cilium-dbg bpf ct list global -d", "cilium-dbg bpf nat list"
POLICY_MAPS = "cilium-dbg bpf policy get --all -o json"
HUNDRED = swap("node2", STATUS, '"portMax": 32767', '"portMax": 65435')
"""NodePorts end so late that source NAT has a hundred ports."""
END = ip_address("9.9.9.9")
CLIENT, NODE2 = "10.244.1.160", "172.30.0.12"
FREE = "9.9.9.9:80"
"""Nobody in the recorded clusters has sent anything there."""


def size(name: str, entries: int, node: str = "node2") -> Change:
    """The agent of a node has set a map to a size."""

    def change(record: Record) -> Record | None:
        said = record.stdout.read().decode() if record.command == STATUS else ""
        before = re.search(rf'"name": "{name}",\s*"size": \d+', said)
        if before is None:
            return record
        return swap(node, STATUS, before[0], f'"name": "{name}", "size": {entries}')(record)

    return change


def nat(flows: int, source: str = NODE2, to: str = "9.9.9.9:80", protocol: str = "TCP") -> str:
    """Entries of other pods to one destination, as Cilium prints them."""
    line = "{} OUT 10.244.1.9:{} -> {} XLATE_SRC {}:{} Created=9sec ago NeedsCT=0\n"
    return "".join(line.format(protocol, 1024 + n, to, source, 65436 + n) for n in range(flows))


def warned(path: Path) -> list[str]:
    """The titles about room."""
    return [f.title for f in path.findings if "entries" in f.title or "room" in f.title]


def test_healthy_maps_are_not_mentioned() -> None:
    for name in (VXLAN, NATIVE, POLICY):
        for destination in (FREE, "svc/web:80", "pod/web:8080"):
            assert warned(ask(changed(name), "client", destination)) == []


def test_connection_tracking_that_evicts_is_a_warning() -> None:
    path = ask(changed(VXLAN, size("TCP connection tracking", 10)), "client", FREE)
    said = finding(path, "connection tracking of TCP")
    assert "on node2 is full: 10 of at most 10 entries" in said.title
    assert said.severity is Severity.WARNING
    assert "idle longest" in said.detail
    assert "bpf-ct-global-tcp-max" in said.detail
    assert path.verdict is ask(changed(VXLAN), "client", FREE).verdict


def test_the_map_of_other_protocols_is_not_that_of_tcp() -> None:
    full = changed(VXLAN, size("Non-TCP connection tracking", 3))
    assert warned(ask(full, "client", FREE)) == []
    assert "what is not TCP" in warned(ask(full, "client", FREE, "udp"))[0]


def test_a_map_that_is_nearly_empty_is_not_full_by_lines_of_the_other_ip_version() -> None:
    six = "TCP OUT [fd00::1]:40000 -> [fd00::2]:80 expires=100\n"
    listed = "TCP OUT 10.244.1.160:40000 -> 1.1.1.1:80 expires=100\n"
    bundle = changed(
        VXLAN, size("TCP connection tracking", 10), say("node2", CT, listed + 40 * six)
    )
    assert warned(ask(bundle, "client", FREE)) == []


def test_lines_that_were_counted_at_the_node_count() -> None:
    def cut(record: Record) -> Record:
        if (record.place.node, record.command) != ("node2", CT):
            return record
        return Record(
            record.number, record.place, record.argv, 0, started=record.started,
            line_filter=(CLIENT,), counts=LineCounts(tcp4=9_600),
        )  # fmt: skip

    full = changed(VXLAN, size("TCP connection tracking", 10_000), cut)
    assert "9,600 of at most 10,000 entries" in warned(ask(full, "client", FREE))[0]
    some = changed(VXLAN, size("TCP connection tracking", 20_000), cut)
    assert warned(ask(some, "client", FREE)) == []


def counted(argv: tuple[str, ...], *facts: object) -> Record:
    """An answer of node2's node pod."""
    text = b"".join(map(codec.line_of, facts))
    return Record(0, node_place("node2"), argv, 0, InMemory(text), started="2026-11-30T00:00:00Z")


def test_a_node_pod_says_what_it_counted_and_how_the_map_behaves() -> None:
    def path(*rooms: MapRoom) -> Path:
        numbers = counted(q.MAP_ROOM.node_argv, *rooms)
        return ask(changed(VXLAN, without("node2", STATUS), more=(numbers,)), "client", FREE)

    lru = MapRoom(Table.CT_TCP, 1000, 4, None, 990, exact=False, evicts=True)
    said = finding(path(lru), "connection tracking of TCP")
    assert "is full: about 990 of at most 1,000 entries" in said.title
    assert said.severity is Severity.WARNING
    assert any("entries" in line for line in said.evidence[0].excerpt)
    assert warned(path(replace(lru, entries=900), replace(lru, version=6))) == []
    refuses = path(replace(lru, entries=1000, exact=True, evicts=False))
    assert refuses.verdict is Verdict.UNKNOWN
    assert "CT: Map insertion failed" in refuses.reason
    assert warned(path(replace(lru, most=0, entries=0))) == []


def test_a_full_policy_map_is_the_cause_of_a_drop_by_it() -> None:
    plain = ask(changed(POLICY), "client", "1.1.1.1:7777")
    assert "policy map is full" not in plain.cause
    rows = next(
        r for r in changed(POLICY).records if (r.place.node, r.command) == ("node2", POLICY_MAPS)
    )
    hop = dropped_at(plain)
    endpoint = int(re.findall(r"endpoint (\d+)", hop.summary)[0])
    entries = _entries_of(rows, endpoint)
    full = changed(POLICY, size("Endpoint policy", entries))
    by_policy = ask(full, "client", "1.1.1.1:7777")
    assert "no egress rule allows 7777/TCP" in by_policy.cause
    nameless = bundle_of(r for r in full.records if "ciliumnetworkpolicies" not in r.argv)
    path = ask(nameless, "client", "1.1.1.1:7777")
    assert path.verdict is Verdict.DROPPED
    assert f"its policy map is full ({entries} of at most {entries} entries)" in path.cause
    assert path.fix is not None
    assert "bpf-policy-map-max" in path.fix.text
    said = finding(path, "policy map")
    assert said.severity is Severity.ERROR
    assert f"policy map of endpoint {endpoint} on node2 is full" in said.title
    larger = ask(changed(POLICY, size("Endpoint policy", 10 * entries)), "client", "1.1.1.1:7777")
    assert warned(larger) == []
    assert "is full" not in larger.cause


def _entries_of(record: Record, endpoint: int) -> int:
    facts = records.parse(q.POLICY_MAPS, record)
    return sum(fact.endpoint_id == endpoint for fact in facts)


def test_a_full_ipcache_is_an_error_and_the_verdict_stays() -> None:
    path = ask(changed(VXLAN, size("IP cache", 11)), "client", FREE)
    said = finding(path, "ipcache")
    assert (said.severity, path.verdict) == (Severity.ERROR, Verdict.LEAVES)
    assert "ipcache on node2 is full: 11 of at most 11 entries" in said.title
    nearly = finding(ask(changed(VXLAN, size("IP cache", 12)), "client", FREE), "ipcache")
    assert nearly.severity is Severity.WARNING
    assert "nearly full" in nearly.title


def test_a_service_map_matters_to_services_alone() -> None:
    full = changed(VXLAN, size("IPv4 service", 19))
    assert warned(ask(full, "client", FREE)) == []
    assert "map of Services on node2 is full" in warned(ask(full, "client", "svc/web:80"))[0]


def test_every_port_to_the_destination_is_in_use() -> None:
    full = changed(VXLAN, HUNDRED, say("node2", NAT, nat(100)))
    path = ask(full, "client", FREE)
    hop = dropped_at(path)
    assert (hop.place, hop.kind, hop.node) == ("cilium", "nat", "node2")
    assert hop.summary == (
        "no port is left for source NAT to 9.9.9.9:80: No mapping for NAT masquerade"
    )
    assert f"100 of 100 ports of {NODE2} are in use" in path.cause
    assert path.fix is not None
    assert path.fix.command == "kubectl ebpfnet flows node/node2 --to 9.9.9.9"


@pytest.mark.parametrize("destination", ["9.9.9.9:443", "9.9.9.8:80"])
def test_ports_to_another_end_are_free(destination: str) -> None:
    full = changed(VXLAN, HUNDRED, say("node2", NAT, nat(100)))
    assert ask(full, "client", destination).verdict is Verdict.LEAVES
    assert warned(ask(full, "client", destination)) == []


def test_ports_of_another_source_or_protocol_are_free() -> None:
    other = changed(VXLAN, HUNDRED, say("node2", NAT, nat(100, source="172.30.0.99")))
    assert ask(other, "client", FREE).verdict is Verdict.LEAVES
    udp = changed(VXLAN, HUNDRED, say("node2", NAT, nat(100, protocol="UDP")))
    assert ask(udp, "client", FREE).verdict is Verdict.LEAVES
    assert ask(udp, "client", FREE, "udp").verdict is Verdict.DROPPED


def test_few_ports_are_a_warning_and_hardly_any_is_not_known() -> None:
    few = ask(changed(VXLAN, HUNDRED, say("node2", NAT, nat(93))), "client", FREE)
    assert few.verdict is Verdict.LEAVES
    assert finding(few, "little room").severity is Severity.WARNING
    hardly = ask(changed(VXLAN, HUNDRED, say("node2", NAT, nat(99))), "client", FREE)
    assert hardly.verdict is Verdict.UNKNOWN
    assert "a new flow may find none" in hardly.reason
    some = ask(changed(VXLAN, HUNDRED, say("node2", NAT, nat(80))), "client", FREE)
    assert warned(some) == []


def test_a_flow_that_has_its_entry_needs_no_port() -> None:
    own = "TCP OUT 10.244.1.160:38936 -> 1.1.1.1:80 XLATE_SRC 172.30.0.12:38936 Created=9sec ago\n"
    said = next(
        r.stdout.read().decode()
        for r in changed(VXLAN).records
        if (r.place.node, r.command) == ("node2", NAT)
    )
    assert own.split(" XLATE", maxsplit=1)[0].split("->")[1] in said
    full = changed(VXLAN, HUNDRED, say("node2", NAT, said + nat(100, to="1.1.1.1:80")))
    with attempt(5.0):
        path = ask(full, "client", "1.1.1.1:80")
    assert path.verdict.let_through
    assert any("as its NAT map shows" in hop.summary for hop in path.hops)


def test_a_node_pod_counts_the_flows_of_all_pods() -> None:
    argv = q.SNAT_USE.about(*q.snat_words(6, END, 80)).node_argv
    for flows, verdict in ((100, Verdict.DROPPED), (80, Verdict.LEAVES)):
        use = SnatUse(6, END, 80, ip_address(NODE2), flows)
        bundle = changed(VXLAN, HUNDRED, more=(counted(argv, use),))
        assert ask(bundle, "client", FREE).verdict is verdict


def test_flows_that_a_node_pod_did_not_count_leave_a_small_range_open() -> None:
    argv = q.SNAT_USE.about(*q.snat_words(6, END, 80)).node_argv
    left = f"source NAT of node2 has ports left to {END}"
    for others, presumed in ((89, False), (90, True)):
        bundle = changed(VXLAN, HUNDRED, more=(counted(argv, SnatUse(6, END, 80, None, others)),))
        path = ask(bundle, "client", FREE)
        assert path.verdict is Verdict.LEAVES
        assert any(left in each for each in path.presumed) is presumed


def test_the_gateway_needs_a_port_too() -> None:
    header = "Source IP      Destination CIDR   Egress IP     Gateway IP\n"
    row = "10.244.1.160   0.0.0.0/0          {}   172.30.0.11\n"
    few = swap("node1", STATUS, '"portMax": 32767', '"portMax": 65435')
    bundle = changed(
        VXLAN,
        few,
        say("node2", "cilium-dbg bpf egress list", header + row.format("0.0.0.0    ")),
        say("node1", "cilium-dbg bpf egress list", header + row.format("172.30.0.11")),
        say("node1", NAT, nat(100, source="172.30.0.11")),
    )
    hop = dropped_at(ask(bundle, "client", FREE))
    assert (hop.node, hop.kind) == ("node1", "nat")
    assert "no port is left" in hop.summary


SIX = Flow(6, ip_address("fd00::1"), None, ip_address("2001:db8::9"), 80)
SIX_TO = ip_address("fd00:30::12")


def six(number: int, to: str = "2001:db8::9", port: int = 80) -> NatEntry:
    flow = Flow(6, ip_address("fd00::7"), 1024 + number, ip_address(to), port)
    return NatEntry(flow, "OUT", SIX_TO, 40000 + number)


def printed(entry: NatEntry) -> bytes:
    source = endpoint_text(entry.flow.source, entry.flow.source_port)
    to = endpoint_text(entry.flow.destination, entry.flow.destination_port)
    new = endpoint_text(entry.address, entry.port)
    return f"TCP OUT {source} -> {to} XLATE_SRC {new} Created=9sec ago NeedsCT=0\n".encode()


@pytest.mark.parametrize(
    ("argv", "line"),
    [(q.NAT.forms[0], printed), (q.NAT.node_argv, codec.line_of)],
    ids=["printed", "node side"],
)
def test_ports_of_ipv6_are_counted_in_either_form_of_the_table(
    argv: tuple[str, ...], line: Callable[[NatEntry], bytes]
) -> None:
    entries = [*map(six, range(95)), six(1, "2001:db8::8"), six(1, port=443)]
    record = Record(0, node_place("n"), argv, 0, InMemory(b"".join(map(line, entries))))
    node = NodeView(bundle_of([record], "test"), "n", DatapathConfig(), None)
    found = snat_ports.in_nat_map(node, SIX, SIX_TO, 100)
    assert found is not None
    assert (found.used, found.at_most) == (95, 95)


CONNTRACK = "cat /proc/net/nf_conntrack"


def to_ports(low: int, high: int) -> Change:
    """The rule of masquerading gives a few ports alone."""
    rule = '-m comment --comment "cilium masquerade non-cluster" -j MASQUERADE'
    return swap("node2", "iptables-save -c", rule, f"{rule} --to-ports {low}-{high}")


def tracked(flows: int, client: str = "10.244.1.9") -> str:
    """Connections of a pod, masqueraded to the first ports from 61000 on."""
    line = (
        "ipv4     2 tcp      6 300 ESTABLISHED src={} dst=9.9.9.9 sport={} dport=80 "
        "src=9.9.9.9 dst=172.30.0.12 sport=80 dport={} [ASSURED] mark=0 zone=0 use=2\n"
    )
    return "".join(line.format(client, 5000 + n, 61000 + n) for n in range(flows))


@pytest.mark.parametrize(("flows", "verdict"), [(4, Verdict.DROPPED), (3, Verdict.LEAVES)])
def test_netfilter_needs_a_port_of_its_rule(flows: int, verdict: Verdict) -> None:
    few = changed(NATIVE, to_ports(61000, 61003), say("node2", CONNTRACK, tracked(flows)))
    path = ask(few, "client", FREE)
    assert path.verdict is verdict
    if verdict is Verdict.DROPPED:
        hop = dropped_at(path)
        assert (hop.place, hop.kind, hop.node) == ("node", "nat", "node2")
        assert "4 of 4 ports of 172.30.0.12" in path.cause
    many = changed(NATIVE, say("node2", CONNTRACK, tracked(flows)))
    assert ask(many, "client", FREE).verdict is Verdict.LEAVES


def test_connections_of_other_pods_that_were_counted_leave_it_open() -> None:
    def cut(counts: LineCounts | None) -> Change:
        def change(record: Record) -> Record:
            if (record.place.node, record.command) != ("node2", CONNTRACK):
                return record
            own = InMemory(tracked(1, "10.244.1.53").encode())
            return replace(record, stdout=own, line_filter=("10.244.1.53",), counts=counts)

        return change

    rule = to_ports(61000, 61003)
    some = ask(changed(NATIVE, rule, cut(LineCounts(sought=4))), "client", "9.9.9.9:81")
    assert some.verdict is Verdict.UNKNOWN
    assert "4 of 4 ports of 172.30.0.12 are in use" in some.reason
    unread = ask(changed(NATIVE, rule, cut(None)), "client", "9.9.9.9:81")
    assert unread.verdict is Verdict.LEAVES


@pytest.mark.parametrize("version", [4, 6])
def test_entries_of_a_whole_table_are_counted_by_kind_across_its_pieces(version: int) -> None:
    four, six = "{} OUT 10.0.0.1:{} -> 10.0.0.2:80 x\n", "{} OUT [fd00::1]:{} -> [fd00::2]:80 x\n"
    many = 12_000  # more than one piece
    table = "".join(
        four.format("TCP", n) + six.format("TCP", n) * 2 + (four + six).format("UDP", n, "UDP", n)
        for n in range(many)
    )
    assert len(table) > 2 * PIECE
    bundle = changed(VXLAN, say("node2", CT, table.removesuffix("\n")))
    node = ClusterView(bundle).node("node2")
    tcp, other = (room.of_map(node, which, version) for which in (Table.CT_TCP, Table.CT_ANY))
    assert tcp is not None
    assert other is not None
    assert (tcp.entries, other.entries) == (many if version == 4 else 2 * many, many)
