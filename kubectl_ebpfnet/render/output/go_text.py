"""Values as Go prints them, and Go's quoted strings: what `-o jsonpath` and `custom-columns` show.

Sources: Go's fmt (`%v`), encoding/json, strconv (FormatFloat, UnquoteChar); kubectl prints text of
`-o jsonpath` with the first, maps and lists with the second, and all of custom-columns with `%v`.

Text of a value is untrusted: what a terminal would obey is shown as an escape, but for tabs, which
lines of evidence have. kubectl prints it as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, repeat
from typing import Any

from kubectl_ebpfnet.render.text.documents import escaped_json
from kubectl_ebpfnet.render.text.style import escape

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
            "\\": "\\"}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL
)
_FOR_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def unquoted(text: str, quote: str) -> str | None:
    """Return what stands between quotes with its escapes resolved, None where Go refuses one."""
    wrong = False

    def resolved(match: re.Match[str]) -> str:
        nonlocal wrong
        number = next((g for g in match.groups()[:3] if g), None)
        code = int(number, 16) if number else int(match[4], 8) if match[4] else None
        if code is not None:
            wrong = wrong or code > (255 if match[4] else 0x10FFFF) or 0xD800 <= code <= 0xDFFF
            return "" if wrong else chr(code)
        known = quote if match[5] == quote else _ESCAPES.get(match[5])
        wrong = wrong or known is None
        return known or ""

    found = _ESCAPE.sub(resolved, text)
    return None if wrong else found


def visible(text: str) -> str:
    """Return a text without what a terminal obeys, tabs left as they are."""
    return "\t".join(map(escape, text.split("\t")))


def text_of(value: Any) -> str:
    """Return a value as `-o jsonpath` shows it: text as it is, maps and lists as JSON."""
    if isinstance(value, (dict, list, tuple)):
        return compact_json(value)
    return "null" if value is None else _basic(value)


def printed(value: Any) -> str:
    """Return a value as Go's `%v`: maps as `map[a:1 b:2]`, lists as `[1 2]`, nothing as `<nil>`."""
    if value is None:
        return "<nil>"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{visible(k)}:{printed(value[k])}" for k in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(printed, value)) + "]"
    return _basic(value)


def compact_json(value: Any) -> str:
    """Return JSON as Go's json.Marshal: sorted keys, no spaces, `<`, `>` and `&` escaped."""
    return escaped_json("".join(_encoded(value, "", "")).translate(_FOR_HTML))


def indented_json(values: Any) -> str:
    """Return JSON as `-o jsonpath-as-json` does, with a newline at its end."""
    return escaped_json("".join(_encoded(values, "\n", "    ")).translate(_FOR_HTML)) + "\n"


def _encoded(value: Any, line: str, indent: str) -> Iterator[str]:
    """Yield JSON; Python's own encoder writes floats otherwise.

    Args:
        value: plain.
        line: what begins a line, "" for none.
        indent: that of each depth.
    """
    inner = line + indent
    if isinstance(value, dict) and value:
        for key, lead in zip(sorted(value), chain("{", repeat(",")), strict=False):
            yield f"{lead}{inner}{json.dumps(key, ensure_ascii=False)}:{' ' if indent else ''}"
            yield from _encoded(value[key], inner, indent)
        yield line + "}"
    elif isinstance(value, (list, tuple)) and value:
        for each, lead in zip(value, chain("[", repeat(",")), strict=False):
            yield lead + inner
            yield from _encoded(each, inner, indent)
        yield line + "]"
    elif isinstance(value, float):
        yield _float(value, -6, 21).replace("e-0", "e-")
    else:
        yield json.dumps(value, ensure_ascii=False)


def _basic(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _float(value) if isinstance(value, float) else visible(str(value))


def _float(value: float, least: int = -4, most: int = 6) -> str:
    """Return a float as Go prints it: the fewest digits that tell it from others, with an exponent
    where that is below `least`, or not below `most`; by default as `%v` does."""
    exact = Decimal(repr(value))
    exponent = exact.adjusted()
    if value == 0 or least <= exponent < most:
        return f"{exact.normalize():f}" if value else "0"
    sign, figures, _ = exact.normalize().as_tuple()
    digits = "".join(map(str, figures))
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{'-' if sign else ''}{digits[0]}{fraction}e{exponent:+03d}"
