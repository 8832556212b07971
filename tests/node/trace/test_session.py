"""A session of `trace` on this machine's kernel: its lines, from the request to the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.model.events import Place, TraceLine
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, UDP
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter, SendRequest, TraceRequest
from tests.network_namespaces import why_not
from tests.node.trace import lan, programs

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(why_not("nft", "tc")), reason=why_not("nft", "tc")),
    pytest.mark.skipif(bool(programs.why_not()), reason=programs.why_not()),
]


@pytest.fixture(scope="module")
def sender() -> Iterator[int]:
    """A process in the client's network namespace."""
    with lan.lan(), subprocess.Popen(("ip", "netns", "exec", lan._name("client"), "cat"),
                                     stdin=subprocess.PIPE) as process:  # fmt: skip
        lan.wait_for(lambda: os.stat(f"/proc/{process.pid}/ns/net").st_ino
                     == os.stat(lan.path("client")).st_ino)  # fmt: skip
        yield process.pid
        process.kill()


@contextmanager
def session(request: TraceRequest) -> Iterator[subprocess.Popen[bytes]]:
    words = codec.line_of(request).decode().strip()
    argv = (sys.executable, "-m", "kubectl_ebpfnet.node", "trace", words)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def told(request: TraceRequest, until: str = "sent") -> list[TraceLine]:
    """All lines of a session that sends, and ends after so many outcomes."""
    with session(request) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        process.stdin.write(b"go\n")
        process.stdin.flush()
        left = request.send.count if request.send else 0
        while left:
            lines.append(process.stdout.readline())
            left -= until in json.loads(lines[-1])
        time.sleep(0.2)
        process.stdin.close()
        lines += process.stdout.readlines()
        assert process.wait() == 0
    return [codec.fact(line, TraceLine) for line in lines]


def to_server(send: SendRequest, pid: int, **more: Any) -> TraceRequest:
    version = send.destination.version
    ends = ip_address(lan.CLIENT[version]), send.destination
    filters = (PacketFilter(*ends, None, send.port, send.protocol),)
    return TraceRequest(filters, send=send, sender_pid=pid, **more)


@pytest.mark.parametrize(
    ("version", "protocol", "port", "outcome"),
    [
        (4, ICMP, None, "answered"),
        (6, ICMPV6, None, "answered"),
        (4, TCP, lan.ECHO, "answered"),
        (6, TCP, lan.ECHO, "answered"),
        (4, TCP, lan.CLOSED, "refused"),
        (4, UDP, lan.ECHO, "answered"),
        (4, UDP, lan.CLOSED, "refused"),
    ],
)
def test_what_is_sent_is_seen_and_has_its_outcome(
    sender: int, version: int, protocol: int, port: int | None, outcome: str
) -> None:
    send = SendRequest(protocol, ip_address(lan.SERVER[version]), port, count=3, interval=0.05)
    first, *lines = told(to_server(send, sender))
    assert first.layers is not None
    assert Place.DROP in first.layers.attached
    sent = [line.sent for line in lines if line.sent]
    assert [(each.outcome, each.number) for each in sorted(sent, key=lambda s: s.number)] == [
        (outcome, number) for number in (1, 2, 3)
    ]
    assert {str(each.flow.source) for each in sent} == {lan.CLIENT[version]}
    packets = [line.packet for line in lines if line.packet]
    here = os.stat(lan.path("client")).st_ino
    queued = [p for p in packets if p.netns == here and p.place is Place.QUEUE]
    assert len({p.fingerprint for p in queued}) >= 3
    owners = {line.namespace.inode: line.namespace for line in lines if line.namespace}
    assert owners[here].pid == sender
    assert lines[-2].losses is not None
    assert lines[-2].losses.all == 0
    assert lines[-1].end == "the client ended it"


def test_what_is_over_the_budget_is_counted(sender: int) -> None:
    send = SendRequest(UDP, ip_address(lan.SERVER[4]), lan.ECHO, count=40, interval=0.0)
    lines = told(to_server(send, sender, events_per_second=50))
    packets = sum(line.packet is not None for line in lines)
    losses = [line.losses for line in lines if line.losses][-1]
    assert packets <= 150  # a session that began in one second, and ended in the third
    assert losses.not_told > 100
    assert losses.not_told + packets >= 40 * 2 * 8
    assert losses.ring_full == losses.over_budget == 0


def test_its_time_is_a_bound(sender: int) -> None:
    send = SendRequest(UDP, ip_address(lan.SERVER[4]), lan.ECHO)
    with session(to_server(send, sender, seconds=0.3)) as process:
        assert process.stdout is not None
        *_, last_line = process.stdout  # stdin stays open
    last = codec.fact(last_line, TraceLine)
    assert last.end == "its time of 0.3 s is over"


def test_drops_of_a_namespace_alone(sender: int) -> None:
    request = TraceRequest(pid=sender, drops_only=True)
    with session(request) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        assert codec.fact(lines[0], TraceLine).layers.attached == (Place.DROP,)
        lan.run("client", "nft add table inet t")
        lan.run("client", "nft add chain inet t o { type filter hook output priority 0 ; }")
        lan.run("client", f"nft add rule inet t o udp dport {lan.OTHER} drop")
        try:
            with lan.open_socket("client") as client:
                client.connect((lan.SERVER[4], lan.OTHER))
                with pytest.raises(PermissionError):
                    client.send(b"never")
            time.sleep(0.2)
        finally:
            lan.run("client", "nft delete table inet t")
        process.stdin.close()
        lines += process.stdout.readlines()
    packets = [p for line in lines if (p := codec.fact(line, TraceLine).packet)]
    mine = [p for p in packets if p.flow and p.flow.destination_port == lan.OTHER]
    assert [p.place for p in mine] == [Place.DROP]
    assert mine[0].reason == "NETFILTER_DROP"


def test_a_request_for_nothing_is_refused() -> None:
    argv = (sys.executable, "-m", "kubectl_ebpfnet.node", "trace", "{}")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "wants filters" in done.stderr


def test_the_bytes_of_each_packet_are_told_where_they_are_asked_for(sender: int) -> None:
    send = SendRequest(UDP, ip_address(lan.SERVER[4]), lan.ECHO, payload="who is there?")
    lines = told(to_server(send, sender, data=64))
    packets = [line.packet for line in lines if line.packet and line.packet.device]
    assert len(packets) >= 8
    for packet in packets:
        data = bytes.fromhex(packet.data)
        assert packet.flow is not None
        assert data[12:16] == packet.flow.source.packed
        assert data[16:20] == packet.flow.destination.packed
        assert data[28:] == b"who is there?"
        assert len(data) == packet.size
