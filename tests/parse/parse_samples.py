"""Reads the recorded outputs that lie beside the tests (samples/README.md)."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"


def sample(path: str) -> bytes:
    """The bytes of samples/<path>."""
    return (SAMPLES / path).read_bytes()


def line_at(data: bytes, number: int) -> str:
    """The text of a 1-based line, to compare a fact's line with what stands there."""
    return data.decode().split("\n")[number - 1]
