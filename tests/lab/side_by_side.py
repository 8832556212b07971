"""Tests that mostly wait, at the same time: each in a thread, each still a test of its own.

    pytestmark = pytest.mark.side_by_side

The first one of a module starts all of them that this run selected, WIDTH at a time and in their
order; then each says how its own went. So the durations that pytest prints are what was still
waited for. Such a test makes what it needs by `with`, gives it up within its own deadlines, and
neither makes nor counts what another one of its module would meet.

Tests that take fixtures of their own (others than SHARED, which are the same for all) run alone,
when those that stand before them are through. What disturbs others takes one, and stands last.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from inspect import signature
from typing import TypeGuard

import pytest

WIDTH = 6
SHARED = {"lab", "our_lab"}


class SideBySide:
    """A plugin of pytest: calls the tests that are marked `side_by_side`."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(WIDTH)
        self.going: dict[str, Future[object]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Wait for one test's end; True says that it was called."""
        if not runs_beside(pyfuncitem):
            return None
        if pyfuncitem.nodeid not in self.going:
            for item in pyfuncitem.session.items:
                if item.path == pyfuncitem.path and runs_beside(item):
                    self.start(item, pyfuncitem.funcargs)
        self.going[pyfuncitem.nodeid].result()
        return True

    def start(self, item: pytest.Function, made: Mapping[str, object]) -> None:
        """Start a test that goes without more fixtures than were made."""
        given = {**made, **parameters(item)}
        names = signature(item.obj).parameters.keys()
        if names <= given.keys() and item.nodeid not in self.going:
            words = {name: given[name] for name in names}
            self.going[item.nodeid] = self.pool.submit(item.obj, **words)

    def pytest_sessionfinish(self) -> None:
        """Nothing goes on after the last test, whatever ended the session."""
        self.pool.shutdown(cancel_futures=True)


def runs_beside(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Whether a test is marked, and takes nothing that is its own."""
    if not isinstance(item, pytest.Function) or not item.get_closest_marker("side_by_side"):
        return False
    return signature(item.obj).parameters.keys() - parameters(item).keys() <= SHARED


def parameters(item: pytest.Function) -> Mapping[str, object]:
    """What `parametrize` gives a test."""
    return item.callspec.params if hasattr(item, "callspec") else {}
