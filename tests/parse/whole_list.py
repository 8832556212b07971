"""Reads whole what the program reads line by line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def entries(reader: Callable[[bytes, int], T | None], data: bytes) -> tuple[T, ...]:
    """Every entry of a list.

    Args:
        reader: `entry` of a parser: a line and its 1-based number → the entry, or None.
        data: the list.
    """
    found = (reader(line, number) for number, line in enumerate(data.split(b"\n"), start=1))
    return tuple(entry for entry in found if entry is not None)
