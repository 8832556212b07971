"""Evidence for a hop: the record, the numbers of its lines, and their text.

A fact is cited by its `span`, which its parser gave it: nothing is searched here. Text is cited by
line. JSON is cited by the object that the fact was made of, cut down to the members that prove the
hop, since one line may hold a whole table.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import lru_cache, reduce
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Record, Span
from kubectl_ebpfnet.model.matching import text_lines
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.untrusted import json_value

LONGEST_EXCERPT = 400
"""Characters of one excerpt line that are kept; JSON objects can be long."""
_LONGEST_BLOCK = 40
_DECODER = json.JSONDecoder()
_BLANKS = re.compile(r"[ \t\n\r]*")
_OPEN = 8
"""Records that are kept as lines or as a document, so that each citation does not read its record
anew: as many as the stages of a walk, or the rows of a list, cite in turn."""


def whole(record: Record | None) -> tuple[Evidence, ...]:
    """Cite the record as a whole, with the start of its stderr: for an empty or failed answer."""
    if record is None:
        return ()
    errors = record.stderr.decode("utf-8", "replace").strip().splitlines()
    return (Evidence(record.number, (), tuple(line[:LONGEST_EXCERPT] for line in errors[:3])),)


def of(record: Record | None, *spans: Span, keep: tuple[str, ...] = ()) -> tuple[Evidence, ...]:
    """Cite the places of facts in their record.

    Args:
        record: the record that the facts were read from; None gives no evidence.
        spans: of the facts.
        keep: members of JSON objects to quote, all when empty.

    Returns:
        One piece of evidence; without an excerpt when no span is a place of the record.
    """
    if record is None:
        return ()
    try:
        numbers = sorted({number for span in spans if not span.path for number in span.lines})
        text = _lines(record) if numbers else ()
        numbers = [number for number in numbers if number <= len(text)]
        quotes = [text[number - 1].strip() for number in numbers]
        quotes += [_quote(_value(record, span), keep) for span in spans if span.path]
    except (ParseError, LookupError, TypeError):  # no JSON, or not so long, or not so deep
        return (Evidence(record.number),)
    excerpt = tuple(quote[:LONGEST_EXCERPT] for quote in quotes)
    return (Evidence(record.number, tuple(numbers), excerpt),)


def block(record: Record | None, span: Span) -> tuple[Evidence, ...]:
    """Cite a fact by its lines, be it an object of a JSON document that is indented.

    Args:
        record: the record that the fact was read from; None gives no evidence.
        span: of the fact.

    Returns:
        One piece of evidence: the object in one line, as `of` cites it, where it has no lines of
        its own, or too many.
    """
    found = of(record, span)
    if record is None or not span.path or not found[0].excerpt:
        return found
    text = "\n".join(_lines(record)[max(0, span.line - 1) : span.last or None])
    begin, end = _position(text, span.path)
    first = max(1, span.line) + text.count("\n", 0, begin)
    last = first + text.count("\n", begin, end)
    return of(record, Span(first, last)) if first < last < first + _LONGEST_BLOCK else found


def line(
    record: Record | None, number: int, text: str, keep: tuple[str, ...] = ()
) -> tuple[Evidence, ...]:
    """Cite a line that the caller has read already, so that a long record is not read again.

    Args:
        record: the record that holds the line; None gives no evidence.
        number: its 1-based number there.
        text: the line itself.
        keep: members of a `{"flow": {…}}` of hubble to quote, where it is longer than an excerpt.
    """
    if record is None:
        return ()
    if keep and len(text) > LONGEST_EXCERPT:
        with suppress(ParseError, LookupError, TypeError):  # text of another form is cut
            text = _quote(json_value(text.encode(), record.command)["flow"], keep)
    return (Evidence(record.number, (number,), (text.strip()[:LONGEST_EXCERPT],)),)


def _position(text: str, path: tuple[str | int, ...]) -> tuple[int, int]:
    """Return where the value that a path leads to begins and ends in a valid JSON document."""
    at = _blanks(text, 0)
    for step in path:
        at, index = _blanks(text, at + 1), 0
        while True:
            key: str | int = index
            if isinstance(step, str):
                key, at = _DECODER.raw_decode(text, at)
                at = _blanks(text, _blanks(text, at) + 1)
            if key == step:
                break
            at = _blanks(text, _blanks(text, _DECODER.raw_decode(text, at)[1]) + 1)
            index += 1
    return at, _DECODER.raw_decode(text, at)[1]


def _blanks(text: str, at: int) -> int:
    return _BLANKS.match(text, at).end()  # type: ignore[union-attr]  # it matches anything


def _quote(value: Any, keep: tuple[str, ...]) -> str:
    shown = {key: value[key] for key in keep if key in value} if keep else value
    return json.dumps(shown, separators=(", ", ": "), ensure_ascii=False)


def _value(record: Record, span: Span) -> Any:
    """Follow the path of a span. Raises ParseError or LookupError where it leads nowhere."""
    document = _document(record, span.line, span.last)
    return reduce(lambda value, step: value[step], span.path, document)


@lru_cache(maxsize=_OPEN)
def _lines(record: Record) -> list[str]:
    return text_lines(record.stdout.read().decode("utf-8", "replace"))


@lru_cache(maxsize=_OPEN)
def _document(record: Record, first: int, last: int) -> Any:
    """Return the JSON document in these lines of a record, in all of it for line 0."""
    if not first:
        return json_value(record.stdout.read(), record.command)
    return json_value("\n".join(_lines(record)[first - 1 : last]).encode(), record.command)
