"""Reads the recorded outputs that lie beside the tests (samples/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SAMPLES = Path(__file__).parent / "samples"


def sample(path: str) -> bytes:
    """The bytes of samples/<path>."""
    return (SAMPLES / path).read_bytes()


def line_at(data: bytes, number: int) -> str:
    """The text of a 1-based line, to compare a fact's line with what stands there."""
    return data.decode().split("\n")[number - 1]


def every(entry: Callable[[bytes, int], T | None], data: bytes) -> tuple[T, ...]:
    """What a parser of lines makes of a whole list."""
    found = (entry(line, number) for number, line in enumerate(data.split(b"\n"), start=1))
    return tuple(one for one in found if one is not None)
