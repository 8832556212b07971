"""`cilium monitor`: recordings of 1.20-dev and of an old agent, other forms by their formats."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, SCTP, TCP, UDP, Flow
from kubectl_ebpfnet.parse.cilium.monitor import event
from tests.parse import recorded

CLIENT = ip_address("10.244.1.160")
WEB = ip_address("10.244.0.135")
ONE, TWO = ip_address("10.0.0.1"), ip_address("10.0.0.2")
SIX, SEVEN = ip_address("fd00::6"), ip_address("fd00::7")


def events(data: bytes) -> list[MonitorEvent]:
    """The events of an output."""
    found = (event(line, number) for number, line in enumerate(data.split(b"\n"), 1))
    return [one for one in found if one is not None]


def only(line: str) -> MonitorEvent:
    """The event that a line is."""
    found = event(line.encode(), 1)
    assert found is not None
    return found


def test_recorded_traces() -> None:
    first = events(recorded.outputs("cilium-dbg", "monitor")[0])[0]
    assert first == MonitorEvent(
        "trace", "-> overlay", Flow(TCP, CLIENT, 57550, WEB, 8080), ("SYN",),
        source_identity=60735, destination_identity=1395, state="new", device="cilium_vxlan",
    )  # fmt: skip
    reply = events(recorded.outputs("cilium-dbg", "monitor")[0])[1]
    assert reply.tcp_flags == ("SYN", "ACK")
    assert (reply.summary, reply.state) == ("-> endpoint 1174", "reply")
    assert reply.original_address == WEB


def test_recorded_drops_and_verdicts() -> None:
    (data,) = (d for d in recorded.outputs("cilium-dbg", "monitor") if b"xx drop" in d)
    verdict, drop = events(data)[:2]
    flow = Flow(TCP, CLIENT, 59630, WEB, 8080)
    assert drop == MonitorEvent(
        "drop", "Policy denied", flow, ("SYN",), source_identity=60735, destination_identity=1395,
        code="bpf_lxc.c:1533",
    )  # fmt: skip
    assert verdict == MonitorEvent(
        "policy-verdict", "deny", flow, ("SYN",), destination_identity=1395, direction="egress"
    )
    allowed = next(e for e in events(data) if e.summary == "allow")
    assert (allowed.destination_identity, allowed.destination_label) == (0, "world")


@pytest.mark.parametrize("argv", [("monitor",), ("monitor", "-v"), ("monitor", "-j")])
def test_nothing_of_the_recordings_is_left_unread(argv: tuple[str, ...]) -> None:
    for data in recorded.outputs("cilium-dbg", *argv):
        unread = [line for line in data.split(b"\n") if line and event(line, 1) is None]
        assert all(b" level=info " in line or b"-xlate-" in line for line in unread)
        assert len(unread) <= 2


def test_recorded_json_says_what_the_text_says() -> None:
    """The same requests were made again for `-j`: drops and verdicts differ in ports alone."""

    def shapes(data: bytes) -> Counter[object]:
        found: Counter[object] = Counter()
        for one in events(data):
            assert one.flow is not None
            flow = replace(one.flow, source_port=None, destination_port=None)
            if WEB in (flow.source, flow.destination) and one.kind != "trace":
                found[one.kind, one.summary, flow, one.tcp_flags, one.device] += 1
        return found

    texts, jsons = (
        next(d for d in recorded.outputs("cilium-dbg", "monitor", *flag) if b"drop" in d)
        for flag in ((), ("-j",))
    )
    assert shapes(texts) == shapes(jsons)
    (trace, *_) = (e for e in events(jsons) if e.kind == "trace")
    assert trace == MonitorEvent(
        "trace", "-> network", Flow(TCP, CLIENT, 51256, ip_address("1.1.1.1"), 80), ("SYN",),
        source_identity=60735, destination_identity=2, state="new", device="eth0",
        seq=8842371, ack=0,
    )  # fmt: skip


def test_an_old_agents_traces() -> None:
    """Seed 003: no comma before `identity`, no device."""
    first, second, *rest = events(recorded.outputs("cilium", "monitor")[0])
    assert first == MonitorEvent(
        "trace", "-> stack",
        Flow(TCP, ip_address("10.244.0.213"), 59242, ip_address("1.0.0.1"), 80), ("SYN",),
        source_identity=42837, destination_label="world", state="new",
    )  # fmt: skip
    assert (second.source_label, second.device) == ("world", "lxcf4cd39e34601")
    assert len(rest) == 6


TRACE = "-> stack flow 0x1 , identity 7->world state new ifindex 0 orig-ip 0.0.0.0: "


@pytest.mark.parametrize(
    ("connection", "flow", "flags"),
    [
        # The forms of pkg/monitor/dissect.go (cilium-facts 2.12), not a run.
        ("10.0.0.1:3 -> 10.0.0.2:4 tcp SYN, ACK", Flow(TCP, ONE, 3, TWO, 4), ("SYN", "ACK")),
        ("10.0.0.1:3 -> 10.0.0.2:4 tcp ", Flow(TCP, ONE, 3, TWO, 4), ()),
        ("[fd00::6]:3 -> [fd00::7]:4 udp", Flow(UDP, SIX, 3, SEVEN, 4), ()),
        ("10.0.0.1:3 -> 10.0.0.2:4 sctp", Flow(SCTP, ONE, 3, TWO, 4), ()),
        ("10.0.0.1 -> 10.0.0.2 icmp EchoRequest", Flow(ICMP, ONE, None, TWO, None), ()),
        ("10.0.0.1 -> 10.0.0.2 EchoReply", Flow(ICMP, ONE, None, TWO, None), ()),
        ("fd00::6 -> fd00::7 icmp EchoRequest", Flow(ICMPV6, SIX, None, SEVEN, None), ()),
        ("fd00::6 -> fd00::7 143(0)", Flow(ICMPV6, SIX, None, SEVEN, None), ()),
        ("10.0.0.1 -> 10.0.0.2 vrrp V2 7 100", Flow(112, ONE, None, TWO, None), ()),
        ("10.0.0.1: -> 10.0.0.2: IPsecESP", Flow(50, ONE, None, TWO, None), ()),
        ("10.0.0.1 -> 10.0.0.2", Flow(0, ONE, None, TWO, None), ()),
        ("0a:00:00:00:00:01 -> ff:ff:ff:ff:ff:ff ARP", None, ()),
        ("[unknown]", None, ()),
        ("[error]", None, ()),
        ("10.0.0.1:3 -> 10.0.0.2:4 tcp ACK [tunnel 172.18.0.2:51820 -> 172.18.0.3:8472 vxlan]",
         Flow(TCP, ONE, 3, TWO, 4), ("ACK",)),
    ],
)  # fmt: skip
def test_forms_of_a_connection(connection: str, flow: Flow | None, flags: tuple[str, ...]) -> None:
    found = only(TRACE + connection)
    assert (found.flow, found.tcp_flags) == (flow, flags)
    assert (found.source_identity, found.destination_label) == (7, "world")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # 1.19 has the trace id; IPv6 that was not translated; a word for encrypted packets.
        ("-> stack encrypted flow 0x1 , identity 1->2 [ ip-trace-id = 7 ] state new ifindex 0 "
         "orig-ip ::: [fd00::6]:3 -> [fd00::7]:4 tcp SYN",
         MonitorEvent("trace", "-> stack", Flow(TCP, SIX, 3, SEVEN, 4), ("SYN",), 1, 2,
                      state="new")),
        ("<- endpoint 12 flow 0x1 , identity 1->2 state new ifindex lxc1 orig-ip fd00::7: "
         "[fd00::6]:3 -> [fd00::7]:4 udp",
         MonitorEvent("trace", "<- endpoint 12", Flow(UDP, SIX, 3, SEVEN, 4), (), 1, 2,
                      state="new", device="lxc1", original_address=SEVEN)),
        # 1.9 and 1.10; between them and 1.14 with a second comma; a reason with brackets.
        ("xx drop (Policy denied) flow 0x1 to endpoint 99, identity 1->2: 10.0.0.1 -> 10.0.0.2 "
         "EchoRequest",
         MonitorEvent("drop", "Policy denied", Flow(ICMP, ONE, None, TWO, None), (), 1, 2,
                      icmp="EchoRequest")),
        ("xx drop (Policy denied) flow 0x1 to endpoint 99, , identity world->2: 10.0.0.1:3 -> "
         "10.0.0.2:4 udp",
         MonitorEvent("drop", "Policy denied", Flow(UDP, ONE, 3, TWO, 4), (), 0, 2, "world")),
        ("xx drop (No tunnel/encapsulation endpoint (datapath BUG!)) flow 0x0 to endpoint 0, "
         "ifindex 3, file unknown(2):21, , identity 1->unknown: 10.0.0.1:3 -> 10.0.0.2:4 udp",
         MonitorEvent("drop", "No tunnel/encapsulation endpoint (datapath BUG!)",
                      Flow(UDP, ONE, 3, TWO, 4), (), 1, 0, "", "unknown",
                      code="unknown(2):21")),
        ("xx drop (FIB lookup failed, 2) flow 0x0 to endpoint 0, ifindex 3, file bpf_host.c:9, , "
         "identity 1->2: 10.0.0.1:3 -> 10.0.0.2:4 udp",
         MonitorEvent("drop", "FIB lookup failed, 2", Flow(UDP, ONE, 3, TWO, 4), (), 1, 2,
                      code="bpf_host.c:9")),
        # Without auth, as 1.10; before 1.9; the protocol is in the verdict where no ports are.
        ("Policy verdict log: flow 0x1 local EP ID 5, remote ID remote-node, proto 6, ingress, "
         "action redirect, match L3-L4, 10.0.0.1:3 -> 10.0.0.2:4 tcp SYN, ACK",
         MonitorEvent("policy-verdict", "redirect", Flow(TCP, ONE, 3, TWO, 4), ("SYN", "ACK"),
                      source_label="remote-node", direction="ingress")),
        ("Policy verdict log: flow 0x1 local EP ID 5, remote ID 8, ingress false, action deny, "
         "match none, 10.0.0.1:3 -> 10.0.0.2:4 udp",
         MonitorEvent("policy-verdict", "deny", Flow(UDP, ONE, 3, TWO, 4), (), 0, 8,
                      direction="egress")),
        ("Policy verdict log: flow 0x1 local EP ID 5, remote ID 8, proto 89, egress, action audit, "
         "auth: disabled, match all, 10.0.0.1 -> 10.0.0.2",
         MonitorEvent("policy-verdict", "audit", Flow(89, ONE, None, TWO, None), (), 0, 8,
                      direction="egress")),
    ],
)  # fmt: skip
def test_forms_of_other_versions(line: str, expected: MonitorEvent) -> None:
    """By the formats of cilium-facts 2.12 and of pkg/monitor, not a run."""
    assert only(line) == expected


def packet(**summary: object) -> str:
    """A trace of `-j` with this dissection."""
    trace = {"type": "trace", "traceSummary": "-> stack", "srcLabel": 1, "dstLabel": 2}
    return json.dumps({**trace, "summary": summary})


@pytest.mark.parametrize(
    ("kind", "request_port", "reply_port"),
    [
        ("EchoRequest", 77, None),
        ("EchoReply", None, 77),
        ("DestinationUnreachable(Port)", None, None),
    ],
)
def test_an_echos_identifier_stands_at_its_initiator(
    kind: str, request_port: int | None, reply_port: int | None
) -> None:
    """As in conntrack. The layer's form is gopacket's, not a run."""
    layer = f"ICMPv4\t{{Contents=[..8..] Payload=[..56..] TypeCode={kind} Checksum=1 Id=77 Seq=1}}"
    line = packet(icmpv4=layer, l3={"src": "10.0.0.1", "dst": "10.0.0.2"})
    event = only(line)
    assert event is not None
    assert event.flow == Flow(ICMP, ONE, request_port, TWO, reply_port)
    assert event.icmp == (kind if kind.startswith("Echo") else "")


def test_json_without_a_packet() -> None:
    assert only(packet()).flow is None
    assert only('{"type": "drop", "reason": "Missed tail call"}').flow is None


@pytest.mark.parametrize(
    "line",
    [
        "", "Press Ctrl-C to quit", "Listening for events on 8 CPUs with 64x4096 of shared memory",
        'level=info msg="Initializing dissection cache..." subsys=monitor',
        "CPU 01: MARK 0x1 FROM 3 to-stack: 74 bytes (74 captured), state new, identity 1->2",
        "CPU 00: [pre-xlate-fwd] cgroup_id: 1925 sock_cookie: 13576, dst [10.96.51.4]:80 tcp ",
        "-> lxc1234: 10.0.0.1:3 -> 10.0.0.2:4 tcp SYN", "[1] 4711", "<- Request http from 12",
        '>> Endpoint regenerated: {"id":12}', '{"type":"agent","subtype":"x","message":{}}',
        '{"level":"info","msg":"hello"}', '{"type":7}', "{}",
        "-----------------------------------------------------------------------------",
    ],
)  # fmt: skip
def test_what_is_no_event(line: str) -> None:
    assert event(line.encode(), 1) is None


@pytest.mark.parametrize(
    "line",
    [
        b"xx drop (Policy denied", b"xx drop (Policy denied) flow 0x1 to endpoint 9",
        b"-> stack flow 0x1 , identity 1->2 state new ifindex 0 orig-ip 0.0.0.0: 1.1.1.1 <- 2.2",
        b"-> stack flow 0x1 , identity 1->2 state new ifindex 0 orig-ip 0.0.0.0:",
        b"-> stack flow 0x1 orig-ip x: 10.0.0.1:3 -> 10.0.0.2:4 udp",
        b"-> stack flow 0x1 : 10.0.0.1:99999 -> 10.0.0.2:4 udp", b"\xff\xfe", b"{", b'{"type":',
        b"Policy verdict log: flow 0x1", b"Policy verdict log: match all, 1.1.1.1 -> 2.2.2.2",
        b"xx drop (x) flow 0x1 identity 99999999999999999->2: 10.0.0.1:3 -> 10.0.0.2:4 udp",
        b'{"type":"trace"}',
    ],
)  # fmt: skip
def test_a_broken_event_names_its_line(line: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        event(line, 42)
    assert caught.value.line == 42
