"""A bounded pool of daemon threads for blocking calls."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

MOST = 16
"""How many calls of a pool run at the same time."""


class Pool:
    """Runs calls in at most `most` daemon threads, so a place that never answers cannot keep the
    program from ending. A thread starts when a call needs it and ends when no call waits. A call
    must not wait for another call of its pool: when all threads wait, nothing runs."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._lock = threading.Lock()

    def start(self, call: Callable[[], T], registry: list[Future[T]] | None = None) -> Future[T]:
        """Run a call as soon as a thread is free; the future gets its result or exception.

        `registry` gets the future before the call can start, so that an interrupt cannot hide a
        started call.
        """
        future: Future[T] = Future()
        if registry is not None:
            registry.append(future)

        def run() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # handed on, to be raised where it is waited for
                future.set_exception(error)

        with self._lock:
            self._waiting.append(run)
            if self._threads < self._most:
                threading.Thread(target=self._work, daemon=True).start()
                self._threads += 1
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                run = self._waiting.popleft()
            run()
            del run  # what it holds is free while the thread waits
