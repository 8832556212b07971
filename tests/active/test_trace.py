"""Sessions of `trace` that do not go as they should. The node is a FAKE: a function in place of the
exec writes lines as node/trace/session.py does (the real: tests/node/trace, tests/lab)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.active import trace
from kubectl_ebpfnet.cli import trace_live, trace_run
from kubectl_ebpfnet.cli.trace_plan import Limits, Plan
from kubectl_ebpfnet.model.events import Layers, Losses, Place, TraceLine
from kubectl_ebpfnet.model.evidence import InMemory, Record, bundle_of, node_place
from kubectl_ebpfnet.model.path import Verdict
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter, TraceRequest
from kubectl_ebpfnet.model.trace import Trace

Node = Callable[["Streams"], None]
_LAYERS = codec.line_of(TraceLine(layers=Layers((Place.DROP,), (), 0, 0)))
_LOSSES = codec.line_of(TraceLine(losses=Losses()))
_END = codec.line_of(TraceLine(end="the client ended it"))


class Streams:
    """The exec's streams: descriptors of pipes, as LiveStreams has them."""

    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        self.stdin, self.out, self.err = stdin, stdout, stderr

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def flush(self) -> None:
        """All is written."""

    def say(self, data: bytes) -> None:
        """Tell the client."""
        os.write(self.out, data)

    def wait_for_the_end_of_stdin(self) -> None:
        """Read until the client ends it."""
        while os.read(self.stdin, 100):
            pass


class Nothing:
    """Prints nothing."""

    def began(self, *_: object) -> None:
        """Nothing."""

    def sighting(self, *_: object) -> None:
        pass

    def notice(self, *_: object) -> None:
        pass


def good(node: Streams) -> None:
    node.say(_LAYERS)
    node.wait_for_the_end_of_stdin()
    node.say(_LOSSES + _END)


def told_to_end(node: Streams) -> None:
    node.say(_LAYERS + _LOSSES + codec.line_of(TraceLine(end="it was told to end")))


def cut(node: Streams) -> None:
    node.say(_LAYERS + _LOSSES)


def nonsense(node: Streams) -> None:
    node.say(_LAYERS + b"nonsense\n" + _LOSSES + _END)
    node.wait_for_the_end_of_stdin()


def silent(node: Streams) -> None:
    node.say(_LAYERS)
    time.sleep(8)


def late(node: Streams) -> None:
    time.sleep(2)
    node.say(_LAYERS)
    node.wait_for_the_end_of_stdin()
    node.say(_LOSSES + _END)


def endless_line(node: Streams) -> None:
    node.say(_LAYERS)
    for _ in range(4):
        node.say(b"x" * 32_768)
    node.wait_for_the_end_of_stdin()
    time.sleep(1)


def watched(monkeypatch: pytest.MonkeyPatch, node: Node) -> tuple[Trace, Trace]:
    """The answer of a live run, and of what it recorded."""

    def run(_session: object, _container: object, _argv: object, streams: Streams) -> int:
        node(streams)
        return 0

    monkeypatch.setattr(trace, "exec_live", run)
    monkeypatch.setattr(trace, "LiveStreams", Streams)
    monkeypatch.setattr(trace_live, "containers_on", lambda *_: ({"n": None}, {}))
    monkeypatch.setattr(trace_live, "_READY_SECONDS", 1.0)
    monkeypatch.setattr(trace, "_PARTING_SECONDS", 1.0)
    plan = Plan("drops of node/n", None, ("n",), {"n": TraceRequest(node_namespace=True)})
    bundle = bundle_of([], "x")

    class Gatherer:
        """As much of it as a trace uses."""

        session = answerers = deadline = None

    class Progress:
        """Shows nothing."""

        def show(self, line: str) -> None:
            pass

    live, whole = trace_live.watch(
        Gatherer(),
        plan,
        bundle,
        Limits(0.3),
        Nothing(),
        Progress(),  # type: ignore[arg-type]
    )
    return live, trace_run.from_bundle(plan, whole, Nothing())


def test_a_session_that_the_client_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in watched(monkeypatch, good):
        assert (answer.verdict, answer.nodes[0].problem) == (Verdict.REACHABLE, "")


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (told_to_end, "it was not watched to the end: it was told to end"),
        (cut, "its last line is missing"),
        (nonsense, "not JSON"),
        (silent, "it told no end within 1 s"),
        (late, "it did not watch within 1 s"),
        (endless_line, "lines that are too long"),
    ],
)
def test_what_was_not_watched_to_the_end_is_not_known(
    monkeypatch: pytest.MonkeyPatch, node: Node, why: str
) -> None:
    for answer in watched(monkeypatch, node):
        assert answer.verdict is Verdict.UNKNOWN
        assert why in answer.nodes[0].problem


def test_a_record_of_other_packets_is_no_trace_of_these() -> None:
    """Who saves one trace, and asks the capture for another flow, is told so."""
    request = TraceRequest((PacketFilter(ip_address("10.0.0.1"), ip_address("1.1.1.1")),))
    record = Record(1, node_place("n"), node_argv("trace", codec.line_of(request).decode()), 0)
    record = replace(record, stdout=InMemory(_LAYERS + _LOSSES + _END))
    bundle = bundle_of([record], "x")
    other = TraceRequest((PacketFilter(ip_address("10.0.0.1"), ip_address("8.8.8.8")),))
    others = "the capture has no trace of it but of other packets"
    for asked, problem in ((request, ""), (other, others)):
        plan = Plan("x", None, ("n",), {"n": asked})
        assert trace_run.from_bundle(plan, bundle, Nothing()).nodes[0].problem == problem


def test_a_second_interrupt_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node tells no end; who interrupts while its last words are awaited has waited enough."""
    told = threading.Event()

    def run(_session: object, _container: object, _argv: object, streams: Streams) -> int:
        streams.say(_LAYERS)
        streams.wait_for_the_end_of_stdin()
        told.wait(30)
        return 0

    monkeypatch.setattr(trace, "exec_live", run)
    monkeypatch.setattr(trace, "LiveStreams", Streams)
    before = time.monotonic()
    request = {"n": TraceRequest(node_namespace=True)}

    def interrupted() -> None:
        with trace.Sessions(None, {"n": None}, request) as sessions:  # type: ignore[arg-type, dict-item]
            while not sessions.ready:
                for _ in sessions.next_lines(0.1):
                    pass
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - before < trace._PARTING_SECONDS / 2
    told.set()
