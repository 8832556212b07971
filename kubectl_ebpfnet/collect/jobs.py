"""Blocking calls beside each other, in threads that never keep the program alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

MOST = 16
"""Calls that run at the same time."""


class Jobs:
    """Starts calls in threads of their own; at most `most` of them run at a time."""

    def __init__(self, most: int = MOST) -> None:
        self._room = threading.BoundedSemaphore(most)

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Run a call; its result or exception is in the future. A daemon thread runs it, so that
        a place that never answers cannot keep the program from ending."""
        future: Future[T] = Future()

        def run() -> None:
            with self._room:
                try:
                    future.set_result(call())
                except BaseException as error:  # handed on, to be raised where it is waited for
                    future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future


class Deadline:
    """A point in time by which a run has to end."""

    def __init__(self, seconds: float | None) -> None:
        """`seconds` from now; None is never."""
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """Seconds that are left, not below 0; None for no limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether it has passed."""
        return self._end is not None and time.monotonic() >= self._end

    def __str__(self) -> str:
        return f"{self.seconds:g} s" if self.seconds is not None else "no limit"


NO_DEADLINE = Deadline(None)
