"""Lists of facts as kubectl shows them: a table, a wide table, JSON or YAML.

A list brings its columns; cells are untrusted text and are escaped here. JSON is the facts
themselves (model/protocol/codec.py), under a versioned `schema` (docs/json.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.render.path.document import safe_text
from kubectl_ebpfnet.render.text.captured import captured
from kubectl_ebpfnet.render.text.columns import columns
from kubectl_ebpfnet.render.text.evidence import under_rows
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap

FORMATS = ("table", "wide", "json", "yaml")
Row = TypeVar("Row")
_GAP = 2


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A column of a table.

    Attributes:
        header: upper case.
        cell: the text of a row's cell; "" shows as `-`.
        wide: shown by `-o wide` only.
        elastic: wrapped where the terminal is too narrow.
        spare: left out where wrapping is not enough; `-o wide` and JSON have it.
        paint: colours a row's cell, in codes that take no room; None for no colour.
        least: columns of the terminal below which an elastic column does not shrink.
    """

    header: str
    cell: Callable[[Row], str]
    wide: bool = False
    elastic: bool = False
    spare: bool = False
    paint: Callable[[Row, str], str] | None = None
    least: int = 13


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """A list to be shown.

    Attributes:
        schema: of the JSON document.
        title: first line of the table form, "" for none.
        columns: of the table forms.
        rows: the facts.
        evidence: of a row.
        nothing: the sentence of the table form without rows.
        notes: sentences below the table: what could not be read, and why.
        document: further members of the JSON document, before `items`.
        more: the sentence that tells of rows that are not shown, "" for none.
    """

    schema: str
    title: str
    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    evidence: Callable[[Row], tuple[Evidence, ...]]
    nothing: str
    notes: Sequence[str]
    document: Mapping[str, Any]
    more: str = ""


def render(listing: Listing[Any], bundle: Bundle, format_name: str, view: View) -> str:
    """Return a list as text that ends with a newline.

    Args:
        listing: the list.
        bundle: what the list was made of; evidence is quoted from it.
        format_name: of FORMATS.
        view: for table and wide.

    Raises:
        ValueError: no such format.
    """
    if format_name not in FORMATS:
        raise ValueError(f"no format {format_name!r}; there are {', '.join(FORMATS)}")
    if format_name in ("json", "yaml"):
        return safe_text(_document(listing, bundle), format_name)
    if format_name == "table":
        return _table(listing, bundle, view, [c for c in listing.columns if not c.wide])
    # As with kubectl, wide lines are never wrapped.
    return _table(listing, bundle, replace(view, width=0), listing.columns)


def _document(listing: Listing[Any], bundle: Bundle) -> dict[str, Any]:
    return {
        "schema": listing.schema,
        **codec.plain(dict(listing.document)),
        "items": [codec.plain(row) for row in listing.rows],
        "missing": list(listing.notes),
        "bundle": {"source": bundle.source, "note": bundle.note},
    }


def _table(listing: Listing[Any], bundle: Bundle, view: View, shown: Sequence[Column[Any]]) -> str:
    lines: list[str] = [escape(listing.title), ""] if listing.title else []
    if listing.rows:
        lines += _rows(listing, bundle, view, shown)
    else:
        lines += wrap(escape(listing.nothing), view.width)
    if listing.more:
        lines += ["", *hanging("MORE  ", escape(listing.more), view.width)]
    if listing.notes:
        lines.append("")
        for note in listing.notes:
            lines += hanging("MISSING  ", escape(note), view.width)
    for text in captured(bundle):
        lines += ["", *hanging("NOTE  ", escape(text), view.width)]
    return "\n".join(lines) + "\n"


def _rows(
    listing: Listing[Any], bundle: Bundle, view: View, shown: Sequence[Column[Any]]
) -> list[str]:
    table = [
        (column, [escape(column.cell(row)) or "-" for row in listing.rows]) for column in shown
    ]
    if view.width:
        table = _narrowed(table, view.width)
    headers = [column.header for column, _ in table]
    rows = [list(row) for row in zip(*(texts for _, texts in table), strict=True)]
    if view.color:
        paints = [column.paint or _plain for column, _ in table]
        rows = [
            [paint(row, text) for paint, text in zip(paints, cells, strict=True)]
            for row, cells in zip(listing.rows, rows, strict=True)
        ]
    lines = columns(headers, rows)
    if not view.evidence:
        return lines
    return under_rows(lines, rows, map(listing.evidence, listing.rows), bundle)


def _plain(_row: Any, text: str) -> str:
    return text


def number(value: int | None) -> str:
    """Return a cell's number, "" where it is not known."""
    return "" if value is None else str(value)


_Table = list[tuple[Column[Any], list[str]]]


def _narrowed(table: _Table, width: int) -> _Table:
    """Fit a table into a width: drop spare columns, the last first, then wrap elastic ones."""
    while _room(table) > width:
        spare = [i for i, (column, _) in enumerate(table) if column.spare]
        if not spare:
            break
        del table[spare[-1]]
    widths = [_widest(column, texts) for column, texts in table]
    elastic = [i for i, (column, _) in enumerate(table) if column.elastic]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        shrinking = [i for i in elastic if widths[i] > _least(*table[i])]
        if not shrinking:
            break
        widths[max(shrinking, key=lambda i: widths[i])] -= 1
    return [
        (column, ["\n".join(wrap(text, room)) for text in texts])
        for (column, texts), room in zip(table, widths, strict=True)
    ]


def _room(table: _Table) -> int:
    """Return the least width of a table."""
    return sum(_least(column, texts) for column, texts in table) + _GAP * (len(table) - 1)


def _widest(column: Column[Any], texts: list[str]) -> int:
    return max(len(column.header), *map(len, texts))


def _least(column: Column[Any], texts: list[str]) -> int:
    whole = _widest(column, texts)
    return min(whole, max(column.least, len(column.header))) if column.elastic else whole
