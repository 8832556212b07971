"""Cilium's own notices while a trace runs: `cilium-dbg monitor -j` in the agents of its nodes.

The agent's image has a shell and timeout(1). The monitor ends with the client's word, with stdin,
and in any case by itself some seconds after the trace: nothing is left in the agent's container.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from kubectl_ebpfnet.cluster.agents import find_agents
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.exec.pump import Limits
from kubectl_ebpfnet.cluster.exec.run import exec_live
from kubectl_ebpfnet.cluster.exec.target import Container
from kubectl_ebpfnet.collect.ask.container import AgentExec
from kubectl_ebpfnet.collect.ask.targets import agent_answerer
from kubectl_ebpfnet.collect.ask.unasked import missing_permission
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.errors import EbpfnetError, Forbidden
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, now
from kubectl_ebpfnet.model.protocol.tracing import MonitorQuestion

MOST_BYTES = 8 << 20
"""Of an agent's output: a busy node tells much, and all of it passes the API server."""
_LONGEST_LINE = 64 << 10
_READY_SECONDS = 3.0
_PARTING_SECONDS, _HASTE_SECONDS = 3.0, 0.5
_SPARE_SECONDS = 10
_STDIN = b"\0"  # channel 0 of v4.channel.k8s.io
_SCRIPT = """exec 3<&0
n=$1 k=$2
shift 2
c=cilium-dbg
command -v "$c" >/dev/null || c=cilium
timeout "$n" sh -c 'k=$1; shift; "$@" | grep -F --line-buffered -- "$k"' sh "$k" "$c" "$@" &
m=$!
{ read -r _ <&3; kill "$m"; } 2>/dev/null &
r=$!
wait "$m"
e=$?
kill "$r" 2>/dev/null
exit "$e"
"""
"""Words: seconds; strings of which a line has one, a line each; the monitor's words. timeout(1) is
the head of a process group, and ends all of it."""


@dataclass(frozen=True, slots=True)
class NoticeLine:
    """A line of a node's monitor.

    Attributes:
        node: whose agent.
        number: 1-based, in its record.
        line: without its newline.
        monotonic: when it came.
    """

    node: str
    number: int
    line: bytes
    monotonic: float


class _Monitor:
    """A monitor in one agent, in a thread of its own: the streams of its exec (LocalStreams)."""

    def __init__(
        self, session: Session, node: str, container: Container, question: MonitorQuestion,
        seconds: float, told: queue.SimpleQueue[NoticeLine],
    ) -> None:  # fmt: skip
        self.node, self._session, self._container = node, session, container
        self._question, self._seconds, self._told = question, seconds, told
        self._stop, self._to_stop = os.pipe()
        self._rest, self._count, self._bytes = b"", 0, 0
        self._kept, self._stderr = bytearray(), bytearray()
        self._started = now()
        self._stopping = self._sent_stop = self._too_much = False
        self.problem = ""
        self.exit_code: int | None = None
        self.began, self.ended = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name=f"monitor {node}", daemon=True).start()

    def _run(self) -> None:
        longest = round(self._seconds) + _SPARE_SECONDS
        asked = self._question
        needles = "\n".join(asked.needles)
        argv = ("sh", "-c", _SCRIPT, "sh", str(longest), needles, *asked.words)
        limits = Limits(idle=None, total=longest + _SPARE_SECONDS, max_bytes=None)
        try:
            self.exit_code = exec_live(self._session, self._container, argv, self, limits)
            if not self._stopping:
                last = self._stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
                self.problem = f"it ended before the trace did{f': {last}' if last else ''}"
        except Forbidden as error:
            self.problem = f"missing permission: {missing_permission(error)}"
        except (EbpfnetError, OSError) as error:
            self.problem = " ".join(str(error).split())
        if self._too_much:
            self.problem = f"it told more than {MOST_BYTES >> 20} MiB, and was ended"
        self.began.set()
        self.ended.set()

    def stop(self) -> None:
        """Have it end."""
        self._stopping = True
        with contextlib.suppress(OSError):
            os.write(self._to_stop, b"\n")

    def record(self) -> Record:
        """Return all that it told."""
        code = None if self.problem else 0
        return Record(
            0, agent_place(self.node), ("cilium-dbg", *self._question.words), code,
            InMemory(bytes(self._kept)), bytes(self._stderr), self._started, self.problem,
            line_filter=self._question.needles,
        )  # fmt: skip

    # --- LocalStreams ----------------------------------------------------------------------------

    def wait_for(self, sending: bool) -> tuple[Sequence[int], float | None]:
        """Wait for `stop`."""
        return ((), None) if sending or self._sent_stop else ((self._stop,), None)

    def message(self, ready: Sequence[int]) -> bytes:
        """Return the word that ends it."""
        if self._stop not in ready:
            return b""
        self._sent_stop = True
        return _STDIN + b"\n"

    def has_room(self) -> bool:
        """It is bounded by its bytes."""
        return True

    def stdout(self, data: bytes) -> None:
        """Take a piece of output."""
        self.began.set()
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            if not self._too_much:
                self._too_much = True
                self.stop()
            return
        came = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            self._rest = b""
        for line in lines:
            self._count += 1
            self._kept += line + b"\n"
            self._told.put(NoticeLine(self.node, self._count, line, came))

    def stderr(self, data: bytes) -> None:
        """Keep what it complains of; its banner comes here too."""
        self.began.set()
        self._stderr += data[: _LONGEST_LINE - len(self._stderr)]

    def parting(self) -> bytes:
        """Return the word that ends it."""
        return _STDIN + b"\n"


class Monitors:
    """Monitors on some nodes. Use it in a `with`: they end with it."""

    def __init__(
        self,
        session: Session,
        agents: Mapping[str, Container],
        question: MonitorQuestion | None,
        seconds: float,
    ) -> None:
        """Start a monitor in the agent of each node.

        Args:
            session: the connection.
            agents: by node.
            question: what each is to tell.
            seconds: how long the trace takes at most.
        """
        self._told: queue.SimpleQueue[NoticeLine] = queue.SimpleQueue()
        self._all = [
            _Monitor(session, node, container, question, seconds, self._told)
            for node, container in agents.items()
            if question is not None
        ]

    def __enter__(self) -> Monitors:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop(_HASTE_SECONDS if kind else _PARTING_SECONDS)

    @property
    def running(self) -> bool:
        """Whether any runs."""
        return not all(each.ended.is_set() for each in self._all)

    def wait_until_ready(self) -> None:
        """Wait until each has told something, its banner at least, or for some seconds."""
        until = time.monotonic() + _READY_SECONDS
        for each in self._all:
            each.began.wait(max(0.0, until - time.monotonic()))

    def lines(self) -> Iterator[NoticeLine]:
        """Yield what was told until now."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._told.get_nowait()

    def stop(self, seconds: float = _PARTING_SECONDS) -> None:
        """End all, and wait so long for it."""
        running = [each for each in self._all if not each.ended.is_set()]
        for each in running:
            each.stop()
        until = time.monotonic() + seconds
        for each in running:
            each.ended.wait(max(0.0, until - time.monotonic()))

    def problems(self) -> dict[str, str]:
        """Return why the notices of nodes are not all."""
        return {each.node: each.problem for each in self._all if each.problem}

    def records(self) -> list[Record]:
        """Return what each agent told."""
        return [each.record() for each in self._all]


def agents_on(
    gatherer: Gatherer, nodes: Sequence[str]
) -> tuple[dict[str, Container], dict[str, str]]:
    """Return the containers of Cilium's agents on some nodes, and why others have none."""
    listed, why = gatherer.tried(gatherer.start(lambda: find_agents(gatherer.api, few=True)))
    agents = dict(listed or {})
    found: dict[str, Container] = {}
    problems: dict[str, str] = {}
    for node in nodes:
        if node not in agents and not why:
            agents |= gatherer.agent_on(node)
        answerer = agent_answerer(gatherer.session, agents, node, why)
        if isinstance(answerer, AgentExec):
            found[node] = answerer.container
        else:
            problems[node] = answerer.error
    return found, problems
