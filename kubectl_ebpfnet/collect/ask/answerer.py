"""The interface of everything that answers questions about a place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kubectl_ebpfnet.capture.spool import Spool
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.model.evidence import Place, Record


class Answerer(Protocol):
    """Answers for a place: an agent's exec and a pod's exec (container.py), a node pod
    (node_pod.py), this machine's resolver (resolver.py)."""

    @property
    def place(self) -> Place:
        """The place that it answers for."""
        ...

    def ask(
        self, questions: Sequence[Question], deadline: Deadline, spool: Callable[[], Spool] = Spool
    ) -> list[Record]:
        """Ask, and wait for the answers. Nothing is raised for a place that cannot be asked.

        Args:
            questions: to ask, in this order.
            deadline: of the whole run.
            spool: makes the buffer of one output.

        Returns:
            A record for each answer, and records with the reason where there is none.
        """
        ...
