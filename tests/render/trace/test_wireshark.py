"""-o pcapng, read by Wireshark's own dissectors: what the command writes of recorded packets."""

from __future__ import annotations

import json
import shutil
import subprocess
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.write import write_bundle
from kubectl_ebpfnet.model.evidence import InMemory, Record, node_place, now
from kubectl_ebpfnet.model.net import ICMP, TCP, UDP
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter, TraceRequest
from tests.cli.console import PROGRAM, environment
from tests.explain.trace.replay import DATA, NODE, lines_of

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

PROCESS = "pid/7@node/router"
_FIELDS = (
    "frame.interface_name", "frame.comment", "frame.len", "frame.cap_len", "frame.p2p_dir",
    "frame.time_epoch",
    "ip.src", "ip.dst", "ip.proto", "tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport",
    "icmp.type", "icmp.ident", "icmp.seq", "vxlan.vni",
)  # fmt: skip


def kept(name: str, protocol: int, path: Path, data: int = 128) -> list[str]:
    """A recording as --save keeps it; the words that ask for it."""
    port = None if protocol == ICMP else 5000
    server = ip_address("10.2.0.2")
    request = TraceRequest((PacketFilter(None, server, None, port, protocol),), pid=7, data=data)
    argv = node_argv("trace", codec.line_of(request).decode().strip())
    stdout = InMemory((DATA / f"{name}.jsonl").read_bytes())
    record = Record(1, node_place(NODE), argv, 0, stdout, b"", now())
    destination = str(server) if port is None else f"{server}:{port}"
    kind = {ICMP: "ICMP", TCP: "TCP", UDP: "UDP"}[protocol]
    write_bundle(str(path), [record], f"trace of {PROCESS} → {destination}/{kind}")
    return ["trace", PROCESS, destination, "--protocol", kind.lower(), "--from", str(path)]


def printed(words: list[str], *more: str) -> subprocess.CompletedProcess[bytes]:
    argv = (PROGRAM, *words, "-o", "pcapng", *more)
    return subprocess.run(argv, capture_output=True, check=False, env=environment())


def dissected(file: bytes, *decoded_as: str) -> list[dict[str, str]]:
    """What tshark reads, packet by packet: the first value of each field that is there."""
    fields = [word for name in _FIELDS for word in ("-e", name)]
    argv = ("tshark", "-n", "-r", "-", "-T", "json", *decoded_as, *fields)
    ran = subprocess.run(argv, input=file, capture_output=True, check=True)
    return [
        {name: values[0] for name, values in each["_source"]["layers"].items()}
        for each in json.loads(ran.stdout)
    ]


@pytest.mark.parametrize(
    ("name", "protocol"),
    [("masquerade_tcp_bytes", TCP), ("netfilter_bytes", UDP), ("plain_icmp_bytes", ICMP)],
)
def test_wireshark_reads_what_the_node_told(tmp_path: Path, name: str, protocol: int) -> None:
    words = kept(name, protocol, tmp_path / "kept.zip")
    told = sorted((line.packet for line in lines_of(name) if line.packet), key=lambda p: p.time_ns)
    layers = next(line.layers for line in lines_of(name) if line.layers)
    read = dissected(printed(words).stdout)
    assert len(read) == len(told) > 0
    for packet, frame in zip(told, read, strict=True):
        flow = packet.flow
        assert flow is not None
        ends = str(flow.source), str(flow.destination), str(flow.protocol)
        assert (frame["ip.src"], frame["ip.dst"], frame["ip.proto"]) == ends
        assert int(frame["frame.len"]) == packet.size
        at = layers.wall_ns + packet.time_ns - layers.time_ns
        assert abs(Decimal(frame["frame.time_epoch"]) * 10**9 - at) < 1000  # seconds are a float
        if protocol == ICMP:
            assert int(frame["icmp.ident"], 0) == flow.source_port
            assert int(frame["icmp.seq"], 0) == packet.seq
            assert (int(frame["icmp.type"]), 0) == packet.icmp
        else:
            kind = "tcp" if protocol == TCP else "udp"
            ports = int(frame[f"{kind}.srcport"]), int(frame[f"{kind}.dstport"])
            assert ports == (flow.source_port, flow.destination_port)
    devices = [frame["frame.interface_name"].split("/") for frame in read]
    assert {name[0] for name in devices} == {NODE}
    assert [name[-1] for name in devices] == [p.device or p.place for p in told]


def test_a_drop_has_its_reason_as_a_comment_and_its_interface(tmp_path: Path) -> None:
    words = kept("netfilter_bytes", UDP, tmp_path / "kept.zip")
    ran = printed(words)
    *others, dropped = dissected(ran.stdout)
    assert ran.returncode == 3
    assert dropped["frame.comment"].startswith("dropped: NETFILTER_DROP nft_do_chain")
    assert dropped["frame.interface_name"] == "router/c0"
    assert not any("dropped" in frame["frame.comment"] for frame in others)
    sent = [frame for frame in others if frame["frame.comment"] in ("queue", "xmit")]
    assert {frame["frame.p2p_dir"] for frame in sent} == {"0"}  # P2P_DIR_SENT
    assert "frame.p2p_dir" not in dropped or dropped["frame.p2p_dir"] not in ("0", "1")


def test_a_tunnel_carries_the_packet_whole(tmp_path: Path) -> None:
    words = kept("vxlan_bytes", ICMP, tmp_path / "kept.zip")
    read = dissected(printed(words).stdout, "-d", "udp.port==8472,vxlan")
    carried = [frame for frame in read if "vxlan.vni" in frame]
    assert {frame["vxlan.vni"] for frame in carried} == {"42"}
    assert {frame["frame.len"] for frame in carried} == {"98"}
    assert {frame["icmp.seq"] for frame in read} == {"1"}


def test_a_shorter_packet_keeps_its_length(tmp_path: Path) -> None:
    words = kept("plain_icmp_bytes", ICMP, tmp_path / "kept.zip")
    whole, cut = (
        dissected(printed(words).stdout),
        dissected(printed(words, "--snaplen", "28").stdout),
    )
    assert [f["frame.len"] for f in cut] == [f["frame.len"] for f in whole]
    assert {f["frame.cap_len"] for f in cut} == {"28"}
    assert [f["icmp.ident"] for f in cut] == [f["icmp.ident"] for f in whole]


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    words = kept("plain_icmp", ICMP, tmp_path / "kept.zip", data=0)
    ran = printed(words)
    assert dissected(ran.stdout) == []
    count = sum(line.packet is not None for line in lines_of("plain_icmp"))
    assert f"{count} places of packets are left out, without bytes" in ran.stderr.decode()
