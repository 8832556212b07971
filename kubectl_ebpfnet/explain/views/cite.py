"""Evidence for a hop: the record, the numbers of its lines, and their text.

Text is cited by line. JSON is cited by the object that matters, cut down to the keys that prove
the hop, since one line may hold a whole table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.untrusted import json_value

LONGEST_EXCERPT = 400
"""Characters of one excerpt line that are kept; JSON objects can be long."""


def whole(record: Record | None) -> tuple[Evidence, ...]:
    """Cite the record as a whole, with the start of its stderr: for an empty or failed answer."""
    if record is None:
        return ()
    errors = record.stderr.decode("utf-8", "replace").strip().splitlines()
    return (Evidence(record.number, (), tuple(line[:LONGEST_EXCERPT] for line in errors[:3])),)


def lines(record: Record | None, numbers: Iterable[int]) -> tuple[Evidence, ...]:
    """Cite lines of a text record by number; leave out numbers below 1 or past the end."""
    if record is None:
        return ()
    wanted = tuple(sorted({number for number in numbers if number > 0}))
    if not wanted:
        return (Evidence(record.number),)
    text = record.stdout.read().decode("utf-8", "replace").splitlines()
    found = tuple(number for number in wanted if number <= len(text))
    excerpt = tuple(text[number - 1].strip()[:LONGEST_EXCERPT] for number in found)
    return (Evidence(record.number, found, excerpt),)


def line(record: Record | None, number: int, text: str) -> tuple[Evidence, ...]:
    """Cite a line that the caller has read already, so that a long record is not read again.

    Args:
        record: the record that holds the line; None gives no evidence.
        number: its 1-based number there.
        text: the line itself.
    """
    if record is None:
        return ()
    return (Evidence(record.number, (number,), (text.strip()[:LONGEST_EXCERPT],)),)


def json_object(
    record: Record | None, where: Mapping[str, Any], keep: tuple[str, ...] = ()
) -> tuple[Evidence, ...]:
    """Cite the first object in a JSON record whose members equal `where`.

    Args:
        record: the record; None gives no evidence.
        where: member names and values, e.g. {"ifname": "eth0"}.
        keep: members to quote, all when empty.

    Returns:
        One piece of evidence; without an excerpt when no object matches.
    """
    if record is None:
        return ()
    try:
        value = json_value(record.stdout.read(), "a record")
    except ParseError:
        return (Evidence(record.number),)
    for item in _objects(value):
        if all(item.get(key) == wanted for key, wanted in where.items()):
            shown = {key: item[key] for key in keep if key in item} if keep else item
            text = json.dumps(shown, separators=(", ", ": "), ensure_ascii=False)
            return (Evidence(record.number, (), (text[:LONGEST_EXCERPT],)),)
    return (Evidence(record.number),)


def is_json(record: Record) -> bool:
    """Tell whether the record holds a single JSON document."""
    return any(word in ("-j", "json", "-o=json") for word in record.argv)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    queue = [value]
    while queue:
        item = queue.pop(0)
        if isinstance(item, dict):
            yield item
            queue.extend(item.values())
        elif isinstance(item, list):
            queue.extend(item)
