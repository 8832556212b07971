"""The answer of a place to one question, with the record that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.parse.node_side import is_node_question

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

    @property
    def gaps(self) -> str:
        """Why an answer lacks facts beside those that it has, "" for a whole one: the node side
        tells it in its stderr (node/server/answer.py)."""
        return stated_gaps(self.record) if self.known else ""


def stated_gaps(record: Record | None) -> str:
    """Return the gaps that an answer of the node side reports in its stderr, "" for none."""
    if record is None or not is_node_question(record.argv):
        return ""
    return record.stderr.decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class FactLine(Generic[T]):
    """A fact of a table that is too long to be read whole.

    Attributes:
        fact: parsed.
        evidence: its line.
    """

    fact: T
    evidence: tuple[Evidence, ...]
