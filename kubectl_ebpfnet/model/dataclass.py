"""`dataclass`: the standard library's, quicker to define.

One `path` defines some 250 of them. The standard library compiles six methods for each frozen,
slotted class, which was half of the time that the import of the walk took. Here it compiles
`__init__` alone; what compares, hashes and prints is one function for all classes. mypy takes this
`dataclass` for the standard library's, and so holds that nobody assigns to a field of a frozen one;
nothing holds it at run time.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    from operator import attrgetter

    def dataclass(kind=None, /, *, frozen=False, slots=False, kw_only=False):
        """Return the class with fields, as `dataclasses.dataclass` does; of its options, these."""

        def define(kind):
            made = dataclasses.dataclass(kind, repr=False, eq=False, slots=slots, kw_only=kw_only)
            fields = dataclasses.fields(made)
            _add(made, "__repr__", _repr)
            _add_equality(made, tuple(field.name for field in fields if field.compare), frozen)
            return made

        return define if kind is None else define(kind)

    def _add(made, name, method):
        """Give the class a method, unless it has its own."""
        if name not in made.__dict__:
            setattr(made, name, method)

    def _add_equality(made, names, frozen):
        """Compare and hash by the values of these fields, and by nothing of another class."""
        values = attrgetter(*names) if names else lambda _: ()

        def equal(self, other):
            if other.__class__ is self.__class__:
                return values(self) == values(other)
            return NotImplemented

        own = "__eq__" in made.__dict__
        _add(made, "__eq__", equal)
        if frozen:
            _add(made, "__hash__", lambda self: hash(values(self)))
        elif not own:
            made.__hash__ = None

    def _repr(self):
        shown = (field.name for field in dataclasses.fields(self) if field.repr)
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{self.__class__.__qualname__}({inside})"
