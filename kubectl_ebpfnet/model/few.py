"""The first of many things in words, as every sentence names them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def few(
    things: Collection[T], most: int, text: Callable[[T], str] = str, more: str = "more"
) -> str:
    """Return `a, b, c and 7 more`, or all of them where there are no more.

    Args:
        things: to name, in their order.
        most: how many are named.
        text: names one.
        more: what the others are called: `more`, `more rules`.
    """
    rest = len(things) - most
    named = ", ".join(map(text, islice(things, most)))
    return f"{named} and {rest} {more}" if rest > 0 else named
