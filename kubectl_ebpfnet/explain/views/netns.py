"""The network namespace of a pod or a node, by its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, TypeVar

from kubectl_ebpfnet.explain.views import records
from kubectl_ebpfnet.explain.views.answer import Answer, FactLine, grouped
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Bundle, Place, pod_place
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.kernel import Link, Route, Rule
from kubectl_ebpfnet.model.net import Address

T = TypeVar("T")


class Netns:
    """The network namespace of a pod or a node. Each fact is parsed once."""

    def __init__(self, bundle: Bundle, places: Sequence[Place]) -> None:
        self.bundle = bundle
        self.places = tuple(places)
        self._answers: dict[tuple[str, tuple[str, ...]], Answer[Any]] = {}
        self._indexes: dict[tuple[str, tuple[str, ...]], dict[Any, list[Any]]] = {}
        self._unread: dict[str, dict[int, records.UnreadLine]] = {}
        self.wanted: dict[str, Address] = {}
        """Tables of addresses, by name, of which a row was looked up that is `left_out`: the walk
        asks again, for the whole table (walk.py, `Further`)."""

    def __getitem__(self, fact: Fact[T]) -> Answer[T]:
        """Return the answer of the first place that has one."""
        key = (fact.name, fact.words)
        if key not in self._answers:
            self._answers[key] = records.answer(self.bundle, self.places, fact)
        return self._answers[key]

    def having(self, fact: Fact[T], value: object, *members: str) -> Sequence[T]:
        """Return the facts with a value, found by an index that is made once.

        Args:
            fact: of the catalogue.
            value: to look for; a tuple for several members.
            members: of the facts.
        """
        key = (fact.name, members)
        if key not in self._indexes:
            self._indexes[key] = grouped(self[fact].facts, attrgetter(*members))
        return self._indexes[key].get(value, ())

    def lines(self, fact: Fact[T], needles: Sequence[str]) -> Iterator[FactLine[T]]:
        """Yield the facts of a table that grows with traffic, of lines with any of the needles."""
        answer = self.table_state(fact)
        if answer.known and answer.record is not None:
            unread = self._unread.setdefault(fact.name, {})
            yield from records.matches(answer.record, fact, needles, unread)

    def unread_lines(self, fact: Fact[Any], needles: Sequence[str] = ()) -> str:
        """Return how many lines could not be parsed of those that `lines` has gone over, "" for
        none.

        Args:
            fact: of the catalogue.
            needles: lines without any of these strings do not count, none when empty.
        """
        unread = {
            number: line
            for number, line in self._unread.get(fact.name, {}).items()
            if not needles or any(needle in line.text for needle in needles)
        }
        if not unread:
            return ""
        first = min(unread)
        many = f"{len(unread)} lines" if len(unread) > 1 else "a line"
        return f"{many} could not be parsed (line {first}: {unread[first].problem})"

    def left_out(self, fact: Fact[Any], address: Address) -> bool:
        """Tell whether the rows of an address, if there are any, were left out at the node: a live
        run asks a table of addresses for those of its packet."""
        record = self[fact].record
        asked = record.line_filter if record is not None else ()
        return bool(asked) and str(address) not in asked

    def want(self, fact: Fact[Any], address: Address) -> bool:
        """Note that the rows of an address decide; return whether they are here."""
        if self.left_out(fact, address):
            self.wanted[fact.name] = address
            return False
        return True

    def want_all(self, fact: Fact[Any], address: Address) -> bool:
        """Note that every row of a table decides about an address; return whether they are here."""
        record = self[fact].record
        if record is None or not record.left_out:
            return True
        self.wanted[fact.name] = address
        return False

    def table_state(self, fact: Fact[Any]) -> Answer[None]:
        """Return an answer without facts that tells whether a table was read."""
        return records.state(self.bundle, self.places, fact)


class PodNetns(Netns):
    """A pod's own network namespace."""

    def __init__(self, bundle: Bundle, namespace: str, name: str) -> None:
        """View a pod's namespace.

        Args:
            bundle: all records.
            namespace: of the pod.
            name: of the pod.
        """
        super().__init__(bundle, (pod_place(namespace, name),))

    def link(self, name: str) -> Link | None:
        """Return the pod's device of this name, None without one."""
        return next(iter(self.having(q.POD_LINKS, name, "name")), None)

    def routes(self, version: int) -> Answer[Route]:
        """Return the pod's routes of one IP version, 4 or 6."""
        return self[q.POD_ROUTES if version == 4 else q.POD_ROUTES6]

    @property
    def own_addresses(self) -> tuple[Address, ...]:
        """The pod's global addresses by its own namespace, () where that was not read."""
        return tuple(f.address for f in self[q.POD_ADDRESSES].facts if f.scope == "global")

    def rules(self, version: int) -> Answer[Rule]:
        """Return the pod's routing rules of one IP version, 4 or 6."""
        answer = self[q.POD_RULES if version == 4 else q.POD_RULES6]
        facts = tuple(rule for rule in answer.facts if rule.version in (None, version))
        return replace(answer, facts=facts)
