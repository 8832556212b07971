"""Evaluate a template of kubectl's `-o jsonpath=…` on a document.

The rules are those of k8s.io/client-go/util/jsonpath (jsonpath.go) as kubectl calls it: a missing
key is nothing and no error. Where Go's order of a map's keys is random, that of the document is
kept; numbers are compared as numbers, where Go refuses to compare 1 with 1.5; and an empty list is
followed by the next one, where kubectl's `[*]` ends at the first.
`tests/render/output/test_jsonpath.py` holds it against the real kubectl.

What a template may cost is bounded: the values that it visits are counted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.render.output import go_text
from kubectl_ebpfnet.render.output.jsonpath_nodes import (
    Action,
    Descent,
    Field,
    Filter,
    Literal,
    Loop,
    Slice,
    Template,
    Union,
    Wildcard,
)
from kubectl_ebpfnet.render.output.jsonpath_parser import parse, shortened

MOST = 1_000_000
"""Values that a template may visit."""
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip


class JsonPath:
    """A template, ready to be asked of documents."""

    def __init__(self, text: str) -> None:
        """Raises UsageError for what is no template."""
        self._text = text
        self._template = parse(text)
        self._visited = 0

    def text(self, document: Any) -> str:
        """Return the text that the template makes of a document.

        Raises:
            UsageError: it does not fit the document: an index out of bounds, a filter of what is
                no list, a comparison of unlike values.
        """
        parts = (
            found if isinstance(found, str) else " ".join(map(go_text.text_of, found))
            for found in self._results(self._template, document)
        )
        return "".join(parts)

    def values(self, document: Any) -> list[Any]:
        """Return the values that the template's actions find, in order. Raises as `text`."""
        results = self._results(self._template, document)
        return [value for found in results if not isinstance(found, str) for value in found]

    def _results(self, template: Template, current: Any) -> Iterable[str | list[Any]]:
        for part in template:
            if isinstance(part, Loop):
                for value in self._walk([current], part.over):
                    yield from self._results(part.body, value)
            elif isinstance(part, Literal):
                yield str(part.value)
            else:
                yield self._printed(part, current)

    def _printed(self, action: Action, current: Any) -> str | list[Any]:
        found = self._walk([current], action)
        # Text between braces is the template's own, not the document's: it is printed as it is.
        if action and isinstance(action[-1], Literal) and isinstance(action[-1].value, str):
            return action[-1].value
        return found

    def _walk(self, values: list[Any], action: Action) -> list[Any]:
        for node in action:
            values = self._step(values, node)
            self._visited += len(values) + 1
            if self._visited > MOST:
                raise self._wrong(f"it visits more than {MOST:,} values")
        return values

    def _step(self, values: list[Any], node: Any) -> list[Any]:
        match node:
            case Literal(value):
                return [value] if isinstance(value, str) else [value for _ in values]
            case Field(name):
                return [each[name] for each in values if isinstance(each, dict) and name in each]
            case Slice():
                return [found for each in values for found in self._slice(each, node)]
            case Wildcard():
                return [child for each in values for child in _children(each)]
            case Descent():
                return self._descent(values)
            case Union(parts):
                return [found for part in parts for found in self._walk(values, part)]
            case Filter():
                return [found for each in values for found in self._filtered(each, node)]
        raise AssertionError(node)

    def _slice(self, value: Any, node: Slice) -> Sequence[Any]:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._wrong(f"{_kind(value)} is not array or slice")
        size = len(value)
        start = node.start or 0
        start += size if start < 0 else 0
        end = size if node.end is None else node.end
        end += size if end < 0 or (end == 0 and node.single) else 0
        if start == end:
            return ()
        for at, wrong in ((start, not 0 <= start < size), (end - 1, not 0 <= end <= size)):
            if wrong:
                raise self._wrong(f"array index out of bounds: index {at}, length {size}")
        if start > end:
            raise self._wrong(f"starting index {start} is greater than ending index {end}")
        if node.step is not None and node.step <= 0:
            raise self._wrong("step must be > 0")
        return value[start : end : node.step or 1]

    def _descent(self, values: list[Any]) -> list[Any]:
        """Return all that has something in it, parents first."""
        found: list[Any] = []
        waiting = list(reversed(values))
        while waiting:
            value = waiting.pop()
            if value and isinstance(value, (dict, list, str)):
                found.append(value)
                self._visited += 1
                if self._visited > MOST:
                    raise self._wrong(f"it visits more than {MOST:,} values")
            if not isinstance(value, str):
                waiting += reversed(_children(value))
        return found

    def _filtered(self, value: Any, node: Filter) -> Iterable[Any]:
        if not isinstance(value, list):
            raise self._wrong(f"{_kind(value)} is not array or slice and cannot be filtered")
        for each in value:
            left = self._walk([each], node.left)
            if not node.operator:
                if left:
                    yield each
                continue
            right = self._walk([each], node.right)
            if left and right and self._compared(left, node.operator, right):
                yield each

    def _compared(self, left: list[Any], sign: str, right: list[Any]) -> bool:
        if len(left) > 1 or len(right) > 1:
            raise self._wrong("can only compare one element at a time")
        kinds = {_basic_kind(left[0]), _basic_kind(right[0])}
        if "" in kinds or (kinds == {"bool"} and sign not in ("==", "!=")):
            raise self._wrong("invalid type for comparison")
        if len(kinds) > 1:
            raise self._wrong("incompatible types for comparison")
        return _COMPARE[sign](left[0], right[0])

    def _wrong(self, problem: str) -> UsageError:
        return UsageError(f"error executing jsonpath {shortened(self._text)!r}: {problem}")


def relaxed(text: str) -> str:
    """Return `x`, `.x` or `{.x}` as `{.x}`, as kubectl reads --sort-by and custom-columns."""
    inner = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    return "{." + inner.removeprefix(".") + "}"


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, str):
        return list(value.encode())  # as Go: the bytes of a string
    return value if isinstance(value, list) else []


def _kind(value: Any) -> str:
    names = {dict: "map", str: "string", bool: "bool", int: "int64", float: "float64"}
    return names.get(type(value), "<nil>")


def _basic_kind(value: Any) -> str:
    names = {str: "text", bool: "bool", int: "number", float: "number"}
    return names.get(type(value), "")
