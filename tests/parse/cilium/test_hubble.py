"""`hubble observe`, as the agents of three versions printed it, and forms of others."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.parse.cilium.hubble import event
from tests.parse.parse_samples import every, sample

VERSIONS = ("1.9.8", "1.13.7", "1.18")


def events(version: str, name: str) -> tuple[MonitorEvent, ...]:
    """The events that an agent printed."""
    return every(event, sample(f"cilium-{version}/node2/{name}"))


def made(**flow: Any) -> MonitorEvent | None:
    """The event of a line with a flow of our own."""
    return event(json.dumps({"flow": flow}).encode(), 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_flow_is_read(version: str) -> None:
    for name in ("hubble-observe", "hubble-observe-dropped"):
        data = sample(f"cilium-{version}/node2/{name}")
        flows = [line for line in data.split(b"\n") if line.startswith(b"{")]
        assert len(events(version, name)) == len(flows)
        assert all(one.time and one.flow is not None for one in events(version, name))


@pytest.mark.parametrize("version", VERSIONS)
def test_drops_have_monitors_words(version: str) -> None:
    drops = [one for one in events(version, "hubble-observe-dropped") if one.kind == "drop"]
    assert {"Policy denied by denylist", "Unsupported L3 protocol"} <= {d.summary for d in drops}
    denied = next(d for d in drops if d.summary == "Policy denied by denylist")
    assert denied.flow is not None
    assert (str(denied.flow.destination), denied.flow.destination_port) == ("1.1.1.1", 80)
    assert denied.tcp_flags == ("SYN",)
    assert denied.code.startswith("bpf_lxc.c:") == (version == "1.18")


def test_a_trace_is_that_of_monitor() -> None:
    first = events("1.18", "hubble-observe")[0]
    assert first == MonitorEvent(
        "trace", "-> network",
        Flow(TCP, ip_address("10.44.0.175"), 42998, ip_address("172.31.7.11"), 10250), ("ACK",),
        15790, 6, state="established", device="eth0", time="2026-11-30T03:12:43.220568813Z",
    )  # fmt: skip
    assert first.point == "to-network"
    points = {one.point for version in VERSIONS for one in events(version, "hubble-observe")}
    assert points >= {"to-overlay", "to-endpoint", "to-stack", "to-network"}


@pytest.mark.parametrize(
    ("verdict", "summary"),
    [("FORWARDED", "allow"), ("DROPPED", "deny"), ("AUDIT", "audit"), ("REDIRECTED", "redirect")],
)
def test_verdicts(verdict: str, summary: str) -> None:
    found = made(event_type={"type": 5}, verdict=verdict, traffic_direction="EGRESS")
    assert found is not None
    assert (found.kind, found.summary, found.direction) == ("policy-verdict", summary, "egress")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_text_says_what_the_json_says(version: str) -> None:
    """The same events, asked twice: all have their kind, time and packet, with names for some."""
    texts = every(event, sample(f"cilium-{version}/node2/hubble-observe-compact"))
    assert len(texts) == 20
    for one in texts:
        assert one.time.startswith("Nov 30 03:")
        assert (one.flow is None) == (one.named is not None)
    asked = {(one.kind, one.summary.partition(" ")[0]) for one in texts}
    assert asked <= {("trace", "->"), ("drop", "Unsupported")}


@pytest.mark.parametrize(
    ("line", "kind", "summary", "source"),
    [
        ("default/client:1 (ID:9) -> 1.1.1.1:80 (world) policy-verdict:L3-L4 EGRESS AUDITED (TCP "
         "Flags: SYN)", "policy-verdict", "audit", "default/client"),
        ("default/client:1 (ID:9) <> default/web:80 (world) Service backend not found DROPPED "
         "(TCP Flags: SYN)", "drop", "Service backend not found", "default/client"),
        ("default/client:1 (ID:9) <- default/web:80 (ID:8) to-endpoint FORWARDED (TCP Flags: SYN, "
         "ACK)", "trace", "-> endpoint", "default/web"),
        ("[n1]: default/client:1 (ID:9) <> 1.1.1.1:80 (world) Policy denied DROPPED (UDP)",
         "drop", "Policy denied", "default/client"),
    ],
)  # fmt: skip
def test_lines_of_the_text(line: str, kind: str, summary: str, source: str) -> None:
    separator = " " if line.startswith("[") else ": "
    found = event(f"Nov  3 04:57:53.782{separator}{line}".encode(), 1)
    assert found is not None
    assert found.named is not None
    assert (found.kind, found.summary, found.named.source) == (kind, summary, source)


@pytest.mark.parametrize(
    "line",
    [
        "default/a:1 (ID:9) -> 1.1.1.1:53 (ID:8) dns-request proxy DROPPED (DNS Query x. A)",
        "default/a:1 (ID:9) -> default/b:80 (ID:8) http-request DROPPED (HTTP/1.1 GET http://b/)",
    ],
)
def test_requests_of_the_proxy_are_no_packets(line: str) -> None:
    assert event(f"Nov 30 04:57:53.782: {line}".encode(), 1) is None


def test_a_flow_without_its_envelope_is_read() -> None:
    line = json.dumps({"event_type": {"type": 1}, "drop_reason_desc": "FIB_LOOKUP_FAILED"})
    found = event(line.encode(), 1)
    assert found is not None
    assert found.summary == "FIB lookup failed"


def test_what_is_no_event_of_the_datapath() -> None:
    assert event(b'time=2026-11-30T03:12:55Z level=WARN msg="Hubble CLI version"', 1) is None
    assert event(b'{"lost_events":{"source":"HUBBLE_RING_BUFFER"}}', 1) is None
    assert made(Type="L7", event_type={"type": 129}, verdict="DROPPED") is None
    assert made(event_type={"type": 1}, drop_reason=169).summary == "reason 169"  # type: ignore[union-attr]
    with pytest.raises(ParseError):
        event(b"{broken", 7)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        ({"ICMPv4": {"type": 8}}, "EchoRequest"),
        ({"ICMPv4": {}}, "EchoReply"),  # protobuf's JSON leaves a 0 out
        ({"ICMPv4": {"type": 3}}, ""),
        ({"ICMPv6": {"type": 128}}, "EchoRequest"),
        ({"ICMPv6": {"type": 129}}, "EchoReply"),
        ({"ICMPv6": {"type": 8}}, ""),
        ({"UDP": {"type": 8}}, ""),
    ],
)
def test_an_echo_has_its_kind(layer: dict[str, object], kind: str) -> None:
    flow = {"event_type": {"type": 1}, "drop_reason": 1, "l4": layer}
    told = event(json.dumps({"flow": flow}).encode(), 1)
    assert told is not None
    assert told.icmp == kind


def test_the_text_has_the_kind_of_an_echo_in_brackets() -> None:
    line = (
        "Nov 30 03:12:43.220: 10.0.0.1 (ID:1) <> 10.0.0.2 (ID:2) Policy denied DROPPED "
        "(ICMPv4 EchoRequest)"
    )
    told = event(line.encode(), 1)
    assert told is not None
    assert (told.icmp, told.is_answer) == ("EchoRequest", False)
