"""Tests that mostly wait, at the same time: each in a thread, each still a test of its own.

    pytestmark = pytest.mark.side_by_side

The first one of a module starts all of them that this run selected, WIDTH at a time and in their
order; then each says how its own went. So the durations that pytest prints are what was still
waited for. Such a test makes what it needs by `with`, gives it up within its own deadlines, and
neither makes nor counts what another one of its module would meet.

Tests that take fixtures of their own (others than SHARED, which are the same for all) run alone,
when those that stand before them are through. What disturbs others takes one, and stands last.

A test that ends before its thread does (pytest-timeout, an interrupt) has the thread's children
killed, and no thread keeps pytest from its end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from inspect import signature
from pathlib import Path
from queue import SimpleQueue
from typing import TypeGuard

import pytest

WIDTH = 6
SHARED = {"lab", "our_lab", "kept"}


class SideBySide:
    """A plugin of pytest: calls the tests that are marked `side_by_side`."""

    def __init__(self) -> None:
        self.waiting: SimpleQueue[tuple[str, Callable[[], object]]] = SimpleQueue()
        self.going: dict[str, Future[object]] = {}
        self.threads: dict[str, int] = {}
        """Which thread runs a test that was begun."""
        # Not an executor: Python waits for its threads at the end, whatever they wait for.
        for _ in range(WIDTH):
            threading.Thread(target=self.work, daemon=True).start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Wait for one test's end; True says that it was called."""
        if not runs_beside(pyfuncitem):
            return None
        if pyfuncitem.nodeid not in self.going:
            for item in pyfuncitem.session.items:
                if item.path == pyfuncitem.path and runs_beside(item):
                    self.start(item, pyfuncitem.funcargs)
        one = self.going[pyfuncitem.nodeid]
        try:
            one.result()
        finally:
            if not one.done():
                self.give_up(pyfuncitem.nodeid)
        return True

    def start(self, item: pytest.Function, made: Mapping[str, object]) -> None:
        """Start a test that goes without more fixtures than were made."""
        given = {**made, **parameters(item)}
        names = signature(item.obj).parameters.keys()
        if names <= given.keys() and item.nodeid not in self.going:
            words = {name: given[name] for name in names}
            self.going[item.nodeid] = Future()
            self.waiting.put((item.nodeid, partial(item.obj, **words)))

    def work(self) -> None:
        """Run tests, one after the other."""
        while True:
            name, call = self.waiting.get()
            one = self.going[name]
            if not one.set_running_or_notify_cancel():
                continue
            self.threads[name] = threading.get_native_id()
            try:
                one.set_result(call())
            except BaseException as error:  # pytest's own skip and fail are no Exception
                one.set_exception(error)

    def give_up(self, name: str) -> None:
        """End what a test waits for, if it was begun; else never begin it."""
        if not self.going[name].cancel() and name in self.threads:
            for pid in list(children(Path(f"/proc/self/task/{self.threads[name]}"))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def pytest_sessionfinish(self) -> None:
        """Nothing goes on after the last test, whatever ended the session."""
        for name, one in self.going.items():
            if not one.done():
                self.give_up(name)


def children(task: Path) -> Iterator[int]:
    """The processes that a thread started, and theirs (proc(5), /proc/PID/task/TID/children)."""
    with suppress(OSError):  # it has ended
        for word in (task / "children").read_text().split():
            yield int(word)
            for below in Path(f"/proc/{word}/task").iterdir():
                yield from children(below)


def runs_beside(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Whether a test is marked, and takes nothing that is its own."""
    if not isinstance(item, pytest.Function) or not item.get_closest_marker("side_by_side"):
        return False
    return signature(item.obj).parameters.keys() - parameters(item).keys() <= SHARED


def parameters(item: pytest.Function) -> Mapping[str, object]:
    """What `parametrize` gives a test."""
    return item.callspec.params if hasattr(item, "callspec") else {}
