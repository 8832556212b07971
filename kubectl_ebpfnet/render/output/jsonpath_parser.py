"""Parse a template of kubectl's `-o jsonpath=…`.

The dialect is that of k8s.io/client-go/util/jsonpath (parser.go), with its quirks: `['a.b']` is the
field `b` of `a`, since a quoted key is read as the field that it would be without quotes, so a dot
in a name is written `\\.`. No library for Python reads it: all have other filters, and none `range`
or text between braces. Beside its errors, a `range` without `end` and unknown words are refused
here, where kubectl prints something.

Templates are bounded in length and depth: a template may come from a file.
"""

from __future__ import annotations

import re

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.render.output.go_text import unquoted
from kubectl_ebpfnet.render.output.jsonpath_nodes import (
    Action,
    Descent,
    Field,
    Filter,
    Literal,
    Loop,
    Node,
    Slice,
    Template,
    Union,
    Wildcard,
)

_LONGEST = 65536
_DEEPEST = 20
_SHOWN = 200  # characters of a template in an error
_DICT_KEY = re.compile(r"'([^']*)'")
_SLICE = re.compile(r"(-?[0-9]*)(:-?[0-9]*)?(:-?[0-9]*)?")
_FILTER = re.compile(r"([^!<>=]+)([!<>=]+)(.+)", re.DOTALL)
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
_END = ""
_TERMINATORS = frozenset(" \t\r\n.,[]$@{}")


@dataclass(frozen=True, slots=True)
class _Word:
    """`range` or `end`."""

    name: str
    at: int


def parse(text: str) -> Template:
    """Parse a template: text, and actions in braces.

    Raises:
        UsageError: it is no template of this dialect; the error names the place.
    """
    if len(text) > _LONGEST:
        raise UsageError(f"jsonpath template: longer than {_LONGEST} characters")
    pieces: list[Literal | list[Node | _Word]] = []
    at = 0
    while at < len(text):
        start = text.find("{", at)
        if start != at:
            pieces.append(Literal(text[at : start if start >= 0 else len(text)]))
        if start < 0:
            break
        parser = _Action(text, start + 1)
        pieces.append(parser.nodes())
        at = parser.at
    found, rest = _nested(text, pieces, 0, None, 0)
    assert rest == len(pieces)
    return found


def _nested(
    text: str, pieces: list[Literal | list[Node | _Word]], at: int, begun: int | None, depth: int
) -> tuple[Template, int]:
    """Return the pieces up to the `end` of a loop that began at a character, and their number."""
    if depth > _DEEPEST:
        raise _error(text, begun or 0, f"more than {_DEEPEST} ranges in one another")
    found: list[Literal | Loop | Action] = []
    while at < len(pieces):
        piece = pieces[at]
        if isinstance(piece, Literal):
            found.append(piece)
            at += 1
            continue
        words = [node for node in piece if isinstance(node, _Word)]
        action = tuple(node for node in piece if not isinstance(node, _Word))
        if len(words) > 1:
            raise _error(text, words[1].at, f"a second {words[1].name} between the same braces")
        if not words:
            found.append(action)
            at += 1
        elif words[0].name == "end":
            if begun is None:
                raise _error(text, words[0].at, "not in range, nothing to end")
            return tuple(found), at + 1
        else:
            body, at = _nested(text, pieces, at + 1, words[0].at, depth + 1)
            found.append(Loop(action, body))
    if begun is not None:
        raise _error(text, begun, "range without {end}")
    return tuple(found), at


def shortened(text: str) -> str:
    """Return a template as an error shows it."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _error(text: str, at: int, problem: str) -> UsageError:
    return UsageError(
        f"error parsing jsonpath {shortened(text)}, {shortened(problem)} (at character {at + 1})"
    )


class _Action:
    """Reads one action, from behind its opening brace to behind its closing brace."""

    def __init__(self, text: str, at: int, whole: str = "", base: int = 0) -> None:
        """`whole` and `base`: the template of which `text` is a part, and where it begins there."""
        self.at = at
        self._text, self._whole, self._base = text, whole or text, base

    def nodes(self) -> list[Node | _Word]:
        """Read the nodes of the action."""
        found: list[Node | _Word] = []
        while True:
            text, at = self._text, self.at
            if text.startswith("[?(", at):
                found.append(self._filter())
            elif text.startswith("..", at):
                if found and isinstance(found[-1], Descent):
                    raise self._wrong("invalid multiple recursive descent")
                found.append(Descent())
                self.at += 2
                if self._peek().isalnum() or self._peek() == "_":
                    found.append(self._field())
            else:
                self.at += 1
                character = text[at : at + 1]
                if character == "}":
                    return found
                if character in (_END, "\n", "\r"):
                    raise self._wrong("unclosed action", at)
                if character in " @$":
                    continue
                found += self._node(character)

    def _node(self, character: str) -> list[Node | _Word]:
        if character == "[":
            return [*self._array()]
        if character in "\"'":
            return [self._quoted(character)]
        if character == ".":
            return [self._field()]
        self.at -= 1
        if character in "+-" or character.isdecimal():
            return [self._number()]
        if character.isalpha() or character == "_":
            return [self._word()]
        raise self._wrong(f"unrecognized character in action: U+{ord(character):04X} {character!r}")

    def _peek(self) -> str:
        return self._text[self.at : self.at + 1]

    def _wrong(self, problem: str, at: int | None = None) -> UsageError:
        return _error(self._whole, self._base + (self.at if at is None else at), problem)

    def _part(self, text: str, at: int) -> Action:
        """Read a part as an action of its own, which begins at a character of this text.

        Parts have no parts like themselves: a filter ends at the first `)`, a union at `]`.
        """
        inner = _Action(text + "}", 0, self._whole, self._base + at)
        nodes = inner.nodes()
        if inner.at != len(text) + 1:
            raise self._wrong("unrecognized character in action: '}'", at)
        if word := next((node for node in nodes if isinstance(node, _Word)), None):
            raise self._wrong(f"{word.name} stands between braces of its own", at)
        return tuple(node for node in nodes if not isinstance(node, _Word))

    def _word(self) -> Literal | _Word:
        start = self.at
        while self._peek() and self._peek() not in _TERMINATORS:
            self.at += 1
        word = self._text[start : self.at]
        if word in ("true", "false"):
            return Literal(word == "true")
        if word not in ("range", "end"):
            raise self._wrong(f"unrecognized identifier {word}", start)
        return _Word(word, self._base + start)

    def _number(self) -> Literal:
        start = self.at
        self.at += self._peek() in ("+", "-")
        while self._peek().isdecimal() or self._peek() == ".":
            self.at += 1
        word = self._text[start : self.at]
        if not word.isascii() or not re.fullmatch(r"[+-]?([0-9]{1,18}|[0-9]*\.[0-9]*)", word):
            raise self._wrong(f"cannot parse number {word}", start)
        try:
            return Literal(float(word) if "." in word else int(word))
        except ValueError:
            raise self._wrong(f"cannot parse number {word}", start) from None

    def _quoted(self, quote: str) -> Literal:
        start = self.at - 1
        end = self.at
        while True:
            end = self._text.find(quote, end)
            if end < 0 or "\n" in self._text[start:end]:
                raise self._wrong("unterminated quoted string", start)
            if self._text[end - 1] != "\\":
                break
            end += 1
        self.at = end + 1
        text = unquoted(self._text[start + 1 : end], quote)
        if text is None:
            raise self._wrong(f"unquote string {self._text[start : end + 1]} error", start)
        return Literal(text)

    def _field(self) -> Field | Wildcard:
        start = self.at
        while self._peek() and self._peek() not in _TERMINATORS:
            self.at += 2 if self._peek() == "\\" else 1
        self.at = min(self.at, len(self._text))
        name = self._text[start : self.at]
        return Wildcard() if name == "*" else Field(name.replace("\\", ""))

    def _array(self) -> Action:
        start = self.at
        end = self._text.find("]", start)
        if end < 0 or "\n" in self._text[start:end]:
            raise self._wrong("unterminated array", start - 1)
        self.at = end + 1
        text = self._text[start:end]
        parts = text.split(",")
        if len(parts) > 1:
            each = [f"[{part.strip(' ')}]" for part in parts]
            return (Union(tuple(self._part(part, start) for part in each)),)
        key = _DICT_KEY.fullmatch(text)
        if key is not None:
            return self._part(f".{key[1]}", start)
        return (self._slice(":" if text == "*" else text, start),)

    def _slice(self, text: str, at: int) -> Slice:
        found = _SLICE.fullmatch(text)
        if found is None or any(len(group or "") > 19 for group in found.groups()):
            raise self._wrong(f"invalid array index {text}", at)
        numbers: list[int | None] = []
        for word in (found[1], found[2], found[3]):
            word = (word or "").removeprefix(":")
            if word == "-":
                raise self._wrong(f"array index {word} is not a number", at)
            numbers.append(int(word) if word else None)
        start, end, step = numbers
        if found[2] is None:
            return Slice(start, (start or 0) + 1, step, single=True)
        return Slice(start, end, step)

    def _filter(self) -> Filter:
        opened = self.at
        self.at += len("[?(")
        start, quote, closed = self.at, "", False
        while True:
            character = self._peek()
            if character in (_END, "\n"):
                raise self._wrong("unterminated filter", opened)
            self.at += 1
            if character in "\"'" and not quote:
                quote = character
            elif character == quote and self._text[self.at - 2] != "\\":
                closed = True
            elif character == ")" and bool(quote) == closed:
                break
        text = self._text[start : self.at - 1]
        if self._peek() != "]":
            raise self._wrong("unclosed array expect ]")
        self.at += 1
        compared = _FILTER.fullmatch(text)
        if compared is None:
            return Filter(self._part(text, start), "", ())
        left, operator, right = compared.groups()
        if operator not in _OPERATORS:
            raise self._wrong(f"unrecognized filter operator {operator}", start + len(left))
        return Filter(
            self._part(left, start), operator, self._part(right, start + len(left + operator))
        )
