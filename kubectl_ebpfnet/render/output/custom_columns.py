"""`-o custom-columns=HEADER:.path,…` (kubectl's pkg/cmd/get/customcolumn.go)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.render.output.go_text import printed
from kubectl_ebpfnet.render.output.jsonpath import JsonPath, relaxed
from kubectl_ebpfnet.render.text.style import escape

_LEAST, _GAP = 6, 3


def parse_columns(template: str) -> list[tuple[str, JsonPath]]:
    """Return the headers and the paths of a template; that of a file has them in two lines.

    Raises:
        UsageError: a column has no path, or one that cannot be read.
    """
    lines = template.split("\n")
    if len([line for line in lines if line.strip()]) == 2:  # as custom-columns-file has them
        headers, paths = (line.split() for line in lines if line.strip())
        if len(headers) != len(paths):
            raise UsageError(
                f"number of headers ({len(headers)}) and paths ({len(paths)}) differ in "
                "custom-columns-file"
            )
        pairs = list(zip(headers, paths, strict=True))
    else:
        pairs = [_pair(part) for part in template.split(",")]
    return [(header, JsonPath(relaxed(path))) for header, path in pairs]


def _pair(part: str) -> tuple[str, str]:
    header, colon, path = part.partition(":")
    if not colon or not path:
        raise UsageError(
            f"unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
        )
    return header, path


def custom_table(template: str, items: Iterable[Any], *, headers: bool) -> str:
    """Return a table of these columns.

    Args:
        template: as of `parse_columns`.
        items: plain values, one a row.
        headers: print the headers.

    Raises:
        UsageError: a path does not fit an item.
    """
    columns = parse_columns(template)
    rows = [[escape(header) for header, _ in columns]] if headers else []
    for item in items:
        found = [path.values(item) for _, path in columns]
        rows.append(
            [escape(",".join(map(printed, values))) if values else "<none>" for values in found]
        )
    if not rows:
        return ""
    # As kubectl's tabwriter: three spaces, and at least six characters a column.
    widths = [max(*map(len, cells), _LEAST - _GAP) + _GAP for cells in zip(*rows, strict=True)]
    return "".join("".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)
