"""`--sort-by`: the rows of a list by a column, or by a field of the JSON document."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.render.lists.listing import Column, Listing
from kubectl_ebpfnet.render.output.jsonpath import JsonPath, relaxed

_NUMBERS = re.compile(r"([0-9]+)")
_Key = tuple[int, Any]
_NOTHING: _Key = (0, 0)


def sorted_by(listing: Listing[Any], word: str) -> Listing[Any]:
    """Return a list in the order of a column or a field; what has no value comes first, as in
    kubectl.

    Args:
        listing: the list.
        word: the header of a column (`last-seen`, in any case), or a field as kubectl takes it:
            `.flow.source_port`, `{.flow.source_port}`.

    Raises:
        UsageError: it is neither, or no item has the field.
    """
    column = next((each for each in listing.columns if _plain(each.header) == _plain(word)), None)
    key = _of_column(column) if column is not None else _of_field(listing, word)
    rows, fold = listing.rows, listing.folded
    folded = None if fold is None else lambda _: sorted(fold(rows), key=key)
    return replace(listing, rows=sorted(rows, key=key), folded=folded)


def _of_field(listing: Listing[Any], word: str) -> Callable[[Any], _Key]:
    path = JsonPath(relaxed(word))

    def key(row: Any) -> _Key:
        return _key(next(iter(path.values(listing.item(row))), None))

    if listing.rows and all(key(row) == _NOTHING for row in listing.rows):
        headers = ", ".join(each.header.lower().replace(" ", "-") for each in listing.columns)
        raise UsageError(
            f'couldn\'t find any field with path "{relaxed(word)}" in the list of objects',
            hint=f"a field of -o json, or a column: {headers}",
        )
    return key


def _plain(header: str) -> str:
    return re.sub(r"[-_ ]", "", header).lower()


def _of_column(column: Column[Any]) -> Callable[[Any], _Key]:
    key = column.key
    if key is not None:
        return lambda row: _key(key(row))
    return lambda row: _key(column.cell(row) or None)


def _key(value: Any) -> _Key:
    """Return what sorts a value: nothing, then numbers, then text, its numbers as numbers."""
    if value is None:
        return _NOTHING
    if isinstance(value, (int, float)):
        return 1, value
    return 2, _natural(value if isinstance(value, str) else repr(value))


def _natural(text: str) -> Sequence[Any]:
    parts = _NUMBERS.split(text)  # text and numbers in turn
    return [int(part[:40]) if at % 2 else part for at, part in enumerate(parts)]
