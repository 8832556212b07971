"""What a template of `-o jsonpath=…` is made of: jsonpath_parser.py reads it, jsonpath.py evaluates
it."""

from __future__ import annotations

from kubectl_ebpfnet.model.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    """Text, a number, true or false."""

    value: str | int | float | bool


@dataclass(frozen=True, slots=True)
class Field:
    """`.name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Slice:
    """`[1]`, `[-1]`, `[0:2]`, `[::2]`, `[*]`.

    Attributes:
        start, end, step: None where they were not given.
        single: it is one index: `end` follows from it.
    """

    start: int | None
    end: int | None
    step: int | None
    single: bool = False


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`.*`."""


@dataclass(frozen=True, slots=True)
class Descent:
    """`..`."""


@dataclass(frozen=True, slots=True)
class Union:
    """`[0,2]`, `['a','b']`."""

    parts: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """`[?(@.a=="b")]`; operator "" for `[?(@.a)]`."""

    left: Action
    operator: str
    right: Action


@dataclass(frozen=True, slots=True)
class Loop:
    """`{range …}` to `{end}`."""

    over: Action
    body: Template


Node = Literal | Field | Slice | Wildcard | Descent | Union | Filter
Action = tuple[Node, ...]
"""What stands between braces."""
Template = tuple["Literal | Loop | Action", ...]
