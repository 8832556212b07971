"""Watch packets on several nodes at once: a session in the node pod of each.

The sessions' lines come as they are told (model/protocol/tracing.py), and are kept besides: all
lines of a node are one record of the row TRACE. A session that fails costs its own node alone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.run import exec_live
from kubectl_ebpfnet.cluster.exec.stdio import LiveStreams
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.cluster.nodepods.sides import session_argv
from kubectl_ebpfnet.collect.ask.node_access import NodeAnswerers
from kubectl_ebpfnet.collect.ask.node_pod import NodePodExec
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import EbpfnetError, ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import Losses, TraceLine
from kubectl_ebpfnet.model.evidence import InMemory, Record, node_place, now
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.frames import OPTION
from kubectl_ebpfnet.model.protocol.questions import node_argv
from kubectl_ebpfnet.model.protocol.tracing import GO, TraceRequest

_MOST_KEPT = 32 << 20
"""Bytes of a node's lines that are kept for the record; of what is over, the losses tell."""
_MOST_STDERR = 16 << 10
_LONGEST_LINE = 64 << 10
_PARTING_SECONDS = 8.0
_HASTE_SECONDS = 0.5
"""In which its end is sent to each node."""


@dataclass(frozen=True, slots=True)
class NodeLine:
    """What a node told: a line with its number, or why it tells no more ("" for its good end)."""

    node: str
    number: int = 0
    line: TraceLine | None = None
    problem: str | None = None


class _NodeSession:
    """A session on one node, in a thread of its own."""

    def __init__(
        self, session: Session, node: str, container: Container, request: TraceRequest
    ) -> None:
        self.node, self._session, self._container = node, session, container
        self._words = codec.line_of(request).decode().strip()
        self._stdin, self.to_stdin = os.pipe()
        self.stdout, self._to_stdout = os.pipe()
        self._stderr, self._to_stderr = os.pipe()
        os.set_blocking(self._stderr, False)  # it may be open still when this end is given up
        self._rest = b""
        self._kept, self._not_kept = bytearray(), 0
        self._count = 0
        self._losses = Losses()
        self._started = now()
        self._error, self._exit_code = "", -1
        self._said_end = ""
        self.ready = self.ended = False
        threading.Thread(target=self._run, name=f"trace {node}", daemon=True).start()

    def _run(self) -> None:
        argv = session_argv("trace", OPTION, self._words)
        try:
            with LiveStreams(self._stdin, self._to_stdout, self._to_stderr) as streams:
                self._exit_code = exec_live(self._session, self._container, argv, streams)
                streams.flush()
        except (EbpfnetError, OSError) as error:
            self._error = " ".join(str(error).split())
        finally:
            for fd in (self._stdin, self._to_stdout, self._to_stderr):
                os.close(fd)

    def say(self, word: str) -> None:
        """Write a word to its stdin; nothing where it has ended."""
        with contextlib.suppress(OSError):
            os.write(self.to_stdin, word.encode() + b"\n")

    def stop(self) -> None:
        """End its stdin: it detaches, and tells the rest."""
        if self.to_stdin >= 0:
            fd, self.to_stdin = self.to_stdin, -1
            os.close(fd)

    def read(self) -> Iterator[NodeLine]:
        """Read what is there; yield its lines, and its end."""
        data = os.read(self.stdout, 1 << 18)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._take(line)
        if len(self._rest) > _LONGEST_LINE:
            yield from self._end("it tells lines that are too long")
        elif not data:
            yield from self._end("")

    def _take(self, line: bytes) -> Iterator[NodeLine]:
        try:
            told: TraceLine = codec.fact(line, TraceLine, source=f"trace on {self.node}")
        except ParseError as error:  # the record lacks the line, and says so
            yield self.fails(str(error))
            return
        self._count += 1
        self.ready = self.ready or told.layers is not None
        if told.losses is not None:
            self._losses = told.losses
        self._said_end = told.end or self._said_end
        if told.packet is None or len(self._kept) < _MOST_KEPT:
            self._kept += line + b"\n"
        else:
            self._not_kept += 1
        yield NodeLine(self.node, self._count, told)

    def _end(self, problem: str) -> Iterator[NodeLine]:
        if self.ended:
            return
        self.ended = True
        stderr = ""
        with contextlib.suppress(BlockingIOError):
            stderr = os.read(self._stderr, _MOST_STDERR).decode("utf-8", "replace").strip()
        why = problem or self._error or (stderr if self._exit_code else "")
        if not why and not self.ready:
            why = stderr or "it ended before it watched anything"
        if not why and (self.to_stdin >= 0 or not self._said_end):
            why = f"it was not watched to the end: {self._said_end or 'its last line is missing'}"
        self._error = why
        yield NodeLine(self.node, self._count, problem=why)

    def fails(self, why: str) -> NodeLine:
        """Say, in the record too, why what it tells is not all."""
        self._error = self._error or why
        return NodeLine(self.node, self._count, problem=why)

    def give_up(self, why: str) -> Iterator[NodeLine]:
        """Take it for ended, whatever it still does."""
        yield from self._end(why)

    def record(self) -> Record:
        """Return all that it told, as a record."""
        if self._not_kept:
            of = self._losses
            more = Losses(of.over_budget, of.ring_full, of.not_told + self._not_kept)
            self._kept += codec.line_of(TraceLine(losses=more))
        argv = node_argv("trace", self._words)
        code = None if self._error else self._exit_code
        kept = InMemory(bytes(self._kept))
        return Record(0, node_place(self.node), argv, code, kept, b"", self._started, self._error)

    def close(self) -> None:
        """Close this side's descriptors."""
        self.stop()
        for fd in (self.stdout, self._stderr):
            os.close(fd)


class Sessions:
    """Sessions on some nodes. Use it in a `with`: they end with it."""

    def __init__(
        self,
        session: Session,
        containers: Mapping[str, Container],
        requests: Mapping[str, TraceRequest],
    ) -> None:
        """Start a session in the node pod of each node."""
        self._all = [
            _NodeSession(session, node, container, requests[node])
            for node, container in containers.items()
        ]
        self._selector = selectors.DefaultSelector()
        self._read: deque[NodeLine] = deque()
        for each in self._all:
            self._selector.register(each.stdout, selectors.EVENT_READ, each)

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        # Each detaches at once; the pod, and whatever runs in it, ends after this. Who interrupts
        # again does not wait for their last words.
        for _line in self.lines(_HASTE_SECONDS if kind else _PARTING_SECONDS):
            pass
        self._selector.close()
        for each in self._all:
            each.close()

    @property
    def ready(self) -> bool:
        """Whether each that runs watches by now."""
        return all(each.ready or each.ended for each in self._all)

    @property
    def running(self) -> bool:
        """Whether any runs."""
        return not all(each.ended for each in self._all)

    def go(self) -> None:
        """Have the node that sends begin."""
        for each in self._all:
            each.say(GO)

    def stop(self) -> None:
        """Ask all to end; `lines` yields the rest."""
        for each in self._all:
            each.stop()

    def lines(self, seconds: float) -> Iterator[NodeLine]:
        """Yield what nodes tell, until all have ended or the time is over."""
        until = time.monotonic() + seconds
        while (self.running or self._read) and (left := until - time.monotonic()) > 0:
            yield from self.next_lines(min(left, 0.5))

    def not_ready(self, why: str) -> Iterator[NodeLine]:
        """Yield a problem for each that runs and does not watch yet."""
        yield from (each.fails(why) for each in self._all if not (each.ready or each.ended))

    def give_up(self, why: str) -> Iterator[NodeLine]:
        """Yield a problem for each that runs, and wait for it no longer."""
        for each in self._all:
            if not each.ended:
                self._selector.unregister(each.stdout)
                yield from each.give_up(why)

    def next_lines(self, seconds: float) -> Iterator[NodeLine]:
        """Yield what nodes tell now; wait so long for the first."""
        for key, _ in () if self._read else self._selector.select(seconds):
            each: _NodeSession = key.data
            self._read.extend(each.read())
            if each.ended:
                self._selector.unregister(each.stdout)
        while self._read:  # what an interrupt leaves here is yielded by the next call
            yield self._read.popleft()

    def records(self) -> list[Record]:
        """Return what each node told."""
        return [each.record() for each in self._all]


def containers_on(
    answerers: NodeAnswerers, nodes: tuple[str, ...], deadline: Deadline
) -> tuple[dict[str, Container], dict[str, str]]:
    """Return the node pods of some nodes, deployed where there is none, and why others have none.

    Raises:
        ClusterError: the API server cannot be reached.
    """
    found: dict[str, Container] = {}
    problems: dict[str, str] = {}
    for node, answerer in answerers.for_nodes(nodes, deadline).items():
        if isinstance(answerer, NodePodExec):
            try:
                found[node] = answerer.ready(deadline).container
            except EbpfnetError as error:
                problems[node] = " ".join(str(error).split())
        elif isinstance(answerer, Record):
            missing = f" (missing permission: {answerer.denied})" if answerer.denied else ""
            problems[node] = f"{answerer.error}{missing}"
        else:
            problems[node] = "it is asked by Cilium's agent alone, which loads nothing of ours"
    return found, problems
