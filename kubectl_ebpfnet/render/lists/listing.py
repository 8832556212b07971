"""Lists of facts as kubectl shows them: a table, or any other format of `-o`.

A list brings its columns; cells are untrusted text and are escaped here. JSON is the facts
themselves (model/protocol/codec.py), under a versioned `schema` (docs/json.md).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Generic, TypeVar

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.render.output.formats import DOCUMENTS, LISTS, document_text, output_format
from kubectl_ebpfnet.render.text.columns import columns
from kubectl_ebpfnet.render.text.evidence import Proofs
from kubectl_ebpfnet.render.text.style import escape
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import hanging, wrap

FORMATS = ("table", "wide", "json", "yaml")
REPORTS = ("table", "wide", *DOCUMENTS)
"""Formats of an answer that has tables in it, those with a template too."""
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
        below: what stands before the cell in a line below the row, where the terminal is too
            narrow for the column; None to keep it in the row.
        key: what sorts a row, where its text does not; None for what is not known.
    """

    header: str
    cell: Callable[[Row], str]
    wide: bool = False
    elastic: bool = False
    spare: bool = False
    paint: Callable[[Row, str], str] | None = None
    least: int = 13
    below: str | None = None
    key: Callable[[Row], float | None] | None = None


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """A list to be shown.

    Attributes:
        schema: of the JSON document.
        title: first line of the table form, "" for none.
        columns: of the table forms.
        rows: the facts.
        evidence: of a row.
        nothing: the sentence of the table form without rows, "" for none.
        notes: what could not be read, and why.
        document: further members of the JSON document, before `items`.
        alone: a kubectl table: columns with nothing in them are left out, and what is to be said
            beside it (`remarks`) goes to stderr.
        name: of `-o name`.
        item: a row in the JSON document.
        folded: the rows of the short table, where several are one line of it.
        hidden: sentences that tell of rows that are not shown.
        known: what would be in the list was read, so that nothing in it means that there is none.
    """

    schema: str
    title: str
    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    evidence: Callable[[Row], tuple[Evidence, ...]]
    nothing: str
    notes: Sequence[str]
    document: Mapping[str, Any]
    alone: bool = False
    name: Callable[[Row], str] | None = None
    item: Callable[[Row], dict[str, Any]] = codec.plain
    folded: Callable[[Sequence[Row]], Sequence[Row]] | None = None
    hidden: Sequence[str] = ()
    known: bool = True


def render(
    listing: Listing[Any], bundle: Bundle, format_name: str, view: View, *, headers: bool = True
) -> str:
    """Return a list as text that ends with a newline, or "" for a table of nothing.

    Args:
        listing: the list.
        bundle: what the list was made of; evidence is quoted from it.
        format_name: of LISTS (render/output/formats.py), with its template.
        view: for table and wide.
        headers: print those of tables.

    Raises:
        UsageError: no such format, or a template that does not fit the document.
    """
    wanted = output_format(format_name, LISTS)
    if wanted.of_document:
        return document_text(wanted, lambda: document(listing, bundle))
    if wanted.name == "name":
        name = listing.name or str
        return "".join(f"{escape(name(row))}\n" for row in listing.rows)
    if wanted.name == "custom-columns":
        from kubectl_ebpfnet.render.output.custom_columns import custom_table

        return custom_table(wanted.template, map(listing.item, listing.rows), headers=headers)
    if wanted.name == "table":
        shown = [column for column in listing.columns if not column.wide]
        if listing.folded is not None:
            listing = replace(listing, rows=listing.folded(listing.rows))
        return _table(listing, bundle, view, shown, headers=headers)
    # As with kubectl, wide lines are never wrapped.
    return _table(listing, bundle, replace(view, width=0), listing.columns, headers=headers)


def document(listing: Listing[Any], bundle: Bundle) -> dict[str, Any]:
    """Return the JSON document of a list as plain values."""
    return {
        "schema": listing.schema,
        **codec.plain(dict(listing.document)),
        "items": [listing.item(row) for row in listing.rows],
        "missing": list(listing.notes),
        "bundle": {"source": bundle.source, "note": bundle.note},
    }


def remarks(listing: Listing[Any], bundle: Bundle, *, ages: bool = True) -> list[str]:
    """Return what is to be said beside a kubectl table, a sentence each, not escaped.

    Args:
        listing: the list.
        bundle: what it was made of.
        ages: the list shows ages, which a capture has as of its time.
    """
    said = [listing.nothing] if not listing.rows and listing.nothing else []
    said += listing.hidden
    said += [f"missing: {note}" for note in listing.notes]
    if ages and bundle.recorded and listing.rows:
        said.append(f"recorded {bundle.recorded}: ages and times to live are as of then")
    return said


def _table(
    listing: Listing[Any],
    bundle: Bundle,
    view: View,
    shown: Sequence[Column[Any]],
    *,
    headers: bool = True,
) -> str:
    if listing.alone:
        lines = _rows(listing, bundle, view, shown, headers=headers) if listing.rows else []
        return "".join(f"{line}\n" for line in lines)
    lines = [view.text(listing.title), ""] if listing.title else []
    if listing.rows:
        lines += _rows(listing, bundle, view, shown)
    else:
        lines += wrap(view.text(listing.nothing), view.width)
    if listing.notes:
        lines.append("")
        for note in listing.notes:
            lines += hanging("MISSING  ", view.text(note), view.width)
    return "\n".join(lines) + "\n"


def _rows(
    listing: Listing[Any],
    bundle: Bundle,
    view: View,
    shown: Sequence[Column[Any]],
    *,
    headers: bool = True,
) -> list[str]:
    table = [(column, [view.text(column.cell(row)) for row in listing.rows]) for column in shown]
    if listing.alone:
        table = [(column, texts) for column, texts in table if any(texts)]
    table = [(column, [text or "-" for text in texts]) for column, texts in table]
    below: _Table = []
    if view.width:
        table, below = _narrowed(table, view.width)
    rows = [list(row) for row in zip(*(texts for _, texts in table), strict=True)]
    if view.color:
        paints = [column.paint or _plain for column, _ in table]
        rows = [
            [paint(row, text) for paint, text in zip(paints, cells, strict=True)]
            for row, cells in zip(listing.rows, rows, strict=True)
        ]
    lines = columns([column.header for column, _ in table], rows)
    heights = [1, *(max(cell.count("\n") for cell in cells) + 1 for cells in rows)]
    blocks, proofs = _blocks(lines, heights), Proofs(bundle, view)
    for at, block in enumerate(blocks[1:]):
        for column, texts in below:
            if texts[at] != "-":
                block += _whole_words(view.text(column.below or "") + texts[at], view.width)
        if view.evidence:
            block += proofs.lines(listing.evidence(listing.rows[at]), "    ")
    return [line for block in blocks[0 if headers else 1 :] for line in block]


def _whole_words(text: str, width: int) -> list[str]:
    """Return an indented text in lines; an address may be wider than the terminal, and is not
    wrapped."""
    return textwrap.wrap(
        text, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _blocks(lines: Sequence[str], heights: Sequence[int]) -> list[list[str]]:
    """Return the lines of each row of a table."""
    ends = list(accumulate(heights))
    return [list(lines[end - height : end]) for end, height in zip(ends, heights, strict=True)]


def _plain(_row: Any, text: str) -> str:
    return text


def number(value: int | None) -> str:
    """Return a cell's number, "" where it is not known."""
    return "" if value is None else str(value)


_Table = list[tuple[Column[Any], list[str]]]


def _narrowed(table: _Table, width: int) -> tuple[_Table, _Table]:
    """Fit a table into a width: drop spare columns, the last first, then move columns below their
    rows, then wrap elastic ones. Return the table, and the columns below."""
    below: _Table = []
    while _room(table) > width:
        spare = [i for i, (column, _) in enumerate(table) if column.spare]
        if not spare:
            break
        del table[spare[-1]]
    while _room(table) > width:
        movable = [i for i, (column, _) in enumerate(table) if column.below is not None]
        if not movable:
            break
        below.insert(0, table.pop(movable[-1]))
    widths = [_widest(column, texts) for column, texts in table]
    elastic = [i for i, (column, _) in enumerate(table) if column.elastic]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        shrinking = [i for i in elastic if widths[i] > _least(*table[i])]
        if not shrinking:
            break
        widths[max(shrinking, key=lambda i: widths[i])] -= 1
    fitted = [
        (column, ["\n".join(wrap(text, room)) for text in texts] if column.elastic else texts)
        for (column, texts), room in zip(table, widths, strict=True)
    ]
    return fitted, below


def _room(table: _Table) -> int:
    """Return the least width of a table."""
    return sum(_least(column, texts) for column, texts in table) + _GAP * (len(table) - 1)


def _widest(column: Column[Any], texts: list[str]) -> int:
    return max(len(column.header), *map(len, texts))


def _least(column: Column[Any], texts: list[str]) -> int:
    whole = _widest(column, texts)
    return min(whole, max(column.least, len(column.header))) if column.elastic else whole
