"""The first of many things in words."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.model.few import few


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (9, "0, 1, 2 and 6 more")],
)
def test_the_others_are_counted(count: int, words: str) -> None:
    assert few(range(count), 3) == words


def test_only_those_that_are_named_are_put_into_words() -> None:
    asked: list[int] = []

    def text(number: int) -> str:
        asked.append(number)
        return f"rule {number}"

    assert few(range(1000), 2, text, "more rules") == "rule 0, rule 1 and 998 more rules"
    assert asked == [0, 1]
