"""`cilium-dbg monitor -j` of the lab's agent: a REPLAY. Lines that real agents printed
(recorded/monitor-j.jsonl: Cilium 1.18, `-> stack` of 1.9), one for each TCP packet that passes a
device of this node now, with that packet's addresses, ports, numbers and flags in place of theirs.

    from a pod's device     `-> stack`, or the recorded drop where deny() says so
    to a pod's device       `-> endpoint ID`
    out by eth0             `-> network`
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubectl_ebpfnet.model.events import PacketEvent, Place
from kubectl_ebpfnet.model.net import SYN, TCP, Flow
from kubectl_ebpfnet.node.trace.packets import PacketTrace, Selection
from tests.lab.cluster.config import NODES, Node

_RECORDED = Path(__file__).with_name("recorded") / "monitor-j.jsonl"
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
_DENIED = "monitor-denies"


@contextmanager
def deny(port: int) -> Iterator[None]:
    """Have every agent say that the policy denies what pods send to a port."""
    files = [node.state / _DENIED for node in NODES]
    for file in files:
        file.write_text(str(port))
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


class Monitor:
    """The monitor of one node."""

    def __init__(self, node: Node, endpoints: Callable[[], list[dict[str, Any]]]) -> None:
        """`endpoints` are this node's, as the lab knows them now."""
        self._node, self._endpoints = node, endpoints
        self._netns = os.stat("/proc/self/ns/net").st_ino
        lines = [json.loads(line) for line in _RECORDED.read_text().splitlines()]
        self._recorded = {
            "drop" if line["type"] == "drop" else line["traceSummary"].split()[1]: line
            for line in lines
        }

    def lines(self) -> Iterator[bytes]:
        """Yield a line for each packet, without end; b"" now and then, to see who is there."""
        with PacketTrace(Selection(netns=self._netns, programs=("queue", "receive"))) as trace:
            while True:
                for packet in trace.events(0.1):
                    told = self._told(packet)
                    if told is not None:
                        yield json.dumps(told, separators=(",", ":")).encode() + b"\n"
                yield b""

    def _told(self, packet: PacketEvent) -> dict[str, Any] | None:
        if packet.flow is None or packet.flow.protocol != TCP or packet.netns != self._netns:
            return None
        leaves = packet.place is Place.QUEUE
        endpoint = next((e for e in self._endpoints() if e["device"] == packet.device), None)
        if endpoint is None:
            wire = packet.device == "eth0" and leaves
            return self._like("network", packet, packet.flow) if wire else None
        if leaves:
            told = self._like("endpoint", packet, packet.flow)
            told |= {"traceSummary": f"-> endpoint {endpoint['id']}", "dstID": endpoint["id"],
                     "dstLabel": endpoint["identity"], "srcLabel": 0}  # fmt: skip
            return told
        denied = str(packet.flow.destination_port) == self._denied()
        told = self._like("drop" if denied else "stack", packet, packet.flow)
        return told | {"source": endpoint["id"], "srcLabel": endpoint["identity"], "dstLabel": 2}

    def _denied(self) -> str:
        try:
            return (self._node.state / _DENIED).read_text()
        except OSError:
            return ""

    def _like(self, recorded: str, packet: PacketEvent, flow: Flow) -> dict[str, Any]:
        """The recorded line, with this packet in place of its own."""
        told: dict[str, Any] = json.loads(json.dumps(self._recorded[recorded]))
        source, destination = str(flow.source), str(flow.destination)
        summary = told["summary"]
        summary["l3"] = {"src": source, "dst": destination}
        summary["l4"] = {"src": str(flow.source_port), "dst": str(flow.destination_port)}
        new = {"SrcPort": flow.source_port, "DstPort": flow.destination_port,
               "Seq": packet.seq, "Ack": packet.ack}  # fmt: skip
        new |= {
            name: str(bool(packet.tcp_flags & 1 << bit)).lower() for bit, name in enumerate(_FLAGS)
        }
        for name, value in new.items():
            summary["tcp"] = re.sub(rf"\b{name}=\S+", f"{name}={value}", summary["tcp"])
        for name, value in (("SrcIP", source), ("DstIP", destination)):
            summary["ipv4"] = re.sub(rf"\b{name}=\S+", f"{name}={value}", summary["ipv4"])
        if told["type"] == "trace":
            state = "new" if packet.tcp_flags == SYN else "established"
            told |= {"ifindex": packet.device, "state": state}
        return told
