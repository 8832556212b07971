"""Rows as a kubectl table: no borders, upper-case headers."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; a cell with newlines makes its row higher."""
    # The headers are a row: as headers, tabulate would make every column two wider.
    text = tabulate([headers, *rows], tablefmt="plain", disable_numparse=True)
    return [line.rstrip() for line in text.split("\n")]
