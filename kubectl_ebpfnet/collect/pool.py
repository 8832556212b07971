"""A pool of daemon threads for blocking calls, and the deadline of a run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

MOST = 16
"""How many calls run at the same time."""


class Pool:
    """Runs calls in at most `most` daemon threads, so a place that never answers cannot keep the
    program from ending. A thread starts when a call needs it and ends when no call waits."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._lock = threading.Lock()

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Run a call as soon as a thread is free; the future gets its result or exception."""
        future: Future[T] = Future()

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


class Deadline:
    """A point in time by which a run has to end."""

    def __init__(self, seconds: float | None) -> None:
        """`seconds` counts from now; None means no limit."""
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """Remaining seconds, at least 0; None for no limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the time has passed."""
        return self._end is not None and time.monotonic() >= self._end

    def __str__(self) -> str:
        return f"{self.seconds:g} s" if self.seconds is not None else "no limit"


NO_DEADLINE = Deadline(None)
