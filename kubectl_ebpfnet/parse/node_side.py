"""The answers of the node side: one fact, as a JSON object, on each line.

The contract is kubectl_ebpfnet/model/protocol/questions.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import FACTS, PROGRAM


def speaks(argv: Sequence[str]) -> bool:
    """Whether an argv is one that the node side answers itself."""
    return len(argv) > 1 and argv[0] == PROGRAM


def facts(data: bytes, argv: Sequence[str]) -> tuple[Any, ...]:
    """Every fact of an answer, each with its line number.

    Args:
        data: the answer.
        argv: what was asked: `ebpfnet-node links`.

    Raises:
        ParseError: a line is no fact of the kind that was asked for.
    """
    return tuple(
        fact(line, number, argv) for number, line in enumerate(data.splitlines(), 1) if line
    )


def fact(line: bytes, number: int, argv: Sequence[str]) -> Any:
    """The fact of one line. Raises ParseError."""
    source = " ".join(argv)
    kind = FACTS.get(argv[1]) if speaks(argv) else None
    if kind is None:
        raise ParseError(source, 0, "no such question")
    return codec.fact(line, kind, number, source)
