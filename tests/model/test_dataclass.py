"""`dataclass` of the model against the standard library's, on the same classes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from kubectl_ebpfnet.model.dataclass import dataclass as quick


def make(decorate: Any, frozen: bool) -> Any:
    @decorate(frozen=frozen, slots=True)
    class Port:
        number: int
        names: tuple[str, ...] = ()
        seen: int = dataclasses.field(default=0, compare=False)
        secret: str = dataclasses.field(default="", repr=False)

    return Port


@pytest.mark.parametrize("frozen", [True, False])
def test_it_is_the_standard_librarys_but_for_assignment(frozen: bool) -> None:
    ours, theirs = make(quick, frozen), make(dataclasses.dataclass, frozen)

    assert repr(ours(1, ("a",))) == repr(theirs(1, ("a",)))
    assert len(dataclasses.fields(ours)) == 4
    assert ours.__slots__ == theirs.__slots__
    assert not hasattr(ours(1), "__dict__")
    assert ours(1, seen=2) == ours(1, seen=3)
    assert ours(1) != ours(1, secret="x")
    assert ours(1) != theirs(1)
    assert dataclasses.replace(ours(1), names=("b",)) == ours(1, ("b",))
    assert copy.deepcopy(ours(1)) == ours(1)
    assert ours.__match_args__ == theirs.__match_args__


def test_a_frozen_one_is_hashed_by_what_is_compared() -> None:
    ours = make(quick, True)

    assert len({ours(1, seen=2), ours(1, seen=3), ours(2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(make(quick, False)(1))


@quick(frozen=True)
class Nothing:
    """A class without fields, with a text of its own."""

    def __repr__(self) -> str:
        return "nothing"


def test_a_class_without_fields_and_with_its_own_text() -> None:
    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert repr(Nothing()) == "nothing"
    assert pickle.loads(pickle.dumps(Nothing())) == Nothing()
