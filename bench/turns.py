"""Whole processes, warm, taken in turns so that a busy machine slows all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping


def medians(
    compared: Mapping[str, list[str]], seconds: Callable[[list[str]], float], runs: int
) -> dict[str, float]:
    """Return the median seconds of each command by its name, and print them.

    Args:
        compared: name → argv.
        seconds: runs an argv, and returns what it took.
        runs: of each; one more comes before, and does not count.
    """
    taken: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(runs + 1):
        for name, argv in compared.items():
            taken[name].append(seconds(argv))
    found = {name: statistics.median(times[1:]) for name, times in taken.items()}
    for name, median in found.items():
        print(f"{name:<28} {median * 1000:6.1f} ms")
    return found
