"""Replays what record.py recorded of real traffic: the answer to a session's lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from kubectl_ebpfnet.explain.trace.answer import Told, trace_of
from kubectl_ebpfnet.model.events import NamespaceOwner, TraceLine
from kubectl_ebpfnet.model.net import UDP, Flow
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.trace import Owner, Trace

DATA = Path(__file__).with_name("data")
NODE, OTHER = "router", "other"
FLOW = Flow(UDP, ip_address("10.1.0.2"), None, ip_address("10.2.0.2"), 5000)
"""What was asked for, whatever the protocol."""


def names(node: str, told: NamespaceOwner) -> Owner:
    """The processes of record.py stand for pods."""
    if told.node:
        return Owner("node", "", node)
    if told.command in ("client", "server"):
        return Owner("pod", "default", told.command)
    return Owner("process", "", told.command, told.pid) if told.pid else Owner()


def lines_of(name: str) -> list[TraceLine]:
    """A recording, line by line."""
    raw = (DATA / f"{name}.jsonl").read_bytes().splitlines()
    return [codec.fact(line, TraceLine) for line in raw]


def answer(lines: Iterable[TraceLine], node: str = NODE) -> Trace:
    """What explain says of the lines of one node."""
    return answer_of([(node, line) for line in lines])


def answer_of(lines: Iterable[tuple[str, TraceLine]]) -> Trace:
    """What explain says of the lines of several nodes, in this order."""
    told = Told.nothing(names)
    nodes: dict[str, int] = {}
    for node, line in lines:
        nodes[node] = nodes.get(node, 0) + 1
        told.feed(node, line, nodes[node])
    return trace_of(told, "client → server", FLOW, list(nodes))


def apart(lines: Sequence[TraceLine], ahead_s: float = 0.0) -> list[tuple[str, TraceLine]]:
    """The same as if the server were a pod of another node, whose clocks are ahead."""
    inodes = {line.namespace.inode for line in lines
              if line.namespace and line.namespace.command == "server"}  # fmt: skip
    ahead = int(ahead_s * 1e9)
    told: list[tuple[str, TraceLine]] = []
    for line in lines:
        packet, layers = line.packet, line.layers
        if layers is not None:
            later = replace(
                layers, time_ns=layers.time_ns + 7 * ahead, wall_ns=layers.wall_ns + ahead
            )
            told += [(NODE, line), (OTHER, TraceLine(layers=later))]
        elif line.losses is not None:
            told += [(NODE, line), (OTHER, line)]
        elif packet is not None and packet.netns in inodes:
            moved = replace(packet, time_ns=packet.time_ns + 7 * ahead)
            told.append((OTHER, TraceLine(packet=moved)))
        elif line.namespace is not None and line.namespace.inode in inodes:
            told.append((OTHER, line))
        else:
            told.append((NODE, line))
    return told
