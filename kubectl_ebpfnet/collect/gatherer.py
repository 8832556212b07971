"""Gather the records of one run: read the API server and ask places, beside each other, in one
bounded pool of threads and before one deadline.

A place that does not answer costs its own answer alone: whatever fails is a record with the reason.
No call in the pool waits for another one, so a pool that is full still ends.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from math import inf
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from kubectl_ebpfnet.capture.spool import Spool
from kubectl_ebpfnet.cluster.agents import NAMESPACES, find_agents
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods.kept import NodePod, find_node_pods
from kubectl_ebpfnet.cluster.pool import MOST, Pool
from kubectl_ebpfnet.collect.ask.access import BY_AGENT, Mode, NodeAccess
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.ask.unasked import EXEC, error_sentence, hangs, unavailable_record
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.errors import ApiUnreachable, ClusterError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle, Place, Record, bundle_of, dated
from kubectl_ebpfnet.model.kube import Pod

if TYPE_CHECKING:
    from kubectl_ebpfnet.collect.ask.answerer import Answerer
    from kubectl_ebpfnet.collect.ask.node_access import NodeAnswerers
    from kubectl_ebpfnet.collect.ask.question import Question

T = TypeVar("T")
Notify = Callable[[str], object]
Answer = tuple[int, list[Record]]
"""Position in the order of asking, and the records of the answer."""

_UNREAD = 4 * MOST
"""Answers that may wait for the reader of the records: a capture's memory stays flat."""
_LOOK_SECONDS = 0.3  # how often a line about long lists changes
_GRACE_SECONDS = 1.0  # an exec that the deadline ended still hands over what it had


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A place that is asked, or will be; as of Gatherer.ask, and its turn."""

    answerer: Answerer
    questions: Sequence[Question]
    instead: Callable[[], object] | None
    number: int = 0


class Gatherer:
    """Asks one cluster. Use it in a `with`: node pods that it deploys are removed at the end. Its
    methods run in one thread.

    Attributes:
        session: the connection.
        access: how nodes may be asked.
        api: reads that leave records.
        deadline: of everything that is asked from now on.
        warn: takes lines that the user must read.
        progress: takes a line about the current step.
    """

    def __init__(
        self,
        session: Session,
        access: NodeAccess = BY_AGENT,
        *,
        timeout: float | None = None,
        folder: Path | None = None,
        warn: Notify = lambda _: None,
        progress: Notify = lambda _: None,
    ) -> None:
        """
        Args:
            session: the connection.
            access: how nodes may be asked.
            timeout: seconds of --timeout for the whole run; None for no limit.
            folder: where unnamed files hold long outputs; None for the temporary folder.
            warn: takes lines that the user must read.
            progress: takes a line about the current step.
        """
        self.session, self.access = session, access
        self.warn, self.progress = warn, progress
        self.api = RecordingApi(session)
        self._answerers: NodeAnswerers | None = None
        self.deadline = Deadline(timeout)
        self._new_spool = partial(Spool, folder)
        self._pool = Pool()
        self._looking: tuple[Future[Mapping[str, Pod]], Future[Mapping[str, NodePod]]]
        self._reads: list[Future[object]] = []
        self._asked = 0
        self._refusals: deque[Answer] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[Future[list[Record]], _Waiting] = {}
        self._told_clock = False

    def __enter__(self) -> Gatherer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._answerers is not None:
            self._answerers.__exit__(kind)

    @property
    def answerers(self) -> NodeAnswerers:
        """Who answers for nodes."""
        if self._answerers is None:
            # Imported while the API server answers: what asks places takes 60 ms.
            from kubectl_ebpfnet.collect.ask.node_access import NodeAnswerers

            self._answerers = NodeAnswerers(self.session, self.access, self.warn)
        return self._answerers

    def begin(self, seconds: float | None) -> None:
        """Begin a look of a run that may have looked before, with its own deadline for `seconds`
        of --timeout: what an earlier one left, since it failed or was late, is no record of it."""
        self.api = RecordingApi(self.session)  # late answers go to the old one
        self._reads, self._running = [], {}
        self._refusals.clear()
        self._waiting.clear()
        self.restart(seconds)

    def restart(self, seconds: float | None, option: str = "--timeout") -> None:
        """Set the deadline anew, once `records` was read: for `seconds` that `option` sets, or a
        constant where it is ""."""
        self.deadline = Deadline(seconds, option)

    # --- the API server ---------------------------------------------------------------------------

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Start a call whose result `needed` or `tried` waits for."""
        return self._pool.start(call)

    def read(self, calls: Iterable[Callable[[], object]]) -> None:
        """Start reads of `api` whose records alone matter; `records` waits for them."""
        self._reads += [self._pool.start(call) for call in calls]

    def needed(self, future: Future[T]) -> T:
        """Return the result of a call that the run needs.

        Raises:
            EbpfnetError: of the call.
            ApiUnreachable: it did not end before the deadline.
        """
        self._wait([future], self.deadline.left)
        try:
            return future.result(0)
        except TimeoutError:
            raise ApiUnreachable(
                f"{self.session.server}: {self.deadline.missed()}", hint="--timeout allows more"
            ) from None

    def tried(self, future: Future[T], share: float = 1.0) -> tuple[T | None, str]:
        """Return the result of a call, or None and the reason, which the call's record has too.

        Args:
            future: of the call.
            share: of the time that is left, for a call without which places can still be asked.
        """
        left = self.deadline.left
        self._wait([future], None if left is None else left * share)
        try:
            return future.result(0), ""
        except TimeoutError:
            return None, self.deadline.missed()
        except ClusterError as error:
            return None, error_sentence(error, self.deadline)

    def _wait(self, futures: Sequence[Future[Any]], seconds: float | None) -> set[Future[Any]]:
        """Return the futures of which the first is done within the time; tell meanwhile how far
        lists of several pages are."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = inf if until is None else until - time.monotonic()
            done = wait(futures, max(0.0, min(left, _LOOK_SECONDS)), FIRST_COMPLETED).done
            if done or left <= _LOOK_SECONDS:
                return done
            if self.api.reading:
                self.progress(_so_far(self.api.reading))

    def look_for_answerers(self, *modes: Mode, few: bool = False) -> None:
        """Start to look for agents and node pods, where --node-access or a mode of `modes` takes
        them; `find_answerers` waits for both.

        Args:
            modes: that are allowed besides.
            few: a few nodes are asked: where there are many agents, those of these nodes are
                looked for as they are asked.
        """
        self.progress("asking the API server")
        allowed = {self.access.mode, *modes}
        namespace = self.session.namespace
        by_agent, by_pod = allowed & {Mode.AUTO, Mode.AGENT}, allowed & {Mode.AUTO, Mode.POD}
        self._looking = (
            self.start(lambda: find_agents(self.api, few=few) if by_agent else {}),
            self.start(lambda: find_node_pods(self.api, namespace) if by_pod else {}),
        )

    def find_answerers(self) -> Mapping[str, Pod]:
        """Return Cilium's agents by node, {} where they could not be listed; start to read Cilium's
        settings beside them."""
        by_agent, by_pod = self._looking
        listed = self.tried(by_agent)
        agents = listed[0] or {}
        kept = self.tried(by_pod, 0.5)[0] or {}
        self.answerers.set_available(agents, listed[1], kept, self.agent_on)
        namespaces = sorted({agent.namespace for agent in agents.values()})
        self.read(
            partial(self.api.config_map, namespace, "cilium-config")
            for namespace in namespaces or NAMESPACES[:1]
        )
        return agents

    def agent_on(self, node: str) -> Mapping[str, Pod]:
        """Return the agent of a node by its name, {} where there is none or it cannot be read."""
        found, _ = self.tried(self.start(lambda: find_agents(self.api, node)))
        return found or {}

    # --- places -----------------------------------------------------------------------------------

    def ask(
        self,
        answerer: Answerer | Record,
        questions: Sequence[Question],
        instead: Callable[[], object] | None = None,
    ) -> None:
        """Ask a place; `records` has its answers.

        Args:
            answerer: who answers, or the record with the reason why nobody does.
            questions: to ask.
            instead: is called, in this thread, where the answerer turns out not to answer: it may
                ask somebody else.
        """
        if isinstance(answerer, Record):
            self._asked += 1
            self._refusals.append((self._asked, [answerer]))
            return
        if questions:
            self._waiting.append(_Waiting(answerer, questions, instead))
            self._start_waiting()

    def ask_first(
        self,
        answerer: Answerer,
        questions: Sequence[Question],
        instead: Callable[[], object] | None = None,
        deadline: Deadline | None = None,
    ) -> Future[list[Record]]:
        """Ask a place before those that wait; return the future of its records, for `tried`.
        `records` has them too.

        Args:
            answerer, questions, instead: as of `ask`.
            deadline: an earlier one than the run's.
        """
        until = deadline or self.deadline
        future = self.start(partial(answerer.ask, questions, until, self._new_spool))
        self._asked += 1
        self._running[future] = _Waiting(answerer, questions, instead, self._asked)
        return future

    def records(self) -> Iterator[Record]:
        """Yield the records of everything that was started, those of a place as soon as it
        answered. Yielded records are not kept."""
        for _, answer in self._answers():
            yield from answer

    def bundle(self, *first: Record) -> Bundle:
        """Return the same records after others, in the order of asking."""
        answers = sorted(self._answers(), key=lambda answer: answer[0])
        return bundle_of([*first, *(record for _, answer in answers for record in answer)])

    def _answers(self) -> Iterator[Answer]:
        """Yield the answers as they come, their records dated by the API server's clock."""
        for number, records in self._as_they_come():
            clock = self.session.clock
            if clock.remark and not self._told_clock:
                self._told_clock = True
                self.warn(clock.remark)
            yield number, [dated(record, clock.ahead) for record in records]

    def _as_they_come(self) -> Iterator[Answer]:
        yield 0, self.api.take()
        while self._refusals:
            yield self._refusals.popleft()
        while self._reads or self._running:
            left = self.deadline.left
            if self._running:
                first, count = next(iter(self._running.values())), len(self._running)
                place = first.answerer.place
                self.progress(f"waiting for {place} ({count + len(self._waiting)} to go)")
                left = self.deadline.left_and(_GRACE_SECONDS)
            awaited: list[Future[Any]] = [*self._reads, *self._running]
            done = self._wait(awaited, left)
            if not done:
                break
            for read in [read for read in self._reads if read in done]:
                self._reads.remove(read)
                self.tried(read)
            yield 0, self.api.take()
            future = next((future for future in self._running if future in done), None)
            del awaited, done
            if future is not None:
                asked = self._running.pop(future)
                self._start_waiting()
                if asked.instead and not _answered(future.result()):
                    asked.instead()
                yield asked.number, future.result()
                while self._refusals:  # of somebody who was asked instead
                    yield self._refusals.popleft()
            del future
        late = [unavailable_record(place, EXEC, reason) for place, reason in self._late()]
        self._reads, self._running, self._waiting = [], {}, deque()
        yield self._asked + 1, [*late, *self.api.take()]

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < _UNREAD:
            one = self._waiting.popleft()
            self.ask_first(one.answerer, one.questions, one.instead)

    def _late(self) -> Iterator[tuple[Place, str]]:
        """Yield each place without an answer, and the reason."""
        for place in _places(asked.questions for asked in self._running.values()):
            yield place, self.deadline.missed()
        for place in _places(waiting.questions for waiting in self._waiting):
            yield place, self.deadline.missed("not asked")


def _so_far(reading: Mapping[str, tuple[int, int | None]]) -> str:
    """Return how far lists are: `reading pods: 1,500 of 30,000`."""
    lists = [
        f"{path.rpartition('/')[2]}: {count:,}" + ("" if of is None else f" of {of:,}")
        for path, (count, of) in dict(reading).items()
    ]
    return f"reading {', '.join(lists)}"


def _answered(records: Sequence[Record]) -> bool:
    """Tell whether a place answers as far as it is allowed to."""
    if any(hangs(record) for record in records):
        return False
    return any(record.ran or record.denied for record in records)


def _places(asked: Iterable[Sequence[Question]]) -> Iterable[Place]:
    """Return each place that is asked about: a node pod answers for pods of its node, too."""
    return dict.fromkeys(question.place for questions in asked for question in questions)
