"""The API server's clock, by the dates of its answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from kubectl_ebpfnet.cluster.client.clock import ServerClock


def learnt(ahead: timedelta, took: timedelta = timedelta(0)) -> ServerClock:
    """A clock that learnt from an answer which took a while."""
    clock, now = ServerClock(), datetime.now(UTC)
    clock.learn(format_datetime(now + ahead, usegmt=True), now - took)
    return clock


def test_clocks_that_agree_to_the_second_of_a_date_are_one() -> None:
    clock = learnt(timedelta(0))  # rounded down
    assert (clock.ahead, clock.remark) == (timedelta(0), "")


def test_a_slow_answer_is_no_wrong_clock() -> None:
    assert learnt(timedelta(seconds=-29), timedelta(seconds=30)).ahead == timedelta(0)


@pytest.mark.parametrize(
    ("hours", "words"), [(1, "is 1 h 0 min behind"), (-2.5, "is 2 h 30 min ahead of")]
)
def test_the_time_is_the_servers(hours: float, words: str) -> None:
    clock = learnt(timedelta(hours=hours))
    off = clock.now() - datetime.now(UTC) - timedelta(hours=hours)
    assert abs(off) < timedelta(seconds=5)
    assert words in clock.remark


def test_a_second_answer_corrects_the_first() -> None:
    clock = learnt(timedelta(hours=1))
    now = datetime.now(UTC)
    clock.learn(format_datetime(now, usegmt=True), now)
    assert clock.ahead == timedelta(0)


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 01 Dec 2026 25:00:00 GMT", "Tue, 01 Dec"])
def test_a_date_that_is_none_changes_nothing(date: str) -> None:
    clock = learnt(timedelta(hours=1))
    ahead = clock.ahead
    clock.learn(date, datetime.now(UTC))
    assert clock.ahead == ahead
