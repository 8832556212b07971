"""The answers of the node side: one fact, as a JSON object, on each line.

The contract is kubectl_ebpfnet/model/protocol/questions.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.node_facts import NODE_FACTS
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import PROGRAM


def is_node_question(argv: Sequence[str]) -> bool:
    """Tell whether an argv is a question to the node side."""
    return len(argv) > 1 and argv[0] == PROGRAM


def facts(data: bytes, argv: Sequence[str]) -> tuple[Any, ...]:
    """Return every fact of an answer, each with its line.

    Args:
        data: the answer.
        argv: the question, e.g. `ebpfnet-node links`.

    Raises:
        ParseError: a line is no fact of the question's kind.
    """
    lines = enumerate(data.split(b"\n"), start=1)
    return tuple(fact(line, number, argv) for number, line in lines if line)


def fact(line: bytes, number: int, argv: Sequence[str]) -> Any:
    """Return the fact of one line.

    Args:
        line: without its newline.
        number: 1-based, for the error.
        argv: the question.

    Raises:
        ParseError: the line is no fact of the question's kind.
    """
    source = " ".join(argv)
    kind = NODE_FACTS.get(argv[1]) if is_node_question(argv) else None
    if kind is None:
        raise ParseError(source, 0, "no such question")
    return codec.fact(line, kind, number, source)
