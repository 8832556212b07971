"""Ask this machine's resolver for the addresses of a name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from kubectl_ebpfnet.capture.spool import Spool
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.unasked import unavailable_record
from kubectl_ebpfnet.collect.deadline import Deadline
from kubectl_ebpfnet.model.catalogue import RESOLVE
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import CLIENT, InMemory, Place, Record, now


@dataclass(frozen=True, slots=True)
class LocalResolver:
    """Answers for this machine."""

    place: Place = CLIENT

    def ask(
        self,
        questions: Sequence[Question],
        deadline: Deadline,  # noqa: ARG002 -- getaddrinfo takes no time limit
        spool: Callable[[], Spool] = Spool,  # noqa: ARG002 -- its answers are short
    ) -> list[Record]:
        """Return a record for each name, with one address a line; see Answerer.ask."""
        return [_resolve(question) for question in questions]


def resolve_question(name: str) -> Question:
    """Return the question for the addresses of a name."""
    return Question(RESOLVE.about(name), CLIENT)


def _resolve(question: Question) -> Record:
    [argv] = question.fact.forms
    name = argv[-1]
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return unavailable_record(CLIENT, argv, f"{name} does not resolve here: {error}")
    lines = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    text = "".join(f"{address}\n" for address in lines)
    return Record(0, CLIENT, argv, 0, InMemory(text.encode()), b"", now())
