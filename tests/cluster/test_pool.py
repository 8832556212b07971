"""Calls beside each other: how many threads there are, and what becomes of results and errors."""

from __future__ import annotations

import threading

import pytest

from kubectl_ebpfnet.cluster.pool import MOST, Pool


def test_many_calls_share_a_few_threads() -> None:
    gate = threading.Event()
    others = set(threading.enumerate())

    def call(number: int) -> int:
        assert gate.wait(20)
        return number

    jobs = Pool()
    futures = [jobs.start(lambda number=number: call(number)) for number in range(2000)]
    threads = set(threading.enumerate()) - others
    gate.set()
    assert len(threads) == MOST
    assert [future.result(20) for future in futures] == list(range(2000))


def test_calls_run_in_their_order_and_at_most_so_many_at_a_time() -> None:
    running, most, order = 0, 0, []
    lock = threading.Lock()
    meeting = threading.Barrier(3)

    def call(number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            order.append(number)
        meeting.wait(20)  # passes only if three of them run beside each other
        with lock:
            running -= 1

    jobs = Pool(3)
    for future in [jobs.start(lambda number=number: call(number)) for number in range(30)]:
        future.result(20)
    assert most == 3
    assert [sorted(order[at : at + 3]) for at in range(0, 30, 3)] == [
        [at, at + 1, at + 2] for at in range(0, 30, 3)
    ]


def test_an_exception_is_in_the_future_and_ends_no_thread_for_others() -> None:
    def fails() -> None:
        raise SystemExit(3)

    jobs = Pool(1)
    first, second = jobs.start(fails), jobs.start(lambda: 2)
    with pytest.raises(SystemExit):
        first.result(20)
    assert second.result(20) == 2
