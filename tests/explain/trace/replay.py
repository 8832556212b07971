"""Replays what record.py recorded of real traffic: the answer to a session's lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kubectl_ebpfnet.explain.trace.answer import Told, trace_of
from kubectl_ebpfnet.model.events import NamespaceOwner, TraceLine
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.trace import Owner, Trace

DATA = Path(__file__).with_name("data")
NODE = "router"


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
    told = Told.nothing(names)
    for number, line in enumerate(lines, 1):
        told.feed(node, line, number)
    return trace_of(told, "client → server", None, [node])
