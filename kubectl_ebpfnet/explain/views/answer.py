"""The answer of a place to one question, with the record that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.path import Evidence

T = TypeVar("T")
K = TypeVar("K")


def grouped(facts: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Return the facts by a member, each group in their order."""
    found: dict[K, list[T]] = {}
    for fact in facts:
        found.setdefault(key(fact), []).append(fact)
    return found


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A place's answer to a question.

    Attributes:
        facts: parsed; () when there is no answer or the table is empty.
        record: holds the facts; None when the question was never asked there.
        missing: why there are no facts, one sentence; "" when the place did answer.
    """

    facts: tuple[T, ...] = ()
    record: Record | None = None
    missing: str = ""

    @property
    def known(self) -> bool:
        """Whether the place answered, be it with an empty table."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class FactLine(Generic[T]):
    """A fact of a table that is too long to be read whole.

    Attributes:
        fact: parsed.
        evidence: its line.
    """

    fact: T
    evidence: tuple[Evidence, ...]
